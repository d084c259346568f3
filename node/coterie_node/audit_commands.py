"""The commands `coterie audit ...`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie_chain.network import Network
from coterie_node import history as ledger_history
from coterie_node.audit import Verdict, replay
from coterie_node.errors import ConfigError
from coterie_node.options import At, Catalog, Chain, Format, Json, Shape, Store, StudyArgument
from coterie_node.place import Place
from coterie_node.result import replay_line

audit = typer.Typer(no_args_is_help=True, help="Check what the ledger and the store say, without trusting anybody.")

Tolerance = Annotated[float, typer.Option(min=0.0, help="Largest difference that passes; 0: the same bits.")]
FAILED = 22


@audit.command("history")
def history_command(
    study: StudyArgument = None,
    at: At = None,
    chain: Chain = None,
    catalog: Catalog = None,
    site: Annotated[str | None, typer.Option(help="Entries of one site.")] = None,
    kind: Annotated[str | None, typer.Option(help="Entries of one kind: each, server, only, or an event.")] = None,
    round_: Annotated[int | None, typer.Option("--round", help="Entries of one round.")] = None,
    shape: Shape = Format.text,
    as_json: Json = False,
) -> None:
    """List what is on the ledger: who did what, when, with which payload."""
    from coterie_node.reading import number_of, open_reading

    with ExitStack() as stack:
        ledger = open_reading(stack, at, chain, catalog, None).ledger
        number = None if study is None else number_of(ledger, study)
        lines = list(ledger_history.history(ledger, number, site, kind, round_))
    if as_json or shape is Format.json:
        print(json.dumps([line.as_dict() for line in lines], indent=2))
    else:
        print(ledger_history.as_csv(lines) if shape is Format.csv else ledger_history.as_text(lines))


@audit.command("replay")
def replay_command(
    study: StudyArgument = None,
    at: At = None,
    chain: Chain = None,
    catalog: Catalog = None,
    store: Store = None,
    tolerance: Tolerance = 0.0,
    as_json: Json = False,
) -> None:
    """Recompute every server step of a study from the ledger and the store; exit status 0 only for PASS."""
    from coterie_node.reading import number_of, open_reading

    with ExitStack() as stack:
        read = open_reading(stack, at, chain, catalog, store)
        verdict = replay(read.ledger, read.blobs, number_of(read.ledger, study), tolerance=tolerance).verdict
    _conclude(verdict, verdict.as_dict(), as_json)


@audit.command("recompute")
def recompute_command(
    at: Annotated[Path, typer.Option(help="Folder of the run, with this site's data and keys.")],
    site: Annotated[str, typer.Option(help="Name of this site.")],
    study: StudyArgument = None,
    as_json: Json = False,
) -> None:
    """Compute a site's own posts again from its data, and hold its rows against the snapshot it committed to."""
    from coterie_node.participant import open_node
    from coterie_node.reading import number_of
    from coterie_node.recompute import inspect

    place = Place(at)
    with place.reader() as ledger:
        number = number_of(ledger, study)
        approved = ledger.view(number).terms.hash.hex()
        found = inspect(open_node(place, site, approved, reader=ledger), number)
    print(json.dumps(found.as_dict(), indent=2) if as_json else found.text())
    if not found.passed:
        raise typer.Exit(FAILED)


@audit.command("screen")
def screen_command(
    study: StudyArgument = None,
    at: At = None,
    chain: Chain = None,
    catalog: Catalog = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Compare the sites of a study with each other: who disagrees, and who moves which coefficient how far."""
    from coterie_node.reading import number_of, open_reading
    from coterie_node.screen import screen

    with ExitStack() as stack:
        read = open_reading(stack, at, chain, catalog, store)
        found = screen(read.ledger, read.blobs, number_of(read.ledger, study))
    print(json.dumps(found.as_dict(), indent=2) if as_json else found.text())


@audit.command("export")
def export_command(
    study: Annotated[str, typer.Argument(help="Number on the ledger, hash, or study file.")],
    bundle: Annotated[Path, typer.Argument(help="New zip (a name that ends in .zip) or new folder.")],
    at: At = None,
    chain: Chain = None,
    catalog: Catalog = None,
    store: Store = None,
    first: Annotated[
        int | None, typer.Option("--from", min=0, help="First block told; 0 unless the chain is very long.")
    ] = None,
    confirmations: Annotated[int, typer.Option(min=0, help="Leave out the newest blocks, which may change.")] = 0,
    as_json: Json = False,
) -> None:
    """Put a study and all that proves it into one bundle, which `coterie audit verify` checks offline."""
    from coterie_chain.evidence import gather
    from coterie_chain.proved import ProvedLedger
    from coterie_node.bundle import collect, save
    from coterie_node.reading import number_of, open_reading

    with ExitStack() as stack:
        read = open_reading(stack, at, chain, catalog, store)
        evidence = gather(read.ledger.network, first, confirmations)
        proved = ProvedLedger(evidence)
        number = number_of(proved, study)
        made = collect(read.ledger.network, evidence, proved, read.blobs, number)
    save(made, bundle)
    told = {"bundle": str(bundle), "study": number, "last_block": proved.anchor.last, "blocks": len(made.blocks)}
    words = f"{bundle}: study {number} up to block {proved.anchor.last}, {len(made.blocks)} payload blocks."
    print(json.dumps(told, indent=2) if as_json else words)


@audit.command("verify")
def verify_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle that `coterie audit export` made.")],
    genesis: Annotated[str | None, typer.Option(help="Hash of its first block, as a site's node tells it.")] = None,
    network: Annotated[Path | None, typer.Option(help="A site's network.json, which the bundle must match.")] = None,
    sealed: Annotated[bool, typer.Option("--sealed", help="Refuse a chain without seals.")] = False,
    tolerance: Tolerance = 0.0,
    as_json: Json = False,
) -> None:
    """Verify a bundle offline, without node, keys or data; exit status 0 only for PASS."""
    from coterie_node.verify import verify

    found = verify(bundle, genesis=genesis, network=_network(network), sealed=sealed, tolerance=tolerance)
    _conclude(found.verdict, found.as_dict(), as_json, found.trust())


def _network(path: Path | None) -> Network | None:
    if path is None:
        return None
    try:
        return Network.from_json(path.read_text())
    except (OSError, UnicodeDecodeError):
        raise ConfigError("CO-F202", f"{path} cannot be read.") from None


def _conclude(verdict: Verdict, plain: dict[str, Any], as_json: bool, more: list[str] | None = None) -> None:
    """Print a verdict; exit status 22 for FAIL."""
    lines = [replay_line(verdict)]
    if verdict.verdict == "PASS":
        lines.append(f"{verdict.records} records checked; the study ended: {verdict.outcome}.")
    elif verdict.site or verdict.topic:
        lines.append(f"First bad step: {verdict.topic or 'unknown'}, of {verdict.site or 'unknown'}.")
    print(json.dumps(plain, indent=2) if as_json else "\n".join([*lines, *(more or [])]))
    if verdict.verdict != "PASS":
        raise typer.Exit(FAILED)
