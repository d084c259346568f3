"""The command `coterie`: noun verb, `--json` everywhere, errors as one sentence with a code, stable exit statuses."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from coterie_chain.blobs import BlobStore
from coterie_chain.ledger import Ledger
from coterie_chain.stores import open_store
from coterie_learners.errors import StudyError
from coterie_node import history as ledger_history
from coterie_node.analysis import analyse
from coterie_node.audit import replay
from coterie_node.devnet_commands import devnet
from coterie_node.dry_run import Leaving, dry_run
from coterie_node.errors import ConfigError, CoterieError, exit_status
from coterie_node.network_commands import network
from coterie_node.place import Place
from coterie_node.release_commands import release
from coterie_node.result import Result, replay_line
from coterie_node.runner import Progress
from coterie_node.studies import load_study

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="One regression model from all hospitals' patients; no row leaves."
)
audit = typer.Typer(no_args_is_help=True, help="Check what the ledger and the store say, without trusting anybody.")
app.add_typer(audit, name="audit")
app.add_typer(devnet, name="devnet")
app.add_typer(network, name="network")
app.add_typer(release, name="release")


class Format(StrEnum):
    """How a table is printed."""

    text = "text"
    json = "json"
    csv = "csv"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Shape = Annotated[Format, typer.Option("--format", help="text, json or csv.")]
At = Annotated[Path | None, typer.Option(help="Folder of a run that `coterie demo --keep` left.")]
Chain = Annotated[str | None, typer.Option(help="URL of an Ethereum node of your own.")]
Catalog = Annotated[str | None, typer.Option(help="Address of the Catalog contract, if the chain holds several.")]
Store = Annotated[str | None, typer.Option(help="Your store: folder:PATH or kubo+http://HOST:PORT, with --chain.")]
StudyArgument = Annotated[
    str | None, typer.Argument(help="Number on the ledger, hash, or study file. Default: the last.")
]


@app.command("demo")
def demo_command(
    sites: Annotated[
        int | None, typer.Option(min=1, max=20, help="Number of sites, each a process of its own.", show_default="3")
    ] = None,
    learner: Annotated[str, typer.Option(help="Learner to run.")] = "glore",
    chain: Annotated[str, typer.Option(help="Chain to run on: anvil, or clique (one Geth a site).")] = "anvil",
    store: Annotated[str, typer.Option(help="Store to run on: folder, or kubo (one IPFS daemon a site).")] = "folder",
    at: Annotated[Path | None, typer.Option(help="Run on the network that `coterie devnet up` started there.")] = None,
    keep: Annotated[Path | None, typer.Option(help="New folder in which the whole run is left.")] = None,
    shape: Shape = Format.text,
    as_json: Json = False,
) -> None:
    """Fit death by 1992 in NHEFS on several sites over a ledger, compare with the pooled fit, and replay it all."""
    from coterie_node.cases import case_of
    from coterie_node.demo import demo, rerun, workplace  # its imports are slow and no other command needs them
    from coterie_node.devnet import settings_of

    case = case_of(learner)
    settings = settings_of(chain, store)
    shape = Format.json if as_json else shape
    if at is not None:
        _print(rerun(Place(at), case, lambda line: _tell(line, shape)), shape)
        return
    with workplace(keep) as place:
        names = case.site_names(sites or case.sites)
        result = demo(place, case, names, settings, lambda line: _tell(line, shape))
    _print(result, shape)


@app.command("simulate")
def simulate_command(
    study: Annotated[Path, typer.Argument(help="Study file (TOML).")],
    data: Annotated[list[str], typer.Option(help="SITE=FILE, once for each site (CSV or Parquet).")],
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Print all that would leave each site, and the gate's verdict.")
    ] = False,
    shape: Shape = Format.text,
    as_json: Json = False,
) -> None:
    """Fit a study on files of this machine, all sites in one process, and replay it.

    With --dry-run one site's file is enough to see what that site would post first.
    """
    files = dict(_pair(d) for d in data)
    shape = Format.json if as_json else shape
    if dry:
        _print_leaving(dry_run(load_study(study), files), shape)
        return
    result = analyse(load_study(study), files, lambda p: _tell(_step(p), shape))
    _print(result, shape)


@app.command("site", hidden=True)
def site_command(
    at: Annotated[Path, typer.Option(help="Folder of the run.")],
    site: Annotated[str, typer.Option(help="Name of this site.")],
    approve: Annotated[str, typer.Option(help="Hash of the study that this site's people approved.")],
) -> None:
    """Take part in a study as one site; progress as JSON lines."""
    from coterie_node.participant import await_start, enter, open_node, report, take_part

    node = open_node(Place(at), site, approve, lambda p: _line(_step(p)))
    number = enter(node)
    await_start(node, number)
    started = time.time()
    runner = take_part(node, number)
    _line({**report(node, number, runner), "started": started, "ended": time.time()})


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
    with ExitStack() as stack:
        ledger, _ = _reader(stack, at, chain, catalog, None)
        number = None if study is None else _number(ledger, study)
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
    tolerance: Annotated[float, typer.Option(min=0.0, help="Largest difference that passes; 0: the same bits.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Recompute every server step of a study from the ledger and the store; exit status 0 only for PASS."""
    with ExitStack() as stack:
        ledger, blobs = _reader(stack, at, chain, catalog, store)
        if blobs is None:
            raise ConfigError("CO-F306", "A replay reads payloads: name your store with --store.")
        found = replay(ledger, blobs, _number(ledger, study), tolerance=tolerance)
    verdict = found.verdict
    print(json.dumps(verdict.as_dict(), indent=2) if as_json else replay_line(verdict))
    if not as_json and verdict.verdict == "PASS":
        print(f"{verdict.records} records checked; the study ended: {verdict.outcome}.")
    if verdict.verdict != "PASS":
        raise typer.Exit(22)


@audit.command("recompute")
def recompute_command(
    at: Annotated[Path, typer.Option(help="Folder of the run, with this site's data and keys.")],
    site: Annotated[str, typer.Option(help="Name of this site.")],
    study: StudyArgument = None,
    as_json: Json = False,
) -> None:
    """Compute a site's own posts again from its data, and hold its rows against the snapshot it committed to."""
    from coterie_node.participant import open_node
    from coterie_node.recompute import inspect

    place = Place(at)
    with place.reader() as ledger:
        number = _number(ledger, study)
        approved = ledger.view(number).terms.hash.hex()
        found = inspect(open_node(place, site, approved, reader=ledger), number)
    print(json.dumps(found.as_dict(), indent=2) if as_json else found.text())
    if not found.passed:
        raise typer.Exit(22)


@app.command("version")
def version_command() -> None:
    """Print the version."""
    from importlib.metadata import version

    print(version("coterie"))


def main() -> None:
    """Run the command; errors of ours become one sentence on standard error, never a traceback."""
    try:
        status = app(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except CoterieError as error:
        sys.exit(_fail(error.code, error.message, exit_status(error)))
    sys.exit(status or 0)


def _fail(code: str, message: str, status: int) -> int:
    if {"--json", "json", "--format=json"} & set(sys.argv) or "site" in sys.argv[1:2]:
        _line({"error": {"code": code, "message": message, "status": status}})
    else:
        print(f"{code}: {message}", file=sys.stderr)
    return status


def _reader(
    stack: ExitStack, at: Path | None, chain: str | None, catalog: str | None, store: str | None
) -> tuple[Ledger, BlobStore | None]:
    """The ledger and the store that an audit reads."""
    if at is not None:
        place = Place(at)
        return stack.enter_context(place.reader()), open_store(store) if store else place.blobs()
    if chain is None:
        raise ConfigError("CO-F303", "Name what to read: --at DIR, or --chain URL and --store URL.")
    from coterie_chain.ethereum import EthereumLedger
    from coterie_chain.network import discover

    ledger = stack.enter_context(EthereumLedger(discover(chain, catalog), None))
    return ledger, open_store(store) if store else None


def _number(ledger: Ledger, study: str | None) -> int:
    """A study's number on the ledger by number, hash or file; the last one for None."""
    numbers = ledger.studies()
    if not numbers:
        raise ConfigError("CO-F304", "There is no study on this ledger.")
    if study is None:
        return numbers[-1]
    if study.isdecimal() and int(study) in numbers:
        return int(study)
    wanted = load_study(Path(study)).hash.hex() if Path(study).suffix in (".toml", ".json") else study.lower()
    found = [n for n in numbers if len(wanted) >= 8 and ledger.view(n).terms.hash.hex().startswith(wanted)]
    if not found:
        raise ConfigError("CO-F304", f"There is no study {study!r} on this ledger; there are {len(numbers)}.")
    return found[-1]


def _pair(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise StudyError("CO-S105", f"--data {text!r} is not SITE=FILE.")
    return name, Path(path)


def _step(progress: Progress) -> dict[str, Any]:
    figures = {k: progress.figures[k] for k in ("deviance", "gain") if k in progress.figures}
    return {"step": progress.topic, "round": progress.round, "sites": list(progress.sites), **figures}


def _tell(line: Mapping[str, Any], shape: Format) -> None:
    """One line per round on standard error, for people."""
    if shape is not Format.text or "deviance" not in line:
        return
    told = f"round {line['round'] + 1:2d}  server {line['sites'][0]:<10s} deviance {line['deviance']:.6f}"
    print(f"{told}  next step {max(line['gain'], 0.0) ** 0.5:.1e} standard errors", file=sys.stderr)


def _line(line: Mapping[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _print_leaving(leaving: list[Leaving], shape: Format) -> None:
    """Print payloads with their verdicts; exit status 14 if one would be kept back."""
    if shape is Format.json:
        print(json.dumps([one.as_dict() for one in leaving], indent=2))
    else:
        print("\n".join(one.text() for one in leaving))
    if any(one.release.verdict.refused for one in leaving):
        raise typer.Exit(14)


def _print(result: Result, shape: Format) -> None:
    """Print a result; exit status 22 if its replay did not pass."""
    if shape is Format.json:
        print(json.dumps(result.as_dict(), indent=2))
    else:
        print(result.csv().rstrip() if shape is Format.csv else result.text())
    if result.replay is None or result.replay.verdict != "PASS":
        raise typer.Exit(22)
