"""CPU seconds and megabytes of each parser for the hostile corpus of the red-team tests: the slowest and the largest.

Each parser runs in a process of its own. Inputs have up to 10 MB; no parser may take 10 s or 500 MB for one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
PARSERS = "from support.red_team.corpus import CORPUS; print(*CORPUS)"


def run(*words: str) -> str:
    """Standard output of a Python process that finds the tests' support."""
    environment = os.environ | {"PYTHONPATH": str(TESTS), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def main() -> None:
    print(f"{'parser':12s} {'inputs':>6s} {'slowest':>8s}  {'case':32s} {'largest':>8s}  case")
    for parser in run("-c", PARSERS).split():
        with tempfile.TemporaryDirectory() as folder:
            lines = [json.loads(line) for line in run("-m", "support.red_team.corpus", parser, folder).splitlines()]
        slow = max(lines, key=lambda line: float(line["seconds"]))
        large = max(lines, key=lambda line: int(line["peak_mb"]))
        times = f"{slow['seconds']:7.2f}s  {slow['case'][:32]:32s}"
        print(f"{parser:12s} {len(lines):6d} {times} {large['peak_mb']:6d}MB  {large['case']}", flush=True)


if __name__ == "__main__":
    main()
