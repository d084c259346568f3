"""The demo of a validation: equal to scikit-learn and statsmodels on all rows, in the audit report, and in a bundle."""

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


def test_the_demo_s_evaluation_stands_in_report_tripod_table_and_bundle(tmp_path: Path) -> None:
    kept, page, bundle = tmp_path / "run", tmp_path / "report.html", tmp_path / "bundle.zip"
    result: dict[str, Any] = json.loads(run("demo", "--learner", "validate", "--keep", str(kept), "--json"))
    assert result["pooled"]["max_abs_estimate"] < 1e-9
    assert result["replay"]["verdict"] == "PASS"
    (whole, *groups) = result["details"]["evaluation"]["groups"]
    assert (whole["n"], whole["events"]) == (1629, 318)
    assert [group["name"] for group in groups] == ["sex[male]", "sex[female]", "race[white]", "race[black-or-other]"]
    items = tmp_path / "tripod.md"
    run("audit", "report", "1", "--at", str(kept), "--out", str(page), "--out", str(items))
    text = page.read_text()
    assert "How well does the model predict?" in text
    assert "We made a validation of a published model by VALIDATE" in text
    assert "ROC curve, AUC" in text
    assert "| 12e | Analytical methods: measures |" in items.read_text()
    run("audit", "export", "1", str(bundle), "--at", str(kept))
    assert "PASS" in run("audit", "verify", str(bundle))
