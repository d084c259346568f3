"""`coterie study`: people read what is proposed, and decide. The daemon carries it out; it alone holds the key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie_chain.ledger.protocol import State, StudyView
from coterie_learners.errors import DataError, StudyError
from coterie_learners.study.document import Study
from coterie_node.analysis.certificate import certifiable, certify, save_certificate
from coterie_node.cli.output import HERE, Folder, Json, open_ledger, resolve_study_number
from coterie_node.cli.study.advise import describe, in_words, show_file
from coterie_node.cli.study.status import LedgerStudyArgument, open_decisions, summarise_study
from coterie_node.data.findings import printable
from coterie_node.data.load import load_site
from coterie_node.errors import ConfigError
from coterie_node.run.study_files import load_study, study_on_ledger
from coterie_node.site.config import NodeFolder
from coterie_node.site.decisions import make_decision
from coterie_node.site.votes import Ballot, BallotBox

decisions = typer.Typer()

ReasonOption = Annotated[str, typer.Option(help="Why, for this site's own record; nothing of it leaves.")]
DataFile = Annotated[str, typer.Option(help="Another file of rows than node.toml names.")]


@decisions.command("propose")
def propose_command(
    file: Annotated[Path, typer.Argument(help="Study file (TOML).")], node: Folder = HERE, data: DataFile = ""
) -> None:
    """Propose a study, and approve it for this site; the daemon puts it on the ledger."""
    home, proposed = NodeFolder(node), load_study(file)
    if home.config.site not in proposed.sites:
        raise ConfigError("CO-F302", f"{home.config.site!r} takes no part in {proposed.name!r}.")
    home.config.policy.check(proposed, home.config.site)
    home.config.talk.check(proposed, home.config.site)
    _check_new(home, proposed)
    folder = open_decisions(home)
    folder.save_document(proposed.hash, proposed.document)
    if certifiable(proposed):
        certificate = certify(proposed)
        save_certificate(certificate, folder.certificate(proposed.hash))
        print(certificate.sentence)
    folder.record(make_decision(proposed.hash, "propose", data=data))
    print(f"Proposed: {proposed.name}, hash {proposed.hash.hex()}.")
    print("The daemon (coterie serve) puts it on the ledger; read the hash to the other sites.")
    _look_at_rows(home, proposed, data)


@decisions.command("show")
def show_command(
    which: Annotated[str, typer.Argument(help="A study file, or a study's number or hash on the ledger.")],
    node: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Show what a study does: sites, model, what leaves a site, and who must be trusted with what.

    Of a study on the ledger also its state, what this site's policy says of it, and its document as it was hashed.
    """
    if Path(which).suffix in (".toml", ".json"):
        show_file(Path(which), as_json)
        return
    home = NodeFolder(node)
    with open_ledger(home) as ledger:
        view = ledger.view(resolve_study_number(ledger, which))
        row = summarise_study(home, ledger, view)
    proposal = study_on_ledger(view, home.blobs())
    summary = {
        **row,
        "name": proposal.name,
        "policy": _policy(home, proposal),
        "what": describe(proposal),
        "document": json.loads(proposal.document),
    }
    print(json.dumps(summary, indent=2, ensure_ascii=True, default=str) if as_json else _format_summary(summary))


@decisions.command("approve")
def approve_study_command(
    which: LedgerStudyArgument, node: Folder = HERE, data: DataFile = "", reason: ReasonOption = ""
) -> None:
    """Approve a study: this site's node will join it and take part with this site's rows."""
    home = NodeFolder(node)
    proposal = _document(home, which)
    home.config.policy.check(proposal, home.config.site)
    home.config.talk.check(proposal, home.config.site)
    if data and not home.path(data).exists():
        message = f"There is no file {home.path(data)}; --data is looked for in the node's folder"
        raise ConfigError("CO-F327", f"{message}. Give its whole path.")
    open_decisions(home).record(make_decision(proposal.hash, "approve", data=data, reason=reason))
    print(f"Approved: {printable(proposal.name)}, hash {proposal.hash.hex()}.")
    _look_at_rows(home, proposal, data)


def _look_at_rows(home: NodeFolder, proposal: Study, data: str) -> None:
    """Say at once what the daemon would say later; the approval stands, because people may mend their rows."""
    try:
        load_site(home.path(data) if data else home.data, proposal, home.config.site)
    except DataError as error:
        print(f"The rows do not fit yet, and this site joins once they do. {error.code}: {printable(error.message)}")


@decisions.command("decline")
def decline_command(which: LedgerStudyArgument, node: Folder = HERE, reason: ReasonOption = "") -> None:
    """Decline a study: it cannot run without this site, and the ledger says so."""
    _decide(NodeFolder(node), which, "decline", reason)


@decisions.command("abort")
def abort_command(which: LedgerStudyArgument, node: Folder = HERE, reason: ReasonOption = "") -> None:
    """End a study for all sites, without a result."""
    _decide(NodeFolder(node), which, "abort", reason)


@decisions.command("resume")
def resume_command(which: LedgerStudyArgument, node: Folder = HERE) -> None:
    """Vote to go on with a study that a dispute paused; it goes on when most of its sites do."""
    home = NodeFolder(node)
    with open_ledger(home) as ledger:
        view = ledger.view(resolve_study_number(ledger, which))
    if view.state != State.PAUSED:
        raise ConfigError("CO-F328", f"Study {view.id} is {view.state.name.lower()}; only a paused one can be resumed.")
    BallotBox(home.root / "ballots").record(Ballot(motion="resume", subject=str(view.id)))
    print(f"{home.config.site} votes to resume study {view.id}. The daemon (coterie serve) tells the ledger.")


def _decide(home: NodeFolder, which: str, action: Any, reason: str) -> None:
    with open_ledger(home) as ledger:
        view = ledger.view(resolve_study_number(ledger, which))
    _check_open(home, view)
    open_decisions(home).record(make_decision(view.terms.hash, action, reason=reason))
    print(f"Study {view.id}: {action}. The daemon (coterie serve) tells the ledger.")


def _check_new(home: NodeFolder, proposed: Study) -> None:
    """ConfigError if the ledger knows the study: it takes each document once."""
    with open_ledger(home) as ledger:
        existing = next((v for v in map(ledger.view, ledger.studies()) if v.terms.hash == proposed.hash), None)
    if existing is not None:
        message = f"This is study {existing.id} of the ledger, which is {existing.state.name.lower()}"
        raise ConfigError("CO-F328", f"{message}. To run it once more, give it another name.")


def _check_open(home: NodeFolder, view: StudyView) -> None:
    """ConfigError if there is nothing left to decide, or not for this site."""
    if view.state in (State.COMPLETED, State.ABORTED):
        message = f"Study {view.id} is {view.state.name.lower()} already"
        raise ConfigError("CO-F328", f"{message}. To run it after all, propose it under another name.")
    if home.config.site not in view.terms.sites:
        raise ConfigError("CO-F302", f"{home.config.site!r} takes no part in study {view.id}.")


def _document(home: NodeFolder, which: str) -> Study:
    with open_ledger(home) as ledger:
        view = ledger.view(resolve_study_number(ledger, which))
    _check_open(home, view)
    return study_on_ledger(view, home.blobs())


def _policy(home: NodeFolder, proposal: Study) -> str:
    try:
        home.config.policy.check(proposal, home.config.site)
    except StudyError as error:
        return f"{error.code}: {error.message}"
    return "allowed by this site's policy"


def _format_summary(summary: Mapping[str, Any]) -> str:
    head = [f"{name:10s} {printable(str(summary[name]))}" for name in summary if name not in ("document", "what")]
    # its number, name, sites and hash are in the row already
    rest = {name: value for name, value in summary["what"].items() if value and name not in ("study", "sites", "hash")}
    head += [f"{name:10s} {printable(in_words(value))}" for name, value in rest.items()]
    return "\n".join([*head, "", json.dumps(summary["document"], indent=2, ensure_ascii=True)])
