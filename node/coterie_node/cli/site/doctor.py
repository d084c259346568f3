"""`coterie doctor`: what a node needs, checked one by one; each failure with its cure."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version

import typer

from coterie_chain.errors import ChainError
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.keys.journal import SqliteJournal
from coterie_chain.keys.private_files import check_mode, read_private
from coterie_chain.keys.site_keys import SiteKeys, read_passphrase
from coterie_chain.ledger.protocol import Ledger, State
from coterie_chain.network.programs.ipc import ask_all
from coterie_chain.network.sealer_turns import HEARTBEAT_SECONDS, LATE_HEARTBEAT_SECONDS
from coterie_chain.network.swarm_probe import is_private_swarm
from coterie_chain.store.kubo import KuboBlobs
from coterie_learners.study.document import Study
from coterie_node.cli.options import Json, NodeOption, open_node_folder
from coterie_node.cli.output import print_rows
from coterie_node.data.findings import printable
from coterie_node.data.load import load_site
from coterie_node.errors import ConfigError, CoterieError
from coterie_node.run.study_files import study_of, study_on_ledger
from coterie_node.site.cards import REVOKED
from coterie_node.site.decisions import DecisionFolder
from coterie_node.site.folder import SiteFolder

MIN_FREE_BYTES = 1 << 30
MAX_CLOCK_SKEW = 60
# Seconds between two heartbeats of a chain that sleeps, and what a heartbeat may be late.
MAX_SLEEP = HEARTBEAT_SECONDS + LATE_HEARTBEAT_SECONDS
PROBE = b"coterie doctor"


@dataclass(frozen=True)
class CheckResult:
    """One check: its name, whether it is well (None: nothing to judge), what was found, and the cure."""

    check: str
    well: bool | None
    found: str
    cure: str = ""


def doctor_command(node: NodeOption = None, as_json: Json = False) -> None:
    """Check this site's node: key, journal, disk, chain, seat, peers, clock, store and rows; status 12 if one fails."""
    findings = list(examine(open_node_folder(node)))
    words = {True: "ok", False: "FAILED", None: "-"}
    rows = [asdict(f) | {"result": words[f.well]} for f in findings]
    print_rows(rows, as_json, ("check", "result", "found"))
    failed = [f for f in findings if f.well is False]
    if not as_json and failed:
        print("\n" + "\n".join(f"{f.check}: {printable(f.cure)}" for f in failed))
    if failed:
        raise typer.Exit(12)


def examine(home: SiteFolder) -> Iterator[CheckResult]:
    """All checks; those that need what failed before are left out."""
    yield _run_check("folder", lambda: _check_folder(home))
    yield _run_check("API token", lambda: _check_token(home))
    yield _run_check("disk", lambda: _check_disk(home))
    keys: list[SiteKeys] = []
    yield _run_check("key", lambda: _check_key(home, keys))
    yield _run_check("journal", lambda: _check_journal(home))
    yield _run_check("store", lambda: _check_store(home))
    yield _run_check("swarm", lambda: _check_swarm(home))
    with ExitStack() as stack:
        ledgers: list[EthereumLedger] = []
        yield _run_check("chain", lambda: _check_chain(home, stack, ledgers))
        for ledger in ledgers:
            yield _run_check("versions", lambda item=ledger: _list_versions(home, item))  # type: ignore[misc]
            yield _run_check("clock", lambda item=ledger: _check_clock(home, item))  # type: ignore[misc]
            if home.config.chain.sleep:
                yield _run_check("sealer", lambda item=ledger: _check_sealer(home, item))  # type: ignore[misc]
            yield _run_check("finality", lambda item=ledger: _check_finality(home, item))  # type: ignore[misc]
            yield _run_check("peers", lambda item=ledger: _check_peers(item))  # type: ignore[misc]
            for item in keys:
                yield _run_check("seat", lambda keys=item, ledger=ledger: examine_seat(home, keys, ledger))  # type: ignore[misc]
            yield from _check_studies(home, ledger)


def _run_check(check: str, look: Callable[[], CheckResult]) -> CheckResult:
    try:
        return look()
    except (*CoterieError, OSError) as error:
        code = getattr(error, "code", "")
        return CheckResult(check, False, code or "failed", f"{code}: {error}".lstrip(": "))


def _check_folder(home: SiteFolder) -> CheckResult:
    check_mode(home.root, home.root.stat().st_mode, "the node's folder", "700")
    return CheckResult("folder", True, str(home.root))


def _check_token(home: SiteFolder) -> CheckResult:
    read_private(home.path(home.config.api.token_file), "the API's token file")
    return CheckResult("API token", True, f"{home.config.api.host}:{home.config.api.port}")


def _check_disk(home: SiteFolder) -> CheckResult:
    free = shutil.disk_usage(home.root).free
    cure = f"Make room on the disk of {home.root}: the journal and the store need it."
    return CheckResult("disk", free > MIN_FREE_BYTES, f"{free / (1 << 30):.1f} GiB free", cure)


def _check_key(home: SiteFolder, keys: list[SiteKeys]) -> CheckResult:
    keys.append(SiteKeys.load(home.keys, read_passphrase(home.passphrase)))
    return CheckResult("key", True, keys[0].address)


def _check_journal(home: SiteFolder) -> CheckResult:
    try:
        SqliteJournal(home.journal).close()
    except ChainError as error:
        if error.code != "CO-C320":
            raise
        return CheckResult("journal", True, "in use by the running daemon")
    return CheckResult("journal", True, "free: the daemon does not run")


def _check_store(home: SiteFolder) -> CheckResult:
    blobs = home.blobs()
    well = blobs.get(blobs.put(PROBE), len(PROBE)) == PROBE
    return CheckResult(
        "store", well, home.config.store.url.partition("?")[0], "The store does not give back what it got."
    )


def _check_swarm(home: SiteFolder) -> CheckResult:
    """Ask the daemon's own port whether it wants the swarm's key from everybody who connects."""
    blobs = home.blobs()
    if not isinstance(blobs, KuboBlobs):
        return CheckResult("swarm", None, "no Kubo: only sites that share its folder read each other's payloads")
    private = is_private_swarm(blobs.list_addresses())
    if private is None:
        cure = "Kubo names no TCP address that answers from here: does it listen on TCP (Addresses.Swarm)?"
        return CheckResult("swarm", False, "no answer", cure)
    cure = (
        "This Kubo talks to anybody. Stop it; put the network's swarm.key into its repository, set "
        "LIBP2P_FORCE_PNET=1, and start it again."
    )
    return CheckResult("swarm", private, "private" if private else "PUBLIC", cure)


def _list_versions(home: SiteFolder, ledger: EthereumLedger) -> CheckResult:
    blobs = home.blobs()
    store = f", Kubo {blobs.version()}" if isinstance(blobs, KuboBlobs) else ""
    chain = f", {ledger.client}" if ledger.client else ""
    return CheckResult("versions", None, printable(f"coterie {version('coterie')}{chain}{store}"))


def _check_chain(home: SiteFolder, stack: ExitStack, ledgers: list[EthereumLedger]) -> CheckResult:
    network = home.network()
    ledgers.append(stack.enter_context(EthereumLedger(network, None)))
    return CheckResult("chain", True, f"id {network.chain_id}, block {ledgers[0].newest}, Catalog {network.catalog}")


def _check_clock(home: SiteFolder, ledger: EthereumLedger) -> CheckResult:
    skew = time.time() - ledger.block_time
    cure = (
        "Set this machine's clock (NTP). If it is right, the chain has made no block for that long: do its sealers run?"
    )
    # A chain that makes blocks on demand only stands still at rest: its age says nothing, a clock behind it does.
    # A chain that sleeps has a heartbeat, and may be as old as that.
    oldest = MAX_SLEEP if home.config.chain.sleep else MAX_CLOCK_SKEW
    late = skew > oldest and ledger.newest > 0 and not ledger.mines_at_once
    return CheckResult("clock", skew > -MAX_CLOCK_SKEW and not late, f"{skew:+.0f} s against the newest block", cure)


def _check_sealer(home: SiteFolder, ledger: EthereumLedger) -> CheckResult:
    """Whether the daemon can drive the sealer, and no transaction waits on a chain that stands still."""
    pool, mining = ask_all(home.ipc, [("txpool_status", ()), ("eth_mining", ())])
    pending = int(str(pool["pending"]), 16)
    cure = "Transactions wait and no block comes: do a majority of the sites' chain nodes and daemons run?"
    still = pending > 0 and time.time() - ledger.block_time > MAX_CLOCK_SKEW
    return CheckResult("sealer", not still, f"{'awake' if mining else 'asleep'}, {pending} transactions wait", cure)


def _check_finality(home: SiteFolder, ledger: EthereumLedger) -> CheckResult:
    """Whether a result counts only once its blocks cannot be replaced any more."""
    waits, needed = home.config.chain.confirmations, ledger.final_after
    cure = f"Set confirmations = {needed} under [chain] in node.toml: blocks with fewer on them may be replaced yet."
    return CheckResult("finality", waits >= needed, f"results wait for {waits} blocks, {needed} are needed", cure)


def _check_peers(ledger: EthereumLedger) -> CheckResult:
    if ledger.mines_at_once:
        return CheckResult("peers", None, "a development chain of one process")
    count = ledger.peers
    if count is None:
        return CheckResult(
            "peers", None, "the chain node does not report them at this address (Geth's port for the engine)"
        )
    return CheckResult(
        "peers", count > 0, str(count), "Give the chain node the peers of peers.json, and open its port."
    )


def examine_seat(home: SiteFolder, keys: SiteKeys, ledger: Ledger) -> CheckResult:
    """Whether the Catalog lists this site with the keys that are here."""
    name = home.config.site
    seat = next((s for s in ledger.sites() if s.name == name), None)
    if seat is None:
        cure = f"The Catalog has no site {name}: send card.json to the sites, who vote with `coterie site admit`."
        return CheckResult("seat", False, "none", cure)
    if not seat.active:
        return CheckResult("seat", False, "revoked", f"The sites revoked the seat of {name}. {REVOKED}")
    if (seat.address, seat.sealing) != (keys.address, keys.sealing):
        cure = (
            f"The Catalog lists other keys for {name} than those here: {seat.address}. Restore the keys from the copy; "
            "if they are lost, the sites vote with `coterie site recover` on the card.json of new ones."
        )
        return CheckResult("seat", False, seat.address, cure)
    return CheckResult("seat", True, f"{name} is site {seat.id} of {len(ledger.sites())}")


def _check_studies(home: SiteFolder, ledger: EthereumLedger) -> Iterator[CheckResult]:
    """The rows against each study that this site's people approved or propose and that has not ended."""
    decisions = DecisionFolder(home.root / "decisions")
    listed = {ledger.view(number).terms.hash for number in ledger.studies()}
    for proposed in decisions.proposals():
        if proposed not in listed:
            yield _run_check("rows of a proposal", lambda study=proposed: _check_proposal(home, decisions, study))  # type: ignore[misc]
    for number in ledger.studies():
        view = ledger.view(number)
        decision = decisions.latest(view.terms.hash)
        if decision is None or not decision.takes_part or view.state in (State.COMPLETED, State.ABORTED):
            continue

        def look(number: int = number, data: str = decision.data) -> CheckResult:
            study = study_on_ledger(ledger.view(number), home.blobs())
            return _check_rows(home, study, data, f"rows of study {number}")

        yield _run_check(f"rows of study {number}", look)


def _check_proposal(home: SiteFolder, decisions: DecisionFolder, proposed: bytes) -> CheckResult:
    decision, study = decisions.latest(proposed), study_of(decisions.read_document(proposed), "The proposed study")
    return _check_rows(home, study, decision.data if decision else "", "rows of a proposal")


def _check_rows(home: SiteFolder, study: Study, data: str, check: str) -> CheckResult:
    """Whether this site could take part: its seat in the study, its policy, its address for peers, its rows."""
    if home.config.site not in study.sites:
        raise ConfigError(
            "CO-F302",
            f"{home.config.site!r} takes no part in study {study.name!r}."
            " Check the name of the study, or ask its proposer.",
        )
    home.config.policy.check(study, home.config.site)
    home.config.talk.check(study, home.config.site)
    address = home.locate_rows(data)
    rows = load_site(address, study, home.config.site, home.exclude)
    return CheckResult(check, True, f"{address.name}: {rows.n if rows else 0} rows")
