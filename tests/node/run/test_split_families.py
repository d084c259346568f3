"""Other families on split columns, from files to the result: restarts, replay, gate, report, and files with gaps."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from support.lanes import later
from support.learners import column_owners, vertical
from support.learners.cohorts import Codes

from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.analysis.certificate import certifiable, certify
from coterie_node.analysis.conformance import check_learner
from coterie_node.analysis.pooled import Reference
from coterie_node.audit.report.model_words import describe_model

N = 150
FAMILIES: dict[str, Any] = {
    "gaussian": sm.families.Gaussian(),
    "poisson_offset": sm.families.Poisson(),
    "probit": sm.families.Binomial(sm.families.links.Probit()),
    "cloglog": sm.families.Binomial(sm.families.links.CLogLog()),
}


def rows() -> Codes:
    return {name: values[:N] for name, values in column_owners.codes("stays").items()}


def pooled(study: Study, model: str, codes: Codes) -> Reference:
    """statsmodels' fit of the joined columns."""
    design = Design(study)
    done = sm.GLM(
        codes[design.formula.outcome],
        design.raw(codes, len(codes["age"])),
        FAMILIES[model],
        offset=codes["time"] if design.formula.offset else None,
    ).fit(tol=1e-14, maxiter=200, tol_criterion="params")
    values = (dict(zip(design.names, numbers.tolist(), strict=True)) for numbers in (done.params, done.bse))
    return Reference(*values)


@pytest.mark.parametrize(
    ("learner", "model"),
    [
        ({"name": "valoris"}, "gaussian"),
        pytest.param({"name": "vertigo"}, "poisson_offset", marks=pytest.mark.long),
        pytest.param({"name": "valoris", "mode": "aggregated"}, "cloglog", marks=pytest.mark.long),
        pytest.param({"name": "vertigo"}, "gaussian", marks=pytest.mark.long),
        pytest.param({"name": "vertigo"}, "probit", marks=pytest.mark.long),
        pytest.param({"name": "valoris"}, "poisson_offset", marks=pytest.mark.long),
    ],
)
def test_every_family_obeys(learner: dict[str, Any], model: str) -> None:
    """Fits the joined columns, survives a restart at every step, replays to the bit, discloses what it says."""
    study, codes = column_owners.study("stays", model, "3", **learner), rows()
    report = check_learner(study, vertical.split(study, codes), pooled(study, model, codes), tolerance=1e-7)
    assert report.restarts > 5
    assert report.estimate_difference < 1e-7


@pytest.mark.parametrize("model", ["gaussian", *later("poisson_offset", "probit", "cloglog")])
def test_the_certificate_covers_the_families(model: str) -> None:
    study = column_owners.study("stays", model, "3", name="vertigo" if model == "probit" else "valoris")
    assert certifiable(study)
    assert certify(study, rows=200).max_in_std_errors < 1e-6


# Files in which some rows lack a value


def write_files(folder: Path, codes: Codes, study: Study, lacking: dict[str, range]) -> dict[str, Path]:
    """One file for each site; in the range of rows its first covariate is blank."""
    out = {}
    for name in study.sites:
        own, path = list(study.columns[name]), folder / f"{name}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["code", *own])
            for k in range(N):
                values: list[str] = [text_of(study, column, codes[column][k]) for column in own]
                values[-1] = "" if k in lacking.get(name, ()) else values[-1]
                writer.writerow([f"p{k:04d}", *values])
        out[name] = path
    return out


def text_of(study: Study, column: str, value: float) -> str:
    levels = study.variables[column].levels
    return levels[int(value)] if levels else f"{value:g}" if value == round(value) else repr(float(value))


def study_of_files(cell: int = 5) -> Study:
    plain = column_owners.study("stays", "gaussian", "3", name="valoris").model_dump()
    plain["disclosure"] |= {"cell": cell}
    plain["rows"] |= {"missing": "drop"}
    return Study.model_validate(plain)


@pytest.mark.parametrize(("lacking", "words"), [(range(10, 22), "clinic 12"), (range(3), "clinic 1 to 4")])
def test_a_file_s_rows_without_a_value_are_counted_after_the_join(tmp_path: Path, lacking: range, words: str) -> None:
    study, codes = study_of_files(), rows()
    result = analyse(study, write_files(tmp_path, codes, study, {"clinic": lacking}))
    keep = np.array([k not in lacking for k in range(N)])
    reference = pooled(study, "gaussian", {name: values[keep] for name, values in codes.items()})
    assert reference.differences(result.fit)["max_abs_estimate"] < 1e-8
    assert result.fit.n == N - len(lacking)
    plain = json.loads(json.dumps(result.as_dict()))
    assert plain["details"]["alignment"]["common"] == N
    assert f"without a value at {words}." in result.text()
    assert plain["df_residual"] == N - len(lacking) - 7
    assert describe_model(study, result.fit) == "gaussian regression (identity link) by VALORIS"
