"""Kinds of studies that once gave a wrong number, or a refusal that was untrue: each has its right value here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from support.learners import cohorts
from support.learners.cohorts import Array, Codes
from support.learners.metamorphic import Trial

from coterie_learners.core.fit import Fit
from coterie_learners.errors import Separation

NUMBER = {"type": "number", "range": [-6, 6]}
LETTERS = {"type": "category", "levels": ["a", "b", "c"]}
FIRTH = (
    2,
    4,
    4,
    2,
    2,
    3,
    4,
    5,
    1,
    4,
    3,
    3,
    4,
    2,
    3,
    2,
    5,
    2,
    3,
    3,
    5,
    4,
    5,
    2,
    4,
    3,
    3,
    2,
    4,
    2,
    3,
    1,
    3,
    3,
    2,
    2,
    2,
    5,
    1,
    5,
    4,
    2,
    4,
    1,
    3,
    3,
    4,
    5,
    4,
    5,
    2,
    5,
    4,
    3,
    4,
    2,
    3,
    3,
    1,
    4,
)


def fit(formula: str, codes: Codes, variables: dict[str, Any], **learner: Any) -> Fit:
    n = len(next(iter(codes.values())))
    sizes = tuple(cohorts.even_sizes(n, 3))
    return Trial(formula, learner, codes, variables, sizes).fit()


def equals(got: Fit, x: Array, y: Array, within: float = 1e-9) -> None:
    """As ordinary least squares on the outcome about its mean, in units of its spread."""
    centre, unit = y.mean(), y.std()
    want = sm.OLS((y - centre) / unit, x).fit()
    estimates = np.asarray(want.params) * unit + np.eye(x.shape[1])[0] * centre
    np.testing.assert_allclose(got.estimates, estimates, rtol=within)
    np.testing.assert_allclose(got.std_errors, np.asarray(want.bse) * unit, rtol=within)
    assert got.null_deviance == pytest.approx(float(want.centered_tss) * unit**2, rel=within)
    assert got.dispersion == pytest.approx(float(want.mse_resid) * unit**2, rel=within)


def cells(n: int = 900, seed: int = 1) -> tuple[Codes, Array]:
    rng = np.random.default_rng(seed)
    codes = {"g": rng.integers(0, 3, n).astype(float), "a": rng.integers(0, 2, n).astype(float)}
    return codes, np.column_stack([np.ones(n), codes["g"] == 1, codes["g"] == 2, codes["a"]]).astype(float)


LINEAR = [
    {"name": "cola"},
    *({"name": "secure_cola", "scheme": s} for s in ("masks", "bfv", "newton")),
    {"name": "glore"},
]


@pytest.mark.parametrize("learner", LINEAR, ids=lambda learner: learner.get("scheme", learner["name"]))
@pytest.mark.parametrize("kind", ["hospital costs", "a large mean", "a hormone in mol/L"])
def test_a_linear_model_is_right_whatever_the_outcome_is_measured_in(learner: dict[str, Any], kind: str) -> None:
    codes, x = cells()
    rng = np.random.default_rng(2)
    y, span = {
        "hospital costs": (np.exp(rng.normal(10.6, 0.9, 900) + 0.2 * codes["g"]), [0, 1e8]),
        "a large mean": (np.round(1e7 + rng.normal(0, 0.1, 900), 4), [0, 2e7]),
        "a hormone in mol/L": ((5.0 + 0.4 * codes["a"] + rng.normal(0, 1.2, 900)) * 1e-12, [-2e-11, 2e-11]),
    }[kind]
    variables = {"y": {"type": "number", "range": span}, "g": LETTERS, "a": {"type": "binary"}}
    options = {"suppress": "none"} if learner["name"] != "glore" else {}
    got = fit("y ~ g + a", {**codes, "y": y}, variables, family="gaussian", **learner, **options)
    equals(got, x, y, 1e-7 if kind == "a large mean" else 1e-9)


def test_a_mean_alone_has_the_spread_of_its_outcome() -> None:
    y = 1e7 + np.tile([0.2, 0.1, 0.3, 0.1, 0.3], 60)
    got = fit("y ~ 1", {"y": y}, {"y": {"type": "number", "range": [0, 2e7]}}, name="glore", family="gaussian")
    equals(got, np.ones((300, 1)), y, 1e-12)


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
@pytest.mark.parametrize("span", [[0, 50_000], [0, 100_000], [-2e9, 2e9], [-1e12, 1e12]])
def test_a_wide_range_is_neither_collinear_nor_a_wrong_standard_error(span: list[float], aggregation: str) -> None:
    rng = np.random.default_rng(4)
    age, lab = rng.normal(60, 11, 900).round(1), rng.normal(1.0, 0.12, 900).round(3)
    x = np.column_stack([np.ones(900), age, lab])
    y = (rng.random(900) < 1 / (1 + np.exp(3.8 - 0.045 * age - lab))).astype(float)
    variables = {
        "y": {"type": "binary"},
        "age": {"type": "number", "range": span},
        "lab": {"type": "number", "range": span},
    }
    got = fit("y ~ age + lab", {"y": y, "age": age, "lab": lab}, variables, name="glore", aggregation=aggregation)
    want = sm.Logit(y, x).fit(disp=0, method="newton", tol=1e-14)
    np.testing.assert_allclose(got.estimates, want.params, rtol=1e-9)
    np.testing.assert_allclose(got.std_errors, want.bse, rtol=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_cloglog_rests_within_the_rounds_that_a_study_has(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=60), rng.normal(3, 1, 60)
    y = (rng.random(60) < 1 - np.exp(-np.exp(np.clip(0.3 + 1.6 * x - 0.5 * (z - 3), -20, 3)))).astype(float)
    variables = {"y": {"type": "binary"}, "x": {"type": "number", "range": [-10, 10]}}
    variables["z"] = {"type": "number", "range": [0, 20]}
    got = fit("y ~ x + z", {"y": y, "x": x, "z": z}, variables, name="glore", link="cloglog")
    family = sm.families.Binomial(sm.families.links.CLogLog())
    want = sm.GLM(y, np.column_stack([np.ones(60), x, z]), family=family).fit(
        tol=1e-14, tol_criterion="params", maxiter=2000
    )
    assert got.rounds <= 15
    np.testing.assert_allclose(got.estimates, want.params, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got.std_errors, want.bse, rtol=1e-6)


@pytest.mark.parametrize("mean", [1e7, 3e8])
def test_large_counts_settle(mean: float) -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=300)
    y = rng.poisson(mean * np.exp(0.1 * x)).astype(float)
    variables = {"y": {"type": "count", "range": [0, 1e10]}, "x": NUMBER}
    got = fit("y ~ x", {"y": y, "x": x}, variables, name="glore", family="poisson")
    want = sm.GLM(y, np.column_stack([np.ones(300), x]), family=sm.families.Poisson()).fit(tol=1e-14, maxiter=50)
    np.testing.assert_allclose(got.estimates, want.params, rtol=1e-10)
    np.testing.assert_allclose(got.std_errors, want.bse, rtol=1e-8)
    assert got.rounds <= 6


def test_an_interaction_without_main_effect_has_a_slope_for_each_level() -> None:
    """As R, patsy and formulaic read `y ~ x:g`."""
    rng = np.random.default_rng(6)
    x, g = rng.normal(size=300), rng.integers(0, 2, 300).astype(float)
    y = 1.0 + np.where(g == 0, 1.9, -1.0) * x + rng.normal(size=300)
    variables = {
        "y": {"type": "number", "range": [-50, 50]},
        "x": NUMBER,
        "g": {"type": "category", "levels": ["a", "b"]},
    }
    got = fit("y ~ x:g", {"y": y, "x": x, "g": g}, variables, name="glore", family="gaussian")
    assert got.terms == ("(Intercept)", "x:g[a]", "x:g[b]")
    equals(got, np.column_stack([np.ones(300), x * (g == 0), x * (g == 1)]), y)


def test_firths_penalty_has_an_estimate_where_all_outcomes_are_events() -> None:
    """brglm2 0.9 in R: 2.24025575 (0.87495108) for one slope without intercept."""
    x = np.array(FIRTH, dtype=float)
    codes = {"y": np.ones(len(x)), "x": x}
    variables = {"y": {"type": "binary"}, "x": {"type": "count", "range": [0, 10]}}
    got = fit("y ~ x - 1", codes, variables, name="cola", firth=True, suppress="none")
    assert got.estimates[0] == pytest.approx(2.24025575, abs=1e-8)
    assert got.std_errors[0] == pytest.approx(0.87495108, abs=1e-8)


@pytest.mark.parametrize(
    "learner", [{"name": "cola", "suppress": "none"}, {"name": "glore", "opening": "none"}], ids=["cola", "glore"]
)
def test_separation_names_every_level_at_once_the_reference_among_them(learner: dict[str, Any]) -> None:
    levels = [str(year) for year in range(1995, 2005)]
    rng = np.random.default_rng(7)
    year = np.repeat(np.arange(10.0), 30)
    y = (rng.random(300) < 0.5).astype(float)
    y[year <= 2], y[year == 9] = 0.0, 1.0
    order = rng.permutation(300)
    variables = {"y": {"type": "binary"}, "year": {"type": "category", "levels": levels}}
    with pytest.raises(Separation) as caught:
        fit("y ~ year", {"y": y[order], "year": year[order]}, variables, **learner)
    for level in ("1995", "1996", "1997"):
        assert f"year = {level}" in caught.value.message.split("nothing but events")[0]
    assert "year = 2004" in caught.value.message.split("nothing but events")[1]
    assert "1998" not in caught.value.message


def test_the_way_out_of_separation_is_an_option_that_the_model_has() -> None:
    rng = np.random.default_rng(8)
    exposed, off = rng.integers(0, 2, 300).astype(float), np.round(rng.uniform(0, 3, 300), 1)
    n = rng.poisson(np.exp(0.1 * off)) * exposed
    variables = {"n": {"type": "count", "range": [0, 100]}, "exposed": {"type": "binary"}}
    variables["off"] = {"type": "number", "range": [-5, 15]}
    codes = {"n": n.astype(float), "exposed": exposed, "off": off}
    with pytest.raises(Separation) as caught:
        fit("n ~ exposed + offset(off)", codes, variables, name="cola", family="poisson", suppress="none")
    assert "exposed = 0" in caught.value.message
    assert "firth" not in caught.value.message
    with pytest.raises(Separation) as caught:
        fit("n ~ exposed + offset(off)", codes, variables, name="glore", family="poisson")
    assert "set a ridge" in caught.value.message
    assert fit("n ~ exposed + offset(off)", codes, variables, name="glore", family="poisson", ridge=0.1).converged
