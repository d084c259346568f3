"""The page as a child of the daemon: started with it, started again if it ends, and ended with it.

The daemon imports nothing of the page. What the page needs in memory and time is its own process's.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from coterie_chain.retry import Backoff, RetryPolicy

# Seconds between two looks, and until a page that must end is killed.
_LOOK, _END = 0.5, 10.0
# Before an ended page starts again; a page that ran for `_WELL` seconds begins with the first pause.
_PAUSES, _WELL = RetryPolicy(first=5.0, longest=600.0), 60.0


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
    pauses = Backoff(_PAUSES)
    while not stop.is_set():
        begun = time.monotonic()
        try:
            ending = f"ended with status {_run(root, stop)}"
        except OSError as error:  # as without room for another process
            ending = f"cannot be started ({error})"
        if time.monotonic() - begun > _WELL:
            pauses.reset()
        if not stop.is_set():
            pause = pauses.next_pause()
            notice(f"the page {ending} and starts again in {pause:.0f} s")
            stop.wait(pause)


def _run(root: Path, stop: threading.Event) -> int:
    """Run the page until it ends, or until `stop` is set; its status."""
    child = subprocess.Popen([sys.executable, "-m", "coterie_node", "web", str(root)], stdin=subprocess.DEVNULL)
    try:
        while child.poll() is None and not stop.wait(_LOOK):
            pass
    finally:
        _end(child)
    return child.returncode


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_END)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
