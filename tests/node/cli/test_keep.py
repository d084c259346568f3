"""`coterie simulate --keep` leaves a run that every command of an auditor opens."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.node.commands import refusal, run

from coterie_node.audit.publication import read_publication

pytestmark = [pytest.mark.anvil, pytest.mark.xdist_group("kept run")]

STUDY = """
name = "kept"
sites = ["north", "south", "west"]
formula = "y ~ x"
[learner]
name = "glore"
[rows]
missing = "drop"
[variables.y]
type = "binary"
[variables.x]
type = "number"
range = [-6, 6]
"""
SITES = ("north", "south", "west")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a kept run, of which north gave Parquet and dropped most of its rows."""
    root, rng = tmp_path_factory.mktemp("kept"), np.random.default_rng(3)
    (root / "study.toml").write_text(STUDY)
    data = []
    for site in SITES:
        x = rng.normal(size=200).clip(-5, 5).round(3)
        y = (rng.random(200) < 1 / (1 + np.exp(-x))).astype(int)
        values: list[float | None] = x.tolist()
        if site == "north":
            values = [None if k % 5 else value for k, value in enumerate(values)]
            pq.write_table(pa.table({"y": y, "x": pa.array(values, pa.float64())}), root / "north.parquet")
            data.append(f"--data=north={root / 'north.parquet'}")
            continue
        (root / f"{site}.csv").write_text("y,x\n" + "".join(f"{a},{b}\n" for a, b in zip(y, values, strict=True)))
        data.append(f"--data={site}={root / f'{site}.csv'}")
    result = run("simulate", root / "study.toml", *data, "--keep", root / "run", "--json")
    (root / "printed.json").write_text(result)
    return root


def test_the_rows_of_a_kept_run_are_private(kept: Path) -> None:
    files = [*(kept / "run" / "sites").glob("*/data.*")]
    assert sorted(file.name for file in files) == ["data.csv", "data.csv", "data.parquet"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert {stat.S_IMODE(file.parent.stat().st_mode) for file in files} == {0o700}


def test_a_kept_run_is_replayed_exported_verified_and_reported(kept: Path) -> None:
    at = ("--at", kept / "run")
    assert "PASS, identical" in run("audit", "replay", *at)
    assert "PASS, identical" in run("audit", "replay", *at, "--result", kept / "printed.json")
    run("audit", "export", 1, kept / "bundle.zip", *at)
    assert "PASS" in run("audit", "verify", kept / "bundle.zip", *at)
    run("audit", "report", *at, "--out", kept / "report.html")
    page = (kept / "report.html").read_text()
    assert "kept" in page
    assert page.count("north: more than half of its rows are left out (160 of 200)") == 1
    assert json.loads(run("audit", "recompute", *at, "--site", "north", "--json"))["verdict"] == "PASS"


def test_the_result_of_a_kept_run_counts_the_rows_and_warns_of_them(kept: Path) -> None:
    result = json.loads((kept / "printed.json").read_text())
    counts = result["rows"]["north"]
    assert [counts[k] for k in ("read", "used", "dropped")] == [200, 40, 160]
    assert counts["missing"] == {"y": 0, "x": 160}
    assert any("more than half of its rows are left out (160 of 200)" in w for w in result["soundness"]["warnings"])
    assert read_publication(kept / "run" / "result.json")["terms"] == result["terms"]


def test_a_published_result_may_not_hide_a_warning(kept: Path) -> None:
    result = json.loads((kept / "printed.json").read_text())
    result["soundness"]["verdict"] = "no warnings"
    (kept / "hidden.json").write_text(json.dumps(result))
    assert "miscounts its warnings" in run(
        "audit", "replay", "--at", kept / "run", "--result", kept / "hidden.json", code=22
    )


def rows_of_the_run(kept: Path) -> list[str]:
    """The rows of the three sites, as a command takes them."""
    names = {"north": "data.parquet", "south": "data.csv", "west": "data.csv"}
    return [f"--data={site}={kept / 'run' / 'sites' / site / name}" for site, name in names.items()]


def test_a_folder_that_holds_something_is_no_place_for_a_run(kept: Path) -> None:
    assert refusal("simulate", kept / "study.toml", *rows_of_the_run(kept), "--keep", kept).code == "CO-F203"


def test_a_study_in_json_cannot_be_kept(kept: Path) -> None:
    (kept / "study.json").write_bytes((kept / "run" / "study.json").read_bytes())
    to = ("--keep", kept / "other")
    assert refusal("simulate", kept / "study.json", *rows_of_the_run(kept), *to).code == "CO-F208"
