"""The demo of the table of characteristics: equal to pandas on all rows, in the audit report, and in a bundle."""

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


def test_the_demo_s_table_is_that_of_pandas_and_stands_in_report_and_bundle(tmp_path: Path) -> None:
    kept, page, bundle = tmp_path / "run", tmp_path / "report.html", tmp_path / "bundle.zip"
    result: dict[str, Any] = json.loads(run("demo", "--learner", "table_one", "--keep", str(kept), "--json"))
    assert result["pooled"]["max_abs_estimate"] < 1e-9
    assert result["replay"]["verdict"] == "PASS"
    table = result["details"]["table"]
    assert table["n"] == [1629, 799, 830]
    assert {line["name"]: line["shown"] for line in table["lines"]}["diabetes"] == "nothing"
    run("audit", "report", "1", "--at", str(kept), "--out", str(page))
    text = page.read_text()
    assert "<caption>Characteristics</caption>" in text
    assert "We made a table of characteristics" in text
    run("audit", "export", "1", str(bundle), "--at", str(kept))
    assert "PASS" in run("audit", "verify", str(bundle))
    published = tmp_path / "result.json"
    published.write_text(json.dumps(result))
    assert "has the numbers that the replay arrives at" in run(
        "audit", "replay", "1", "--at", str(kept), "--result", str(published)
    )
