"""A Clique chain of this machine: one sealing Geth per site, each with keys of its own, static peers only."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from coterie_chain.errors import LedgerUnreachable, StoreFault
from coterie_chain.ethereum.rpc import Rpc, read_newest_block
from coterie_chain.network import genesis
from coterie_chain.network.growth import PATIENCE_SECONDS, GrowthWatch
from coterie_chain.network.peers import ALL_TO_ALL, list_neighbours
from coterie_chain.network.programs.executables import GETH
from coterie_chain.network.programs.geth import (
    MAX_IPC_PATH,
    Geth,
    build_geth_arguments,
    build_identity_arguments,
    build_init_arguments,
    build_sealing_arguments,
    build_socket_arguments,
)
from coterie_chain.network.programs.ipc import ask
from coterie_chain.network.programs.ports import LOOPBACK, read_ports, reserve_for_all, reserve_ports
from coterie_chain.network.programs.service import Service, explain_early_end, scale_wait
from coterie_chain.network.sealer_turns import PROVEN_SEALERS

PERIOD, SLEEPING_PERIOD = 2, 1
_READY_TIMEOUT = 60.0
_GROWTH_TIMEOUT = 150.0
_INIT_TIMEOUT = 60.0
_PORT_NAMES = ("p2p", "rpc")


def check_sleep(sockets: Sequence[Path]) -> None:
    """StoreFault unless the daemons can drive the sealers of these sockets, and their number is a proven one."""
    longest = max(len(str(ipc)) for ipc in sockets)
    if len(sockets) == PROVEN_SEALERS and longest <= MAX_IPC_PATH:
        return
    message = (
        f"A chain that sleeps needs {PROVEN_SEALERS} sealers and sockets with paths of at most {MAX_IPC_PATH} "
        f"letters; there are {len(sockets)} sealers, and the longest path has {longest} letters"
    )
    raise StoreFault("CO-C338", f"{message}. Leave out --sleep, or use a shorter folder.")


class CliqueChain:
    """The chain of a development network; a Launcher of `devnet`. `period` between blocks in seconds.

    With `sleep` the sites' daemons start and stop the sealers (sealer_driver.py).
    """

    note = "A development network: every site's Geth and keys are on this machine."

    def __init__(self, root: Path, sites: Sequence[str], period: int | None = None, sleep: bool = False) -> None:
        self._genesis = root / "chain" / "genesis.json"
        self._nodes = {name: Geth(root / "sites" / name / "geth") for name in sites}
        self._period = period or (SLEEPING_PERIOD if sleep else PERIOD)
        self._sleep = sleep
        self.confirmations = len(sites) // 2 + 1

    def prepare(self, funded: Sequence[str]) -> None:
        """Make keys and the genesis, and write it into each site's data directory."""
        if self._sleep:
            check_sleep([node.ipc for node in self._nodes.values()])
        program = GETH.find()
        for node in self._nodes.values():
            node.create()
        sealers = [node.sealer for node in self._nodes.values()]
        # A sealer of a sleeping chain pays for its nudges.
        funded = [*funded, *(sealers if self._sleep else ())]
        self._genesis.parent.mkdir(parents=True, exist_ok=True)
        self._genesis.write_text(
            json.dumps(genesis.build_clique_genesis(sealers, funded, period=self._period), indent=1) + "\n"
        )
        for node in self._nodes.values():
            _initialise(program, node, self._genesis)

    def start(self) -> None:
        """Start every Geth that does not run; returns when all of them follow a growing chain.

        If no block comes although all run, one Geth after the other is started again.
        """
        starts_all = not any(service.pid for service in self.services().values())
        if starts_all:
            self._assign_ports()
        for service in self.services().values():
            service.start()
        within = scale_wait(_READY_TIMEOUT, len(self._nodes))
        for site, service in self.services().items():
            await_block(service, self.url(site), within=within)
        # While daemons drive the sealers of a chain that sleeps, no block needs to come.
        if starts_all:
            self._await_growth()

    def stop(self) -> None:
        """End every Geth, with time to write its state."""
        for service in self.services().values():
            service.stop()

    def services(self) -> dict[str, Service]:
        """Each site's Geth."""
        recommit = 1 if len(self._nodes) <= ALL_TO_ALL else max(1, self._period // 2)
        return {name: _build_service(node, recommit) for name, node in self._nodes.items()}

    def url(self, site: str) -> str:
        """Address of a site's own node, with the file that opens it."""
        node = self._nodes[site]
        return f"http://{LOOPBACK}:{_read_ports(node).get('rpc', 0)}?jwt_file={node.jwt.absolute()}"

    def facts(self, site: str) -> dict[str, int]:
        """The newest block, and the peers that the administrator's socket lists."""
        facts = read_newest_block(self.url(site))
        with suppress(LedgerUnreachable):
            facts["peers"] = int(ask(self._nodes[site].ipc, "net_peerCount"), 16)
        return facts

    @contextmanager
    def open_reader(self) -> Iterator[str]:
        """Address of a node that runs; if none does, of one on a copy, which seals nothing and has no peers."""
        for site, service in self.services().items():
            if service.pid is not None:
                yield self.url(site)
                return
        with _run_copy(next(iter(self._nodes.values()))) as url:
            yield url

    def _await_growth(self) -> None:
        """Wait until every node has as many blocks more as no sealer can make without the others."""
        within = scale_wait(_GROWTH_TIMEOUT, len(self._nodes))
        heads, deadline = self._read_heads(), time.monotonic() + within
        # Out of turn, a sealer waits for up to half a second for each sealer of a majority (Geth: wiggleTime).
        watch = GrowthWatch(tuple(self._nodes), PATIENCE_SECONDS + self.confirmations / 2)
        goal = max(heads.values()) + self.confirmations
        while min(heads.values()) < goal:
            if time.monotonic() > deadline:
                message = f"No block {goal} came within {within:g} s after the start; the newest are {heads}"
                raise LedgerUnreachable("CO-C304", f"{message}. Read the logs of the sites' Geths.")
            again = watch.choose_restart(heads, time.monotonic())
            if again is not None:
                service = self.services()[again]
                service.stop()
                service.start()
                await_block(service, self.url(again))
            time.sleep(0.05)
            heads = self._read_heads()

    def _read_heads(self) -> dict[str, int]:
        return {site: read_newest_block(self.url(site)).get("block", 0) for site in self._nodes}

    def _assign_ports(self) -> None:
        files = [node.folder / "ports.json" for node in self._nodes.values()]
        ports = dict(zip(self._nodes, reserve_for_all(files, _PORT_NAMES), strict=True))
        enodes = [node.enode(LOOPBACK, ports[name]["p2p"]) for name, node in self._nodes.items()]
        for place, (name, node) in enumerate(self._nodes.items()):
            peers = [enodes[other] for other in list_neighbours(place, len(enodes))]
            node.listen(LOOPBACK, ports[name]["p2p"], peers)


def await_block(service: Service, url: str, number: int = 1, within: float = _READY_TIMEOUT) -> None:
    """Wait until a node has a block; the fault names the program and the end of its log."""
    deadline = time.monotonic() + within
    with Rpc(url) as rpc:
        while True:
            try:
                if rpc.call_quantity("eth_blockNumber") >= number:
                    return
            except LedgerUnreachable:
                if service.pid is None:
                    raise explain_early_end(service) from None
            if time.monotonic() > deadline:
                raise explain_early_end(service)
            time.sleep(0.05)


def _initialise(program: Path, node: Geth, file: Path) -> None:
    command: list[str | Path] = [program, *build_init_arguments(node.data, file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INIT_TIMEOUT, check=False)
    if done.returncode != 0:
        raise StoreFault("CO-C336", f"geth does not take the genesis {file}: {done.stderr[-500:].strip()}")


def _read_ports(node: Geth) -> dict[str, int]:
    return read_ports(node.folder / "ports.json")


def _build_arguments(node: Geth, port: int) -> tuple[str, ...]:
    options = build_geth_arguments(
        data=node.data,
        config=node.config,
        jwt=node.jwt,
        chain_id=genesis.CHAIN_ID,
        rpc=(LOOPBACK, port),
        names=f"localhost,{LOOPBACK}",
    )
    return (*options, "--netrestrict", "127.0.0.0/8")


def _build_service(node: Geth, recommit: int) -> Service:
    own = build_identity_arguments(node.nodekey)
    options = (*_build_arguments(node, _read_ports(node).get("rpc", 0)), *own, *build_socket_arguments(node.ipc))
    has_key = node.keystore.is_dir()
    sealer = build_sealing_arguments(node.sealer, node.passphrase, node.keystore, recommit) if has_key else ()
    return Service("geth", node.folder, GETH.find, (*options, *sealer))


@contextmanager
def _run_copy(node: Geth) -> Iterator[str]:
    """A node on a copy of another's chain, without its keys and peers."""
    scratch = Path(tempfile.mkdtemp(prefix="coterie-geth-"))
    try:
        copy = Geth(scratch / "geth")
        shutil.copytree(node.data / "geth", copy.data / "geth", ignore=shutil.ignore_patterns("LOCK"))
        shutil.copy(node.jwt, copy.jwt)
        port = reserve_ports(copy.folder / "ports.json", _PORT_NAMES)
        copy.listen(LOOPBACK, port["p2p"], ())
        service = Service("geth", copy.folder, GETH.find, (*_build_arguments(copy, port["rpc"]), "--ipcdisable"))
        url = f"http://{LOOPBACK}:{port['rpc']}?jwt_file={copy.jwt}"
        try:
            service.start()
            await_block(service, url, 0)
            yield url
        finally:
            service.stop()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
