"""Measure the node's page: the time of a large run's page, the delay after a block, the daemon's step beside viewers.

python benchmarks/page.py render [SITES ROUNDS]   seconds to render a run's page at the server, median and worst of 20
python benchmarks/page.py update [VIEWERS]        seconds from an entry on the ledger to the last viewer's live part
python benchmarks/page.py cost [VIEWERS STUDIES]  CPU seconds of the page's process and bytes to a viewer for each block
python benchmarks/page.py beside [PAIRS VIEWERS]  a study's seconds on three nodes with and without viewers
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import numpy as np
import uvicorn
from three_sites import SITES, decide, make_study, write_rows

from coterie_chain.ledger.memory import MemoryChain
from coterie_chain.ledger.protocol import Post, SiteEntry, Terms
from coterie_chain.store.protocol import MemoryBlobs
from coterie_learners.core import payload as pay
from coterie_node.cli.site.init import init_command
from coterie_node.network.devnet import start_network, start_programs, stop_programs
from coterie_node.network.local_nodes import SiteDaemons
from coterie_node.persons.roles import Person, Role
from coterie_node.site.config import WebPart
from coterie_node.site.folder import find_node
from coterie_node.site.run_folder import RunFolder, RunSettings
from coterie_node.web.app import build_app
from coterie_node.web.file_accounts import ACCOUNTS, FileAccounts
from coterie_node.web.live.site_reader import SiteReader
from coterie_node.web.pages.run import render_run
from coterie_node.web.rendering import make_templates
from coterie_node.web.services import PageServices
from coterie_node.web.sessions import MemorySessions

ROLES = frozenset({"read"})
RUNS = 20
ROWS = 200
PASSWORD = "a long password of hers"


class OneAccount:
    """Anybody is the one person of this measurement."""

    def check(self, name: str, password: str, code: str) -> Person | None:
        """The person."""
        return Person(name, name, frozenset(Role))

    def refresh(self, person: Person) -> Person | None:
        """The same person."""
        return person

    def is_empty(self) -> bool:
        """There is one."""
        return False


class LongRun:
    """A study of many sites and rounds in memory, whose records are entered one by one."""

    def __init__(self, sites: int, rounds: int) -> None:
        self.names = tuple(f"site{k:02d}" for k in range(sites))
        entries = [
            SiteEntry(k, name, f"0x{k:040x}", hashlib.sha256(name.encode()).digest())
            for k, name in enumerate(self.names, 1)
        ]
        self.chain, self.blobs, self.blocks = MemoryChain(entries, lambda: int(time.time())), MemoryBlobs(), 0
        self.ledgers = {entry.name: self.chain.ledger(entry.address) for entry in entries}
        self.hash = hashlib.sha256(b"benchmark").digest()
        self.rounds, self.position, self.basis = rounds, 0, self.hash
        terms = Terms(self.hash, self.names, (), ("each", "server"), (), rounds + 1, 3600)
        self.ledgers[self.names[0]].propose(terms)
        for name in self.names[1:]:
            self.ledgers[name].join(1, self.hash)

    def play_round(self, round_: int) -> None:
        """The posts of one round."""
        for name in self.names:
            self.post(name, {"sums": np.arange(8.0)}, f"stats/{round_}")
        self.position += 1
        server = self.ledgers[self.names[0]].view(1).open.posters[0]  # type: ignore[union-attr]
        self.basis = self.post(server, {"gain": np.float64(10.0 ** -(round_ / 4))}, f"model/{round_}")
        self.position += 1
        self.blocks += 1

    def post(self, site: str, payload: dict[str, object], topic: str) -> bytes:
        """One post; returns its digest."""
        stamp = pay.Stamp(self.hash.hex(), topic, site, 0)
        arrays = {name: np.asarray(value) for name, value in payload.items()}
        blob = pay.pack(pay.encode(stamp, arrays), pay.STORED)
        digest = hashlib.sha256(blob).digest()
        cid = self.blobs.put(blob)
        self.ledgers[site].record(Post(1, self.position, 0, cid, digest, len(blob), False, self.basis))
        return digest


@contextmanager
def open_long_run(sites: int, rounds: int) -> Iterator[tuple[LongRun, PageServices]]:
    """The page of the first site of a long run."""
    with tempfile.TemporaryDirectory() as root:
        run = LongRun(sites, rounds)
        home = Path(root) / run.names[0]
        init_command(home, run.names[0], "data.csv", "http://127.0.0.1:1", "folder:store", port=0, light=True)
        reader = SiteReader(find_node(home), run.chain.ledger(None), run.blobs, lambda: run.blocks)
        sessions = MemorySessions(3600.0, 36000.0)
        yield run, PageServices(reader, OneAccount(), sessions, make_templates(), WebPart())


def measure_render(sites: int, rounds: int) -> None:
    """Print how long the changing part of the page takes when one more round has come."""
    with open_long_run(sites, rounds) as (run, services):
        for round_ in range(rounds - 1):
            run.play_round(round_)
        services.site.look()
        render_run(services, ROLES, 1)
        wall, cpu, read = [], [], []
        for _ in range(RUNS):
            run.blocks += 1
            start, busy = time.perf_counter(), time.process_time()
            services.site.look()
            read.append(time.perf_counter() - start)
            start, busy = time.perf_counter(), time.process_time()
            part = render_run(services, ROLES, 1)
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - busy)
        print(f"{sites} sites, {rounds} rounds: {len(part) / 1024:.0f} KiB")
        print(f"follow the ledger  {_describe(read)}")
        print(f"render the part    {_describe(wall)}; CPU {_describe(cpu)}")


def _describe(seconds: list[float]) -> str:
    return f"median {1000 * statistics.median(seconds):.0f} ms, worst {1000 * max(seconds):.0f} ms"


@contextmanager
def serve(app: object, port: int) -> Iterator[None]:
    """A server in a thread."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, timeout_graceful_shutdown=1)  # type: ignore[arg-type]
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield
    server.should_exit = True
    thread.join(10)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def sign_in(client: httpx.AsyncClient) -> None:
    """Get a session."""
    page = (await client.get("/login")).text
    token = page.partition('name="csrf" value="')[2].partition('"')[0]
    await client.post("/login", data={"csrf": token, "name": "ada", "password": PASSWORD, "next": "/"})


async def watch(client: httpx.AsyncClient, path: str, note: object, stop: asyncio.Event) -> None:
    """Read a live part and note when each event comes."""
    async with client.stream("GET", path, timeout=None) as response:
        async for line in response.aiter_lines():
            if line.startswith("event: part"):
                note(time.perf_counter())  # type: ignore[operator]
            if stop.is_set():
                return


async def measure_update(viewers: int) -> None:
    """Print how long after a block the last viewer has the new part."""
    with open_long_run(10, 60) as (run, services), ExitStack() as stack:
        run.play_round(0)
        port = _free_port()
        stack.enter_context(serve(build_app(services), port))
        seen: list[list[float]] = [[] for _ in range(viewers)]
        stop, base = asyncio.Event(), f"http://127.0.0.1:{port}"
        limits = httpx.Limits(max_connections=viewers + 5)
        async with httpx.AsyncClient(base_url=base, limits=limits) as client:
            await sign_in(client)
            tasks = [
                asyncio.create_task(watch(client, "/live/studies/1/run", seen[k].append, stop)) for k in range(viewers)
            ]
            while not all(seen):
                await asyncio.sleep(0.05)
            first, last = [], []
            for round_ in range(1, RUNS + 1):
                await asyncio.sleep(0.5)
                count = [len(events) for events in seen]
                start = time.perf_counter()
                await asyncio.to_thread(run.play_round, round_)
                while any(len(events) <= n for events, n in zip(seen, count, strict=True)):
                    await asyncio.sleep(0.01)
                delays = [events[n] - start for events, n in zip(seen, count, strict=True)]
                first.append(min(delays))
                last.append(max(delays))
            stop.set()
            for task in tasks:
                task.cancel()
        print(f"{viewers} viewers: first viewer {_describe(first)}; last viewer {_describe(last)}")


class CostlyPage:
    """What the parent asks of the process that answers: its CPU, and a round of the run."""

    def __init__(self, run: LongRun) -> None:
        self.run, self.round = run, 0

    def answer(self, asked: str) -> float:
        """The CPU seconds of this process so far, after a round if one is asked for."""
        if asked == "round":
            self.run.play_round(self.round)
            self.round += 1
        return time.process_time()


def serve_costs(line: Connection, port: int, studies: int) -> None:
    """A page in a process of its own, with so many studies besides the one that runs."""
    with open_long_run(10, 60) as (run, services), ExitStack() as stack:
        for number in range(studies):
            hash_ = hashlib.sha256(str(number).encode()).digest()
            terms = Terms(hash_, run.names, (), ("each", "server"), (), 60, 3600)
            proposer = run.ledgers[run.names[0]]
            proposer.decline([proposer.propose(terms)], 0)  # a site has 16 open proposals at most
        stack.enter_context(serve(build_app(services), port))
        page = CostlyPage(run)
        while (asked := line.recv()) != "end":
            line.send(page.answer(asked))


async def measure_costs(line: Connection, port: int, viewers: int) -> tuple[float, float]:
    """CPU seconds of the page's process for a round, and bytes to a viewer, mean of RUNS rounds."""
    received = [0]
    limits = httpx.Limits(max_connections=viewers + 5)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits) as client:
        await sign_in(client)

        async def count_bytes() -> None:
            async with client.stream("GET", "/live/studies", timeout=None) as response:
                async for chunk in response.aiter_bytes():
                    received[0] += len(chunk)

        tasks = [asyncio.create_task(count_bytes()) for _ in range(viewers)]
        await asyncio.sleep(5)
        received[0] = 0
        line.send("cpu")
        begin = line.recv()
        for _ in range(RUNS):
            line.send("round")
            line.recv()
            await asyncio.sleep(1)
        line.send("cpu")
        spent = (line.recv() - begin) / RUNS
        for task in tasks:
            task.cancel()
        return spent, received[0] / RUNS / max(viewers, 1)


def print_costs(viewers: int, studies: int) -> None:
    """Print what a block costs the page's process without viewers and with them."""
    port, (ours, theirs) = _free_port(), Pipe()
    child = Process(target=serve_costs, args=(theirs, port, studies), daemon=True)
    child.start()
    while not _answers(port):
        assert child.is_alive(), "the page does not start"
        time.sleep(0.1)
    for count in (0, viewers):
        spent, sent = asyncio.run(measure_costs(ours, port, count))
        print(f"{count} viewers, {studies} more studies: CPU {1000 * spent:.0f} ms, {sent:.0f} bytes to each, a block")
    ours.send("end")
    child.join(10)


def measure_beside(pairs: int, viewers: int) -> None:
    """Print the ratio of a study's time with viewers to that without, in paired rounds on three nodes."""
    with tempfile.TemporaryDirectory() as root:
        place = RunFolder(Path(root))
        start_network(place, SITES, RunSettings("anvil", "folder"))
        try:
            ports = {site: prepare_site(place, site, k) for k, site in enumerate(place.settings().sites)}
            start_programs(place)
            restart_with_pages(place, ports)
            asyncio.run(time_study(place, "warm-up", ports["north"], 0))
            ratios = [run_pair(place, k, ports["north"], viewers) for k in range(pairs)]
        finally:
            stop_programs(place)
    print(f"{viewers} viewers, {pairs} pairs: median ratio {statistics.median(ratios):.3f}, worst {max(ratios):.3f}")


def prepare_site(place: RunFolder, site: str, seed: int) -> int:
    """Rows and an account for a site; returns the port of its page."""
    root = place.site_root(site)
    write_rows(root / "data.csv", seed, ROWS)
    FileAccounts(root / ACCOUNTS).save("ada", "Ada", tuple(Role), PASSWORD)
    return _free_port()


def restart_with_pages(place: RunFolder, ports: dict[str, int]) -> None:
    """Start the daemons again, each with its page."""
    daemons = SiteDaemons(place)
    daemons.stop()
    for site, port in ports.items():
        path = place.site_root(site) / "node.toml"
        path.write_text(f"{path.read_text()}\n[web]\nport = {port}\n")
    for service in daemons.services().values():
        service.start()
    deadline = time.monotonic() + 120
    for port in ports.values():
        while not _answers(port):
            assert time.monotonic() < deadline, "a page does not start"
            time.sleep(0.2)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/login", timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


def run_pair(place: RunFolder, number: int, port: int, viewers: int) -> float:
    """The time of a study with viewers over that of one without; the order changes from pair to pair."""
    seconds = {}
    for seen in (True, False) if number % 2 else (False, True):
        name = f"pair-{number}-{'seen' if seen else 'alone'}"
        seconds[seen] = asyncio.run(time_study(place, name, port, viewers if seen else 0))
    ratio = seconds[True] / seconds[False]
    print(
        f"pair {number + 1}: {seconds[True]:.2f} s with viewers, {seconds[False]:.2f} s alone, {ratio:.3f}", flush=True
    )
    return ratio


async def time_study(place: RunFolder, name: str, port: int, viewers: int) -> float:
    """Seconds from the approvals of a study to its end."""
    limits = httpx.Limits(max_connections=viewers + 5)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits) as client:
        await sign_in(client)
        stop, events = asyncio.Event(), []  # type: ignore[var-annotated]
        tasks = [asyncio.create_task(watch(client, "/live/studies", events.append, stop)) for _ in range(viewers)]
        while len(events) < viewers:
            await asyncio.sleep(0.1)
        seconds = await asyncio.to_thread(run_study, place, name)
        for task in tasks:
            task.cancel()
        return seconds


def run_study(place: RunFolder, name: str) -> float:
    """Propose and approve a study by decisions, and wait until it is completed."""
    study = make_study(place.root, name)
    start = time.perf_counter()
    decide({site: find_node(place.site_root(site)) for site in place.settings().sites}, study)
    folder = find_node(place.site_root("west"))
    while not any(study.hash.hex() in path.read_text() for path in folder.results.glob("*.json")):
        assert time.perf_counter() - start < 300, "the study did not end"
        time.sleep(0.02)
    return time.perf_counter() - start


def main(kind: str, *numbers: str) -> None:
    """Run one measurement."""
    values = [int(number) for number in numbers]
    if kind == "render":
        measure_render(*(values or (50, 40)))
    elif kind == "update":
        asyncio.run(measure_update(*(values or (100,))))
    elif kind == "cost":
        print_costs(*(values or (100, 100)))
    else:
        measure_beside(*(values or (20, 100)))


if __name__ == "__main__":
    main(*(sys.argv[1:] or ("render",)))
