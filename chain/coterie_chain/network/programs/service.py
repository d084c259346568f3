"""A program that keeps running: one command starts it, later commands find it, `stop` ends it.

Its folder holds `run.json` (process id and its start, so that another process with the same id is never taken for it)
and `log`. The start is counted from the machine's own, where the system tells it: a clock that is set changes the time
of day of both. Nothing else in the house starts a process that outlives its parent.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from coterie_chain.errors import StoreFault
from coterie_chain.keys.private_files import replace_private

STOP_TIMEOUT = 30.0
LOG_TAIL = 2000
PAUSE = 0.02
# So many programs start beside each other as fast as one alone.
ALONE = 4
# A wait for a program grows to so many times its length where others have the processors.
LONGEST_STRETCH = 10.0
# The machine's start, and where the start of a process stands after its name in its line (proc_pid_stat(5), field 22).
_BOOT, _START = Path("/proc/sys/kernel/random/boot_id"), 19


@dataclass(frozen=True)
class Service:
    """A program with its folder; `environment` is added to this process's own.

    `program` finds the file when it is started, so that what runs can be ended although its program is gone.
    """

    name: str
    folder: Path
    program: Callable[[], Path]
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """What the program says."""
        return self.folder / "log"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return read_running_pid(self._record)

    @property
    def memory(self) -> int:
        """Resident memory in bytes; 0 if it does not run."""
        pid = self.pid
        with suppress(psutil.NoSuchProcess):
            return int(psutil.Process(pid).memory_info().rss) if pid is not None else 0
        return 0

    @property
    def handles(self) -> int:
        """Open files and sockets; 0 if it does not run."""
        pid = self.pid
        with suppress(psutil.NoSuchProcess):
            return int(psutil.Process(pid).num_fds()) if pid is not None else 0
        return 0

    @property
    def queued(self) -> float:
        """Seconds for which it was ready to run and had no processor (Linux, first thread); 0 if nobody says so."""
        with suppress(OSError, ValueError, IndexError):
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9
        return 0.0

    def start(self) -> None:
        """Start the program unless it runs; it gets no terminal and no open file of ours."""
        if self.pid is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        environment, program = {**os.environ, **self.environment}, self.program()
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # Not Popen, which would own the child: it may outlive this process, and another may end it.
            pid = os.posix_spawn(
                program,
                [str(program), *self.arguments],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setpgroup=0,
            )
        finally:
            os.close(log)
        with suppress(psutil.NoSuchProcess):
            start = {"began": psutil.Process(pid).create_time(), "identity": _identify(pid)}
            # Whole at once: another command may look.
            replace_private(self._record, json.dumps({"pid": pid, **start}) + "\n")

    def stop(self, within: float = STOP_TIMEOUT) -> None:
        """End the program and wait for it; after `within` seconds it is killed."""
        if not self._send_signal(signal.SIGTERM, within):
            self.kill()
        self._record.unlink(missing_ok=True)

    def kill(self) -> None:
        """End the program as a power cut would."""
        self._send_signal(signal.SIGKILL, STOP_TIMEOUT)

    def pause(self) -> None:
        """Let the program stand still."""
        self._send_signal(signal.SIGSTOP, 0.0)

    def wake(self) -> None:
        """Let a paused program go on."""
        self._send_signal(signal.SIGCONT, 0.0)

    def read_log_tail(self) -> str:
        """The end of its log."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(max(self.log.stat().st_size - LOG_TAIL, 0))
            return file.read().decode(errors="replace").strip() or "nothing"
        return "nothing"

    @property
    def _record(self) -> Path:
        return self.folder / "run.json"

    def _send_signal(self, number: int, within: float) -> bool:
        """Send a signal; whether the program has ended within so many seconds."""
        deadline, pid = time.monotonic() + within, self.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        while self.pid is not None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(PAUSE)
        return True


def scale_wait(seconds: float, programs: int) -> float:
    """How long to wait for one of several programs that start on one machine: they share its processors."""
    return seconds * max(1.0, programs / ALONE)


def stretch_wait(seconds: float, service: Service) -> float:
    """How long to wait for a program on a busy machine: the time in which it had no processor does not count."""
    return min(seconds + service.queued, LONGEST_STRETCH * seconds)


def read_running_pid(record: Path) -> int | None:
    """Id of the process that a `run.json` names, None if it does not run (any more)."""
    try:
        document = json.loads(record.read_text())
        pid, began = int(document["pid"]), float(document["began"])
        identity = str(document.get("identity", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    with suppress(ChildProcessError):
        # A child of ours that has ended stays in the table until somebody asks for it.
        os.waitpid(pid, os.WNOHANG)
    try:
        process = psutil.Process(pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
        same = identity == _identify(pid) if identity else abs(process.create_time() - began) < 1.0
        return pid if alive and same else None
    except psutil.NoSuchProcess:
        return None


def _identify(pid: int) -> str:
    """What no other process has, whatever the clock says: the machine's start, and the tick of this one after it.

    Empty where the system does not tell (it is not Linux).
    """
    with suppress(OSError, ValueError, IndexError):
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_START])
        return f"{_BOOT.read_text().strip()}/{ticks}"
    return ""


def explain_early_end(service: Service) -> StoreFault:
    """The fault of a program that ended, or said nothing useful, before it was ready."""
    return StoreFault(
        "CO-C336", f"{service.name} did not become ready. Its log {service.log} ends: {service.read_log_tail()}"
    )
