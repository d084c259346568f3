"""The product's command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

Completed = subprocess.CompletedProcess[str]


def run_command(*arguments: str | Path, **environment: str) -> Completed:
    """`coterie` with these arguments, and with these variables beside this process's own."""
    command = [sys.executable, "-m", "coterie_node", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False, env=os.environ | environment
    )
