"""Sites' processes that one warm process forks: the libraries are imported once, and not by each site.

The warm process has one thread and has opened neither keys nor journals, rows or sockets when it forks, so that sites
share nothing but imported code. Each site writes its lines into a pipe of its own. The warm process says how each of
them ended, as JSON lines, and stops all of them when its standard input is closed: no site outlives who started it.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn

from coterie_chain.ethereum.calldata import prepare_calls
from coterie_learners.core.registry import learner_of, list_learners
from coterie_learners.numeric.parallel import find_libraries
from coterie_node.errors import CoterieError
from coterie_node.run.study_files import load_study
from coterie_node.site.run_folder import PARQUET, RunFolder

# What a site imports only when it comes to it; the last for the name of a host.
_LATE = (
    "coterie_node.site.participant",
    "coterie_chain.keys.signer",
    "pyarrow.compute",
    "pyarrow.csv",
    "numpy.ma",
    "encodings.idna",
)
# Sites share this machine's cores: one thread of linear algebra each.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

# Arrow's allocator gives memory back from a thread of its own, which a warm process does without.
_NO_MEMORY_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}


def can_fork() -> bool:
    """Whether sites may be forked here: Linux names processes by handles that no other process can take over."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


@dataclass
class WarmProcess:
    """The process that forks the sites, as the one that started it sees it."""

    process: subprocess.Popen[bytes]
    sites: int
    _statuses: dict[str, int] = field(default_factory=dict)
    _rest: bytes = b""
    # The status of the process itself, once it has ended: for each site whose end it did not report.
    _own: int | None = None

    def find_status(self, name: str, seconds: float) -> int | None:
        """The exit status of a site, negative for a signal; None if it has not ended within these seconds."""
        deadline = time.monotonic() + seconds
        while name not in self._statuses and self._own is None:
            if not self._read(max(deadline - time.monotonic(), 0.0)):
                return None
        return self._statuses.get(name, self._own)

    def stop(self) -> None:
        """Stop all sites that still run."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()

    def _read(self, seconds: float) -> bool:
        """Read what the process says; whether it said anything, or nothing more will come."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return False
        part = os.read(self.process.stdout.fileno(), 1 << 16)
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            self._statuses.update(json.loads(line))
        if not part or len(self._statuses) == self.sites:
            self._own = self.process.wait() or 1
            self.stop()
            self.process.stdout.close()
        return True


@dataclass
class ForkedSite:
    """One site's process, with what is used of `subprocess.Popen`."""

    name: str
    stdout: IO[str]
    warm: WarmProcess

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        return self.warm.find_status(self.name, 0.0)

    def wait(self, timeout: float = 30.0) -> int:
        """Its exit status, when it has ended."""
        status = self.warm.find_status(self.name, timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self.name, timeout)
        return status

    def kill(self) -> None:
        """Stop it, and with it all sites of the same warm process."""
        self.warm.stop()


def start_forked(place: RunFolder, names: Sequence[str], approved: str) -> dict[str, ForkedSite]:
    """Start one warm process, which forks the sites; each tells its progress as JSON lines on its `stdout`."""
    pipes = {name: os.pipe() for name in names}
    words = ["take-part", "--at", str(place.root), "--approve", approved]
    for name, (_, writing) in pipes.items():
        words += ["--site", name, "--to", str(writing)]
    process = subprocess.Popen(
        [sys.executable, "-m", "coterie_node", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[writing for _, writing in pipes.values()],
        env=os.environ | ONE_THREAD | _NO_MEMORY_THREAD,
    )
    for _, writing in pipes.values():
        os.close(writing)
    warm = WarmProcess(process, len(names))
    return {name: ForkedSite(name, os.fdopen(reading, encoding="utf-8"), warm) for name, (reading, _) in pipes.items()}


def fork_sites(place: RunFolder, outputs: Mapping[str, int], start: Callable[[str, int], int]) -> str | None:
    """Import what sites need and fork them: returns the name of its site in each, and None here when all have ended.

    `outputs` has the open file of each site's lines. If this process has other threads, a fork is not safe: `start`
    then starts each site as a new process and returns its number.
    """
    # A search for cycles of garbage visits every imported object: here in vain, and in each site it copies their pages.
    gc.disable()
    _import_all(place)
    gc.freeze()
    gc.enable()
    alone = len(os.listdir("/proc/self/task")) == 1
    children: dict[int, str] = {}
    for name, output in outputs.items():
        child = os.fork() if alone else start(name, output)
        if child == 0:
            _become_site(output, outputs.values())
            return name
        children[child] = name
    for output in outputs.values():
        os.close(output)
    _report_ends(children)
    return None


def leave() -> NoReturn:
    """End this process, whose work is done and whose files are closed, without taking its modules apart.

    That takes a forked process as long as its part in a small study: each object that it frees lies on a page which
    must be copied first.
    """
    sys.stdout.flush()
    os._exit(0)


def _import_all(place: RunFolder) -> None:
    """Import what the sites of a run will use; what is wrong with the run each site says itself."""
    tables = ("pyarrow.parquet",) if any(place.root.glob(f"sites/*/{PARQUET}")) else ()
    channels = ("coterie_node.peers.tls",) if place.talk.exists() else ()
    for module in (*_LATE, *tables, *channels):
        import_module(module)
    prepare_calls()
    find_libraries()
    with suppress(*CoterieError):
        list_learners()
        study = load_study(place.study)
        learner_of(study).discloses(study)
        if place.settings().chain == "anvil":
            import_module("websockets.sync.client")
        place.chain()


def _become_site(output: int, outputs: Iterable[int]) -> None:
    """Give a forked process its own standard streams."""
    os.dup2(output, 1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for other in outputs:
        os.close(other)


def _report_ends(children: Mapping[int, str]) -> None:
    """Say how each child ended; stop all of them at the end of standard input."""
    handles, watched = {os.pidfd_open(child): child for child in children}, {0}
    while handles:
        for ready in select.select([*watched, *handles], [], [])[0]:
            if ready in handles:
                child = handles.pop(ready)
                os.close(ready)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                print(json.dumps({children[child]: status}), flush=True)
            elif not os.read(0, 1024):
                watched.clear()
                for handle in handles:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
