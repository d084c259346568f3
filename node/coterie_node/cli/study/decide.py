"""`coterie study`: people read what is proposed, and decide. The daemon carries it out; it alone holds the key."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie_chain.ledger.protocol import Event, Ledger, Record, State, StudyView
from coterie_learners.core.fit import Fit, fit_from_json
from coterie_learners.errors import DataError, StudyError
from coterie_learners.study.document import Study
from coterie_node.analysis.certificate import certifiable, certify, save_certificate
from coterie_node.audit.result import finite, fit_lines, format_csv, numbers
from coterie_node.cli.options import Format, Shape
from coterie_node.cli.output import HERE, Folder, Json, open_ledger, print_rows, resolve_study_number
from coterie_node.cli.study.advise import describe, in_words, show_file
from coterie_node.cli.study.advise import study_app as study
from coterie_node.data.findings import printable
from coterie_node.data.load import load_site
from coterie_node.errors import ConfigError
from coterie_node.run.reasons import describe_reason
from coterie_node.run.study_files import load_study, study_of, study_on_ledger
from coterie_node.site.config import NodeFolder
from coterie_node.site.decisions import DecisionFolder, make_decision
from coterie_node.site.fault_notes import FaultRecord
from coterie_node.site.votes import Ballot, BallotBox

LedgerStudyArgument = Annotated[str, typer.Argument(help="Number on the ledger, or eight letters or more of the hash.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for this site's own record; nothing of it leaves.")]
DataFile = Annotated[str, typer.Option(help="Another file of rows than node.toml names.")]


@study.command("propose")
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
    folder = _decisions(home)
    folder.save_document(proposed.hash, proposed.document)
    if certifiable(proposed):
        certificate = certify(proposed)
        save_certificate(certificate, folder.certificate(proposed.hash))
        print(certificate.sentence)
    folder.record(make_decision(proposed.hash, "propose", data=data))
    print(f"Proposed: {proposed.name}, hash {proposed.hash.hex()}.")
    print("The daemon (coterie serve) puts it on the ledger; read the hash to the other sites.")
    _look_at_rows(home, proposed, data)


@study.command("list")
def list_studies_command(node: Folder = HERE, as_json: Json = False) -> None:
    """List the studies on the ledger, and what this site decided."""
    home = NodeFolder(node)
    with open_ledger(home) as ledger:
        rows = [_row(home, ledger, ledger.view(number)) for number in ledger.studies()]
        listed = {ledger.view(number).terms.hash for number in ledger.studies()}
    rows += [_waiting(home, proposed) for proposed in _decisions(home).proposals() if proposed not in listed]
    print_rows(rows, as_json, ("study", "state", "name", "sites", "joined", "decision", "hash"))


@study.command("show")
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
        row = _row(home, ledger, view)
    proposal = study_on_ledger(view, home.blobs())
    summary = {
        **row,
        "name": proposal.name,
        "policy": _policy(home, proposal),
        "what": describe(proposal),
        "document": json.loads(proposal.document),
    }
    print(json.dumps(summary, indent=2, ensure_ascii=True, default=str) if as_json else _format_summary(summary))


@study.command("approve")
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
    _decisions(home).record(make_decision(proposal.hash, "approve", data=data, reason=reason))
    print(f"Approved: {printable(proposal.name)}, hash {proposal.hash.hex()}.")
    _look_at_rows(home, proposal, data)


def _look_at_rows(home: NodeFolder, proposal: Study, data: str) -> None:
    """Say at once what the daemon would say later; the approval stands, because people may mend their rows."""
    try:
        load_site(home.path(data) if data else home.data, proposal, home.config.site, home.exclude)
    except DataError as error:
        print(f"The rows do not fit yet, and this site joins once they do. {error.code}: {printable(error.message)}")


@study.command("decline")
def decline_command(which: LedgerStudyArgument, node: Folder = HERE, reason: ReasonOption = "") -> None:
    """Decline a study: it cannot run without this site, and the ledger says so."""
    _decide(NodeFolder(node), which, "decline", reason)


@study.command("abort")
def abort_command(which: LedgerStudyArgument, node: Folder = HERE, reason: ReasonOption = "") -> None:
    """End a study for all sites, without a result."""
    _decide(NodeFolder(node), which, "abort", reason)


@study.command("resume")
def resume_command(which: LedgerStudyArgument, node: Folder = HERE) -> None:
    """Vote to go on with a study that a dispute paused; it goes on when most of its sites do."""
    home = NodeFolder(node)
    with open_ledger(home) as ledger:
        view = ledger.view(resolve_study_number(ledger, which))
    if view.state != State.PAUSED:
        raise ConfigError("CO-F328", f"Study {view.id} is {view.state.name.lower()}; only a paused one can be resumed.")
    BallotBox(home.root / "ballots").record(Ballot(motion="resume", subject=str(view.id)))
    print(f"{home.config.site} votes to resume study {view.id}. The daemon (coterie serve) tells the ledger.")


@study.command("status")
def study_status_command(which: LedgerStudyArgument, node: Folder = HERE, as_json: Json = False) -> None:
    """Tell where a study is, whom it waits for, how it ended, and what last stopped it at this site."""
    home = NodeFolder(node)
    with open_ledger(home) as ledger:
        view = ledger.view(resolve_study_number(ledger, which))
        summary = _row(home, ledger, view) | _progress(ledger, view)
    result = home.results / f"{view.id}.json"
    soon = "not here yet: the daemon leaves it once it is final" if view.state == State.COMPLETED else ""
    summary["result"] = str(result) if result.exists() else soon
    summary["last_fault"] = FaultRecord(home.root / "faults").of(view.id)
    if as_json:
        print(json.dumps(summary, indent=2, default=str))
    else:
        print(
            "\n".join(
                f"{name.replace('_', ' '):12s} {printable(str(value))}"
                for name, value in summary.items()
                if value != ""
            )
        )


@study.command("result")
def result_command(
    which: LedgerStudyArgument, node: Folder = HERE, shape: Shape = Format.text, as_json: Json = False
) -> None:
    """Print the result that this site's node left of a study, as a table, JSON or CSV."""
    home = NodeFolder(node)
    with open_ledger(home) as ledger:
        view = ledger.view(resolve_study_number(ledger, which))
    name, fit = _result(home, view)
    sites, gone = view.parties, [site for site in view.terms.sites if site not in view.parties]
    if as_json or shape is Format.json:
        summary = {"study": name, **numbers(fit, sites), "notes": list(fit.notes), "details": dict(fit.details)}
        print(json.dumps(finite(summary), indent=2))
    else:
        print(
            format_csv(fit).rstrip()
            if shape is Format.csv
            else "\n".join([*fit_lines(fit, printable(name), sites), *_describe_exclusion(gone)])
        )


def _describe_exclusion(gone: list[str]) -> list[str]:
    return [f"Excluded: {', '.join(gone)}; no row of theirs is in these numbers."] if gone else []


def _result(home: NodeFolder, view: StudyView) -> tuple[str, Fit]:
    """A study's name and fit, as this site's node left them; ConfigError (CO-F332) if there is none."""
    path = home.results / f"{view.id}.json"
    try:
        summary = json.loads(path.read_bytes())
    except FileNotFoundError:
        summary = {}
    if summary.get("hash") != view.terms.hash.hex() or summary["fit"] is None:
        cause = f"{home.config.site} has no result of study {view.id}, which is {view.state.name.lower()}"
        raise ConfigError("CO-F332", f"{cause}: its node leaves one in {path.parent} once the study is done.")
    return str(summary["name"]), fit_from_json(summary["fit"])


def _decisions(home: NodeFolder) -> DecisionFolder:
    return DecisionFolder(home.root / "decisions")


def _decide(home: NodeFolder, which: str, action: Any, reason: str) -> None:
    with open_ledger(home) as ledger:
        view = ledger.view(resolve_study_number(ledger, which))
    _check_open(home, view)
    _decisions(home).record(make_decision(view.terms.hash, action, reason=reason))
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


def _row(home: NodeFolder, ledger: Ledger, view: StudyView) -> dict[str, Any]:
    decision = _decisions(home).latest(view.terms.hash)
    return {
        "study": view.id,
        "state": view.state.name.lower(),
        "name": _name(home, view),
        "sites": ", ".join(view.terms.sites),
        "joined": f"{len(view.joined)}/{len(view.terms.sites)}",
        "decision": decision.action if decision else "",
        "hash": view.terms.hash.hex()[:16],
    }


def _waiting(home: NodeFolder, proposed: bytes) -> dict[str, Any]:
    """A proposal of this site that its daemon has not put on the ledger yet, or cannot: `coterie doctor` says why."""
    proposal = study_of(_decisions(home).read_document(proposed), "The proposed study")
    summary = {
        "study": "-",
        "state": "not on the ledger yet",
        "name": proposal.name,
        "sites": ", ".join(proposal.sites),
    }
    return summary | {"joined": f"0/{len(proposal.sites)}", "decision": "propose", "hash": proposed.hex()[:16]}


def _name(home: NodeFolder, view: StudyView) -> str:
    """The study's name, where this site holds its document already; the store is not searched for a list."""
    path = _decisions(home).document(view.terms.hash)
    return study_of(path.read_bytes(), str(path)).name if path.exists() else ""


def _policy(home: NodeFolder, proposal: Study) -> str:
    try:
        home.config.policy.check(proposal, home.config.site)
    except StudyError as error:
        return f"{error.code}: {error.message}"
    return "allowed by this site's policy"


def _progress(ledger: Ledger, view: StudyView) -> dict[str, Any]:
    entries = list(ledger.history(view.id))
    records = [e for e in entries if isinstance(e, Record)]
    summary: dict[str, Any] = {"records": len(records)}
    if records:
        summary["last_record"] = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(records[-1].time))
    if view.state == State.PROPOSED:
        summary["waits_for"] = ", ".join(site for site in view.terms.sites if site not in view.joined)
    if view.open is not None:
        silent = [site for site in view.open.posters if site not in view.open.posted]
        summary |= {"position": view.open.position, "round": view.open.round + 1, "waits_for": ", ".join(silent)}
        summary["deadline"] = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(view.open.deadline))
    ended = [e for e in entries if isinstance(e, Event) and e.name in ("StudyAborted", "Disputed")]
    if ended:
        summary["ended"] = _describe_ending(ended[-1])
    return summary


def _describe_ending(event: Event) -> str:
    details = dict(event.details)
    cause = (
        describe_reason(int(details["reason"]))
        if "reason" in details
        else f"disputed the post at step {details['position']}"
    )
    return f"{event.site}: {cause}"


def _format_summary(summary: Mapping[str, Any]) -> str:
    head = [f"{name:10s} {printable(str(summary[name]))}" for name in summary if name not in ("document", "what")]
    # its number, name, sites and hash are in the row already
    rest = {name: value for name, value in summary["what"].items() if value and name not in ("study", "sites", "hash")}
    head += [f"{name:10s} {printable(in_words(value))}" for name, value in rest.items()]
    return "\n".join([*head, "", json.dumps(summary["document"], indent=2, ensure_ascii=True)])
