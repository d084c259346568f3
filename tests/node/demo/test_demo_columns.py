"""The demos on split columns: one process per site, sealed posts, a granted view, and the end of the keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from learners.glore.test_reproducible import DISPATCHED
from support.node.processes import run_command, run_process

pytestmark = [pytest.mark.anvil, pytest.mark.xdist_group("demo")]


def check_replay(*arguments: str | Path, **environment: str) -> dict[str, object]:
    done = run_process("audit", "replay", "--json", *arguments, **environment)
    verdict: dict[str, object] = json.loads(done.stdout)
    assert done.returncode == {"PASS": 0, "RECORD INTACT": 25}[str(verdict["verdict"])], done.stdout + done.stderr
    return verdict


@pytest.mark.long
def test_vertigo_equals_the_pooled_fit_and_only_a_granted_auditor_reads_what_is_sealed(tmp_path: Path) -> None:
    run_folder, keys, secret, grant = (tmp_path / name for name in ("run", "keys", "passphrase", "grant"))
    done = run_process("demo", "--learner", "vertigo", "--json", "--keep", run_folder)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["n"], result["learner"]) == (1536, "vertigo")
    assert result["pooled"]["max_abs_estimate"] < 1e-9
    assert result["pooled"]["max_abs_std_error"] < 1e-8
    assert {row["site"] for row in result["terms"]} == {"demographics", "habits", "clinical"}
    assert (result["replay"]["grade"], result["replay"]["unchecked"]) == ("identical", 0)

    stranger = check_replay("--at", run_folder)
    assert (stranger["grade"], stranger["steps"]) == ("partly sealed", 1)
    assert stranger["unchecked"] == result["replay"]["steps"] - 1
    secret.touch(mode=0o600)
    secret.write_text("of the auditor\n")
    auditor = ("--keys", keys, "--passphrase-file", secret)
    public = run_command("seal", "auditor", *auditor).stdout.strip()
    give = ("seal", "grant", "--at", run_folder, "--site", "habits", "--to", public, "--out")
    assert run_command(*give, grant).returncode == 0
    assert run_command(*give, grant).returncode == 12  # never written over
    # Recomputed by other kernels of BLAS and with other CPU features than the sites had.
    plain = {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": " ".join(DISPATCHED)}
    granted = check_replay("--at", run_folder, "--grant", grant, *auditor, **plain)
    assert (granted["grade"], granted["unchecked"]) == ("identical", 0)
    assert run_command("audit", "replay", "--at", run_folder, "--grant", grant).returncode == 12

    check_offline(tmp_path, result, grant, auditor)
    # What each site posted from its own columns comes out the same again at that site.
    inspection = run_command("audit", "recompute", "--at", run_folder, "--site", "habits", "--json")
    assert inspection.returncode == 0, inspection.stdout + inspection.stderr
    assert '"factor"' in inspection.stdout

    assert run_command("seal", "destroy", "--at", run_folder, "--site", "habits").returncode == 0
    empty = run_command(*give, tmp_path / "late")
    assert empty.stdout.endswith(" opens 0 payloads of study 1.\n")
    assert check_replay("--at", run_folder) == stranger


def check_offline(folder: Path, result: dict[str, Any], grant: Path, auditor: tuple[str | Path, ...]) -> None:
    """The same from a bundle, on the page of the report, and against the published numbers."""
    run_folder = folder / "run"
    bundle, page = folder / "study.zip", folder / "report.html"
    assert run_command("audit", "export", "1", bundle, "--at", run_folder).returncode == 0
    verified = run_command(
        "audit", "verify", bundle, "--grant", grant, *auditor, "--result", run_folder / "result.json"
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "PASS, identical" in verified.stdout
    assert "result.json has the numbers" in verified.stdout
    forged = folder / "forged.json"
    forged.write_text(json.dumps({**result, "n": 1537}))
    caught = run_command("audit", "verify", bundle, "--result", forged, "--json")
    assert (caught.returncode, json.loads(caught.stdout)["code"]) == (22, "CO-A110")
    assert run_command("audit", "report", bundle, "--out", page, "--grant", grant, *auditor).returncode == 0
    assert page.read_text().count("recomputed, equal") == result["replay"]["steps"]
    assert "study.zip --grant GRANT" in page.read_text()
    assert run_command("audit", "report", bundle, "--out", page).returncode == 25
    assert "Verdict: RECORD INTACT, model not recomputed (on a chain without seals)" in page.read_text()
    assert page.read_text().count("recomputed, equal") == 1


@pytest.mark.long
def test_valoris_equals_the_pooled_fit_and_tells_its_verdicts(tmp_path: Path) -> None:
    done = run_process("demo", "--learner", "valoris", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["pooled"]["max_abs_estimate"] < 1e-9
    assert result["pooled"]["max_abs_std_error"] < 1e-8
    assert all(verdict["released"] for verdict in result["details"]["privacy"].values())
    assert (result["replay"]["verdict"], result["replay"]["recomputed"]["server_steps"]) == ("RECORD INTACT", 0)


def test_a_demo_on_split_columns_has_three_sites() -> None:
    done = run_command("demo", "--learner", "vertigo", "--sites", "2", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (12, "CO-F314")
