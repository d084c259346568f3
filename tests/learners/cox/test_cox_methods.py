"""Cox models of one cause, with exact ties, and with Firth's penalty: those of R on all patients (cox_methods.R)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from statsmodels.duration.hazard_regression import PHReg
from support.learners.cox_cohort import PatientProtocol, common_study, model_study, play_cohort, read_cohort
from support.learners.survival_study import read_causes, read_competing, read_cox_methods

from coterie_learners.core.fit import Fit, coefficient_table
from coterie_learners.cox.likelihood import exact_ties
from coterie_learners.cox.likelihood.exact_ties import measure_exact_likelihood
from coterie_learners.cox.likelihood.firth_penalty import measure_third, unpack_third
from coterie_learners.cox.likelihood.partial_likelihood import measure_likelihood
from coterie_learners.cox.likelihood.risk_sets import RiskRows, place_times
from coterie_learners.errors import DataError, StudyError

Cohort = tuple[dict[str, Any], Any, Any]


def take_cohort(change: str = "", count: int = 3) -> Cohort:
    columns, place, patient = read_cohort(count)
    columns["cause"] = read_causes()["cause"]
    if change == "tied":
        columns["months"] = np.ceil(columns["months"] / 12) * 12
    if change in ("separated", "few"):
        columns["died"] = np.where(columns["arm"] == 2, 0.0, columns["died"])
    if change == "few":
        columns["died"] = np.where((np.arange(900) + 1) % 7 == 0, columns["died"], 0.0)
    return columns, place, patient


def check_model(fit: Fit, want: dict[str, tuple[float, float]], tests: tuple[str, ...] = ()) -> None:
    for row in coefficient_table(fit):
        assert row.estimate == pytest.approx(want[row.term][0], abs=1e-8)
        assert row.std_error == pytest.approx(want[row.term][1], abs=1e-8)
    for name in tests:
        got = fit.details["cox"]["tests"][name.replace(" ", "_")]["chi2"]
        assert got == pytest.approx(want[name][0], rel=1e-8)


# One of several causes


@pytest.mark.parametrize("baseline", ["site", "common"])
def test_hazards_of_one_cause_are_those_of_r_with_other_causes_as_censored(baseline: str) -> None:
    make = common_study if baseline == "common" else model_study
    study = make(3, event="cause", cause="cancer", formula="cause ~ age + arm + stage")
    fit, _ = play_cohort(study, take_cohort())
    check_model(fit, read_competing(f"cox {baseline}"))
    assert any("patients with another cause are censored" in note for note in fit.notes)
    columns = read_causes()
    late = 36 if baseline == "common" else 1000
    assert fit.events == np.count_nonzero((columns["cause"] == 1) & (columns["months"] <= late))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"event": "cause"}, "has the causes cancer, other; the study names none"),
        ({"event": "cause", "cause": "alive"}, "the study names alive"),
        ({"event": "cause", "cause": "stroke"}, "the study names stroke"),
        ({"cause": "cancer"}, "died is binary and has no causes"),
    ],
)
def test_a_cause_that_the_event_does_not_have_is_refused(options: dict[str, Any], words: str) -> None:
    event = options.get("event", "died")
    with pytest.raises(StudyError, match=words) as error:
        model_study(3, formula=f"{event} ~ age", **options)
    assert error.value.code == "CO-S346"


# Sites with few events


def test_a_site_without_events_and_one_with_one_time_add_what_their_strata_do() -> None:
    columns, _, patient = take_cohort()
    event = columns["died"] == 1
    once = event & (np.ceil(columns["months"] / 2) == 9)
    columns["months"] = np.where(once, 18.0, columns["months"])
    place = np.where(~event & (np.arange(900) % 2 == 0), 0, np.where(once | (~event & (np.arange(900) % 3 == 0)), 1, 2))
    assert not np.any(event & (place == 0))
    assert np.unique(columns["months"][event & (place == 1)]).tolist() == [18.0]
    fit, _ = play_cohort(model_study(3, formula="died ~ age + stage"), (columns, place, patient))
    x = np.column_stack([columns["age"], columns["stage"]])
    want = PHReg(columns["months"], x, status=columns["died"], strata=place, ties="efron").fit()
    np.testing.assert_allclose(fit.estimates, want.params, atol=1e-8)
    np.testing.assert_allclose(fit.std_errors, want.bse, atol=1e-8)


# Exact ties


@pytest.mark.parametrize(
    ("model", "change", "options"),
    [
        ("exact", "", {}),
        ("exact tied", "tied", {}),
        pytest.param("exact entry", "", {"entry": "entry"}, marks=pytest.mark.long),
    ],
)
def test_exact_ties_are_those_of_r(model: str, change: str, options: dict[str, Any]) -> None:
    fit, _ = play_cohort(model_study(3, ties="exact", **options), take_cohort(change))
    want = read_cox_methods(model)
    check_model(fit, want, ("likelihood ratio", "score", "wald"))
    assert fit.log_likelihood == pytest.approx(want["log-likelihood"][0], abs=1e-7)


def draw_rows(late: bool) -> RiskRows:
    rng = np.random.default_rng(3)
    time = np.ceil(rng.exponential(2, 30)) + 1
    entry = np.floor(time * rng.random(30) * 0.9) if late else np.full(30, -1.0)
    x, event, strata = rng.normal(size=(30, 3)), rng.random(30) < 0.7, np.arange(30) % 2
    placed = place_times(strata, time, entry, event)
    return RiskRows(x, rng.normal(size=30), np.ones(30), event, *placed, np.arange(30))


@pytest.mark.parametrize("late", [True, False])
def test_the_exact_likelihood_is_that_of_all_sets_written_out(late: bool) -> None:
    rows, beta = draw_rows(late), np.array([0.3, -0.2, 0.5])
    eta = rows.x @ beta + rows.offset
    value = 0.0
    for cell in range(rows.size):
        at_risk = np.flatnonzero((rows.first <= cell) & (rows.last > cell))
        own = np.flatnonzero(rows.event & (rows.last == cell + 1))
        sets = itertools.combinations(at_risk.tolist(), len(own))
        value += eta[own].sum() - np.log(sum(np.exp(eta[list(part)].sum()) for part in sets))
    assert measure_exact_likelihood(rows, beta).value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("late", [True, False])
def test_the_exact_score_and_information_are_derivatives(late: bool) -> None:
    rows, beta, h = draw_rows(late), np.array([0.3, -0.2, 0.5]), 1e-5
    there = measure_exact_likelihood(rows, beta)
    for j, unit in enumerate(np.eye(3)):
        up, down = (measure_exact_likelihood(rows, beta + sign * h * unit) for sign in (1, -1))
        assert (up.value - down.value) / (2 * h) == pytest.approx(there.score[j], abs=1e-6)
        np.testing.assert_allclose((down.score - up.score) / (2 * h), there.information[j], atol=1e-6)


def test_too_many_events_at_one_time_are_refused_at_their_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_ties, "MOST_TIED", 10)
    with pytest.raises(DataError) as error:
        play_cohort(model_study(3, ties="exact"), take_cohort("tied"))
    assert error.value.code == "CO-D165"


# Firth's penalty


@pytest.mark.parametrize(
    ("model", "change", "ties"),
    [
        ("firth efron", "", "efron"),
        ("firth tied efron", "tied", "efron"),
        ("firth separated breslow", "separated", "breslow"),
        ("firth few efron", "few", "efron"),
        pytest.param("firth breslow", "", "breslow", marks=pytest.mark.long),
    ],
)
def test_firth_s_estimates_are_those_of_the_penalised_likelihood(model: str, change: str, ties: str) -> None:
    study = model_study(3, ties=ties, firth=True, max_rounds=60)
    fit, _ = play_cohort(study, take_cohort(change))
    check_model(fit, read_cox_methods(model), ("likelihood ratio",))
    assert set(fit.details["cox"]["tests"]) == {"likelihood_ratio", "wald"}
    assert fit.log_likelihood is None


@pytest.mark.parametrize("efron", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_the_third_moments_are_derivatives_of_the_information(efron: bool, late: bool) -> None:
    rows, beta, h = draw_rows(late), np.array([0.3, -0.2, 0.5]), 1e-5
    third = unpack_third(measure_third(rows, beta, efron), 3)
    for j, unit in enumerate(np.eye(3)):
        up, down = (measure_likelihood(rows, beta + sign * h * unit, efron).information for sign in (1, -1))
        np.testing.assert_allclose((up - down) / (2 * h), third[j], atol=1e-6)


# What both share


@pytest.mark.parametrize("options", [{"ties": "exact"}, {"firth": True, "max_rounds": 60}])
def test_an_auditor_without_rows_recomputes_the_same_model(options: dict[str, Any]) -> None:
    fit, table = play_cohort(model_study(3, **options), take_cohort("few"[: 4 * ("firth" in options)]))
    assert isinstance(table, PatientProtocol)
    auditor = table.auditor()
    assert auditor.unchecked == 0
    assert repr(auditor.result.details) == repr(fit.details)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ties": "exact", "baseline": "common", "time_grid": {"width": 2, "horizon": 36}}, "decision 38"),
        ({"firth": True, "baseline": "common", "time_grid": {"width": 2, "horizon": 36}}, "baseline"),
        ({"ties": "exact", "weights": "weight"}, "`weights`"),
        ({"ties": "exact", "robust": True}, "`robust`"),
        ({"firth": True, "ridge": 1.0}, "`ridge`"),
        ({"firth": True, "proportionality": "log"}, "`proportionality`"),
        ({"firth": True, "ties": "exact"}, "exact ties"),
    ],
)
def test_what_the_methods_do_not_go_with_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError, match=words) as error:
        model_study(3, **options)
    assert error.value.code == "CO-S347"
