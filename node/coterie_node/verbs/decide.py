"""What a site's people decide about studies: propose, approve, decline, abort, resume.

A verb writes a decision into the node's folder; the daemon acts on it, because it alone holds the site's key. `by` is
the name of who decides at a site without a register of persons; at a site with one `signer` gives the signature.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from coterie_chain.ledger.protocol import Ledger, State, StudyView
from coterie_learners.errors import DataError
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_node.analysis.certificate import certifiable, certify, save_certificate
from coterie_node.audit.sources import find_study_number
from coterie_node.data.findings import printable
from coterie_node.data.installed_source import SourceAddress, parse_rows_address
from coterie_node.data.load import load_site
from coterie_node.data.mapping.words import describe_rows
from coterie_node.errors import ConfigError
from coterie_node.persons.acts import ActKind
from coterie_node.run.study_files import (
    amend_study,
    check_permit,
    check_silence_rule,
    check_terms,
    study_of,
    study_on_ledger,
)
from coterie_node.site.decisions import make_decision
from coterie_node.site.folder import SiteFolder
from coterie_node.site.votes import Ballot
from coterie_node.verbs.disclosure import disclosure_lines
from coterie_node.verbs.signing import PersonSigner, record_ballot, record_decision
from coterie_node.verbs.studies import warn_of_evaluations_here
from coterie_node.verbs.twins import find_twins


def propose(
    folder: SiteFolder,
    study: Study,
    *,
    data: str = "",
    approvals: str = "",
    by: str = "",
    signer: PersonSigner | None = None,
    act: ActKind | None = None,
) -> list[str]:
    """Propose a study, and approve it for this site; returns what a person is to know, in sentences.

    `data`: other rows than node.toml names; `approvals`: SHA-256 of the persons' signatures. StudyError or ConfigError
    if this site's policy or the ledger does not take the study.
    """
    if folder.name not in study.sites:
        message = f"{folder.name!r} takes no part in {study.name!r}; its sites are {', '.join(study.sites)}"
        raise ConfigError("CO-F302", f"{message}. Add it to `sites`, or let one of them propose the study.")
    check_silence_rule(study)
    _check_policy(folder, study)
    _check_new(folder, study)
    folder.decisions.save_document(study.hash, study.document)
    lines = []
    if certifiable(study):
        certificate = certify(study)
        save_certificate(certificate, folder.decisions.certificate(study.hash))
        lines.append(certificate.sentence)
    decision = make_decision(study.hash, "propose", data=data, approvals=approvals, by=by)
    lines += record_decision(folder, decision, signer, act or ("amend" if study.registration.amends else "propose"))
    return [
        *lines,
        f"Proposed: {study.name}, hash {study.hash.hex()}.",
        "The daemon (coterie serve) puts it on the ledger; read the hash to the other sites.",
    ]


def find_proposed(folder: SiteFolder, digits: str) -> Study:
    """The study that a person of this site has proposed, by the first eight digits of its hash or more.

    The next person signs it without its file. ConfigError (CO-F304) if there is none, or more than one.
    """
    proposed = [study for study in folder.decisions.proposals() if len(digits) >= 8 and study.hex().startswith(digits)]
    if len(proposed) != 1:
        message = f"{len(proposed)} proposals of {folder.name} have a hash that starts with {digits[:64]!a}"
        raise ConfigError("CO-F304", f"{message}. Name its file, or more digits of its hash.")
    return study_of(folder.decisions.read_document(proposed[0]), f"The proposal {proposed[0].hex()[:16]}")


def amend(
    folder: SiteFolder,
    which: str,
    study: Study,
    reason: str,
    *,
    data: str = "",
    by: str = "",
    signer: PersonSigner | None,
) -> list[str]:
    """Propose a study that names the one of the ledger that it replaces, and why; as `propose` else."""
    with folder.open_ledger() as ledger:
        view = ledger.view(find_study_number(ledger, which))
    amended = amend_study(study, view.terms.hash, reason)
    lines = propose(folder, amended, data=data, by=by, signer=signer, act="amend")
    return [*lines, f"It amends study {view.id}. What became of that one is unchanged: decline, abort or supersede it."]


def read_proposal(folder: SiteFolder, which: str) -> tuple[StudyView, Study]:
    """An open study and its document, once this site's policy and the ledger's terms allow an approval of it."""
    view = find_open_study(folder, which)
    study = study_on_ledger(view, folder.blobs())
    check_terms(view, study)
    _check_policy(folder, study)
    return view, study


def approve(
    folder: SiteFolder,
    which: str,
    *,
    data: str = "",
    reason: str = "",
    approvals: str = "",
    by: str = "",
    signer: PersonSigner | None = None,
) -> tuple[StudyView, Study, list[str]]:
    """Approve a study: this site's node joins it with this site's rows; returns the study and what it discloses."""
    view, study = read_proposal(folder, which)
    with folder.open_ledger() as ledger:
        _check_seats(ledger, (folder.name,))
    decision = make_decision(study.hash, "approve", data=data, reason=reason, approvals=approvals, view=view, by=by)
    folder.decisions.save_document(study.hash, study.document)
    signed = record_decision(folder, decision, signer)
    head = f"Approved: study {view.id} of {view.proposer}, {printable(study.name)}, hash {study.hash.hex()}."
    return view, study, [head, *signed, *(printable(line) for line in disclosure_lines(study))]


def abort(
    folder: SiteFolder, which: str, reason: str = "", by: str = "", signer: PersonSigner | None = None
) -> StudyView:
    """Write down that this site ends a study for all, without a result."""
    view = find_open_study(folder, which)
    record_decision(folder, make_decision(view.terms.hash, "abort", reason=reason, view=view, by=by), signer)
    return view


def resume(folder: SiteFolder, which: str, by: str = "", signer: PersonSigner | None = None) -> StudyView:
    """Vote to go on with a study that a dispute paused."""
    with folder.open_ledger() as ledger:
        view = ledger.view(find_study_number(ledger, which))
    if view.state != State.PAUSED:
        raise ConfigError("CO-F328", f"Study {view.id} is {view.state.name.lower()}; only a paused one can be resumed.")
    record_ballot(folder, Ballot(motion="resume", subject=str(view.id)), by, signer)
    return view


def decline(
    folder: SiteFolder, views: Sequence[StudyView], reason: str = "", by: str = "", signer: PersonSigner | None = None
) -> None:
    """Write down that this site takes no part in some studies; many proposals are declined in one transaction."""
    proposals = [view.id for view in views if view.state == State.PROPOSED and folder.name in view.parties]
    for view in views:
        record_decision(folder, make_decision(view.terms.hash, "decline", reason=reason, view=view, by=by), signer)
    if len(proposals) > 1:
        folder.ballots.record_refusals(proposals)


def list_undecided(folder: SiteFolder, proposer: str) -> list[StudyView]:
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


def _check_policy(folder: SiteFolder, study: Study) -> None:
    """StudyError or ConfigError unless this site's settings and the study's data permit allow the study."""
    check_permit(study, int(time.time()))
    folder.config.policy.check(study, folder.name)
    folder.config.talk.check(study, folder.name)


def resolve_rows(data: str | None) -> str:
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


def digest_approvals(file: Path | None) -> str:
    """SHA-256 of a file of persons' signatures, in hexadecimal digits; "" for none."""
    if file is None:
        return ""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        message = f"The file of approvals {file} cannot be read: {error.strerror or error}"
        raise ConfigError("CO-F206", f"{message}. Correct the path, or leave out --approvals.") from None


def look_at_rows(folder: SiteFolder, study: Study) -> Iterator[str]:
    """Say at once what the daemon would say later; the approval stands, because people may correct their rows.

    What a mapping makes of the site's file is said in words first. The sentences may quote rows: they are for this
    site's own people.
    """
    rows = folder.find_rows(study.hash)
    yield from map(printable, warn_of_evaluations_here(folder, study).values())
    try:
        if folder.name in study.owners:
            yield from map(printable, describe_rows(rows, Design(study, folder.name), folder.name))
        load_site(rows, study, folder.name, folder.exclude, folder.copies)
    except DataError as error:
        until = "The rows do not fit yet; this site joins, and proposes, once they do"
        yield f"{until}. {error.code}: {printable(error.message)}"


def _check_new(folder: SiteFolder, study: Study) -> None:
    """ConfigError if the ledger has the study, since it takes each document once, or a site of it has no seat."""
    with folder.open_ledger() as ledger:
        _check_seats(ledger, study.sites)
        existing = next((v for v in map(ledger.view, ledger.studies()) if v.terms.hash == study.hash), None)
    if existing is not None:
        message = f"This is study {existing.id} of the ledger, which is {existing.state.name.lower()}"
        raise ConfigError("CO-F328", f"{message}. To run it once more, give it another name.")


def _check_seats(ledger: Ledger, names: Sequence[str]) -> None:
    """ConfigError (CO-F334) where one of these sites was revoked or never admitted: the ledger takes no act of it."""
    seats = {seat.name: seat.active for seat in ledger.sites()}
    gone = [f"{name} ({'revoked' if name in seats else 'unknown'})" for name in names if not seats.get(name)]
    if gone:
        active = ", ".join(name for name, is_active in seats.items() if is_active)
        message = f"No seat in this network: {', '.join(gone)[:200]}; the active sites are {active[:500]}"
        raise ConfigError("CO-F334", f"{message}. Name only active sites in the study (coterie site list).")


def find_open_study(folder: SiteFolder, which: str) -> StudyView:
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
