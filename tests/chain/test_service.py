"""Programs that run on by themselves: found again, ended, never confused with another process."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from coterie_chain.errors import LedgerUnreachable, StoreFault
from coterie_chain.ports import free_port, kept_ports
from coterie_chain.programs import Program
from coterie_chain.service import Service

SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def service(folder: Path, code: str = SLEEPS) -> Service:
    return Service("sleeper", folder, lambda: Path(sys.executable), ("-c", code), {"COTERIE_TEST": "1"})


def until_up(one: Service) -> None:
    while "up" not in one.said():
        assert one.pid is not None


def test_a_service_is_found_again_and_ended(tmp_path: Path) -> None:
    service(tmp_path).start()
    found = service(tmp_path)
    pid = found.pid
    assert pid is not None
    found.start()
    assert found.pid == pid
    assert found.memory > 0
    assert found.handles > 0
    found.stop()
    assert found.pid is None
    assert found.memory == found.handles == 0
    assert not (tmp_path / "run.json").exists()
    found.stop()


def test_a_service_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    one = service(tmp_path, DEAF)
    one.start()
    until_up(one)
    one.stop(within=0.2)
    assert one.pid is None


def test_another_process_with_the_same_id_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"pid": os.getpid(), "began": 1.0}))
    one = service(tmp_path)
    assert one.pid is None
    one.stop()
    assert os.getpid() > 0


def test_a_killed_service_is_not_running_and_starts_again(tmp_path: Path) -> None:
    one = service(tmp_path)
    one.start()
    one.kill()
    assert one.pid is None
    one.start()
    pid = one.pid
    assert pid is not None
    one.pause()
    one.wake()
    os.kill(pid, signal.SIGKILL)
    one.stop()


def test_ports_are_kept_until_one_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = kept_ports(file, ("a", "b"))
    assert first["a"] != first["b"]
    assert kept_ports(file, ("a", "b")) == first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first["a"]))
        with pytest.raises(LedgerUnreachable):
            free_port(first["a"])
        assert kept_ports(file, ("a", "b")) != first


def test_a_program_of_another_version_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("COTERIE_TOOLS", str(tmp_path / "tools"))
    program = Program("tool", "1.2.3", ("version",), "COTERIE_TOOL", "example.org")
    for version, found in (("1.2.4", False), ("1.2.3-stable", True)):
        folder = tmp_path / "tools" / "tool-1.2.3"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / ("tool" if found else "other")
        file.write_text(f"#!/bin/sh\necho Version: {version}\n")
        file.chmod(0o755)
        if found:
            assert program.find() == file
        else:
            file.rename(tmp_path / "tool")
            with pytest.raises(StoreFault, match=r"tool 1\.2\.3 is not installed.*make tools"):
                program.find()
    monkeypatch.setenv("COTERIE_TOOL", str(tmp_path / "none"))
    with pytest.raises(StoreFault, match="names no program"):
        program.find()
