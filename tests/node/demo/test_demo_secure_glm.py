"""The demo of Secure GLM: three processes that talk over TLS, on a development chain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.anvil, pytest.mark.xdist_group("demo")]


def coterie(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "coterie_node", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=os.environ)


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A finished demo, kept, and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    done = coterie("demo", "--learner", "secure_glm", "--keep", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def test_two_hospitals_and_a_helper_fit_what_statsmodels_fits_on_the_pooled_rows(
    demo_run: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    result = json.loads((demo_run[0] / "result.json").read_text())
    assert result["sites"] == ["north", "south", "university"]
    assert result["pooled"]["max_abs_estimate"] < 1e-5
    assert result["pooled"]["max_abs_std_error"] < 1e-5
    assert (result["replay"]["verdict"], result["replay"]["grade"]) == ("RECORD INTACT", "opened results")
    assert (result["n"], result["ledger"]["records"]) == (1536, 9)
    assert set(result["details"]["interactive"]["bytes_sent"]) == {"north", "south", "university"}


def test_who_learns_what_is_printed_first_and_the_helper_has_no_file(
    demo_run: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, completed = demo_run
    assert "Each of two hospitals can take its own part off" in completed.stderr.split("\n")[0]
    assert "No two of north, south, university may collude" in completed.stderr
    assert "Replay: RECORD INTACT, model not recomputed, opened results" in completed.stdout
    assert not (folder / "sites" / "university" / "data.csv").exists()


def test_an_auditor_without_keys_finds_the_record_intact(
    demo_run: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    done = coterie("audit", "replay", "--at", demo_run[0], "--json")
    assert done.returncode == 25, done.stdout
    verdict = json.loads(done.stdout)
    assert (verdict["verdict"], verdict["grade"]) == ("RECORD INTACT", "opened results")


def test_a_bundle_of_the_study_verifies_offline_and_its_report_says_what_was_opened(
    demo_run: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    bundle, report = tmp_path / "study.zip", tmp_path / "report.html"
    done = coterie("audit", "export", "1", bundle, "--at", demo_run[0])
    assert done.returncode == 0, done.stdout + done.stderr
    done = coterie("audit", "verify", bundle, "--at", demo_run[0], "--json")
    assert done.returncode == 25, done.stdout + done.stderr
    verdict = json.loads(done.stdout)
    assert (verdict["verdict"], verdict["grade"]) == ("RECORD INTACT", "opened results")
    done = coterie("audit", "report", bundle, "--at", demo_run[0], "--out", report)
    assert done.returncode == 25, done.stdout + done.stderr
    page = report.read_text(encoding="utf-8")
    assert "RECORD INTACT" in page
    assert "opened results" in page
    assert "No two of north, south, university may collude" in page
