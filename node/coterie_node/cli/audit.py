"""`coterie audit`: checks of what the ledger and the store say."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic_core import from_json

from coterie_chain.ethereum.network import Network, read_keys
from coterie_chain.keys.site_keys import SiteKeys, read_passphrase
from coterie_chain.ledger.protocol import State
from coterie_learners.errors import pluralise
from coterie_node.audit.replay import Replay, Verdict, replay
from coterie_node.audit.result import replay_line
from coterie_node.cli.options import (
    At,
    Catalog,
    Chain,
    Json,
    NodeOption,
    Site,
    Store,
    StudyArgument,
    TableFormat,
    check_block_hash,
    check_contract_address,
    locate,
    open_site,
    require_daemon,
)
from coterie_node.cli.output import print_document
from coterie_node.data.files.bounded_file import read_bounded, read_bounded_text
from coterie_node.data.findings import printable
from coterie_node.errors import ConfigError
from coterie_node.run.view_grants import View, load_grants

if TYPE_CHECKING:
    from coterie_node.audit.approvals.signatures import SignedJoin
    from coterie_node.audit.index import HistoryIndex
    from coterie_node.audit.sources import AuditLocation
    from coterie_node.audit.tables import Lines

audit = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Check what the ledger and the store say, without trusting anybody.",
)

_Tolerance = Annotated[float, typer.Option(min=0.0, help="Largest difference that passes; 0: the same bits.")]
_Grant = Annotated[list[Path] | None, typer.Option(help="File that `coterie seal grant` wrote; repeatable.")]
_Keys = Annotated[Path | None, typer.Option(help="Directory of the auditor's keys, for grants.")]
_Passphrase = Annotated[Path | None, typer.Option(help="File with the passphrase of these keys.")]
_Published = Annotated[
    Path | None, typer.Option("--result", help="Published result (JSON), to compare with the replay.")
]
# SQLite counts so far and more.
_LARGEST = 10**15
_FAILED = 22
MAX_NETWORK_BYTES = 1 << 20
# States of a study that goes on, as a verdict has them.
_OPEN = frozenset(state.name.lower() for state in (State.PROPOSED, State.RUNNING, State.PAUSED))


@audit.command("history")
def history_command(
    study: StudyArgument = None,
    node: NodeOption = None,
    at: At = None,
    chain: Chain = None,
    catalog: Catalog = None,
    site: Annotated[str | None, typer.Option(help="Entries of one site.")] = None,
    kind: Annotated[str | None, typer.Option(help="Entries of one kind: each, server, only, or an event.")] = None,
    round_: Annotated[int | None, typer.Option("--round", min=0, max=_LARGEST, help="Entries of one round.")] = None,
    since: Annotated[
        str | None, typer.Option(help="From this UTC time on: 2026-11-24 or 2026-11-24T18:00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Before this UTC time.")] = None,
    first: Annotated[int, typer.Option(min=0, max=_LARGEST, help="Number of entries to skip at the start.")] = 0,
    most: Annotated[int, typer.Option("--limit", min=-1, max=_LARGEST, help="Most entries to list; -1 for all.")] = -1,
    index: Annotated[Path | None, typer.Option(help="File that keeps the history for later queries.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write to this file; needed for parquet.")] = None,
    shape: Annotated[TableFormat, typer.Option("--format", help="text, json, csv or parquet.")] = TableFormat.text,
    as_json: Json = False,
) -> None:
    """List what is on the ledger: who did what, when, with which payload, and what the release gate said."""
    from coterie_node.audit.index import HistoryIndex, HistoryQuery
    from coterie_node.audit.sources import AuditLocation

    where = AuditLocation(node, at, chain, catalog)
    if index is not None and where.empty and not index.exists():
        message = f"There is no index {index}, and no ledger is named to make it from"
        raise ConfigError("CO-F206", f"{message}. Correct its name, or add --node, --at or --chain.")
    with ExitStack() as stack:
        history_index = stack.enter_context(HistoryIndex(index))
        number = _refresh_index(history_index, stack, study, where)
        query = HistoryQuery(number, site, kind, round_, _parse_time(since), _parse_time(until))
        _write(lambda: history_index.lines(query, first, most), TableFormat.json if as_json else shape, out)


@audit.command("replay")
def replay_command(
    study: StudyArgument = None,
    node: NodeOption = None,
    at: At = None,
    chain: Chain = None,
    catalog: Catalog = None,
    store: Store = None,
    tolerance: _Tolerance = 0.0,
    grant: _Grant = None,
    keys: _Keys = None,
    passphrase_file: _Passphrase = None,
    result: _Published = None,
    as_json: Json = False,
) -> None:
    """Recompute every server step of a study from the ledger and the store; exit status 0 for PASS alone."""
    from coterie_node.audit.sources import find_study_number, note_seals, open_sources

    with ExitStack() as stack:
        read = open_sources(stack, locate(node, at, chain, catalog, store))
        number = find_study_number(read.ledger, study)
        granted = _open_grants(grant or [], keys, passphrase_file, read.ledger.view(number).terms.hash)
        outcome = replay(read.ledger, read.blobs, number, tolerance=tolerance, granted=granted)
        outcome = note_seals(outcome, read.ledger)
        outcome, signed = read.add_signatures(outcome, number)
    verdict = _compare_result(result, outcome)
    plain = verdict.as_dict() | ({"remarks": list(outcome.remarks)} if outcome.remarks else {})
    plain |= {"persons": [join.as_dict() for join in signed]} if signed else {}
    lines = [*_describe_match(result, verdict), *_list_signatures(signed), *outcome.remarks]
    _conclude(verdict, plain, as_json, lines)


@audit.command("recompute")
def recompute_command(
    study: StudyArgument = None,
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    sign: Annotated[
        bool, typer.Option("--sign", help="Put date, rows' digest and verdict on the ledger, signed by this site.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compute a site's own posts again from its data, and compare its rows with the snapshot it committed to.

    The site's daemon must not run meanwhile: it locks the journal.
    """
    from coterie_node.audit.recompute import inspect, sign_inspection
    from coterie_node.audit.sources import find_study_number
    from coterie_node.site.participant import open_inspection

    folder = require_daemon(open_site(node, at, site)) if sign else open_site(node, at, site)
    with folder.open_ledger() as ledger:
        number = find_study_number(ledger, study)
        with open_inspection(folder, ledger, number) as inspected:
            outcome = inspect(inspected, number)
        signed = sign_inspection(folder, ledger.view(number), outcome) if sign else ""
    print_document(outcome.as_dict(), "\n".join([outcome.text(), *([signed] if signed else [])]), as_json)
    if not outcome.passed:
        raise typer.Exit(_FAILED)


@audit.command("screen")
def screen_command(
    study: StudyArgument = None,
    node: NodeOption = None,
    at: At = None,
    chain: Chain = None,
    catalog: Catalog = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Compare the sites of a study with each other: who disagrees, and who moves which coefficient how far."""
    from coterie_node.audit.influence import screen
    from coterie_node.audit.sources import find_study_number, open_sources

    with ExitStack() as stack:
        read = open_sources(stack, locate(node, at, chain, catalog, store))
        outcome = screen(read.ledger, read.blobs, find_study_number(read.ledger, study))
    print_document(outcome.as_dict(), outcome.text(), as_json)


@audit.command("export")
def export_bundle_command(
    study: Annotated[str, typer.Argument(help="Number on the ledger, hash, or study file.")],
    bundle: Annotated[Path, typer.Argument(help="New zip (a name that ends in .zip) or new folder.")],
    node: NodeOption = None,
    at: At = None,
    chain: Chain = None,
    catalog: Catalog = None,
    store: Store = None,
    first: Annotated[
        int | None, typer.Option("--from", min=0, help="First block of the evidence; 0 unless the chain is very long.")
    ] = None,
    confirmations: Annotated[int, typer.Option(min=0, help="Leave out the newest blocks, which may change.")] = 0,
    as_json: Json = False,
) -> None:
    """Put a study and all that proves it into one bundle, which `coterie audit verify` checks offline."""
    from coterie_node.audit.sources import open_sources
    from coterie_node.verbs.audits import check_export, export_bundle

    with ExitStack() as stack:
        read = open_sources(stack, locate(node, at, chain, catalog, store))
        if chain is None:
            check_export(read, study)  # a site's own node; the permit does not bind an auditor who reads a chain
        done = export_bundle(read, study, bundle, first, confirmations)
    summary = {"bundle": str(bundle), "study": done.study, "last_block": done.last_block, "blocks": done.blocks}
    text = f"{bundle}: study {done.study} up to block {done.last_block}, {done.blocks} payload blocks."
    print_document(summary, text, as_json)


@audit.command("verify")
def verify_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle that `coterie audit export` made.")],
    genesis: Annotated[
        str | None,
        typer.Option(help="Hash of its first block, as a site's network.json has it.", callback=check_block_hash),
    ] = None,
    catalog: Annotated[
        str | None,
        typer.Option(help="Address of its Catalog, as a site's network.json has it.", callback=check_contract_address),
    ] = None,
    network: Annotated[Path | None, typer.Option(help="A site's network.json, which the bundle must match.")] = None,
    node: Annotated[
        Path | None, typer.Option("--node", help="Folder of this site's node, whose network the bundle must match.")
    ] = None,
    at: Annotated[
        Path | None, typer.Option("--at", help="Folder of a run, whose network the bundle must match.")
    ] = None,
    sites: Annotated[
        Path | None, typer.Option(help="JSON file with the founders' keys by name, as the sites gave them to you.")
    ] = None,
    sealed: Annotated[bool, typer.Option("--sealed", help="Refuse a chain without seals.")] = False,
    tolerance: _Tolerance = 0.0,
    grant: _Grant = None,
    keys: _Keys = None,
    passphrase_file: _Passphrase = None,
    result: _Published = None,
    as_json: Json = False,
) -> None:
    """Verify a bundle offline, without keys or data; exit status 0 for PASS alone.

    Of --node and --at only network.json is read.
    """
    from coterie_node.audit.sources import AuditLocation
    from coterie_node.audit.verify import verify

    known = AuditLocation(node, at).network() if network is None else _read_network(network)
    outcome = verify(
        bundle,
        genesis=genesis,
        catalog=catalog,
        network=known,
        founders=None if sites is None else _read_keys(sites),
        sealed=sealed,
        tolerance=tolerance,
        grants=partial(_open_grants, grant or [], keys, passphrase_file),
    )
    verdict = _compare_result(result, outcome.replay)
    plain = {**outcome.as_dict(), **verdict.as_dict()}
    lines = [*_describe_match(result, verdict), *_list_signatures(outcome.signed), *outcome.trust()]
    _conclude(verdict, plain, as_json, [*lines, *outcome.replay.remarks])


def _list_signatures(signed: Sequence[SignedJoin]) -> list[str]:
    """The approvals at each site, in sentences."""
    return [printable(line) for join in signed for line in join.sentences]


def _compare_result(result: Path | None, outcome: Replay) -> Verdict:
    """The verdict on a replay and, if one is named, on a published result."""
    from coterie_node.audit.publication import check_publication, read_publication

    return outcome.verdict if result is None else check_publication(read_publication(result), result.name, outcome)


def _describe_match(result: Path | None, verdict: Verdict) -> list[str]:
    if result is None or not verdict.intact:
        return []
    return [f"{result.name} has the numbers that the replay arrives at."]


def _open_grants(grants: list[Path], keys: Path | None, passphrase_file: Path | None, study: bytes) -> View:
    """What grants let an auditor open."""
    if not grants:
        return {}
    if keys is None or passphrase_file is None:
        raise ConfigError(
            "CO-F353", "A grant is sealed to its auditor, and no keys are named. Add --keys and --passphrase-file."
        )
    return load_grants(grants, study, SiteKeys.load(keys, read_passphrase(passphrase_file)))


def _refresh_index(
    history_index: HistoryIndex,
    stack: ExitStack,
    study: str | None,
    where: AuditLocation,
) -> int | None:
    """Update an index where a ledger is named, check it where none is; returns the study's number."""
    from coterie_node.audit.sources import find_study_number, open_sources

    if history_index.path is not None and where.empty:
        history_index.check()
        return None if study is None else history_index.find_study(study)
    ledger = open_sources(stack, locate(where.node, where.at, where.chain, where.catalog, None)).ledger
    history_index.refresh(ledger)
    return None if study is None else find_study_number(ledger, study)


def _parse_time(text: str | None) -> str | None:
    """A UTC time as the history has it."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is not a time"
        raise ConfigError("CO-F307", f"{message}. Write it as 2026-11-24 or 2026-11-24T18:00:00Z.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _write(lines: Lines, shape: TableFormat, out: Path | None) -> None:
    from coterie_node.audit import tables

    if shape is TableFormat.parquet:
        if out is None:
            raise ConfigError("CO-F307", "Parquet is written to a file, and none is named. Add --out FILE.")
        tables.write_parquet(lines(), out)
        return
    with ExitStack() as stack:
        target = sys.stdout if out is None else stack.enter_context(out.open("w", encoding="utf-8", newline=""))
        if shape is TableFormat.text:
            tables.write_text(lines, target)
        else:
            (tables.write_json if shape is TableFormat.json else tables.write_csv)(lines(), target)


@audit.command("report")
def report_command(
    study: Annotated[str | None, typer.Argument(help="Number, hash or file of a study; or a bundle.")] = None,
    node: NodeOption = None,
    at: At = None,
    chain: Chain = None,
    catalog: Catalog = None,
    store: Store = None,
    genesis: Annotated[
        str | None,
        typer.Option(help="For a bundle: hash of its first block, as you know it.", callback=check_block_hash),
    ] = None,
    out: Annotated[
        list[Path] | None, typer.Option(help="report.html, .pdf or .json, or .md for TRIPOD+AI; may be given again.")
    ] = None,
    tolerance: _Tolerance = 0.0,
    grant: _Grant = None,
    keys: _Keys = None,
    passphrase_file: _Passphrase = None,
) -> None:
    """Replay a study or a bundle and write the report that an auditor files; exit status 0 for PASS alone."""
    from coterie_node.audit.report.build import report_on_bundle, report_on_study
    from coterie_node.audit.report.page import write_report
    from coterie_node.audit.sources import AuditLocation

    now, grants = datetime.now(UTC), partial(_open_grants, grant, keys, passphrase_file) if grant else None
    bundle = Path(study) if study and (study.endswith(".zip") or Path(study, "bundle.json").is_file()) else None
    with ExitStack() as stack:
        if bundle is not None:
            known = AuditLocation(node, at).network()
            genesis, catalog = (genesis, catalog) if known is None else (known.genesis, known.catalog)
            document = report_on_bundle(bundle, genesis, tolerance, now, grants, catalog)
        else:
            document = report_on_study(stack, study, locate(node, at, chain, catalog, store), tolerance, now, grants)
    for path in out or [Path("report.html")]:
        write_report(document, path)
        seals = ", on a chain without seals" if document.verdict.unsealed else ""
        print(f"{document.verdict.verdict}{seals}: {path}")
    if document.verdict.status:
        raise typer.Exit(document.verdict.status)


def _read_network(path: Path) -> Network:
    try:
        return Network.from_json(read_bounded_text(path, MAX_NETWORK_BYTES))
    except (OSError, ValueError):
        message = f"{path} cannot be read"
        raise ConfigError("CO-F202", f"{message}. Name a site's network.json.") from None


def _read_keys(path: Path) -> dict[str, str]:
    """Keys by site from a JSON object; ConfigError (CO-F202) for another file."""
    try:
        return dict(read_keys(from_json(read_bounded(path, MAX_NETWORK_BYTES))))
    except (OSError, ValueError, TypeError, AttributeError):
        message = f"{path} is not a JSON object of sites' names and keys"
        raise ConfigError("CO-F202", f'{message}. Write it as {{"north": "0x...", "south": "0x..."}}.') from None


def _describe_end(outcome: str) -> str:
    """How a study ended; of one that goes on, that its record so far was checked and no more."""
    if outcome in _OPEN:
        return f"the study has not ended ({outcome}), so replay it again when it has"
    return f"the study ended: {outcome}"


def _conclude(verdict: Verdict, plain: dict[str, Any], as_json: bool, extra_lines: list[str] | None = None) -> None:
    """Print a verdict; exit status 25 for RECORD INTACT, 26 for NOT CHECKED, 22 for FAIL."""
    lines = [replay_line(verdict)]
    if verdict.intact:
        lines += [] if verdict.grade == "identical" else [verdict.claim]
        lines.append(f"{pluralise(verdict.records, 'record')} checked; {_describe_end(verdict.outcome)}.")
    elif verdict.site or verdict.topic:
        lines.append(f"First bad step: {verdict.topic or 'unknown'}, of {verdict.site or 'unknown'}.")
    print_document(plain, "\n".join([*lines, *(extra_lines or [])]), as_json)
    if verdict.status:
        raise typer.Exit(verdict.status)
