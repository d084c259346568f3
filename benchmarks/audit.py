"""Figures of the audit: bundles, a history of 100 sites x 50 rounds on Anvil, an index of 100,000 records.

    python benchmarks/audit.py [demo|large|index]

Each command runs in a process of its own, whose wall time, CPU seconds and peak memory are reported. Medians of several
runs where they are short.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import ZERO, Head, Post, Record, SiteEntry
from coterie_chain.ledger.record_chain import compute_genesis_head, compute_next_head
from coterie_chain.network.deploy import deploy
from coterie_chain.network.devnet import Anvil
from coterie_chain.store.cid import compute_raw_cid
from coterie_chain.store.protocol import FolderBlobs
from coterie_learners.core.protocol import Machine, Site
from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.errors import NotConverged
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows
from coterie_node.audit.history import to_history_entry
from coterie_node.audit.index import HistoryIndex, HistoryQuery
from coterie_node.audit.tables import write_csv
from coterie_node.data.synthetic import draw
from coterie_node.run.codec import pack
from coterie_node.run.study_files import study_terms

SITES, ROUNDS, RECORDS = 100, 50, 100_000
REPEATS = 5


def main() -> None:
    """Run the parts that were asked for, or all."""
    parts = {"demo": run_demo, "large": run_large, "index": index}
    for name in sys.argv[1:] or parts:
        parts[name]()


def command(*arguments: str | Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory in MiB of one command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    line = [sys.executable, "-m", "coterie_node", *map(str, arguments)]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL) as process:
        peak = [0]
        watcher = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
        watcher.start()
        if process.wait() != 0:
            raise RuntimeError(f"{line} ended with {process.returncode}")
        wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    watcher.join()
    return wall, cpu, peak[0] / 2**20


def print_cost(what: str, *arguments: str | Path, repeats: int = 1) -> None:
    """Print a command's figures."""
    figures = [command(*arguments) for _ in range(repeats)]
    wall, cpu, peak = (statistics.median(column) for column in zip(*figures, strict=True))
    print(f"{what}: {wall:.2f} s wall, {cpu:.2f} s CPU, {peak:.0f} MiB peak", flush=True)


def run_demo() -> None:
    """The NHEFS demo's bundle."""
    with tempfile.TemporaryDirectory() as folder:
        run, bundle = Path(folder, "run"), Path(folder, "study.zip")
        command("demo", "--keep", run)
        print_cost("NHEFS demo: export", "audit", "export", "1", bundle, "--at", run)
        print(f"NHEFS demo: bundle of {bundle.stat().st_size / 1024:.0f} KiB")
        print_cost("NHEFS demo: verify offline", "audit", "verify", bundle, repeats=REPEATS)
        print_cost(
            "NHEFS demo: report, HTML", "audit", "report", bundle, "--out", Path(folder, "r.html"), repeats=REPEATS
        )
        print_cost(
            "NHEFS demo: report, PDF", "audit", "report", bundle, "--out", Path(folder, "r.pdf"), repeats=REPEATS
        )


def run_large() -> None:
    """A study of 100 sites that takes 50 rounds, on a chain."""
    with tempfile.TemporaryDirectory() as folder, Anvil(options=("--gas-limit", "1000000000")) as anvil:
        store, bundle, (study, rows) = Path(folder, "store"), Path(folder, "study.zip"), make_large_study()
        run_on_chain(study, rows, anvil.url, FolderBlobs(store))
        chain, history_index = ("--chain", anvil.url), Path(folder, "history.sqlite")
        what = f"{SITES} sites x {ROUNDS} rounds"
        ask = ("--site", study.sites[7], "--round", "12", "--json")
        print_cost(f"{what}: history read from the node, one site and round", "audit", "history", "1", *chain, *ask)
        print_cost(f"{what}: the same, into an index", "audit", "history", "1", *chain, "--index", history_index, *ask)
        print_cost(
            f"{what}: the same from the index alone",
            "audit",
            "history",
            "1",
            "--index",
            history_index,
            *ask,
            repeats=REPEATS,
        )
        print_cost(f"{what}: replay", "audit", "replay", "1", *chain, "--store", f"folder:{store}")
        print_cost(f"{what}: export", "audit", "export", "1", bundle, *chain, "--store", f"folder:{store}")
        print(f"{what}: bundle of {bundle.stat().st_size / 2**20:.1f} MiB")
        print_cost(f"{what}: verify offline", "audit", "verify", bundle)


def make_large_study() -> tuple[Study, dict[str, ArrayRows]]:
    """GLORE at 100 sites with a tolerance that it never reaches, so that all rounds are run."""
    names = [f"site-{k:03d}" for k in range(SITES)]
    text = (
        f'name = "large"\nsites = {json.dumps(names)}\nformula = "y ~ a + b"\n[learner]\nname = "glore"\n'
        f'aggregation = "plain"\nmax_rounds = {ROUNDS}\ntolerance = 1e-200\n[variables.y]\ntype = "binary"\n'
        + "".join(f'[variables.{v}]\ntype = "number"\nrange = [-1, 1]\n' for v in "ab")
    )
    study = complete_study(Study.from_toml(text))
    design, rng = Design(study), np.random.default_rng(1)
    blocks = {name: draw(design, np.array([0.1, 0.4, -0.3]), 60, rng) for name in names}
    return study, {name: ArrayRows(b.x, b.y) for name, b in blocks.items()}


def run_on_chain(study: Study, rows: dict[str, ArrayRows], url: str, store: FolderBlobs) -> None:
    """Every site's posts and every server's, recorded on a chain by the site's own key."""
    keys = {
        name: SiteKeys.of(sha256(name.encode()).digest(), sha256(b"root" + name.encode()).digest()) for name in rows
    }
    network = deploy(url, [SiteEntry(0, name, k.address, k.sealing) for name, k in keys.items()])
    with ExitStack() as stack:
        handles = {name: stack.enter_context(EthereumLedger(network, k.account)) for name, k in keys.items()}
        first, *others = study.sites
        number = handles[first].propose(study_terms(study))
        for name in others:
            handles[name].join(number, study.hash)
        store.put(study.document)
        count = record_all(study, rows, handles, store, number)
    print(f"{SITES} sites x {ROUNDS} rounds: {count} records on Anvil", flush=True)


def record_all(
    study: Study, rows: dict[str, ArrayRows], handles: dict[str, EthereumLedger], store: FolderBlobs, number: int
) -> int:
    """One machine stands for all sites, as plain sums need no keys; returns the number of records."""
    machine, basis, count = Machine(learner_of(study).script, Site(study, "bench")), study.hash, 0
    for position in range(2 * ROUNDS):
        step = machine.awaits
        assert step is not None
        server = study.sites[position // 2 % SITES]
        posts = {}
        for name in study.sites if not step.public else (server,):
            posts[name] = step.make(Site(study, name, rows[name]), None)
            blob = pack(study, step, name, 0, posts[name])
            digest = sha256(blob).digest()
            post = Post(number, position, 0, store.put(blob), digest, len(blob), False, basis)
            handles[name].record(post)
            count += 1
        basis = digest if step.public else basis
        with suppress(NotConverged):
            machine.advance(posts)
    return count


def index() -> None:
    """An index of 100,000 records, in this process."""
    with tempfile.TemporaryDirectory() as folder, HistoryIndex(Path(folder, "history.sqlite")) as history_index:
        heads: dict[str, Head] = {}
        start = time.process_time()
        history_index._build(make_records(heads), heads)
        built = time.process_time()
        history_index.check(heads)
        checked = time.process_time()
        print(
            f"{RECORDS} records: {built - start:.1f} s CPU to make and index, "
            f"{checked - built:.1f} s to check all chains"
        )
        peak, process = [0], psutil.Process()
        before = process.memory_info().rss
        threading.Thread(target=_watch, args=(process.pid, peak), daemon=True).start()
        start = time.process_time()
        count = sum(1 for _ in history_index.lines(HistoryQuery(site="site-007", round=12)))
        cpu_start = time.process_time()
        pages = sum(map(len, history_index.pages(HistoryQuery(study=1), 1000)))
        paged = time.process_time()
        with Path(folder, "all.csv").open("w") as out:
            write_csv(history_index.lines(HistoryQuery()), out)
        print(
            f"{RECORDS} records: {count} of one site and round in {1000 * (cpu_start - start):.0f} ms CPU; "
            f"{pages} in pages of 1000 in {paged - cpu_start:.1f} s; "
            f"all as CSV in {time.process_time() - paged:.1f} s; memory grew by "
            f"{max(peak[0] - before, 0) / 2**20:.0f} MiB"
        )


def make_records(heads: dict[str, Head]) -> Iterator[Record]:
    """Records of 100 sites with true hash chains; `heads` ends as they lead to."""
    names = [f"site-{k:03d}" for k in range(SITES)]
    for k, name in enumerate(names, start=1):
        first = compute_genesis_head("0x" + "12" * 20, 1, k)
        heads[name] = Head(first, 0, first)
    for k in range(RECORDS):
        name, position = names[k % SITES], k // SITES
        digest = sha256(str(k).encode()).digest()
        post = Post(1, position, 0, compute_raw_cid(str(k).encode()), digest, 1000, False, ZERO)
        before = heads[name]
        head = compute_next_head(before.head, before.seq + 1, 0xFF, position // 2, post)
        heads[name] = Head(before.genesis, before.seq + 1, head)
        record = Record(
            name, before.seq + 1, "each", position // 2, post, head, k, 1_800_000_000 + k, "0x" + digest.hex()
        )
        assert to_history_entry(record).site == name
        yield record


def _watch(pid: int, peak: list[int]) -> None:
    while True:
        try:
            peak[0] = max(peak[0], psutil.Process(pid).memory_info().rss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return
        if peak[0] and psutil.pid_exists(pid) and psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.01)


if __name__ == "__main__":
    main()
