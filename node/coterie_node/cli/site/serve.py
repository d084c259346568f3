"""`coterie serve`: run a site's daemon until a signal stops it."""

from __future__ import annotations

import gc
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from coterie_chain.errors import ChainError, StoreFault
from coterie_chain.ethereum.entries.entry_file import EntryFile
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import Network
from coterie_chain.keys.journal import SqliteJournal
from coterie_chain.keys.private_files import read_private
from coterie_chain.keys.site_keys import SiteKeys, read_passphrase
from coterie_chain.ledger.protocol import Ledger
from coterie_chain.network.gossip import KuboGossip
from coterie_chain.network.peers import read_chain_peers
from coterie_chain.network.programs.ipc import ask_all
from coterie_chain.network.seat_reader import SeatReader
from coterie_chain.store.kubo import KuboBlobs
from coterie_chain.store.pinning import PinningStore
from coterie_chain.store.protocol import BlobStore
from coterie_node.analysis.gain import describe_gain
from coterie_node.cli.options import NodeOption, open_node_folder
from coterie_node.errors import ConfigError
from coterie_node.network.backup import settle_restoration
from coterie_node.network.checks.ledger_checks import MAX_CLOCK_SKEW, MAX_SLEEP
from coterie_node.network.checks.machine_checks import PROBE
from coterie_node.network.founding import find_period
from coterie_node.network.heartbeats.heartbeat import HeartbeatLog
from coterie_node.network.heartbeats.pulse import Members, Pulse
from coterie_node.network.membership.sealer_votes import SealerVote, SealerVotes
from coterie_node.network.systemd_units import daemon_unit
from coterie_node.notices.events import Notice
from coterie_node.peers.address import address_of
from coterie_node.peers.interactive_session import Exchange
from coterie_node.peers.tls import TlsExchange
from coterie_node.site.config import CONFIG, LOOPBACK_HOSTS
from coterie_node.site.daemon import Daemon, NodeServices
from coterie_node.site.folder import SiteFolder
from coterie_node.site.watch.api import HttpApi
from coterie_node.site.watch.health import LATE_PERIODS
from coterie_node.site.watch.log import EventLog
from coterie_node.web.page_process import run_page

# Between two looks at a chain whose blocks take their time, while no study needs this site.
REST_SECONDS = 1.0
# A command copies the journal and the privacy log in a few seconds.
JOURNAL_SECONDS, _PAUSE_SECONDS = 15.0, 0.1
# Longer than an answer of the chain node can take.
SEALER_JOIN_SECONDS = 15.0
NO_SWARM = "this site's store is no Kubo, so there is no swarm for heartbeats"


def serve_command(
    node: NodeOption = None,
    unit: Annotated[bool, typer.Option("--print-unit", help="Print a systemd unit for this node, and end.")] = False,
) -> None:
    """Run this site's node: take part in what its people approved, until SIGTERM or Ctrl-C.

    Logs are JSON lines on standard error. The step at hand is finished before it stops; a second signal ends it
    at once, which loses nothing either.
    """
    home = open_node_folder(node)
    if unit:
        print(daemon_unit(home.root), end="")
        return
    log, stop = EventLog(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop(stop))
    with open_daemon(home, log) as daemon:
        log.tell("serving", site=home.config.site, version=version("coterie"))
        # What the start has made stays for good: to look for garbage in it would only take time.
        gc.collect()
        gc.freeze()
        daemon.run(stop)
        log.tell("stopped", site=home.config.site)


def _open_ledger(
    home: SiteFolder, network: Network, keys: SiteKeys, journal: SqliteJournal, history: EntryFile
) -> EthereumLedger:
    chain = home.config.chain
    return EthereumLedger(
        network, keys.signer, journal, sleeps=chain.sleep, max_gas_price=chain.max_gas_price, log=history
    )


@contextmanager
def open_daemon(home: SiteFolder, log: EventLog) -> Iterator[Daemon]:
    """A site's daemon with everything that it holds, and its API."""
    home.persons.note_settings((home.root / CONFIG).read_bytes(), int(time.time()))
    with ExitStack() as stack:
        journal = stack.enter_context(await_journal(home))
        keys = SiteKeys.load(home.keys, read_passphrase(home.passphrase))
        network = home.network()
        history = EntryFile(home.history, network.scope)
        stack.callback(history.close)
        ledger = stack.enter_context(_open_ledger(home, network, keys, journal, history))
        blobs = home.blobs()
        check_store(blobs, log)
        services = NodeServices(
            home=home,
            keys=keys,
            network=network,
            ledger=ledger,
            blobs=PinningStore(blobs),
            journal=journal,
            ahead=ledger.pipelined if home.config.chain.overlap == "auto" else None,
            exchange=_exchange(stack, home, keys, ledger, network, log),
            newest=lambda: ledger.newest,
            peers=lambda: count_peers(home.ipc, ledger),
            swarm_peers=lambda: len(blobs.list_peers()) if isinstance(blobs, KuboBlobs) else math.nan,
            block_age=lambda: 0.0 if ledger.mines_at_once else max(time.time() - ledger.block_time, 0.0),
            period=0.0 if home.config.chain.sleep else find_period(home.root),
            chain_is_well=drive_sealer(stack, home, log),
            log=log,
            describe_gain=describe_gain,
            observe=open_notices(stack, home, log),
            rest=0.0 if ledger.mines_at_once else REST_SECONDS,
            # A study's objects refer to each other, and Python would look for such garbage after thousands of studies.
            tidy=gc.collect,
            settle=partial(_settle, home, ledger, journal, log),
        )
        _run_beside(stack, SealerVotes(home.root, partial(ask_all, home.ipc), partial(_note_sealer, log)).run)
        daemon = Daemon(services)
        pulse = _start_pulse(stack, home, keys, network, blobs)
        stack.enter_context(_start_api(home, daemon, log, pulse))
        if home.config.web is not None:
            stack.enter_context(run_page(home.root, lambda text: log.tell(text, level="warning")))
        yield daemon


def await_journal(home: SiteFolder) -> SqliteJournal:
    """This site's journal, which a command holds for a moment, as a backup or `coterie doctor` does.

    StoreFault (CO-C320) if another process keeps it: a second daemon does not let it go.
    """
    deadline = time.monotonic() + JOURNAL_SECONDS
    while True:
        try:
            return SqliteJournal(home.journal)
        except StoreFault as error:
            if error.code != "CO-C320" or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_SECONDS)


def _settle(home: SiteFolder, ledger: EthereumLedger, journal: SqliteJournal, log: EventLog) -> None:
    """Compare a restored site with the ledger, once its chain node has caught up; LedgerUnreachable until then."""

    def read_age() -> float:
        return 0.0 if ledger.mines_at_once else time.time() - ledger.block_time

    oldest = MAX_SLEEP if home.config.chain.sleep else max(MAX_CLOCK_SKEW, LATE_PERIODS * find_period(home.root))
    if unknown := settle_restoration(home, ledger, journal.vault, read_age, oldest):
        log.tell("restored from a backup", level="warning", records=unknown)


def drive_sealer(stack: ExitStack, home: SiteFolder, log: EventLog) -> Callable[[], bool]:
    """Look after this site's sealer beside the daemon; returns whether the chain is well.

    The sealer of a chain that sleeps is started and stopped. Any other one greets its peers again when no block comes,
    if the daemon may open its socket.
    """
    from coterie_chain.network.greeting import StallWatch
    from coterie_chain.network.programs.geth import read_static_nodes
    from coterie_chain.network.sealer_driver import SealerDriver, open_socket

    ask, peers = open_socket(home.ipc), read_static_nodes(home.ipc.parent / "config.toml")
    if not home.config.chain.sleep:
        if home.ipc.is_socket():
            _run_beside(stack, StallWatch(ask, peers=peers).run)
        return lambda: True
    driver = SealerDriver(
        ask,
        confirmations=home.config.chain.confirmations,
        peers=peers,
        notice=lambda error: log.fault("sealer cannot be driven", error),
    )
    _run_beside(stack, driver.run)
    log.tell("sealer is driven")
    return lambda: driver.well


def _note_sealer(log: EventLog, vote: SealerVote) -> None:
    log.tell("sealer vote passed", name=vote.site, state="makes blocks" if vote.seals else "makes no blocks")


def _run_beside(stack: ExitStack, run: Callable[[threading.Event], None], within: float = SEALER_JOIN_SECONDS) -> None:
    """Run a part of the daemon in a thread of its own until the stack ends, which waits so many seconds for it."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,), name="sealer", daemon=True)

    def end() -> None:
        stop.set()
        thread.join(within)

    thread.start()
    stack.callback(end)


def open_notices(stack: ExitStack, home: SiteFolder, log: EventLog) -> Callable[[Sequence[Notice]], object] | None:
    """Send notices in a thread of their own, if node.toml names anybody who gets them."""
    part = home.config.notices
    if not part.wanted:
        return None
    from coterie_node.notices.notifier import Notifier
    from coterie_node.notices.outbox import OUTBOX, Outbox
    from coterie_node.notices.ways import open_senders

    def report(way: str, error: Exception | None) -> None:
        if error is None:
            log.tell("notices are sent again", name=way)
        else:
            log.fault("notices cannot be sent", error, name=way)

    outbox = Outbox(home.root / OUTBOX)
    stack.callback(outbox.close)
    return stack.enter_context(Notifier(part, outbox, open_senders(home.name, part, home.root), report=report)).observe


def check_store(blobs: BlobStore, log: EventLog) -> None:
    """Log at the start what is wrong with the store; a study would show it only later."""
    try:
        blobs.put(PROBE)
    except ChainError as error:
        log.fault("store cannot be used", error)


def count_peers(socket_path: Path, ledger: EthereumLedger) -> float:
    """For the metrics: by the administrator's socket where there is one, else by the chain node's port.

    No number where the port does not tell, as Geth's authenticated one; 0 is an alarm.
    """
    if socket_path.is_socket():
        return len(read_chain_peers(socket_path).connected)
    count = ledger.peers
    return math.nan if count is None else count


def _exchange(
    stack: ExitStack, home: SiteFolder, keys: SiteKeys, ledger: Ledger, network: Network, log: EventLog
) -> Exchange | None:
    """The transport of this node in interactive steps, if node.toml has one."""
    part, me = home.config.talk, home.config.site
    if part.listen is None:
        return None

    def secret(peer: str) -> bytes:
        listed = {entry.name: entry.sealing for entry in ledger.sites()}
        if peer not in listed:
            raise ConfigError(
                "CO-F342",
                f"[talk.peers] names {peer}, which is not a site of this network. Correct the name in node.toml.",
            )
        return keys.derive_shared_secret(listed[peer])

    texts = {**part.peers, me: part.listen}
    exchange = TlsExchange(me, {name: address_of(text) for name, text in texts.items()}, secret, network.scope)
    stack.callback(exchange.close)
    log.tell("talk", address=exchange.addresses[me][0], port=exchange.addresses[me][1])
    return exchange


def _start_pulse(
    stack: ExitStack, home: SiteFolder, keys: SiteKeys, network: Network, blobs: BlobStore
) -> Callable[[], object]:
    """Beat in the swarm beside the daemon, where there is a swarm; returns what the API shows of it."""
    beats = HeartbeatLog(network.scope)
    if not isinstance(blobs, KuboBlobs):
        return lambda: {"network": network.scope, "fault": NO_SWARM, "heartbeats": [], "refused": []}
    # A ledger of its own would keep the whole history in memory a second time.
    reader = stack.enter_context(SeatReader(network))
    gossip = KuboGossip(blobs, f"coterie/1 heartbeats {network.scope}")
    pulse = Pulse(home, keys, gossip, beats, lambda: Members(reader.sites(), reader.newest))
    # It listens for half a minute at a time, and holds nothing that must be put down.
    _run_beside(stack, pulse.run, within=0.0)
    return pulse.as_dict


def _start_api(home: SiteFolder, daemon: Daemon, log: EventLog, heartbeats: Callable[[], object]) -> HttpApi:
    part = home.config.api
    token = read_private(home.path(part.token_file), "the API's token file").strip()
    api = HttpApi(
        part.host,
        part.port,
        token,
        health=lambda: daemon.health,
        metrics=daemon.services.metrics.text,
        status=lambda: daemon.status,
        heartbeats=heartbeats,
    )
    if part.host not in LOOPBACK_HOSTS:
        log.tell("api is open to other machines", level="warning", address=part.host)
    log.tell("api", address=part.host, port=api.port)
    return api


def _stop(stop: threading.Event) -> None:
    if stop.is_set():
        raise KeyboardInterrupt
    stop.set()
