"""The demo of propensity scores: equal to statsmodels on all rows, in the audit report, and in a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coterie_node.cli.main import app

pytestmark = [pytest.mark.long, pytest.mark.anvil, pytest.mark.xdist_group("demo")]


def run(*words: str) -> str:
    outcome = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


def test_quitting_smoking_adds_the_weight_that_hernan_and_robins_have(tmp_path: Path) -> None:
    kept, page, bundle = tmp_path / "run", tmp_path / "report.html", tmp_path / "bundle.zip"
    result: dict[str, Any] = json.loads(run("demo", "--learner", "propensity", "--keep", str(kept), "--json"))
    assert result["pooled"]["max_abs_estimate"] < 1e-9
    assert result["pooled"]["max_abs_std_error"] < 1e-9
    assert result["replay"]["verdict"] == "PASS"
    effect = result["terms"][1]
    assert (effect["term"], round(effect["estimate"], 1)) == ("qsmk", 3.4)
    run("audit", "report", "1", "--at", str(kept), "--out", str(page))
    assert "for the effect of qsmk in all patients (ATE), by PROPENSITY" in page.read_text()
    run("audit", "export", "1", str(bundle), "--at", str(kept))
    assert "PASS" in run("audit", "verify", str(bundle))
    published = tmp_path / "result.json"
    published.write_text(json.dumps(result))
    assert "has the numbers that the replay arrives at" in run(
        "audit", "replay", "1", "--at", str(kept), "--result", str(published)
    )
