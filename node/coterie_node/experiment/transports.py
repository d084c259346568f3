"""The same study over other ledgers and stores: a chain of this machine with a folder, and the twin on a broker.

Each site is a thread with its own handles and keys. Learner, runner, payloads and their bytes are those of a node; what
differs is what carries them. The network is a new one for each study.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coterie_chain.broker.broker_blobs import BrokerBlobs
from coterie_chain.broker.broker_ledger import BrokerLedger
from coterie_chain.broker.message_log import MemoryBroker, OpenLog
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import Ledger, SiteEntry
from coterie_chain.network.programs.brokers import run_rabbitmq, run_redis_server
from coterie_chain.store.protocol import BlobStore, FolderBlobs
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Channel, Machine
from coterie_learners.core.registry import learner_of
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Data
from coterie_node.errors import ConfigError, CoterieError, DeadlinePassed
from coterie_node.release.gate import Gate
from coterie_node.run.codec import PayloadCodec
from coterie_node.run.runner import Runner
from coterie_node.run.simulate import site_of
from coterie_node.run.study_files import study_terms
from coterie_node.run.supervisor import Supervisor

if TYPE_CHECKING:
    from coterie_node.experiment.clique_network import CliqueNetworks

STUDY_DEADLINE = 600.0
POLL = 0.5


@dataclass(frozen=True)
class Handles:
    """Each site's own ledger and store."""

    ledgers: Mapping[str, Ledger]
    stores: Mapping[str, BlobStore]


# A new network of sites with these keys.
Transport = Callable[[Mapping[str, SiteKeys]], AbstractContextManager[Handles]]


class ComputingMachine(Machine):
    """A machine whose every post of its own rows in a round takes so much longer, as with more rows."""

    seconds = 0.0

    def draft(self, parties: tuple[str, ...], attempt: int, channel: Channel | None = None) -> Payload:
        """The post of the open step, after the time that more rows would take."""
        if self.seconds and self.awaits is not None and self.awaits.who == "each" and self.awaits.topic[-1].isdigit():
            time.sleep(self.seconds)
        return super().draft(parties, attempt, channel)


@dataclass
class Conducted:
    """Runners by site, the errors that ended some, and the bytes of all payloads."""

    runners: dict[str, Runner] = field(default_factory=dict)
    errors: list[Exception] = field(default_factory=list)

    @property
    def payload_bytes(self) -> int:
        """The bytes of all sites' payloads as they are stored."""
        return sum(runner.payload_bytes for runner in self.runners.values())


@contextmanager
def open_transport(text: str) -> Iterator[Transport]:
    """memory, anvil (with a folder), clique (with Kubo), redis or amqp, all on this machine, or a broker's address.

    ConfigError (CO-F362) for anything else; LedgerUnreachable (CO-C363) if there is no such broker on this machine.
    """
    with ExitStack() as stack:
        if text == "memory":
            yield partial(_connect_broker, MemoryBroker().open, _forget)
        elif text == "anvil":
            yield _connect_anvil
        elif text == "clique":
            from coterie_node.experiment.clique_network import CliqueNetworks

            yield partial(_connect_clique, CliqueNetworks(stack))
        else:
            servers = {"redis": run_redis_server, "amqp": run_rabbitmq}
            yield _find_broker(stack.enter_context(servers[text]()) if text in servers else text)


def _find_broker(text: str) -> Transport:
    """The twin on the broker at an address."""
    address = urlsplit(text)
    try:
        host, port = address.hostname, address.port
    except ValueError:
        host = port = None
    if address.scheme not in ("redis", "amqp") or not host or not port:
        raise ConfigError(
            "CO-F362",
            f"{text!r:.80} names no ledger to time. Write anvil, clique, redis, amqp, redis://HOST:PORT or "
            "amqp://HOST:PORT.",
        )
    if address.scheme == "redis":
        from coterie_chain.broker.redis_log import RedisBroker

        redis = RedisBroker(host, port)
        return partial(_connect_broker, redis.open, redis.delete)
    from coterie_chain.broker.amqp_log import AmqpBroker

    rabbit = AmqpBroker(host, port)
    return partial(_connect_broker, rabbit.open, rabbit.delete)


def conduct_over(
    transport: Transport, study: Study, data: Mapping[str, Data], gated: bool, compute: float = 0.0
) -> tuple[Mapping[str, Fit | None], float]:
    """Run a study over a transport; the results by site, and the seconds from the last joining to the last result.

    `compute`: seconds that each site's own work takes longer in each round.
    """
    conducted, seconds = conduct_runners(transport, study, data, gated, compute)
    return {name: runner.machine.result for name, runner in conducted.runners.items()}, seconds


def conduct_runners(
    transport: Transport, study: Study, data: Mapping[str, Data], gated: bool, compute: float = 0.0
) -> tuple[Conducted, float]:
    """The same, with the runners themselves."""
    keys = {name: _make_keys(name) for name in study.sites}
    with transport(keys) as handles:
        first, *others = study.sites
        number = handles.ledgers[first].propose(study_terms(study))
        for name in others:
            _await_study(handles.ledgers[name], name, number)
            handles.ledgers[name].join(number, study.hash)
        start, conducted = time.perf_counter(), Conducted()
        make = partial(_make_runner, study, data, keys, handles, number, gated, compute)
        crew = [
            threading.Thread(target=_attend, args=(conducted, name, make, handles.ledgers[name]), daemon=True)
            for name in study.sites
        ]
        _await_all(crew, study.sites)
        seconds = time.perf_counter() - start
    if conducted.errors:
        raise conducted.errors[0]
    return conducted, seconds


@cache
def _make_keys(name: str) -> SiteKeys:
    """A site's keys as long as this process lasts: a chain that runs on has their accounts."""
    return SiteKeys.of(secrets.token_bytes(32), secrets.token_bytes(32))


def _await_study(ledger: Ledger, name: str, number: int) -> None:
    """Return when a site's own node knows the study: its block reaches one node after the other."""
    deadline = time.monotonic() + STUDY_DEADLINE
    while number not in ledger.studies():
        if time.monotonic() > deadline:
            raise DeadlinePassed(
                "CO-R204",
                f"{name}'s node does not know study {number} after {STUDY_DEADLINE:.0f} s. Look at its transport.",
            )
        ledger.wait(POLL)


def _await_all(crew: Sequence[threading.Thread], names: Sequence[str]) -> None:
    for thread in crew:
        thread.start()
    deadline = time.monotonic() + STUDY_DEADLINE
    for thread, name in zip(crew, names, strict=True):
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            raise DeadlinePassed(
                "CO-R204", f"{name} has not finished within {STUDY_DEADLINE:.0f} s. Look at its transport."
            )


def _make_runner(
    study: Study,
    data: Mapping[str, Data],
    keys: Mapping[str, SiteKeys],
    handles: Handles,
    number: int,
    gated: bool,
    compute: float,
    name: str,
) -> Runner:
    ledger, gate = handles.ledgers[name], Gate(study) if gated else None
    entries = ledger.sites()
    site = site_of(study, name, data.get(name), keys[name], entries, str(number))
    machine = ComputingMachine(learner_of(study).script, site if gate is None else gate.seat(site))
    machine.seconds = compute
    codec = PayloadCodec(study, name, keys[name], {e.name: e.sealing for e in entries})
    return Runner(machine, ledger, handles.stores[name], number, codec, gate=gate)


def _attend(conducted: Conducted, name: str, make: Callable[[str], Runner], ledger: Ledger) -> None:
    """One site's part, from its first turn to its last."""
    attendance = Supervisor(partial(make, name))
    try:
        while not attendance.done and not conducted.errors:
            if not attendance.tick():
                attendance.pause(ledger.wait, POLL)
    except CoterieError as error:
        conducted.errors.append(error)
    if attendance.runner is not None:
        conducted.runners[name] = attendance.runner


def _list_entries(keys: Mapping[str, SiteKeys]) -> list[SiteEntry]:
    return [SiteEntry(k, name, own.address, own.sealing) for k, (name, own) in enumerate(keys.items(), 1)]


@contextmanager
def _connect_broker(
    open_log: OpenLog, delete: Callable[[str], None], keys: Mapping[str, SiteKeys]
) -> Iterator[Handles]:
    """The twin, on two new logs of a broker: moves, and blocks."""
    moves, blocks = (f"coterie-{secrets.token_hex(8)}-{kind}" for kind in ("moves", "blocks"))
    entries = _list_entries(keys)
    with ExitStack() as stack:
        for name in (moves, blocks):
            stack.callback(delete, name)
        ledgers = {name: BrokerLedger(open_log(moves), entries, own.address) for name, own in keys.items()}
        stores = {name: BrokerBlobs(open_log(blocks)) for name in keys}
        for name in keys:
            stack.callback(ledgers[name].close)
            stack.callback(stores[name].close)
        yield Handles(ledgers, stores)


@contextmanager
def _connect_anvil(keys: Mapping[str, SiteKeys]) -> Iterator[Handles]:
    """A new chain of one process, and a folder for all."""
    from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
    from coterie_chain.network.deploy import deploy
    from coterie_chain.network.devnet import Anvil

    with ExitStack() as stack:
        anvil = stack.enter_context(Anvil())
        folder = stack.enter_context(TemporaryDirectory())
        network = deploy(anvil.url, _list_entries(keys))
        ledgers = {name: EthereumLedger(network, own.signer) for name, own in keys.items()}
        for ledger in ledgers.values():
            stack.callback(ledger.close)
        yield Handles(ledgers, {name: FolderBlobs(folder) for name in keys})


@contextmanager
def _connect_clique(networks: CliqueNetworks, keys: Mapping[str, SiteKeys]) -> Iterator[Handles]:
    """A new Catalog on a chain of one sealing Geth for each site, with a Kubo each."""
    with networks.connect(keys) as (ledgers, stores):
        yield Handles(ledgers, stores)


def _forget(_: str) -> None:
    """A log in memory ends with its broker."""
