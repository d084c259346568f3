"""A systemd that starts units on this machine in namespaces and control groups of its own, and leaves no trace."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

PROGRAM = Path("/lib/systemd/systemd")
SCRIPT = Path(__file__).with_suffix(".sh")
# The user of the units, in the namespace alone.
USER, NUMBER = "coterie", 64123
# What units refer to by default; those of the machine are not started.
TARGETS = ("sysinit", "basic", "shutdown", "network-online", "multi-user")
PLAIN = "[Unit]\nDefaultDependencies=no\n"
NAMESPACES = ("--pid", "--mount", "--mount-proc", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child")
STARTING = 30.0


@dataclass(frozen=True)
class TransientSystemd:
    """The manager: the process id of its systemd, and the folder with the units and what they print."""

    pid: int
    folder: Path

    def call(self, *words: str) -> str:
        """What `systemctl` says inside."""
        command = ["nsenter", "-t", str(self.pid), "-m", "-p", "systemctl", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        return done.stdout + done.stderr

    def read_state(self, unit: str) -> dict[str, str]:
        """A unit's properties."""
        lines = self.call("show", unit).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def read_prints(self) -> str:
        """What all units have printed."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))


def find_control_group() -> Path | None:
    """Where control groups of version 2 are mounted; None without."""
    for place in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if (place / "cgroup.procs").exists():
            return place
    return None


def skip_without_systemd() -> None:
    """Skip where no systemd can be first process of namespaces."""
    able = os.geteuid() == 0 and PROGRAM.exists() and find_control_group() is not None
    tools = all(shutil.which(name) for name in ("unshare", "nsenter", "systemctl"))
    look = ["unshare", *NAMESPACES, "true"]
    if not able or not tools or subprocess.run(look, capture_output=True, check=False).returncode:
        pytest.skip("cannot run here: it takes root, Debian's package systemd, namespaces and control groups")


@contextmanager
def start_systemd(folder: Path, units: Mapping[str, str], binds: Mapping[Path, str]) -> Iterator[TransientSystemd]:
    """Start units under a systemd of their own; `binds`: where files and folders are inside."""
    _write_files(folder, units, binds)
    group = (find_control_group() or Path()) / f"coterie-{os.getpid()}"
    group.mkdir()
    try:
        enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", "unshare", *NAMESPACES]
        with (folder / "manager.log").open("w") as log:
            manager = subprocess.Popen(
                [*enter, "sh", SCRIPT, folder], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            yield TransientSystemd(_await_systemd(manager, folder), folder)
        finally:
            manager.send_signal(signal.SIGKILL)
            manager.wait()
    finally:
        _remove_groups(group)


def _write_files(folder: Path, units: Mapping[str, str], binds: Mapping[Path, str]) -> None:
    place = folder / "units"
    (place / "service.d").mkdir(parents=True)
    log = f"append:{folder}/%n.log"
    (place / "service.d" / "log.conf").write_text(f"[Service]\nStandardOutput={log}\nStandardError={log}\n")
    for target in TARGETS:
        (place / f"{target}.target").write_text(PLAIN)
    (place / "start.target").write_text(f"{PLAIN}Wants={' '.join(units)}\n")
    for name, text in units.items():
        (place / name).write_text(text)
    for name, line in (("passwd", f"{USER}:x:{NUMBER}:{NUMBER}::/:/bin/false\n"), ("group", f"{USER}:x:{NUMBER}:\n")):
        (folder / name).write_text(Path("/etc", name).read_text() + line)
    (folder / "binds").write_text("".join(f"{source} {place}\n" for source, place in binds.items()))


def _await_systemd(manager: subprocess.Popen[bytes], folder: Path) -> int:
    """The process id of the systemd that is ready."""
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline and manager.poll() is None:
        with suppress(psutil.NoSuchProcess, IndexError):
            first = psutil.Process(manager.pid).children()[0]
            state = TransientSystemd(first.pid, folder).call("is-system-running").strip()
            if first.name() == "systemd" and state in ("starting", "running", "degraded"):
                return int(first.pid)
        time.sleep(0.2)
    raise AssertionError(f"systemd does not start:\n{(folder / 'manager.log').read_text()}")


def _remove_groups(group: Path) -> None:
    """Remove control groups, once their processes have ended."""
    deadline = time.monotonic() + STARTING
    while group.exists() and time.monotonic() < deadline:
        for place in sorted((p for p in group.rglob("*") if p.is_dir()), reverse=True):
            with suppress(OSError):
                place.rmdir()
        with suppress(OSError):
            group.rmdir()
        time.sleep(0.1)


def bind_python(folder: Path) -> tuple[dict[Path, str], str]:
    """This interpreter with what it imports, for every user of the namespace: binds, and the program's path."""
    base = Path(sys.base_prefix)
    paths = [Path(path) for path in dict.fromkeys(sys.path) if path and Path(path).is_dir()]
    own = {path: f"/opt/imports/{k}" for k, path in enumerate(paths) if not path.is_relative_to(base)}
    wrapper = folder / "python"
    lines = [
        f"export LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH={':'.join(own.values())}",
        f'exec /opt/python/bin/{Path(sys.executable).resolve().name} "$@"',
    ]
    wrapper.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    wrapper.chmod(0o755)
    return {base: "/opt/python", **own, wrapper: "/opt/coterie-python"}, "/opt/coterie-python"
