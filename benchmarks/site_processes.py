"""So many sites as processes of one machine: a Geth, a Kubo and a daemon each, from nothing to an audited GLORE study.

    python benchmarks/site_processes.py 50 [--period 5] [--folder FOLDER] [--until STAGE]

Prints each stage as it ends: its seconds, the processor seconds that all programs took in it, the load, and the memory
of each kind of program (the median of a site; PSS, which counts a page that several share once in all). `--until`
names the last stage (keys, chain, store, catalog, daemons, rest, study), after which all is ended. Deleted at the end
unless `--folder` names where it stays.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.network.deploy import deploy
from coterie_chain.network.programs.service import scale_wait
from coterie_node.demo.cases import find_case
from coterie_node.demo.run import prepare, rerun
from coterie_node.network.devnet import SPREAD_WITHIN, await_catalog, founders, make_settings, services, stop_programs
from coterie_node.network.local_nodes import SiteDaemons
from coterie_node.site.run_folder import RunFolder

REST_SECONDS = 30.0
CASE = find_case("glore")


@dataclass
class Bench:
    """A network of this machine that grows stage by stage."""

    place: RunFolder
    sites: Sequence[str]
    period: int
    entries: Sequence[SiteEntry] = ()

    def stages(self) -> dict[str, Callable[[], None]]:
        """What is done, in this order."""
        return {
            "keys": self.make_keys,
            "chain": lambda: self.place.chain().start(),
            "store": lambda: self.place.store().start(),
            "catalog": self.deploy_catalog,
            "daemons": lambda: SiteDaemons(self.place).start(),
            "rest": lambda: time.sleep(REST_SECONDS),
            "study": self.fit,
        }

    def make_keys(self) -> None:
        """Keys, genesis, repositories and rows of all sites."""
        prepare(self.place, CASE, self.sites)
        self.place.save_settings(replace(make_settings("clique", "kubo", self.period), sites=tuple(self.sites)))
        self.entries = founders(self.place, self.sites)
        self.place.store().prepare()
        self.place.chain().prepare([entry.address for entry in self.entries])

    def deploy_catalog(self) -> None:
        """The Catalog, until each site's own chain node has it."""
        chain, first = self.place.chain(), self.sites[0]
        payer = self.place.site(first).load_keys().signer
        network = deploy(chain.url(first), self.entries, payer, confirmations=chain.confirmations)
        self.place.save(self.place.settings(), network)
        for site in self.sites:
            await_catalog(self.place.network(site), scale_wait(SPREAD_WITHIN, len(self.sites)), site)

    def fit(self) -> None:
        """GLORE's demo: proposed at one site, approved at all others, replayed, compared with the pooled fit."""
        result = rerun(self.place, CASE)
        worst = max(result.pooled.values()) if result.pooled else float("nan")
        print(f"  {result.cost.records} records, {result.cost.payload_bytes:,} bytes of payloads; pooled: {worst:.1e}")


@dataclass(frozen=True)
class Use:
    """What the programs of one kind use: processor seconds of all since their start, PSS of each in MiB."""

    processor: float
    memory: Sequence[float]


def main() -> None:
    """Run the stages and print their figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sites", type=int)
    parser.add_argument("--period", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--until", default="study", help="the last stage")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coterie-sites-") as scratch:
        place = RunFolder(arguments.folder or Path(scratch) / "net")
        place.root.mkdir(parents=True, exist_ok=True)
        try:
            run_stages(Bench(place, CASE.site_names(arguments.sites), arguments.period), arguments.until)
        finally:
            begun = time.monotonic()
            stop_programs(place)
            print(f"down: {time.monotonic() - begun:.1f} s", flush=True)


def run_stages(bench: Bench, until: str) -> None:
    """Each stage with its figures."""
    before: Mapping[str, Use] = {}
    for name, stage in bench.stages().items():
        begun = time.monotonic()
        stage()
        seconds, use = time.monotonic() - begun, measure(bench.place)
        print(f"{name}: {seconds:.1f} s; load {psutil.getloadavg()[0]:.1f}", end="; ")
        print(f"available {psutil.virtual_memory().available >> 20:,} MiB", flush=True)
        for kind, now in use.items():
            spent = now.processor - (before[kind].processor if kind in before else 0.0)
            middle, largest = statistics.median(now.memory), max(now.memory)
            print(f"  {len(now.memory)} {kind}: {spent:.1f} s of processor, {middle:.0f} MiB, at most {largest:.0f}")
        before = use
        if name == until:
            return


def measure(place: RunFolder) -> dict[str, Use]:
    """What runs of a network, by kind of program."""
    memory: dict[str, list[float]] = defaultdict(list)
    processor: dict[str, float] = defaultdict(float)
    for (_, kind), service in services(place).items():
        with suppress(psutil.NoSuchProcess):
            if (pid := service.pid) is not None:
                process = psutil.Process(pid)
                times = process.cpu_times()
                memory[kind].append(process.memory_full_info().pss / (1 << 20))
                processor[kind] += times.user + times.system
    return {kind: Use(processor[kind], sizes) for kind, sizes in memory.items()}


if __name__ == "__main__":
    main()
