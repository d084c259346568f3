"""`coterie predict --at`: survival from the JSON of a Cox model with one baseline hazard is that of R's survfit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.learners.cox_cohort import common_study, model_study, read_cohort
from support.learners.survival_study import ARMS, STAGES, read_cox_more
from typer.testing import CliRunner

from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.analysis.predict import open_predictor, predict_rows
from coterie_node.cli.main import app
from coterie_node.errors import ConfigError

TIMES = (2.0, 13.0, 36.0)
PATIENTS = "who,age,arm,stage,dose\np1,40,a,early,0\np2,61.5,b,late,0\np3,80,c,late,0\n"


def publish(folder: Path, study: Study) -> dict[str, Any]:
    """The result as a file has it."""
    columns, place, _ = read_cohort(len(study.sites))
    files = {}
    for at, name in enumerate(study.sites):
        rows = np.flatnonzero(place == at).tolist()
        lines = ["months,died,age,arm,stage,dose"]
        for k in rows:
            values = (columns["months"][k], int(columns["died"][k]), columns["age"][k])
            levels = (ARMS[int(columns["arm"][k])], STAGES[int(columns["stage"][k])], columns["dose"][k])
            lines.append(",".join(map(str, (*values, *levels))))
        files[name] = folder / f"{name}.csv"
        files[name].write_text("\n".join(lines) + "\n")
    document: dict[str, Any] = json.loads(json.dumps(analyse(study, files).as_dict()))
    return document


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Three patients without an outcome."""
    path = tmp_path / "rows.csv"
    path.write_text(PATIENTS)
    return path


@pytest.mark.parametrize("model", ["breslow common", "efron common offset"])
def test_survival_and_its_limits_are_those_of_survfit(tmp_path: Path, rows: Path, model: str) -> None:
    formula = "died ~ age + arm + stage" + (" + offset(dose)" if "offset" in model else "")
    result = publish(tmp_path, common_study(ties=model.split()[0], formula=formula))
    predictor = open_predictor(result, "result.json", at=TIMES)
    (batch,) = predict_rows(predictor, rows, "here")
    want = read_cox_more(model)
    for k in range(3):
        for time, end in zip(TIMES, (2, 12, 36), strict=True):
            survival, error = want[f"survival {k + 1} {end}"]
            low, high = want[f"limits {k + 1} {end}"]
            assert batch.columns[f"survival[{time:g}]"][k] == pytest.approx(survival, abs=1e-9)
            assert batch.columns[f"survival_se[{time:g}]"][k] == pytest.approx(survival * error, abs=1e-9)
            assert batch.columns[f"survival_low[{time:g}]"][k] == pytest.approx(low, abs=1e-9)
            assert batch.columns[f"survival_high[{time:g}]"][k] == pytest.approx(high, abs=1e-9)


def test_a_row_s_stratum_chooses_its_baseline(tmp_path: Path, rows: Path) -> None:
    result = publish(tmp_path, common_study(strata="stage", formula="died ~ age + arm"))
    (batch,) = predict_rows(open_predictor(result, "result.json", at=(12.0,)), rows, "here")
    early, late = result["details"]["cox"]["baseline"]["strata"]
    assert (early["stratum"], late["stratum"]) == STAGES
    beta = [row["estimate"] for row in result["terms"]]
    centre = result["details"]["cox"]["baseline"]["centre"]
    at = early["times"].index(12.0), late["times"].index(12.0)
    hazards = early["hazard"][at[0]], late["hazard"][at[1]]
    etas = [(40 - centre[0]) * beta[0], (61.5 - centre[0]) * beta[0] + beta[1]]
    want = [np.exp(-h * np.exp(eta)) for h, eta in zip(hazards, etas, strict=True)]
    assert batch.columns["survival[12]"][:2] == pytest.approx(want, abs=1e-12)


def test_the_command_prints_survival_by_time(tmp_path: Path, rows: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(publish(tmp_path, common_study())))
    done = CliRunner().invoke(
        app, ["predict", str(path), "--data", str(rows), "--id", "who", "--at", "12", "--at", "0"]
    )
    assert done.exit_code == 0, done.output
    header, first, *_ = done.stdout.splitlines()
    assert header.endswith('"survival[0]","survival_se[0]","survival_low[0]","survival_high[0]"')
    assert first.split(",")[-4:] == ["1", "0", "1", "1"]


@pytest.mark.parametrize("change", ["site", "late", "torn"])
def test_a_result_without_a_baseline_that_can_be_read_is_refused(tmp_path: Path, change: str) -> None:
    study = model_study() if change == "site" else common_study()
    result = publish(tmp_path, study)
    if change == "torn":
        result["details"]["cox"]["baseline"]["strata"][0]["hazard"].pop()
    with pytest.raises(ConfigError) as error:
        open_predictor(result, "result.json", at=(40.0 if change == "late" else 12.0,))
    assert error.value.code == {"site": "CO-F366", "late": "CO-F366", "torn": "CO-F354"}[change]
