"""Formulas as statisticians write them: R's fits (tests/golden/r/formula.R), and the gate on derived columns."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.learners.r_stays import STAYS, fit_files, references, write_site_files

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError, Withheld
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse, load_sites
from coterie_node.errors import ReleaseRefused
from coterie_node.run.preview import dry_run

FITS = {
    "fit_squared": "stay ~ (ward + frail + age)^2 - ward:age",
    "fit_nested": "stay ~ ward / frail",
    "fit_slopes": "stay ~ 0 + ward + age:ward",
    "fit_ns": "stay ~ ns(age, knots = c(60, 75)) * frail",
    "fit_bs": "stay ~ bs(age, knots = 70) + ward",
    "fit_functions": "stay ~ log(age) + I(age > 65):frail + I((age - 50)^2 / 100)",
    "fit_cut": "stay ~ cut(age, c(-Inf, 60, 75, Inf)) * frail",
    "fit_relevel": "stay ~ relevel(ward, ref = 'surgical') + age",
}
ESTIMATES, ERRORS = 1e-8, 1e-7


@pytest.mark.parametrize(("model", "aggregation"), [(m, ("masked", "plain")[k % 2]) for k, m in enumerate(FITS)])
def test_a_fit_with_functions_is_r_s(tmp_path: Path, model: str, aggregation: str) -> None:
    files = write_site_files("stays", 3, tmp_path)
    learner = {"name": "glore", "family": "gaussian", "aggregation": aggregation}
    result = fit_files(files, "stays", FITS[model], learner)
    expected = np.array(list(references("formula")[model].terms.values()))
    estimates, errors = result.params, result.bse
    np.testing.assert_allclose(estimates, expected[:, 0], atol=ESTIMATES * float(np.max(np.abs(expected[:, 0]))))
    np.testing.assert_allclose(errors, expected[:, 1], rtol=ERRORS)


def study_of(formula: str, **disclosure: Any) -> Study:
    plain = {
        "name": "gate",
        "sites": ["north", "south", "west"],
        "formula": formula,
        "learner": {"name": "glore"},
        "rows": {"constant": "allow", "collinear": "allow"},
        "variables": STAYS,
        "disclosure": disclosure,
    }
    return complete_study(Study.model_validate(plain))


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ("I(age > 93)", "CO-N131"),
        ("cut(age, c(-Inf, 93, Inf))", "CO-N131"),
        ("I((age - 60) * (age > 93))", "CO-D152"),
        ("bs(age, knots = 93, degree = 1)", "CO-D152"),
    ],
)
def test_a_derived_column_that_only_few_patients_have_is_kept_back_under_masks(
    tmp_path: Path, terms: str, code: str
) -> None:
    files = write_site_files("stays", 3, tmp_path)
    with pytest.raises((Withheld, DataError)) as caught:
        analyse(study_of(f"readmit ~ frail + {terms}"), dict(files))
    assert caught.value.code == code


@pytest.mark.parametrize("terms", ["I(age > 93)", "cut(age, c(-Inf, 93, Inf))"])
def test_a_derived_column_that_only_few_patients_have_is_refused_in_the_clear(tmp_path: Path, terms: str) -> None:
    files = write_site_files("stays", 3, tmp_path)
    study = study_of(f"readmit ~ frail + {terms}")
    plain = Study.model_validate(
        {**study.model_dump(), "learner": {"name": "glore", "aggregation": "plain", "opening": "none"}}
    )
    with pytest.raises(ReleaseRefused, match="counts below 5 patients can be solved"):
        analyse(complete_study(plain), dict(files))


def test_the_gate_judges_derived_values_and_the_log_remembers_the_columns_behind_them(tmp_path: Path) -> None:
    files = write_site_files("stays", 3, tmp_path)
    study = study_of("readmit ~ log(age) + cut(age, c(-Inf, 60, 75, Inf)):frail + ward")
    loaded = load_sites(study, dict(files))["north"]
    assert set(loaded.rows.read_raw().values) == {"readmit", "age", "frail", "ward"}  # type: ignore[union-attr]
    assert not any(payload.release.verdict.refused for payload in dry_run(study, dict(files)))


COX = {"name": "cox", "time": "days", "event": "readmit"}
COMMON = {"baseline": "common", "time_grid": {"width": 90, "horizon": 360}}


@pytest.mark.parametrize("learner", [{"name": "glore"}, COX, COX | COMMON], ids=["glore", "cox", "common baseline"])
def test_a_function_of_a_column_gives_the_fit_of_the_column_that_has_its_values(
    tmp_path: Path, learner: dict[str, Any]
) -> None:
    files = write_site_files("stays", 3, tmp_path)
    for path in files.values():
        first, *lines = path.read_text().splitlines()
        at = first.split(",").index("age")
        rows = [f"{line},{math.log(float(line.split(',')[at]))!r}" for line in lines]
        path.write_text("\n".join([f"{first},logage", *rows]) + "\n")
    variables = STAYS | {
        "days": {"type": "number", "range": [0, 366]},
        "logage": {"type": "number", "range": [math.log(18), math.log(100)]},
    }
    fits = []
    for term in ("log(age)", "logage"):
        study = study_of("readmit ~ frail", cell=0, rows=1)
        plain = study.model_dump() | {"variables": variables, "learner": learner}
        plain |= {"formula": f"readmit ~ {term} + frail"}
        fits.append(analyse(complete_study(Study.model_validate(plain)), dict(files)).params)
    np.testing.assert_allclose(fits[0], fits[1], rtol=1e-9)
