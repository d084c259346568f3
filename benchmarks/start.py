"""CPU seconds (user and system, of the whole process) that commands take to start: the least and the median of 9 runs.

Run it on a quiet machine. `study status` is measured by its `--help`, which imports all that the command needs; with a
ledger it reads the chain besides.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

COMMANDS = (["version"], ["--version"], ["--help"], ["study", "--help"], ["study", "status", "--help"])
BASELINES = ("pass", "import typer", "import numpy, pydantic, eth_abi")
RUNS = 9


def measure(words: list[str]) -> float:
    """CPU seconds of one process."""
    before = os.times()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def count_modules(words: list[str]) -> int:
    """Modules that one process imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
    )
    return sum(line.startswith(b"import time:") for line in done.stderr.splitlines()) - 1


def main() -> None:
    print(f"{'command':34s} {'least':>7s} {'median':>7s} {'modules':>8s}")
    cases = [(f"coterie {' '.join(c)}", ["-m", "coterie_node", *c]) for c in COMMANDS]
    for name, words in [*cases, *((f"python -c '{b}'", ["-c", b]) for b in BASELINES)]:
        seconds = [measure(words) for _ in range(RUNS)]
        print(f"{name:34.34s} {min(seconds):7.3f} {statistics.median(seconds):7.3f} {count_modules(words):8d}")


if __name__ == "__main__":
    main()
