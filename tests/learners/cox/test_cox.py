"""Cox models stratified by site are those of R's coxph on all patients with the sites as strata."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.learners.survival_study import Columns, cox_study, read_age, read_columns, read_cox, split_sites
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit, coefficient_table
from coterie_learners.core.registry import complete_study
from coterie_learners.cox.cox import cox
from coterie_learners.cox.likelihood.partial_likelihood import measure_likelihood
from coterie_learners.cox.likelihood.risk_sets import RiskRows, place_times
from coterie_learners.errors import Collinear, DataError, NotConverged, Separation, StudyError
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes, Data


def cohort() -> Columns:
    return {**read_columns(), "age": read_age()}


def play_cox(study: Study, rows: dict[str, Data] | None = None) -> tuple[Fit, MemoryProtocol]:
    table = MemoryProtocol(cox, study, rows or split_sites(cohort(), study.sites))
    results = table.play()
    assert len({fit.estimates.tobytes() + fit.std_errors.tobytes() for fit in results.values()}) == 1
    fit = results[study.sites[0]]
    assert isinstance(fit, Fit)
    return fit, table


def check_fit(fit: Fit, model: str) -> None:
    want = read_cox(model)
    for row in coefficient_table(fit):
        assert row.estimate == pytest.approx(want[row.term][0], abs=1e-9)
        assert row.std_error == pytest.approx(want[row.term][1], abs=1e-9)
    tests = fit.details["cox"]["tests"]
    assert fit.log_likelihood == pytest.approx(want["log-likelihood"][0], abs=1e-8)
    for name, term in (("likelihood_ratio", "likelihood ratio"), ("score", "score"), ("wald", "wald")):
        assert tests[name]["chi2"] == pytest.approx(want[term][0], rel=1e-8)


@pytest.mark.parametrize(
    ("model", "count", "options"),
    [
        ("breslow 3", 3, {"ties": "breslow"}),
        ("efron 3", 3, {}),
        ("efron 5", 5, {}),
        ("efron entry 3", 3, {"entry": "entry"}),
        ("breslow entry 3", 3, {"entry": "entry", "ties": "breslow"}),
        ("efron strata 3", 3, {"strata": "stage", "formula": "died ~ age + arm"}),
    ],
)
def test_hazard_ratios_and_tests_are_those_of_r(model: str, count: int, options: dict[str, Any]) -> None:
    check_fit(play_cox(cox_study(count, **options))[0], model)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_ties_of_half_the_events_are_those_of_r(ties: str) -> None:
    columns, study = cohort(), cox_study(ties=ties)
    columns["months"] = np.ceil(columns["months"] / 12) * 12
    check_fit(play_cox(study, split_sites(columns, study.sites))[0], f"{ties} tied 3")


@pytest.mark.parametrize("efron", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_score_and_information_are_derivatives_of_the_likelihood(efron: bool, late: bool) -> None:
    rng = np.random.default_rng(3)
    time = np.ceil(rng.exponential(4, 60)) + 1
    entry = np.floor(time * rng.random(60) * 0.9) if late else np.full(60, -1.0)
    x, event, strata = rng.normal(size=(60, 3)), rng.random(60) < 0.7, np.arange(60) % 2
    offset, weight = rng.normal(size=60), rng.uniform(0.5, 2, 60)
    placed = place_times(strata, time, entry, event)
    patients = RiskRows(x, offset, weight, event, *placed, np.arange(60))
    beta, h = np.array([0.3, -0.2, 0.5]), 1e-5
    there = measure_likelihood(patients, beta, efron)
    for j, unit in enumerate(np.eye(3)):
        up, down = (measure_likelihood(patients, beta + sign * h * unit, efron) for sign in (1, -1))
        assert (up.value - down.value) / (2 * h) == pytest.approx(there.score[j], abs=1e-6)
        np.testing.assert_allclose((down.score - up.score) / (2 * h), there.information[j], atol=1e-6)


def test_an_auditor_without_rows_recomputes_the_same_model() -> None:
    fit, table = play_cox(cox_study())
    auditor = table.auditor()
    assert (auditor.unchecked, auditor.checked) == (0, fit.rounds + 1)
    assert auditor.result.estimates.tobytes() == fit.estimates.tobytes()


def test_only_masked_words_leave_a_site() -> None:
    fit, table = play_cox(cox_study())
    for t in range(fit.rounds):
        assert {name for post in table.posts(f"stats/{t}").values() for name in post} == {"masked"}


def test_a_site_without_events_changes_nothing() -> None:
    study, columns = cox_study(4), cohort()
    rows: dict[str, Data] = split_sites(columns, study.sites[:3])
    alive = {**{k: v[:40] for k, v in columns.items()}, "died": np.zeros(40)}
    fit, _ = play_cox(study, {**rows, study.sites[3]: ArrayCodes(alive)})
    want, _ = play_cox(cox_study(3))
    np.testing.assert_allclose(fit.estimates, want.estimates, atol=1e-12)
    assert (fit.n, fit.events) == (want.n + 40, want.events)


@pytest.mark.parametrize("first", [True, False])
def test_a_level_without_events_is_named(first: bool) -> None:
    columns, study = cohort(), cox_study()
    columns["died"] = np.where(columns["arm"] == (0 if first else 2), 0.0, columns["died"])
    with pytest.raises(Separation, match=r"Coefficients of arm\[") as error:
        play_cox(study, split_sites(columns, study.sites))
    assert error.value.code == "CO-N302"


def test_a_pool_without_events_has_no_model() -> None:
    study = cox_study()
    with pytest.raises(Separation) as error:
        play_cox(study, split_sites({**cohort(), "died": np.zeros(900)}, study.sites))
    assert error.value.code == "CO-N301"


def test_columns_that_determine_each_other_are_named() -> None:
    columns, study = cohort(), cox_study()
    columns["stage"] = (columns["arm"] == 1).astype(float)
    with pytest.raises(Collinear):
        play_cox(study, split_sites(columns, study.sites))


def test_rounds_that_run_out_are_an_error() -> None:
    with pytest.raises(NotConverged):
        play_cox(cox_study(max_rounds=2))


def test_a_negative_time_is_refused_at_its_site() -> None:
    columns, study = cohort(), cox_study()
    columns["months"][3] = -1.0
    with pytest.raises(DataError) as error:
        play_cox(study, split_sites(columns, study.sites))
    assert error.value.code == "CO-D161"


def test_a_study_that_excludes_silent_sites_is_refused() -> None:
    plain = cox_study().model_dump()
    with pytest.raises(StudyError) as error:
        complete_study(Study.model_validate({**plain, "ledger": {"silent_site": "exclude"}}))
    assert error.value.code == "CO-S306"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"count": 2}, "CO-S305"),
        ({"formula": "died ~ 1"}, "CO-S337"),
        ({"formula": "died ~ age - 1"}, "CO-S337"),
        ({"formula": "died ~ age + months"}, "CO-S204"),
        ({"strata": "stage"}, "CO-S204"),
        ({"time": "arm", "formula": "died ~ age"}, "CO-S336"),
        ({"entry": "months"}, "CO-S204"),
        ({"ties": "peto"}, "CO-S404"),
    ],
)
def test_a_study_that_does_not_fit_is_refused(options: dict[str, Any], code: str) -> None:
    with pytest.raises(StudyError) as error:
        cox_study(**options)
    assert error.value.code == code
