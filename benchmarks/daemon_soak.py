"""Many small studies in a row on one network: memory and file handles of the daemons.

`.venv/bin/python benchmarks/daemon_soak.py`: three daemons as threads of this process on one Anvil and a folder store,
COTERIE_BENCH_SOAK studies (200), one after the other. The figures are of the whole process, so of three daemons.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil

from coterie_chain.deploy import deploy
from coterie_chain.devnet import Anvil
from coterie_chain.ledger import SiteEntry
from coterie_node.commands.init import init_command
from coterie_node.commands.serve import opened
from coterie_node.daemon import Daemon
from coterie_node.decisions import DecisionFolder, decided
from coterie_node.log import Log
from coterie_node.site_config import Home
from coterie_node.studies import load_study

STUDIES = int(os.environ.get("COTERIE_BENCH_SOAK", "200"))
EVERY = max(STUDIES // 8, 1)
SITES = ("north", "south", "west")
PATIENCE = 120.0
TEXT = """
name = "soak-{number}"
sites = ["north", "south", "west"]
formula = "y ~ x"
[learner]
name = "glore"
[variables.y]
type = "binary"
[variables.x]
type = "number"
range = [-5, 5]
"""


def main() -> None:
    """One line every so many studies."""
    with tempfile.TemporaryDirectory() as scratch, Anvil() as anvil, ExitStack() as stack:
        root, stop = Path(scratch), threading.Event()
        homes = {name: house(root, name, anvil.url, seed) for seed, name in enumerate(SITES)}
        found(homes, anvil.url)
        log = (root / "log.jsonl").open("w")
        daemons = [stack.enter_context(opened(home, Log(log))) for home in homes.values()]
        threads = [threading.Thread(target=daemon.run, args=(stop,)) for daemon in daemons]
        for thread in threads:
            thread.start()
        try:
            for number in range(1, STUDIES + 1):
                study(root, homes, number, daemons)
                if number % EVERY == 0 or number in (1, STUDIES):
                    tell(number)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            log.close()


def house(root: Path, name: str, url: str, seed: int) -> Home:
    """A site's node with 200 rows."""
    with contextlib.redirect_stdout(io.StringIO()):
        init_command(root / name, name, "data.csv", url, f"folder:{root / 'store'}", port=0, light=True)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=200).clip(-4, 4)
    y = (rng.random(200) < 1 / (1 + np.exp(-x))).astype(int)
    lines = [f"{a},{b!r}" for a, b in zip(y.tolist(), x.tolist(), strict=True)]
    (root / name / "data.csv").write_text("y,x\n" + "\n".join(lines) + "\n")
    return Home(root / name)


def found(homes: dict[str, Home], url: str) -> None:
    """Deploy the Catalog for the three sites."""
    cards = [json.loads((home.root / "card.json").read_text()) for home in homes.values()]
    entries = [SiteEntry(k, c["name"], c["address"], bytes.fromhex(c["sealing"][2:])) for k, c in enumerate(cards, 1)]
    network = deploy(url, entries)
    for home in homes.values():
        (home.root / "network.json").write_text(network.to_json())


def study(root: Path, homes: dict[str, Home], number: int, daemons: list[Daemon]) -> None:
    """Propose a study, approve it everywhere, and wait until all have its result."""
    path = root / "study.toml"
    path.write_text(TEXT.format(number=number))
    proposed = load_study(path)
    for name, home in homes.items():
        folder = DecisionFolder(home.root / "decisions")
        if name == SITES[0]:
            folder.keep(proposed.hash, proposed.document)
        folder.record(decided(proposed.hash, "propose" if name == SITES[0] else "approve"))
    deadline = time.monotonic() + PATIENCE
    while not all((home.results / f"{number}.json").exists() for home in homes.values()):
        if time.monotonic() > deadline:
            raise SystemExit(f"study {number} has no end: {[d.engagements[number].as_dict() for d in daemons]}")
        time.sleep(0.05)


def tell(number: int) -> None:
    """The process's memory, handles and threads."""
    process = psutil.Process()
    memory, spent = process.memory_info().rss / 2**20, sum(process.cpu_times()[:2])
    told = f"{memory:.0f} MiB, {process.num_fds()} file handles, {process.num_threads()} threads, {spent:.0f} s CPU"
    print(f"after {number:3d} studies: {told}", flush=True)


if __name__ == "__main__":
    main()
