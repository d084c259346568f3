"""A node that has had many studies: the CPU that one more study takes there, after 10, 100, 400 of them.

    python benchmarks/many_studies.py memory [STUDIES] [--identified] [--grow] [--profile FILE]
    python benchmarks/many_studies.py anvil [STUDIES]

`memory`: three daemons in this process on a memory ledger, each with its folder, its journal and its privacy log on the
disk. Each study fits the same formula by GLORE. `--identified`: the rows have a patient identifier. `--grow`: rows come
between the studies, ten at a time, so that each release stands on rows of its own.
`anvil`: three daemons as processes on Anvil, one study after the other; CPU is theirs, of all three together.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import psutil
from three_sites import SITES, decide, make_study, write_rows

from coterie_chain.ethereum.network import Network
from coterie_chain.keys.journal import SqliteJournal
from coterie_chain.keys.site_keys import SiteKeys, read_passphrase
from coterie_chain.ledger.memory import MemoryChain
from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.store.protocol import MemoryBlobs
from coterie_learners.study.document import Study
from coterie_node.cli.site.init import init_command
from coterie_node.network.devnet import start_network, start_programs, stop_programs
from coterie_node.network.local_nodes import SiteDaemons
from coterie_node.site.daemon import Daemon, NodeServices
from coterie_node.site.folder import SiteFolder, find_node
from coterie_node.site.run_folder import RunFolder, RunSettings
from coterie_node.site.watch.log import EventLog

NETWORK = Network("http://127.0.0.1:1", 20240, "0x" + "12" * 20, "0x" + "00" * 32, 0)
ROWS, NEW_ROWS, WINDOW, LONGEST = 200, 10, 10, 120.0


class MemoryNetwork:
    """Three daemons in this process; ledger and store in memory, all else on the disk."""

    def __init__(self, root: Path) -> None:
        self.homes = {name: self._make_home(root / name, name) for name in SITES}
        keys = {name: SiteKeys.load(home.keys, read_passphrase(home.passphrase)) for name, home in self.homes.items()}
        entries = [SiteEntry(k, name, own.address, own.sealing) for k, (name, own) in enumerate(keys.items(), 1)]
        chain, blobs = MemoryChain(entries, lambda: int(time.time())), MemoryBlobs()
        self.daemons = {
            name: Daemon(
                NodeServices(
                    home=home,
                    keys=keys[name],
                    network=NETWORK,
                    ledger=chain.ledger(keys[name].address),
                    blobs=blobs,
                    journal=SqliteJournal(home.journal),
                    log=EventLog(open(os.devnull, "w")),  # noqa: SIM115
                )
            )
            for name, home in self.homes.items()
        }

    def _make_home(self, root: Path, name: str) -> SiteFolder:
        init_command(root, name, "data.csv", NETWORK.url, "folder:store", port=0, light=True)
        return find_node(root)

    def run(self, study: Study) -> None:
        """Run a study to its end; RuntimeError if a site has no result of it."""
        decide(self.homes, study)
        while sum(daemon.tick() for daemon in self.daemons.values()):
            pass
        for name, daemon in self.daemons.items():
            last = daemon.tasks[max(daemon.tasks)]
            if last.hash != study.hash or last.phase != "done":
                raise RuntimeError(f"{name} is at {last.as_dict()}")


@contextmanager
def open_memory(root: Path) -> Iterator[tuple[dict[str, SiteFolder], Callable[[Study], None], Callable[[], float]]]:
    """The folders of the sites, what runs a study, and the CPU seconds of all sites so far."""
    network = MemoryNetwork(root)
    yield network.homes, network.run, time.process_time


@contextmanager
def open_anvil(root: Path) -> Iterator[tuple[dict[str, SiteFolder], Callable[[Study], None], Callable[[], float]]]:
    """The same over processes on Anvil."""
    root.mkdir()
    place = RunFolder(root)
    start_network(place, SITES, RunSettings("anvil", "folder"))
    try:
        start_programs(place)
        daemons = SiteDaemons(place)
        for site in SITES:
            write_rows(place.site_root(site) / "data.csv", SITES.index(site), ROWS)
        daemons.start()
        homes = {site: find_node(place.site_root(site)) for site in SITES}
        programs = [psutil.Process(service.pid) for service in daemons.services().values()]
        yield homes, partial(run_on_anvil, homes), lambda: sum(sum(p.cpu_times()[:2]) for p in programs)
    finally:
        stop_programs(place)


def run_on_anvil(homes: dict[str, SiteFolder], study: Study) -> None:
    """Decide on a study, and wait until each site has its result."""
    before = {site: len(list(home.results.glob("*.json"))) for site, home in homes.items()}
    decide(homes, study)
    start = time.monotonic()
    while any(len(list(home.results.glob("*.json"))) == before[site] for site, home in homes.items()):
        if time.monotonic() - start > LONGEST:
            raise RuntimeError(f"study {study.name} did not end within {LONGEST:.0f} s")
        time.sleep(0.05)


def measure(kind: str, studies: int, *, identified: bool, grow: bool, profile: str) -> None:
    """Run the studies; print the CPU seconds and the wall seconds of one in each window of ten."""
    opened = {"memory": open_memory, "anvil": open_anvil}[kind]
    profiler: AbstractContextManager[object] = cProfile.Profile() if profile else nullcontext()
    with tempfile.TemporaryDirectory(prefix="coterie-many-") as folder, opened(Path(folder) / "net") as network:
        homes, run, read_cpu = network
        spent: list[tuple[float, float]] = []
        for number in range(1, studies + 1):
            for k, home in enumerate(homes.values()) if grow or number == 1 else ():
                write_rows(home.root / "data.csv", k, ROWS + NEW_ROWS * (number if grow else 0))
            study = make_study(Path(folder), f"study-{number}", identified=identified)
            cpu, start = read_cpu(), time.perf_counter()
            with profiler if number > studies - WINDOW else nullcontext():
                run(study)
            spent.append((read_cpu() - cpu, time.perf_counter() - start))
            if number in (WINDOW, 100, 200, 400, studies):
                print_window(number, spent[-WINDOW:])
        if isinstance(profiler, cProfile.Profile):
            profiler.dump_stats(profile)


def print_window(number: int, window: list[tuple[float, float]]) -> None:
    """One line of the table."""
    cpu, wall = (statistics.median(values) for values in zip(*window, strict=True))
    print(f"| {number} | {1000 * cpu:.0f} | {1000 * wall:.0f} |", flush=True)


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("memory", "anvil"), nargs="?", default="memory")
    parser.add_argument("studies", type=int, nargs="?", default=400)
    parser.add_argument("--identified", action="store_true")
    parser.add_argument("--grow", action="store_true")
    parser.add_argument("--profile", default="", help="write a cProfile of the last ten studies to this file")
    arguments = parser.parse_args()
    print("| after studies | CPU ms a study, all sites | wall ms a study |")
    print("|---|---|---|", flush=True)
    measure(
        arguments.kind,
        arguments.studies,
        identified=arguments.identified,
        grow=arguments.grow,
        profile=arguments.profile,
    )


if __name__ == "__main__":
    main()
