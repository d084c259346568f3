"""Standardised means are those of R: predictions with everybody at one level, with errors by the delta method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.learners.cohorts import draw, split, study
from support.learners.r_stays import fit_files, references, write_site_files
from support.learners.table import MemoryProtocol

from coterie_learners.core.masked_sum import SiteSums
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import ProtocolError, StudyError
from coterie_learners.glore.glore import GlorePlan, glore
from coterie_learners.glore.standardised_means import pool_means
from coterie_learners.study.document import Study

STAY = "age + ward + frail"
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "logit_frail": ("stays", "readmit ~ age + ward + frail + ward:frail", {}),
    "logit_robust": ("stays", "readmit ~ age + ward + frail + ward:frail", {"robust": True}),
    "poisson_ward": ("stays", f"infections ~ {STAY}", {"family": "poisson"}),
    "linear_frail": ("stays", "stay ~ age + frail + age:frail + ward", {"family": "gaussian"}),
    "gamma_ward": ("stays", f"stay ~ {STAY}", {"family": "gamma", "link": "log"}),
    "weighted_frail": ("stays", f"readmit ~ {STAY}", {"weights": "w"}),
    "probit_diabetes": ("cohort", "death ~ age + sex + diabetes + htn", {"link": "probit"}),
}
QUICK = ("logit_frail", "gamma_ward")
STAYS_SPLITS = [(5, "masked"), (2, "plain"), (3, "masked"), (3, "plain"), (5, "plain")]
COHORT_SPLITS = [(4, "masked"), (2, "plain"), (4, "plain")]
CASES = [
    pytest.param(model, *split, marks=() if k == 0 and model in QUICK else pytest.mark.long)
    for model, (data, _, _) in MODELS.items()
    for k, split in enumerate(STAYS_SPLITS if data == "stays" else COHORT_SPLITS)
]


@pytest.mark.parametrize(("model", "count", "aggregation"), CASES)
def test_means_and_differences_are_those_of_r(model: str, count: int, aggregation: str, tmp_path: Path) -> None:
    data, formula, options = MODELS[model]
    variable = model.rpartition("_")[2].replace("robust", "frail")
    learner = {"name": "glore", "standardise": variable, "aggregation": aggregation, **options}
    fit = fit_files(write_site_files(data, count, tmp_path), data, formula, learner).fit
    want = references("standardise")[model].terms
    lines = {f"{line['kind']} {line['at']}": line for line in fit.details["standardised"]["lines"]}
    assert set(lines) == set(want)
    for term, (value, error) in want.items():
        assert lines[term]["value"] == pytest.approx(value, rel=1e-8)
        assert lines[term]["std_error"] == pytest.approx(error, rel=1e-7)


def test_limits_and_means_of_one_fit_end_with_the_limits() -> None:
    of = study("died ~ age + male", 3, intervals="profile", standardise="male")
    table = MemoryProtocol(glore, of, split(of, draw(400)))
    fit = table.play()[of.sites[0]]
    assert {"intervals", "standardised"} <= set(fit.details)
    ends = [topic for topic in table.topics if any(p.get("converged", False) for p in table.posts(topic).values())]
    assert [topic.partition("/")[0] for topic in ends] == ["limits_model"]
    assert table.auditor().unchecked == 0


def test_means_of_other_rows_than_the_fit_s_are_refused() -> None:
    of = study("died ~ age + male", 2, standardise="male", aggregation="plain")
    table = MemoryProtocol(glore, of, split(of, draw(400)))
    table.play()
    plan, posts = GlorePlan.of(of), table.posts("standardised")
    model = next(iter(table.posts([t for t in table.topics if t.startswith(("model/", "end/"))][-1]).values()))
    sums = SiteSums({name: np.shape(value) for name, value in posts["north"].items()}, masked=False)
    hostile = {**posts, "south": {**posts["south"], "mass": np.asarray(1e9)}}
    with pytest.raises(ProtocolError, match="not of the same rows") as error:
        pool_means(plan, sums, model, True, hostile)
    assert error.value.code == "CO-P508"


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("died ~ age + male", {"standardise": "age"}),
        ("died ~ age + male", {"standardise": "stage"}),
        ("died ~ age + male:stage", {"standardise": "male"}),
        ("died ~ male + male:age", {"standardise": "male"}),
        ("died ~ age + male", {"standardise": "male", "ridge": 1.0}),
        ("died ~ age + male", {"standardise": "male", "site_intercepts": True}),
        ("visits ~ age + male + offset(years)", {"standardise": "male", "family": "poisson"}),
    ],
)
def test_a_model_that_cannot_be_standardised_is_refused(formula: str, options: dict[str, Any]) -> None:
    with pytest.raises(StudyError) as error:
        study(formula, 3, **options)
    assert error.value.code == "CO-S355"


def test_a_study_that_may_lose_a_site_has_no_standardised_means() -> None:
    plain = study("died ~ age + male", 3, standardise="male").model_dump()
    with pytest.raises(StudyError) as error:
        complete_study(Study.model_validate({**plain, "ledger": {"silent_site": "exclude"}}))
    assert error.value.code == "CO-S306"
