"""Sites that one warm process forks: their faults have names, and none of them outlives who started it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from coterie_node.demo.cases import find_case
from coterie_node.demo.forked_sites import ForkedSite, WarmProcess, start_forked
from coterie_node.demo.run import DemoProcesses, await_reports, prepare
from coterie_node.errors import SiteFailed
from coterie_node.site.run_folder import RunFolder

SITES = ("north", "south", "west")
SLEEPERS = """
import os, sys, threading, time
from pathlib import Path
from coterie_node.demo.forked_sites import fork_sites
from coterie_node.site.run_folder import RunFolder
if sys.argv[1] == "busy":
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
def start(name, output):
    print(f'{{"{name}": 77}}', flush=True)
    return os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], os.environ)
name = fork_sites(RunFolder(Path(sys.argv[2])), {"a": int(sys.argv[3]), "b": int(sys.argv[4])}, start)
if name == "b":
    sys.exit(5)
if name == "a":
    print(os.getpid(), len(sys.stdin.read()), flush=True)
    time.sleep(600)
"""


def start_sleepers(place: Path, mode: str) -> Mapping[str, ForkedSite]:
    pipes = {name: os.pipe() for name in "ab"}
    words = [sys.executable, "-c", SLEEPERS, mode, str(place), *(str(writing) for _, writing in pipes.values())]
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[writing for _, writing in pipes.values()],
        env=os.environ | {"JE_ARROW_MALLOC_CONF": "background_thread:false", "OPENBLAS_NUM_THREADS": "1"},
    )
    for _, writing in pipes.values():
        os.close(writing)
    warm = WarmProcess(process, 2)
    return {name: ForkedSite(name, os.fdopen(reading), warm) for name, (reading, _) in pipes.items()}


def test_a_forked_site_s_fault_has_the_site_s_name_and_its_code(tmp_path: Path) -> None:
    place = RunFolder(tmp_path / "run")
    prepare(place, find_case("glore"), SITES)
    crew = DemoProcesses(start_forked(place, SITES, 64 * "0"))
    with pytest.raises(SiteFailed, match="'s people approved study 0000") as failure:
        await_reports(crew, "north", lambda _: None)
    crew.stop()
    assert failure.value.code == "CO-F301"
    assert all(site.poll() is not None for site in crew.processes.values())


def test_the_end_of_who_started_them_ends_all_sites(tmp_path: Path) -> None:
    sites = start_sleepers(tmp_path, "alone")
    number, inherited = map(int, sites["a"].stdout.readline().split())
    assert inherited == 0
    assert sites["b"].wait() == 5
    assert sites["a"].poll() is None
    sites["a"].kill()
    for site in sites.values():
        site.stdout.close()
    assert sites["a"].wait() == -9
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_a_process_with_other_threads_forks_nothing(tmp_path: Path) -> None:
    sites = start_sleepers(tmp_path, "busy")
    for site in sites.values():
        with site.stdout as lines:
            assert lines.read() == ""
    assert {site.wait() for site in sites.values()} <= {7, 77}


def test_a_process_that_leaves_has_said_all_and_runs_nothing_more() -> None:
    program = "import atexit; from coterie_node.demo.forked_sites import leave\natexit.register(print, 'late')"
    words = [sys.executable, "-c", f"{program}\nprint('a line', end='')\nleave()"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a line", "")
