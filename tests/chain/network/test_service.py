"""Programs that run on by themselves: found again, ended, never confused with another process."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from coterie_chain.errors import LedgerUnreachable, StoreFault
from coterie_chain.network.programs import executables, ports
from coterie_chain.network.programs.executables import Program
from coterie_chain.network.programs.ports import find_free_port, reserve_for_all, reserve_ports
from coterie_chain.network.programs.service import Service, stretch_wait

SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def build_service(folder: Path, code: str = SLEEPS) -> Service:
    return Service("sleeper", folder, lambda: Path(sys.executable), ("-c", code), {"COTERIE_TEST": "1"})


def await_up(process: Service) -> None:
    while "up" not in process.read_log_tail():
        assert process.pid is not None


def test_a_service_is_found_again_and_ended(tmp_path: Path) -> None:
    build_service(tmp_path).start()
    process = build_service(tmp_path)
    pid = process.pid
    assert pid is not None
    process.start()
    assert process.pid == pid
    assert process.memory > 0
    assert process.handles > 0
    process.stop()
    assert process.pid is None
    assert process.memory == process.handles == 0
    assert not (tmp_path / "run.json").exists()
    process.stop()


def test_a_wait_grows_by_the_time_without_a_processor_up_to_ten_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = build_service(tmp_path)
    assert process.queued == 0.0
    process.start()
    pid, first = process.pid, process.queued
    measured = Path(f"/proc/{pid}/schedstat").read_text().split()[1]
    assert 0.0 <= first <= int(measured) / 1e9
    process.stop()
    for queued, wait in ((0.0, 60.0), (45.0, 105.0), (9999.0, 600.0)):
        monkeypatch.setattr(Service, "queued", queued)
        assert stretch_wait(60.0, process) == wait


def test_a_service_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    process = build_service(tmp_path, DEAF)
    process.start()
    await_up(process)
    process.stop(within=0.2)
    assert process.pid is None


def test_another_process_with_the_same_id_is_left_alone(tmp_path: Path) -> None:
    for other in ({"began": 1.0}, {"began": psutil.Process().create_time(), "identity": "of another boot/1"}):
        (tmp_path / "run.json").write_text(json.dumps({"pid": os.getpid(), **other}))
        process = build_service(tmp_path)
        assert process.pid is None
        process.stop()
    assert os.getpid() > 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system tells the time of a process's start alone")
@pytest.mark.parametrize("seconds", [3600.0, -1.0])
def test_a_clock_that_is_set_makes_no_running_service_a_stranger(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a process's start is counted from the clock of today: whoever set it started a second copy."""
    from psutil import _pslinux

    process = build_service(tmp_path)
    process.start()
    pid, boot = process.pid, _pslinux.boot_time()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(_pslinux, "boot_time", lambda: boot + seconds)
            assert process.pid == pid
            process.start()
            assert process.pid == pid
    finally:
        process.stop()
    assert process.pid is None


def test_a_service_that_an_older_release_started_is_known(tmp_path: Path) -> None:
    process = build_service(tmp_path)
    process.start()
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({"pid": record["pid"], "began": record["began"]}))
    assert process.pid == record["pid"]
    process.stop()
    assert process.pid is None


def test_a_killed_service_is_not_running_and_starts_again(tmp_path: Path) -> None:
    process = build_service(tmp_path)
    process.start()
    process.kill()
    assert process.pid is None
    process.start()
    pid = process.pid
    assert pid is not None
    process.pause()
    process.wake()
    os.kill(pid, signal.SIGKILL)
    process.stop()


def test_ports_are_kept_until_one_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = reserve_ports(file, ("a", "b"))
    assert first["a"] != first["b"]
    assert reserve_ports(file, ("a", "b")) == first
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", first["a"]))
        with pytest.raises(LedgerUnreachable):
            find_free_port(first["a"])
        assert reserve_ports(file, ("a", "b")) != first


def test_no_two_of_many_sites_get_one_port_also_not_when_two_files_name_the_same(tmp_path: Path) -> None:
    files = [tmp_path / str(k) / "ports.json" for k in range(100)]
    first = reserve_for_all(files, ("p2p", "rpc"))
    assert len({port for ports in first for port in ports.values()}) == 200
    assert reserve_for_all(files, ("p2p", "rpc")) == first
    files[7].write_text(files[3].read_text())
    again = reserve_for_all(files, ("p2p", "rpc"))
    assert again[3] == first[3]
    assert len({port for ports in again for port in ports.values()}) == 200


def test_a_program_of_another_version_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("COTERIE_TOOLS", str(tmp_path / "tools"))
    program = Program("tool", "1.2.3", ("version",), "COTERIE_TOOL", "example.org")
    for version, is_expected in (("1.2.4", False), ("1.2.3-stable", True)):
        folder = tmp_path / "tools" / "tool-1.2.3"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / ("tool" if is_expected else "other")
        file.write_text(f"#!/bin/sh\necho Version: {version}\n")
        file.chmod(0o755)
        if is_expected:
            assert program.find() == file
        else:
            file.rename(tmp_path / "tool")
            with pytest.raises(StoreFault, match=r"tool 1\.2\.3 is not installed.*make tools"):
                program.find()
    monkeypatch.setenv("COTERIE_TOOL", str(tmp_path / "none"))
    with pytest.raises(StoreFault, match="does not name a program"):
        program.find()


def test_a_program_that_a_busy_machine_kept_from_its_answer_is_not_taken_for_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first silence was kept for the life of the process, as if the program were of another version."""
    monkeypatch.setenv("COTERIE_TOOLS", str(tmp_path))
    file, slow = tmp_path / "tool-1.2.3" / "tool", tmp_path / "slow"
    file.parent.mkdir()
    file.write_text(f"#!/bin/sh\n[ -e {slow} ] && exec sleep 600\necho Version: 1.2.3\n")
    file.chmod(0o755)
    slow.touch()
    program = Program("tool", "1.2.3", ("version",), "COTERIE_TOOL", "example.org")
    with monkeypatch.context() as patch:
        patch.setattr(executables, "_VERSION_TIMEOUT", 0.05)
        with pytest.raises(StoreFault, match=r"tool did not tell its version within 0\.05 s") as busy:
            program.find()
    assert busy.value.code == "CO-C336"
    slow.unlink()
    assert program.find() == file


def test_ports_are_none_that_an_outgoing_connection_may_take(tmp_path: Path) -> None:
    """Between two starts of a program such a connection could take its port."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    single = [find_free_port() for _ in range(50)]
    drawn = reserve_for_all([tmp_path / f"{k}.json" for k in range(50)], ("p2p", "rpc"))
    assert max([*single, *(port for names in drawn for port in names.values())]) < first
    assert len({port for names in drawn for port in names.values()}) == 100


@pytest.mark.parametrize("text", ["", "many", "1024\t60999"])
def test_without_room_below_them_the_system_chooses(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "range").write_text(text)
    monkeypatch.setattr(ports, "_OUTGOING", tmp_path / "range")
    with socket.create_server(("127.0.0.1", find_free_port())) as server:
        assert server.getsockname()[1] > 1024
