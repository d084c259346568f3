"""Three administrators found a network by two commands each, lose a site, and get it back from its backup."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.devnet.bed import SITES, STUDY
from support.devnet.founding import (
    ADMIN_PATIENCE,
    await_true,
    examine_site,
    failed_checks,
    open_founded,
    run_and_fail,
    run_coterie,
)
from support.node.rows_files import file_of

from coterie_node.demo.cases.glore import CASE
from coterie_node.demo.cases.nhefs import VARIABLES
from coterie_node.network.site_programs import SitePrograms
from coterie_node.site.folder import find_node

pytestmark = [pytest.mark.devnet, pytest.mark.long, pytest.mark.xdist_group("founding"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A network that three sites founded, each by its own two commands."""
    root = tmp_path_factory.mktemp("f")
    with open_founded(root) as printed:
        assert all("chain peers: 2; seen: " in text for text in printed)
        CASE.write_sites(root / "rows", SITES)
        for site in SITES:
            shutil.copy(file_of(root / "rows" / site / "data.csv"), root / site / "data.csv")
        yield root


def propose(root: Path) -> int:
    """A study that two sites approve and the third does not yet; returns its number."""
    study = root / "study.toml"
    study.write_text(STUDY.format(step_seconds=3600, tolerance=1e-9) + VARIABLES)
    run_coterie("study", "propose", study, "--node", root / "north")
    await_true(lambda: bool(list_studies(root)), "the proposal")
    return int(str(list_studies(root)[-1]["study"]))


def list_studies(root: Path) -> list[dict[str, object]]:
    """What south sees of the ledger."""
    out: list[dict[str, object]] = json.loads(run_coterie("study", "list", "--node", root / "south", "--json"))
    return out


def read_coefficients(root: Path, site: str, number: int) -> object:
    """The terms of a site's result."""
    return json.loads(run_coterie("study", "result", str(number), "--node", root / site, "--json"))["terms"]


def test_the_doctor_of_every_site_finds_all_others_and_nothing_wrong(founded: Path) -> None:
    for site in SITES:
        checks = examine_site(founded / site)
        others = ", ".join(name for name in SITES if name != site)
        assert checks["chain peers"]["found"] == f"2; seen: {others}"
        assert checks["swarm peers"]["found"] == f"2; seen: {others}"
        assert checks["ports of others"]["found"] == "4 of 4 answer"
        assert not [c for c in checks.values() if c["result"] == "FAILED"]


def test_a_site_that_is_lost_comes_back_from_its_backup_and_the_study_goes_on(founded: Path, tmp_path: Path) -> None:
    number, south, words = propose(founded), founded / "south", tmp_path / "words"
    run_coterie("study", "approve", str(number), "--node", south)
    await_true((south / "journal.sqlite").exists, "south's journal")
    words.write_text("correct horse battery staple\n")
    words.chmod(0o600)
    run_coterie("backup", "--node", south, "--to", tmp_path / "south.backup", "--passphrase-file", words)
    before = {name: (south / name).read_bytes() for name in ("founder.json", "geth/nodekey", "kubo/identity.json")}

    restore = ("restore", tmp_path / "south.backup", tmp_path / "south", "--passphrase-file", words)
    assert "CO-F505" in run_and_fail(*restore)  # south still runs
    run_coterie("site", "stop", "--node", south)
    shutil.rmtree(south)
    run_coterie("restore", tmp_path / "south.backup", south, "--passphrase-file", words)
    assert {name: (south / name).read_bytes() for name in before} == before
    shutil.copy(file_of(founded / "rows" / "south" / "data.csv"), south / "data.csv")
    run_coterie("site", "start", "--node", south)
    await_true(lambda: not failed_checks(south), "a south that is well")

    run_coterie("study", "approve", str(number), "--node", founded / "west")
    results = [founded / site / "results" / f"{number}.json" for site in SITES]
    await_true(lambda: all(path.exists() for path in results), "three results")
    assert len({json.dumps(read_coefficients(founded, site, number)) for site in SITES}) == 1
    assert json.loads(run_coterie("audit", "replay", str(number), "--node", south, "--json"))["verdict"] == "PASS"


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended may stay in the table until its new parent asks for it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_supervisor_starts_again_what_ends_and_ends_all_at_a_signal(founded: Path) -> None:
    west = founded / "west"
    run_coterie("site", "stop", "--node", west)
    command = [sys.executable, "-m", "coterie_node", "site", "run", "--node", str(west)]
    supervisor = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        services = SitePrograms(west).services()
        await_true(lambda: all(service.pid for service in services.values()), "three programs")
        victim = services["geth"].pid
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        await_true(lambda: services["geth"].pid not in (None, victim), "a new Geth")
        pids = [service.pid for service in services.values()]
        supervisor.send_signal(signal.SIGTERM)
        _, said = supervisor.communicate(timeout=ADMIN_PATIENCE)
        assert supervisor.returncode == 0
        assert "geth has ended" in said
        assert not any(is_alive(pid) for pid in pids if pid is not None)
    finally:
        supervisor.kill()
        supervisor.wait()
    run_coterie("site", "start", "--node", west)
    assert find_node(west).name == "west"
