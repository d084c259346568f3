"""`coterie study list|status`: which studies there are, and where they stand; nothing here decides."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from coterie_chain.ledger.protocol import Event, Ledger, Record, State, StudyView
from coterie_node.cli.output import HERE, Folder, Json, open_ledger, print_rows, resolve_study_number
from coterie_node.data.findings import printable
from coterie_node.run.reasons import describe_reason
from coterie_node.run.study_files import study_of
from coterie_node.site.config import NodeFolder
from coterie_node.site.decisions import DecisionFolder
from coterie_node.site.fault_notes import FaultRecord

LedgerStudyArgument = Annotated[str, typer.Argument(help="Number on the ledger, or eight letters or more of the hash.")]

status = typer.Typer()


@status.command("list")
def list_studies_command(node: Folder = HERE, as_json: Json = False) -> None:
    """List the studies on the ledger, and what this site decided."""
    home = NodeFolder(node)
    with open_ledger(home) as ledger:
        rows = [summarise_study(home, ledger, ledger.view(number)) for number in ledger.studies()]
        listed = {ledger.view(number).terms.hash for number in ledger.studies()}
    rows += [_waiting(home, proposed) for proposed in open_decisions(home).proposals() if proposed not in listed]
    print_rows(rows, as_json, ("study", "state", "name", "sites", "joined", "decision", "hash"))


@status.command("status")
def study_status_command(which: LedgerStudyArgument, node: Folder = HERE, as_json: Json = False) -> None:
    """Tell where a study is, whom it waits for, how it ended, and what last stopped it at this site."""
    home = NodeFolder(node)
    with open_ledger(home) as ledger:
        view = ledger.view(resolve_study_number(ledger, which))
        summary = summarise_study(home, ledger, view) | _progress(ledger, view)
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


def summarise_study(home: NodeFolder, ledger: Ledger, view: StudyView) -> dict[str, Any]:
    """A study as a row of a table: number, state, name, sites, and what this site decided."""
    decision = open_decisions(home).latest(view.terms.hash)
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
    proposal = study_of(open_decisions(home).read_document(proposed), "The proposed study")
    summary = {
        "study": "-",
        "state": "not on the ledger yet",
        "name": proposal.name,
        "sites": ", ".join(proposal.sites),
    }
    return summary | {"joined": f"0/{len(proposal.sites)}", "decision": "propose", "hash": proposed.hex()[:16]}


def _name(home: NodeFolder, view: StudyView) -> str:
    """The study's name, where this site holds its document already; the store is not searched for a list."""
    path = open_decisions(home).document(view.terms.hash)
    return study_of(path.read_bytes(), str(path)).name if path.exists() else ""


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


def open_decisions(home: NodeFolder) -> DecisionFolder:
    """What this site decided about studies."""
    return DecisionFolder(home.root / "decisions")
