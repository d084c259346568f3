"""The page as a child of the daemon: started with it, started again if it ends, and ended with it.

The daemon imports nothing of the page. What the page needs in memory and time is its own process's.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Seconds between two looks, before an ended page starts again, and until one that must end is killed.
_LOOK, _PAUSE, _END = 0.5, 5.0, 10.0


@contextmanager
def run_page(root: Path, notice: Callable[[str], None]) -> Iterator[None]:
    """The page of a node's folder while the daemon runs; `notice` is called with what happened to it."""
    stop = threading.Event()
    thread = threading.Thread(target=_keep, args=(root, stop, notice), name="page", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_END + 2 * _LOOK)


def _keep(root: Path, stop: threading.Event, notice: Callable[[str], None]) -> None:
    while not stop.is_set():
        child = subprocess.Popen([sys.executable, "-m", "coterie_node", "web", str(root)], stdin=subprocess.DEVNULL)
        try:
            while child.poll() is None and not stop.wait(_LOOK):
                pass
        finally:
            _end(child)
        if not stop.is_set():
            notice(f"the page ended with status {child.returncode} and starts again in {_PAUSE:.0f} s")
            stop.wait(_PAUSE)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_END)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
