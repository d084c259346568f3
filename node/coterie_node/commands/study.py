"""`coterie study`: people read what is proposed, and decide. The daemon carries it out; it alone holds the key."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie_chain.ledger import Event, Ledger, Record, State, StudyView
from coterie_learners.errors import DataError, StudyError
from coterie_learners.inference import Fit, fit_from
from coterie_learners.study import Study
from coterie_node.advise import describe, in_words, show_file
from coterie_node.advise import study_app as study
from coterie_node.audit import study_on_ledger
from coterie_node.ballots import Ballot, BallotBox
from coterie_node.certificate import certifiable, certify, save
from coterie_node.commands.options import HERE, Folder, Json, number_of, reader, show
from coterie_node.data import load_site
from coterie_node.decisions import DecisionFolder, decided
from coterie_node.errors import ConfigError
from coterie_node.fault_notes import FaultNotes
from coterie_node.findings import printable
from coterie_node.options import Format, Shape
from coterie_node.reasons import words_of
from coterie_node.result import finite, fit_lines, numbers, soundness_line, tidy
from coterie_node.site_config import Home
from coterie_node.studies import load_study, study_of

Which = Annotated[str, typer.Argument(help="Number on the ledger, or eight letters or more of the hash.")]
Why = Annotated[str, typer.Option(help="Why, for this site's own record; nothing of it leaves.")]
DataFile = Annotated[str, typer.Option(help="Another file of rows than node.toml names.")]


@study.command("propose")
def propose_command(
    file: Annotated[Path, typer.Argument(help="Study file (TOML).")], node: Folder = HERE, data: DataFile = ""
) -> None:
    """Propose a study, and approve it for this site; the daemon puts it on the ledger."""
    home, proposed = Home(node), load_study(file)
    if home.config.site not in proposed.sites:
        raise ConfigError("CO-F302", f"{home.config.site!r} takes no part in {proposed.name!r}.")
    home.config.policy.check(proposed, home.config.site)
    home.config.talk.check(proposed, home.config.site)
    _check_new(home, proposed)
    folder = _decisions(home)
    folder.keep(proposed.hash, proposed.document)
    if certifiable(proposed):
        made = certify(proposed)
        save(made, folder.certificate(proposed.hash))
        print(made.sentence)
    folder.record(decided(proposed.hash, "propose", data=data))
    print(f"Proposed: {proposed.name}, hash {proposed.hash.hex()}.")
    print("The daemon (coterie serve) puts it on the ledger; read the hash to the other sites.")
    _look_at_rows(home, proposed, data)


@study.command("list")
def list_command(node: Folder = HERE, as_json: Json = False) -> None:
    """List the studies on the ledger, and what this site decided."""
    home = Home(node)
    with reader(home) as ledger:
        rows = [_row(home, ledger, ledger.view(number)) for number in ledger.studies()]
        listed = {ledger.view(number).terms.hash for number in ledger.studies()}
    rows += [_waiting(home, proposed) for proposed in _decisions(home).proposals() if proposed not in listed]
    show(rows, as_json, ("study", "state", "name", "sites", "joined", "decision", "hash"))


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
    home = Home(node)
    with reader(home) as ledger:
        view = ledger.view(number_of(ledger, which))
        row = _row(home, ledger, view)
    found = study_on_ledger(view, home.blobs())
    told = {
        **row,
        "name": found.name,
        "policy": _policy(home, found),
        "what": describe(found),
        "document": json.loads(found.document),
    }
    print(json.dumps(told, indent=2, ensure_ascii=True, default=str) if as_json else _text(told))


@study.command("approve")
def approve_command(which: Which, node: Folder = HERE, data: DataFile = "", reason: Why = "") -> None:
    """Approve a study: this site's node will join it and take part with this site's rows."""
    home = Home(node)
    found = _document(home, which)
    home.config.policy.check(found, home.config.site)
    home.config.talk.check(found, home.config.site)
    if data and not home.path(data).exists():
        told = f"There is no file {home.path(data)}; --data is looked for in the node's folder"
        raise ConfigError("CO-F327", f"{told}. Give its whole path.")
    _decisions(home).record(decided(found.hash, "approve", data=data, reason=reason))
    print(f"Approved: {printable(found.name)}, hash {found.hash.hex()}.")
    _look_at_rows(home, found, data)


def _look_at_rows(home: Home, found: Study, data: str) -> None:
    """Say at once what the daemon would say later; the approval stands, because people may mend their rows."""
    try:
        load_site(home.path(data) if data else home.data, found, home.config.site)
    except DataError as error:
        print(f"The rows do not fit yet, and this site joins once they do. {error.code}: {printable(error.message)}")


@study.command("decline")
def decline_command(which: Which, node: Folder = HERE, reason: Why = "") -> None:
    """Decline a study: it cannot run without this site, and the ledger says so."""
    _decide(Home(node), which, "decline", reason)


@study.command("abort")
def abort_command(which: Which, node: Folder = HERE, reason: Why = "") -> None:
    """End a study for all sites, without a result."""
    _decide(Home(node), which, "abort", reason)


@study.command("resume")
def resume_command(which: Which, node: Folder = HERE) -> None:
    """Vote to go on with a study that a dispute paused; it goes on when most of its sites do."""
    home = Home(node)
    with reader(home) as ledger:
        view = ledger.view(number_of(ledger, which))
    if view.state != State.PAUSED:
        raise ConfigError("CO-F328", f"Study {view.id} is {view.state.name.lower()}; only a paused one can be resumed.")
    BallotBox(home.root / "ballots").record(Ballot(motion="resume", subject=str(view.id)))
    print(f"{home.config.site} votes to resume study {view.id}. The daemon (coterie serve) tells the ledger.")


@study.command("status")
def status_command(which: Which, node: Folder = HERE, as_json: Json = False) -> None:
    """Tell where a study is, whom it waits for, how it ended, and what last stopped it at this site."""
    home = Home(node)
    with reader(home) as ledger:
        view = ledger.view(number_of(ledger, which))
        told = _row(home, ledger, view) | _progress(ledger, view)
    result = home.results / f"{view.id}.json"
    soon = "not here yet: the daemon leaves it once it is final" if view.state == State.COMPLETED else ""
    told["result"] = str(result) if result.exists() else soon
    told["last_fault"] = FaultNotes(home.root / "faults").of(view.id)
    if as_json:
        print(json.dumps(told, indent=2, default=str))
    else:
        print(
            "\n".join(
                f"{name.replace('_', ' '):12s} {printable(str(value))}" for name, value in told.items() if value != ""
            )
        )


@study.command("result")
def result_command(which: Which, node: Folder = HERE, shape: Shape = Format.text, as_json: Json = False) -> None:
    """Print the result that this site's node left of a study, as a table, JSON or CSV."""
    home = Home(node)
    with reader(home) as ledger:
        view = ledger.view(number_of(ledger, which))
    name, fit = _result(home, view)
    sites, gone = view.parties, [site for site in view.terms.sites if site not in view.parties]
    if as_json or shape is Format.json:
        told = {"study": name, **numbers(fit, sites), "notes": list(fit.notes), "details": dict(fit.details)}
        print(json.dumps(finite(told), indent=2))
    else:
        print(
            tidy(fit).rstrip()
            if shape is Format.csv
            else "\n".join([*fit_lines(fit, printable(name), sites), *_without(gone), soundness_line(fit)])
        )


def _without(gone: list[str]) -> list[str]:
    return [f"Excluded: {', '.join(gone)}; no row of theirs is in these numbers."] if gone else []


def _result(home: Home, view: StudyView) -> tuple[str, Fit]:
    """A study's name and fit, as this site's node left them; ConfigError (CO-F332) if there is none."""
    path = home.results / f"{view.id}.json"
    try:
        told = json.loads(path.read_bytes())
    except FileNotFoundError:
        told = {}
    if told.get("hash") != view.terms.hash.hex() or told["fit"] is None:
        why = f"{home.config.site} has no result of study {view.id}, which is {view.state.name.lower()}"
        raise ConfigError("CO-F332", f"{why}: its node leaves one in {path.parent} once the study is done.")
    return str(told["name"]), fit_from(told["fit"])


def _decisions(home: Home) -> DecisionFolder:
    return DecisionFolder(home.root / "decisions")


def _decide(home: Home, which: str, action: Any, reason: str) -> None:
    with reader(home) as ledger:
        view = ledger.view(number_of(ledger, which))
    _check_open(home, view)
    _decisions(home).record(decided(view.terms.hash, action, reason=reason))
    print(f"Study {view.id}: {action}. The daemon (coterie serve) tells the ledger.")


def _check_new(home: Home, proposed: Study) -> None:
    """ConfigError if the ledger knows the study: it takes each document once."""
    with reader(home) as ledger:
        held = next((v for v in map(ledger.view, ledger.studies()) if v.terms.hash == proposed.hash), None)
    if held is not None:
        told = f"This is study {held.id} of the ledger, which is {held.state.name.lower()}"
        raise ConfigError("CO-F328", f"{told}. To run it once more, give it another name.")


def _check_open(home: Home, view: StudyView) -> None:
    """ConfigError if there is nothing left to decide, or not for this site."""
    if view.state in (State.COMPLETED, State.ABORTED):
        told = f"Study {view.id} is {view.state.name.lower()} already"
        raise ConfigError("CO-F328", f"{told}. To run it after all, propose it under another name.")
    if home.config.site not in view.terms.sites:
        raise ConfigError("CO-F302", f"{home.config.site!r} takes no part in study {view.id}.")


def _document(home: Home, which: str) -> Study:
    with reader(home) as ledger:
        view = ledger.view(number_of(ledger, which))
    _check_open(home, view)
    return study_on_ledger(view, home.blobs())


def _row(home: Home, ledger: Ledger, view: StudyView) -> dict[str, Any]:
    decision = _decisions(home).of(view.terms.hash)
    return {
        "study": view.id,
        "state": view.state.name.lower(),
        "name": _name(home, view),
        "sites": ", ".join(view.terms.sites),
        "joined": f"{len(view.joined)}/{len(view.terms.sites)}",
        "decision": decision.action if decision else "",
        "hash": view.terms.hash.hex()[:16],
    }


def _waiting(home: Home, proposed: bytes) -> dict[str, Any]:
    """A proposal of this site that its daemon has not put on the ledger yet, or cannot: `coterie doctor` says why."""
    found = study_of(_decisions(home).kept(proposed), "The proposed study")
    told = {"study": "-", "state": "not on the ledger yet", "name": found.name, "sites": ", ".join(found.sites)}
    return told | {"joined": f"0/{len(found.sites)}", "decision": "propose", "hash": proposed.hex()[:16]}


def _name(home: Home, view: StudyView) -> str:
    """The study's name, where this site holds its document already; the store is not searched for a list."""
    kept = _decisions(home).document(view.terms.hash)
    return study_of(kept.read_bytes(), str(kept)).name if kept.exists() else ""


def _policy(home: Home, found: Study) -> str:
    try:
        home.config.policy.check(found, home.config.site)
    except StudyError as error:
        return f"{error.code}: {error.message}"
    return "allowed by this site's policy"


def _progress(ledger: Ledger, view: StudyView) -> dict[str, Any]:
    entries = list(ledger.history(view.id))
    records = [e for e in entries if isinstance(e, Record)]
    told: dict[str, Any] = {"records": len(records)}
    if records:
        told["last_record"] = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(records[-1].time))
    if view.state == State.PROPOSED:
        told["waits_for"] = ", ".join(site for site in view.terms.sites if site not in view.joined)
    if view.open is not None:
        silent = [site for site in view.open.posters if site not in view.open.posted]
        told |= {"position": view.open.position, "round": view.open.round + 1, "waits_for": ", ".join(silent)}
        told["deadline"] = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(view.open.deadline))
    ended = [e for e in entries if isinstance(e, Event) and e.name in ("StudyAborted", "Disputed")]
    if ended:
        told["ended"] = _ending(ended[-1])
    return told


def _ending(event: Event) -> str:
    details = dict(event.details)
    why = (
        words_of(int(details["reason"])) if "reason" in details else f"disputed the post at step {details['position']}"
    )
    return f"{event.site}: {why}"


def _text(told: Mapping[str, Any]) -> str:
    head = [f"{name:10s} {printable(str(told[name]))}" for name in told if name not in ("document", "what")]
    # its number, name, sites and hash are in the row already
    rest = {name: value for name, value in told["what"].items() if value and name not in ("study", "sites", "hash")}
    head += [f"{name:10s} {printable(in_words(value))}" for name, value in rest.items()]
    return "\n".join([*head, "", json.dumps(told["document"], indent=2, ensure_ascii=True)])
