"""The product's command, with its output, its errors and its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from coterie_node.cli.main import main

Completed = subprocess.CompletedProcess[str]


def run_command(*arguments: str | Path) -> Completed:
    """`coterie` with these arguments, in this process: a process of its own takes half a second to import."""
    words = ["coterie", *map(str, arguments)]
    out, errors = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
        patch.setattr(sys, "argv", words)
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Completed(words, status, out.getvalue(), errors.getvalue())


def run_process(*arguments: str | Path, **environment: str) -> Completed:
    """`coterie` with these arguments in a process of its own, and with these variables beside this process's own."""
    command = [sys.executable, "-m", "coterie_node", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False, env=os.environ | environment
    )
