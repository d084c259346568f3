"""CPU seconds (user and system, of the whole process) that commands take to start: the least and the median of 9 runs.

Run it on a quiet machine. `study status` is measured twice: by its `--help`, which imports what the command needs, and
at a node whose chain (Anvil) has a finished study of three sites: it reads that study's whole history there.
`simulate` fits 2,001 rows and 10 covariates at three sites, from files to the printed result.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ledger_cost import study_text, write_rows

from coterie_node.site.run_folder import RunFolder

COMMANDS = (["version"], ["--version"], ["--help"], ["study", "--help"], ["study", "status", "--help"])
BASELINES = ("pass", "import typer", "import numpy, pydantic, eth_abi")
RUNS = 9
COMMAND = ("-m", "coterie_node")


@contextmanager
def node_of_finished_study() -> Iterator[Path]:
    """A node's folder on a running Anvil that holds the demo's study."""
    with tempfile.TemporaryDirectory() as folder:
        root, run = Path(folder) / "node", RunFolder(Path(folder) / "run")
        for words in (["demo", "--keep", run.root], ["init", root, "--site", "north", "--store", "folder:store"]):
            subprocess.run([sys.executable, *COMMAND, *map(str, words)], capture_output=True, check=True)
        with run.chain().open_reader() as url:
            (root / "network.json").write_text(replace(run.network(), url=url).to_json())
            settings = root / "node.toml"
            settings.write_text(settings.read_text().replace("http://127.0.0.1:8545", url))
            yield root


def write_small_study(folder: Path) -> list[str]:
    """The words that simulate 3 x 667 rows of 10 covariates, whose files are written here."""
    study = folder / "small.toml"
    study.write_text(study_text(10))
    return ["simulate", str(study), *(f"--data={site}={file}" for site, file in write_rows(folder, 667, 10).items())]


def measure(words: list[str]) -> float:
    """CPU seconds of one process."""
    before = os.times()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def count_modules(words: list[str]) -> int:
    """Modules that one process imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
    )
    return sum(line.startswith(b"import time:") for line in done.stderr.splitlines()) - 1


def main() -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled
    print(f"{'command':34s} {'least':>7s} {'median':>7s} {'modules':>8s}")
    with node_of_finished_study() as node:
        cases = [(f"coterie {' '.join(c)}", [*COMMAND, *c]) for c in COMMANDS]
        cases.append(("coterie study status 1", [*COMMAND, "study", "status", "1", "--node", str(node)]))
        cases.append(("coterie simulate, 2,000 x 10", [*COMMAND, *write_small_study(node)]))
        for name, words in [*cases, *((f"python -c '{b}'", ["-c", b]) for b in BASELINES)]:
            measure(words)  # compiled and read from the disk once
            seconds = [measure(words) for _ in range(RUNS)]
            print(f"{name:34.34s} {min(seconds):7.3f} {statistics.median(seconds):7.3f} {count_modules(words):8d}")


if __name__ == "__main__":
    main()
