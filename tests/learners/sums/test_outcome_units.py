"""A fit of outcomes above zero does not depend on the unit in which they are measured."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.genmod.families import links
from support.lanes import later, one_of_each
from support.learners import cohorts
from support.learners.cohorts import Codes
from support.learners.metamorphic import Trial

from coterie_learners.core.fit import Fit

N = 400
GAMMA, INVERSE = sm.families.Gamma, sm.families.InverseGaussian
MODELS: dict[tuple[str, str], Any] = {
    ("gamma", "inverse"): GAMMA(links.InversePower()),
    ("gamma", "identity"): GAMMA(links.Identity()),
    ("gamma", "log"): GAMMA(links.Log()),
    ("inverse_gaussian", "1/mu^2"): INVERSE(links.InverseSquared()),
    ("inverse_gaussian", "inverse"): INVERSE(links.InversePower()),
    ("inverse_gaussian", "identity"): INVERSE(links.Identity()),
    ("inverse_gaussian", "log"): INVERSE(links.Log()),
}
POWERS = {"identity": 1, "inverse": -1, "1/mu^2": -2}
# Moles in a litre, costs, platelets in a litre.
UNITS = (5e-9, 3e5, 2.5e11)
CASES = [(model, unit) for unit in UNITS for model in MODELS]


def draw(unit: float) -> Codes:
    rng = np.random.default_rng(8)
    a, x = rng.integers(0, 2, N).astype(float), np.round(rng.normal(50, 10, N), 1)
    mean = np.exp(0.3 * a + 0.01 * (x - 50))
    offset = np.round(rng.uniform(0.1, 0.2, N), 3)
    return {"a": a, "x": x, "y": unit * rng.gamma(6, mean / 6), "o": offset, "w": rng.integers(1, 4, N).astype(float)}


def fit(model: tuple[str, str], unit: float, formula: str = "y ~ a + x", **learner: Any) -> Fit:
    codes = draw(unit)
    y, o = codes["y"], codes["o"]
    power = POWERS.get(model[1])
    codes["o"] = np.log(o) * 0.0 + math.log(unit) if power is None else o * unit**power
    wide = [min(0.0, float(codes["o"].min()) * 2), max(1.0, float(codes["o"].max()) * 2)]
    variables: dict[str, dict[str, Any]] = {
        "y": {"type": "number", "range": [float(y.min()) * 0.9, float(y.max()) * 1.1]},
        "a": {"type": "binary"},
        "x": {"type": "number", "range": [0, 100]},
        "o": {"type": "number", "range": wide},
        "w": {"type": "count", "range": [1, 5]},
    }
    options = {"name": "glore", "family": model[0], "link": model[1], "opening": "none", **learner}
    return Trial(formula, options, codes, variables, tuple(cohorts.even_sizes(N, 3))).fit()


def scale(got: Fit, model: tuple[str, str], unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Estimates and standard errors as they are in units of 1."""
    power = POWERS.get(model[1])
    if power is not None:
        return got.estimates / unit**power, got.std_errors / unit**power
    return got.estimates - np.eye(len(got.terms))[0] * math.log(unit), got.std_errors


@pytest.mark.filterwarnings("ignore:The .* link function does not respect")
@pytest.mark.parametrize("aggregation", ["masked", *later("plain")])
@pytest.mark.parametrize(("model", "unit"), one_of_each(CASES, lambda case: case[0]))
def test_numbers_are_those_of_statsmodels_in_any_unit(model: tuple[str, str], unit: float, aggregation: str) -> None:
    codes = draw(1.0)
    x = np.column_stack([np.ones(N), codes["a"], codes["x"]])
    want = sm.GLM(codes["y"], x, family=MODELS[model]).fit(tol=1e-14, tol_criterion="params", maxiter=300, scale="X2")
    got = fit(model, unit, aggregation=aggregation)
    estimates, errors = scale(got, model, unit)
    # A logarithm of the outcome's unit takes digits from the intercept alone.
    np.testing.assert_allclose(estimates, want.params, rtol=1e-7, atol=1e-12 * abs(math.log(unit)))
    np.testing.assert_allclose(errors, want.bse, rtol=1e-6)
    grows = unit if model[0] == "inverse_gaussian" else 1.0
    assert got.deviance == pytest.approx(want.deviance / grows, rel=1e-9)
    assert got.null_deviance == pytest.approx(want.null_deviance / grows, rel=1e-6)
    assert got.dispersion == pytest.approx(float(want.scale) / grows, rel=1e-7)
    plain = fit(model, 1.0, aggregation=aggregation)
    assert plain.log_likelihood is not None
    assert got.log_likelihood == pytest.approx(plain.log_likelihood - N * math.log(unit), rel=1e-9)
    assert got.details["agreement"]["p"] == pytest.approx(plain.details["agreement"]["p"], rel=1e-6)
    assert got.details["pearson"]["chi2"] == pytest.approx(plain.details["pearson"]["chi2"] / grows, rel=1e-6)
    assert got.warnings == plain.warnings


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("y ~ a + x + offset(o)", {}),
    ("y ~ a + x", {"weights": "w"}),
    ("y ~ a + x", {"weights": "w", "weight_kind": "sampling"}),
    ("y ~ a + x", {"robust": "HC3"}),
    ("y ~ a + x", {"standardise": "a"}),
    ("y ~ a + x", {"site_intercepts": True}),
]


@pytest.mark.parametrize("option", [OPTIONS[0], *later(*OPTIONS[1:])])
@pytest.mark.parametrize("case", [(("gamma", "inverse"), 2.5e11), *later((("inverse_gaussian", "1/mu^2"), 3e5))])
def test_offsets_weights_sandwiches_and_means_follow_the_unit(
    option: tuple[str, dict[str, Any]], case: tuple[tuple[str, str], float]
) -> None:
    (formula, learner), (model, unit) = option, case
    got, plain = (fit(model, u, formula, **learner) for u in (unit, 1.0))
    estimates, errors = scale(got, model, unit)
    np.testing.assert_allclose(estimates, plain.estimates, rtol=1e-8)
    np.testing.assert_allclose(errors, plain.std_errors, rtol=1e-8)
    for one, other in zip(*(f.details.get("standardised", {"lines": ()})["lines"] for f in (got, plain)), strict=True):
        assert one["value"] / unit == pytest.approx(other["value"], rel=1e-8)
        assert one["std_error"] / unit == pytest.approx(other["std_error"], rel=1e-8)


@pytest.mark.parametrize("model", [("gamma", "inverse"), *later(("gamma", "identity"), ("inverse_gaussian", "1/mu^2"))])
def test_a_ridge_weighs_coefficients_in_the_variables_own_units(model: tuple[str, str]) -> None:
    unit, grows = 1e-8, {"gamma": 0, "inverse_gaussian": -1}[model[0]]
    ridge = 40.0 * unit ** (grows - 2 * POWERS[model[1]])
    got, plain = fit(model, unit, ridge=ridge), fit(model, 1.0, ridge=40.0)
    np.testing.assert_allclose(scale(got, model, unit)[0], plain.estimates, rtol=1e-7)
    assert abs(plain.estimates[1]) < 0.99 * abs(fit(model, 1.0).estimates[1])
