"""Units, places, ranges, signs, splits and orders change no digit of a result: it is right, or the study is refused.

Estimates follow to eight digits of the larger of estimate and standard error, standard errors to eight digits. The grid
stands in docs/study.md under "range of use".
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from support.lanes import diagonal, later
from support.learners import cohorts
from support.learners.cohorts import Array
from support.learners.metamorphic import Trial, agree, carry_forward, outcome_of

from coterie_learners.core.fit import Fit

OUTCOMES = {
    "binomial": "died",
    "poisson": "visits",
    "gaussian": "score",
    "quasibinomial": "died",
    "quasipoisson": "visits",
    "multinomial": "went",
}
GLORE = {
    f"glore {family} {link or ''} {aggregation}": {
        "name": "glore",
        "family": family,
        "link": link,
        "aggregation": aggregation,
    }
    for family, link in (
        ("binomial", None),
        ("binomial", "probit"),
        ("binomial", "cloglog"),
        ("poisson", None),
        ("gaussian", None),
        ("quasibinomial", None),
        ("quasipoisson", None),
    )
    for aggregation in ("masked", "plain")
}
LINEAR = [name for name in GLORE if "gaussian" in name]
# A standard deviation of age.
SPREAD = 0.5


@cache
def trial(name: str) -> Trial:
    """A cohort of which age and score lie away from zero."""
    learner = GLORE[name]
    codes = cohorts.draw(300)
    codes["age"], codes["score"] = 2.0 + SPREAD * codes["age"], 30.0 + codes["score"]
    variables = {**cohorts.VARIABLES, "age": {"type": "number", "range": [-5, 10]}}
    variables["score"] = {"type": "number", "range": [0, 60]}
    return Trial(f"{OUTCOMES[str(learner['family'])]} ~ age + crp + male + stage", learner, codes, variables)


@cache
def right(name: str) -> Fit:
    return trial(name).fit()


def same(name: str) -> tuple[Array, Array]:
    return right(name).estimates, right(name).std_errors


@pytest.mark.parametrize(("name", "power"), diagonal(list(GLORE), [12, -12, -6, 6]))
def test_the_unit_of_a_covariate_changes_its_own_coefficient_alone(name: str, power: int) -> None:
    turned = trial(name).moved("age", 10.0**power, 0.0)
    assert outcome_of(turned, lambda: carry_forward(right(name), "age", 10.0**power, 0.0)) == "right"


@pytest.mark.parametrize(("name", "power"), diagonal(LINEAR, [12, -12, -6, 6]))
def test_the_unit_of_the_outcome_is_that_of_all_coefficients(name: str, power: int) -> None:
    unit = 10.0**power
    turned = trial(name).moved("score", unit, 0.0)
    assert outcome_of(turned, lambda: (unit * right(name).estimates, unit * right(name).std_errors)) == "right"
    got = turned.fit()
    assert got.deviance == pytest.approx(unit**2 * (right(name).deviance or 0.0), rel=1e-8)
    assert got.null_deviance == pytest.approx(unit**2 * (right(name).null_deviance or 0.0), rel=1e-8)


@pytest.mark.parametrize(("name", "shift"), diagonal(list(GLORE), [1e6, -1e4, 1e2]))
def test_a_covariate_measured_from_another_zero_changes_the_intercept_alone(name: str, shift: float) -> None:
    turned = trial(name).moved("age", 1.0, shift * SPREAD)
    assert outcome_of(turned, lambda: carry_forward(right(name), "age", 1.0, shift * SPREAD)) == "right"


@pytest.mark.parametrize("shift", [-1e4, 1e6])
@pytest.mark.parametrize("name", LINEAR)
def test_an_outcome_measured_from_another_zero_changes_the_intercept_alone(name: str, shift: float) -> None:
    estimates, errors = same(name)
    moved = estimates + np.eye(len(estimates))[0] * shift
    assert outcome_of(trial(name).moved("score", 1.0, shift), lambda: (moved, errors)) == "right"


@pytest.mark.parametrize("at", [0.37, *later(0.0, 1.0)])
@pytest.mark.parametrize("times", [1e9, *later(1e2, 1e4, 1e6)])
@pytest.mark.parametrize("name", GLORE)
def test_a_declared_range_changes_nothing(name: str, times: float, at: float) -> None:
    assert outcome_of(trial(name).widened("age", times, at), lambda: same(name)) == "right"
    if name in LINEAR:
        assert outcome_of(trial(name).widened("score", times, at), lambda: same(name)) == "right"


@pytest.mark.parametrize("name", GLORE)
def test_signs_splits_and_orders_change_nothing(name: str) -> None:
    assert (
        outcome_of(trial(name).moved("age", -1.0, 0.0), lambda: carry_forward(right(name), "age", -1.0, 0.0)) == "right"
    )
    for turned in (
        replace(trial(name), sizes=(20, 250, 30)),
        replace(trial(name), order=(2, 0, 1)),
    ):
        assert outcome_of(turned, lambda: same(name)) == "right"


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e6])
@pytest.mark.parametrize("times", [1e-6, 1e6])
def test_powers_and_products_follow_too(shift: float, times: float) -> None:
    """The highest terms keep their coefficients, and all terms together their deviance."""
    base = replace(trial("glore binomial  masked"), formula="died ~ age + age^2 + crp + age:crp + stage + age:stage")
    want, got = base.fit(), base.moved("age", times, shift * SPREAD * times).fit()
    units = {"age^2": times**-2, "age:crp": 1 / times, "age:stage[II]": 1 / times, "age:stage[III]": 1 / times}
    for term, unit in units.items():
        j = want.terms.index(term)
        assert got.estimates[j] == pytest.approx(want.estimates[j] * unit, rel=1e-8)
        assert got.std_errors[j] == pytest.approx(want.std_errors[j] * unit, rel=1e-8)
    assert got.deviance == pytest.approx(want.deviance, rel=1e-11)


def test_a_turned_outcome_turns_all_signs() -> None:
    base = trial("glore binomial  masked")
    estimates, errors = same("glore binomial  masked")
    turned = replace(base, codes={**base.codes, "died": 1.0 - base.codes["died"]})
    assert agree(turned.fit(), -estimates, errors) == ""


@pytest.mark.parametrize("shift", [-3e4, 12.0, 1e6])
def test_person_time_in_another_unit_changes_the_intercept_alone(shift: float) -> None:
    base = replace(trial("glore poisson  masked"), formula="visits ~ age + male + offset(years)")
    want = base.fit()
    turned = base.moved("years", 1.0, shift)
    moved = want.estimates - np.eye(len(want.estimates))[0] * shift
    assert outcome_of(turned, lambda: (moved, want.std_errors)) == "right"


# Tables of patterns

GRID = [1.0, 1.5, 2.0, 4.0]
TABLES: dict[str, dict[str, Any]] = {
    f"{learner['name']} {learner.get('scheme', '')} {family}": {**learner, "family": family, "suppress": "none"}
    for learner in (
        {"name": "cola"},
        {"name": "secure_cola", "scheme": "masks"},
        {"name": "secure_cola", "scheme": "bfv"},
        {"name": "secure_cola", "scheme": "newton"},
    )
    for family in ("binomial", "poisson", "gaussian")
    if learner.get("scheme") != "bfv" or family == "gaussian"  # encryption takes long, and is the same for all
}
TABLES |= {
    f"{name} {' '.join(options)} {family}": {"name": name, "family": family, "suppress": "none", **options}
    for name, family, options in (
        ("cola", "gaussian", {"robust": True}),
        ("cola", "binomial", {"firth": True}),
        ("cola", "binomial", {"link": "probit"}),
        ("cola", "binomial", {"link": "cloglog", "robust": True}),
        ("cola", "gaussian", {"site_intercepts": True}),
        ("cola", "quasibinomial", {}),
        ("cola", "quasipoisson", {}),
        ("cola", "multinomial", {}),
        ("secure_cola", "multinomial", {"scheme": "masks"}),
        ("secure_cola", "gaussian", {"scheme": "ckks"}),
    )
}
SINGLE = [name for name in TABLES if "multinomial" not in name and "site_intercepts" not in name]
MEASURED = [name for name in SINGLE if "gaussian" in name]
# Factors and shifts.
UNITS = [(1e-12, 0.0), (1e12, 0.0), (1.0, -1e6), (-1.0, 1e4)]


@cache
def table_trial(name: str) -> Trial:
    """A cohort whose covariates take few values."""
    rng, codes = np.random.default_rng(3), cohorts.draw(300)
    codes["dose"] = rng.choice(GRID, 300)
    codes["score"] = 30.0 + 2.0 * codes["dose"] + rng.normal(size=300)
    codes["went"] = rng.integers(0, 3, 300).astype(float)
    variables = {**cohorts.VARIABLES, "dose": {"type": "number", "range": [0, 10]}}
    variables["went"] = {"type": "category", "levels": ["home", "care", "other"]}
    variables["score"] = {"type": "number", "range": [0, 60]}
    learner = {**TABLES[name], "grids": {"dose": GRID}}
    return Trial(f"{OUTCOMES[str(learner['family'])]} ~ dose + male + stage", learner, codes, variables)


@cache
def table_fit(name: str) -> Fit:
    return table_trial(name).fit()


@pytest.mark.parametrize(("name", "unit"), diagonal(SINGLE, UNITS))
def test_a_table_does_not_depend_on_how_a_covariate_is_measured(name: str, unit: tuple[float, float]) -> None:
    times, plus = unit
    turned = table_trial(name).moved("dose", times, plus)
    assert outcome_of(turned, lambda: carry_forward(table_fit(name), "dose", times, plus)) == "right"


@pytest.mark.parametrize(("name", "unit"), diagonal(MEASURED, [(1e-12, 0.0), (1e12, 0.0), (1.0, 1e6)]))
def test_a_table_does_not_depend_on_how_the_outcome_is_measured(name: str, unit: tuple[float, float]) -> None:
    times, plus = unit
    fit = table_fit(name)
    estimates = times * fit.estimates + np.eye(len(fit.terms))[0] * plus
    turned = table_trial(name).moved("score", times, plus)
    assert outcome_of(turned, lambda: (estimates, times * fit.std_errors)) == "right"


@pytest.mark.parametrize("variable", ["dose", "score"])
@pytest.mark.parametrize(("name", "widening"), diagonal(MEASURED, [(1e4, 0.37), (1e6, 0.0)]))
def test_a_table_does_not_depend_on_declared_ranges(name: str, widening: tuple[float, float], variable: str) -> None:
    times, at = widening
    turned = table_trial(name).widened(variable, times, at)
    assert outcome_of(turned, lambda: (table_fit(name).estimates, table_fit(name).std_errors)) == "right"


@pytest.mark.parametrize(("name", "unit"), diagonal([n for n in TABLES if n not in SINGLE], UNITS))
def test_slopes_beside_several_intercepts_follow_their_covariates_unit(name: str, unit: tuple[float, float]) -> None:
    """Of several outcomes or intercepts each slope by itself; the others are those of the base."""
    times, plus = unit
    want, got = table_fit(name), table_trial(name).moved("dose", times, plus).fit()
    slopes = [j for j, term in enumerate(want.terms) if "site[" not in term and "(Intercept)" not in term]
    units = np.array([times if want.terms[j].endswith("dose") else 1.0 for j in slopes])
    errors = want.std_errors[slopes] / np.abs(units)
    off = np.abs(got.estimates[slopes] - want.estimates[slopes] / units)
    assert np.max(off / np.maximum(np.abs(want.estimates[slopes] / units), errors)) <= 1e-8
    np.testing.assert_allclose(got.std_errors[slopes], errors, rtol=1e-8)
