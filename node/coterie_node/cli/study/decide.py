"""`coterie study propose|approve|decline|abort|resume`: what a site's people decide about studies.

A command writes a decision into the node's folder; the daemon acts on it, because it alone holds the site's key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from coterie_chain.ledger.protocol import State, StudyView
from coterie_learners.errors import DataError
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_node.analysis.certificate import certifiable, certify, save_certificate
from coterie_node.audit.sources import find_study_number
from coterie_node.cli.options import At, LedgerStudyArgument, NodeOption, Site, StudyFile, open_site, require_daemon
from coterie_node.cli.study.advise import disclosure_lines
from coterie_node.cli.study.show import warn_of_evaluations_here
from coterie_node.cli.study.twins import find_twins
from coterie_node.data.findings import printable
from coterie_node.data.installed_source import SourceAddress, parse_rows_address
from coterie_node.data.load import load_site
from coterie_node.data.mapping.words import describe_rows
from coterie_node.errors import ConfigError
from coterie_node.run.study_files import check_silence_rule, check_terms, load_study, study_on_ledger
from coterie_node.site.decisions import make_decision
from coterie_node.site.folder import SiteFolder
from coterie_node.site.votes import Ballot, BallotBox

ReasonOption = Annotated[str, typer.Option(help="Why, for this site's own record; nothing of it leaves.")]
DataFile = Annotated[
    str | None, typer.Option("--data", help="Other rows than node.toml names: a file, or an address such as sqlite:...")
]
ApprovalsFile = Annotated[
    Path | None,
    typer.Option("--approvals", help="File with the signatures of the persons who approve; its SHA-256 is recorded."),
]


def propose_command(
    file: StudyFile,
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    data: DataFile = None,
    approvals: ApprovalsFile = None,
) -> None:
    """Propose a study, and approve it for this site; the daemon puts it on the ledger."""
    folder, study = require_daemon(open_site(node, at, site)), load_study(file)
    if folder.name not in study.sites:
        message = f"{folder.name!r} takes no part in {study.name!r}; its sites are {', '.join(study.sites)}"
        raise ConfigError("CO-F302", f"{message}. Add it to `sites`, or let one of them propose the study.")
    check_silence_rule(study)
    _check_policy(folder, study)
    rows, signed = _resolve_rows(data), _digest_approvals(approvals)
    _check_new(folder, study)
    folder.decisions.save_document(study.hash, study.document)
    if certifiable(study):
        certificate = certify(study)
        save_certificate(certificate, folder.decisions.certificate(study.hash))
        print(certificate.sentence)
    folder.decisions.record(make_decision(study.hash, "propose", data=rows, approvals=signed))
    print(f"Proposed: {study.name}, hash {study.hash.hex()}.")
    print("The daemon (coterie serve) puts it on the ledger; read the hash to the other sites.")
    _look_at_rows(folder, study)


def approve_study_command(
    which: LedgerStudyArgument,
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    data: DataFile = None,
    reason: ReasonOption = "",
    approvals: ApprovalsFile = None,
) -> None:
    """Approve a study: this site's node will join it and take part with this site's rows."""
    folder = require_daemon(open_site(node, at, site))
    view = _find_open_study(folder, which)
    study = study_on_ledger(view, folder.blobs())
    check_terms(view, study)
    _check_policy(folder, study)
    rows, signed = _resolve_rows(data), _digest_approvals(approvals)
    decision = make_decision(study.hash, "approve", data=rows, reason=reason, approvals=signed, view=view)
    folder.decisions.save_document(study.hash, study.document)
    folder.decisions.record(decision)
    print(f"Approved: study {view.id} of {view.proposer}, {printable(study.name)}, hash {study.hash.hex()}.")
    print("\n".join(printable(line) for line in disclosure_lines(study)))
    _look_at_rows(folder, study)


def decline_command(
    which: Annotated[list[str] | None, typer.Argument(help="Numbers, hashes or study files; may be several.")] = None,
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    reason: ReasonOption = "",
    proposer: Annotated[
        str | None, typer.Option(help="Decline every open proposal of this member that is not decided yet.")
    ] = None,
) -> None:
    """Decline studies: they cannot run without this site, and the ledger says so."""
    folder = require_daemon(open_site(node, at, site))
    views = [_find_open_study(folder, name) for name in which or ()]
    views += [] if proposer is None else _list_undecided(folder, proposer)
    if not views:
        nothing = "No study is named" if proposer is None else f"No undecided proposal of {proposer[:40]!r} is open"
        raise ConfigError("CO-F304", f"{nothing}. List the studies with `coterie study list`.")
    decline(folder, views, reason)
    numbers = ", ".join(str(view.id) for view in views)
    print(f"Declined: {numbers}. The daemon (coterie serve) puts it on the ledger.")


def decline(folder: SiteFolder, views: Sequence[StudyView], reason: str = "") -> None:
    """Write down that this site takes no part in some studies; many proposals are declined in one transaction."""
    proposals = [view.id for view in views if view.state == State.PROPOSED and folder.name in view.parties]
    if len(proposals) > 1:
        BallotBox(folder.root / "ballots").record_refusals(proposals)
    for view in views:
        folder.decisions.record(make_decision(view.terms.hash, "decline", reason=reason, view=view))


def _list_undecided(folder: SiteFolder, proposer: str) -> list[StudyView]:
    """The proposals of a member that name this site, can still be joined, and about which nothing is decided here."""
    with folder.open_ledger() as ledger:
        views, now = [ledger.view(number) for number in ledger.studies()], ledger.now()
    return [
        view
        for view in views
        if (view.proposer, view.state) == (proposer, State.PROPOSED)
        and now <= view.deadline
        and folder.name in view.terms.sites
        and folder.decisions.latest(view.terms.hash, view.id) is None
    ]


def abort_command(
    which: LedgerStudyArgument, node: NodeOption = None, at: At = None, site: Site = None, reason: ReasonOption = ""
) -> None:
    """End a study for all sites, without a result."""
    folder = require_daemon(open_site(node, at, site))
    view = _find_open_study(folder, which)
    folder.decisions.record(make_decision(view.terms.hash, "abort", reason=reason, view=view))
    print(f"Study {view.id}: abort. The daemon (coterie serve) puts it on the ledger.")


def resume_command(which: LedgerStudyArgument, node: NodeOption = None, at: At = None, site: Site = None) -> None:
    """Vote to go on with a study that a dispute paused; it goes on when most of its sites do."""
    folder = require_daemon(open_site(node, at, site))
    with folder.open_ledger() as ledger:
        view = ledger.view(find_study_number(ledger, which))
    if view.state != State.PAUSED:
        raise ConfigError("CO-F328", f"Study {view.id} is {view.state.name.lower()}; only a paused one can be resumed.")
    BallotBox(folder.root / "ballots").record(Ballot(motion="resume", subject=str(view.id)))
    print(f"{folder.name} votes to resume study {view.id}. The daemon (coterie serve) puts the vote on the ledger.")


def _check_policy(folder: SiteFolder, study: Study) -> None:
    """StudyError or ConfigError unless this site's settings allow the study."""
    folder.config.policy.check(study, folder.name)
    folder.config.talk.check(study, folder.name)


def _resolve_rows(data: str | None) -> str:
    """The whole path of a file of rows as it was typed, or its address; "" for the rows that node.toml names."""
    if data is None:
        return ""
    address = parse_rows_address(data)
    if isinstance(address, SourceAddress):
        return address.text
    path = address.absolute()
    if not path.is_file():
        message = f"There is no file {path}: --data is read from the working folder"
        raise ConfigError("CO-F327", f"{message}. Correct the path, or leave out --data for the file of node.toml.")
    return str(path)


def _digest_approvals(file: Path | None) -> str:
    """SHA-256 of a file of persons' signatures, in hexadecimal digits; "" for none."""
    if file is None:
        return ""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        message = f"The file of approvals {file} cannot be read: {error.strerror or error}"
        raise ConfigError("CO-F206", f"{message}. Correct the path, or leave out --approvals.") from None


def _look_at_rows(folder: SiteFolder, study: Study) -> None:
    """Say at once what the daemon would say later; the approval stands, because people may correct their rows.

    What a mapping makes of the site's file is said in words first.
    """
    rows = folder.find_rows(study.hash)
    for line in warn_of_evaluations_here(folder, study).values():
        print(printable(line))
    try:
        if folder.name in study.owners:
            for line in describe_rows(rows, Design(study, folder.name), folder.name):
                print(printable(line))
        load_site(rows, study, folder.name, folder.exclude, folder.copies)
    except DataError as error:
        print(f"The rows do not fit yet, and this site joins once they do. {error.code}: {printable(error.message)}")


def _check_new(folder: SiteFolder, study: Study) -> None:
    """ConfigError if the ledger has the study: it takes each document once."""
    with folder.open_ledger() as ledger:
        existing = next((v for v in map(ledger.view, ledger.studies()) if v.terms.hash == study.hash), None)
    if existing is not None:
        message = f"This is study {existing.id} of the ledger, which is {existing.state.name.lower()}"
        raise ConfigError("CO-F328", f"{message}. To run it once more, give it another name.")


def _find_open_study(folder: SiteFolder, which: str) -> StudyView:
    """A study of the ledger on which this site may still decide; ConfigError if there is nothing to decide."""
    with folder.open_ledger() as ledger:
        view = ledger.view(find_study_number(ledger, which))
        twins = [] if which == str(view.id) else find_twins(ledger, view)
    if twins:
        numbers = ", ".join(str(twin.id) for twin in twins)
        message = f"The document {which} was proposed as study {view.id} and as {numbers}"
        raise ConfigError("CO-F328", f"{message}. Read each with `coterie study show`, and name one by its number.")
    if view.state in (State.COMPLETED, State.ABORTED):
        message = f"Study {view.id} is {view.state.name.lower()} already"
        raise ConfigError("CO-F328", f"{message}. To run it after all, propose it under another name.")
    if folder.name not in view.terms.sites:
        message = f"{folder.name!r} takes no part in study {view.id}; its sites are {', '.join(view.terms.sites)}"
        raise ConfigError("CO-F302", f"{message}. Name a study of this site.")
    return view
