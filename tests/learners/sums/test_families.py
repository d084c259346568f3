"""Families against the definition: derivatives of the log-likelihood, and fifty digits where floats run out."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Variable
from coterie_learners.sums.families import all_families, choose_family
from coterie_learners.sums.families.poisson import unit_deviance
from coterie_learners.sums.family import LOG_LIMIT, Family

# A family that somebody adds has a test of its own with its name, and its own outcomes and likelihood there.
APART = {name for name in all_families() if Path(__file__).with_name(f"test_family_{name}.py").exists()}
PACKAGED = [family for name, family in all_families().items() if family.by_rows and name not in APART]
FAMILIES = [family(link) for family in PACKAGED for link in family.links]
BINOMIAL = [f for f in FAMILIES if f.law == "binomial"]
IDS = [f"{f.name}-{f.link}" for f in FAMILIES]
ETA = np.array([-8.0, -3.0, -1.5, -0.2, 0.0, 0.3, 1.0, 2.5, 6.0])
STEP = 1e-5
ROOT = Path(__file__).parents[3]


POSITIVE = np.array([0.2, 0.3, 0.5, 0.9, 1.0, 1.4, 2.0, 3.5, 6.0])
RISKS = np.array([0.02, 0.1, 0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.97])


def predictors(family: Family) -> Array:
    """Predictors whose means exist."""
    if family.law == "binomial" and family.link in ("log", "identity"):
        return np.log(RISKS) if family.link == "log" else RISKS
    return POSITIVE if family.bounded or (family.law, family.link) == ("gaussian", "log") else ETA


def outcomes(family: Family) -> list[float]:
    return {
        "binomial": [0.0, 1.0],
        "poisson": [0.0, 1.0, 7.0],
        "gaussian": [-1.5, 0.0, 2.0],
        "gamma": [0.4, 1.0, 7.0],
        "inverse_gaussian": [0.4, 1.0, 7.0],
        "negative_binomial": [0.0, 1.0, 7.0],
    }[family.law]


def log_likelihood(family: Family, eta: float, y: float) -> float:
    """Of one row, with dispersion 1 and without the constant of the Gaussian."""
    outcome = np.array([y])
    return float((family.compute_saturated(outcome) - 0.5 * family.parts(np.array([eta]), outcome).deviance)[0])


def parts_by_definition(family: Family, eta: float, y: float) -> float:
    """The same from scipy's distributions."""
    mean: dict[str, Callable[[float], float]] = {
        "log": np.exp,
        "identity": float,
        "inverse": lambda e: 1.0 / e,
        "1/mu^2": lambda e: e**-0.5,
        "sqrt": lambda e: e * e,
        "cauchit": stats.cauchy.cdf,
        "logit": special.expit,
        "probit": special.ndtr,
        "cloglog": lambda e: -np.expm1(-np.exp(e)),
    }
    if family.law == "binomial":
        return float(stats.bernoulli.logpmf(y, mean[family.link](eta)))
    if family.law == "poisson":
        return float(stats.poisson.logpmf(y, mean[family.link](eta)))
    if family.law == "negative_binomial":
        return float(stats.nbinom.logpmf(y, 1.0, 1.0 / (1.0 + np.exp(eta))))
    if family.law == "gamma":
        return float(stats.expon.logpdf(y, scale=mean[family.link](eta)))
    if family.law == "inverse_gaussian":
        return float(stats.invgauss.logpdf(y, mean[family.link](eta)) + 0.5 * np.log(2 * np.pi))
    return float(stats.norm.logpdf(y, mean[family.link](eta)) + 0.5 * np.log(2 * np.pi))


@pytest.mark.parametrize("family", FAMILIES, ids=IDS)
def test_half_the_deviance_below_the_saturated_is_the_log_likelihood(family: Family) -> None:
    for y in outcomes(family):
        for eta in predictors(family)[1:-1]:
            assert log_likelihood(family, eta, y) == pytest.approx(
                parts_by_definition(family, eta, y), rel=1e-9, abs=1e-12
            )


@pytest.mark.parametrize("family", FAMILIES, ids=IDS)
def test_the_residual_is_the_derivative_of_the_log_likelihood(family: Family) -> None:
    at = predictors(family)
    for y in outcomes(family):
        ys = np.full_like(at, y)
        numerical = [
            (log_likelihood(family, e + STEP, y) - log_likelihood(family, e - STEP, y)) / (2 * STEP)
            for e in predictors(family)
        ]
        np.testing.assert_allclose(family.parts(at, ys).residual, numerical, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("family", BINOMIAL, ids=[f"{f.name}-{f.link}" for f in BINOMIAL])
def test_the_weight_is_the_expected_curvature_of_a_binary_outcome(family: Family) -> None:
    """E[-d residual / d eta] over the two outcomes, with probabilities from the likelihood itself."""
    at = predictors(family)
    expected = np.zeros_like(at)
    for y in (0.0, 1.0):
        ys = np.full_like(at, y)
        probability = np.exp([log_likelihood(family, e, y) for e in predictors(family)])
        slope = (family.parts(at + STEP, ys).residual - family.parts(at - STEP, ys).residual) / (2 * STEP)
        expected -= probability * slope
    np.testing.assert_allclose(family.parts(at, np.zeros_like(at)).weight, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.canonical], ids=lambda f: f.name)
def test_the_weight_is_the_curvature_of_a_canonical_link(family: Family) -> None:
    at = predictors(family)
    y = np.full_like(at, 1.0)
    slope = (family.parts(at + STEP, y).residual - family.parts(at - STEP, y).residual) / (2 * STEP)
    np.testing.assert_allclose(family.parts(at, y).weight, -slope, rtol=1e-6)
    np.testing.assert_array_equal(family.parts(at, y).curvature, family.parts(at, y).weight)


@pytest.mark.parametrize("family", FAMILIES, ids=IDS)
def test_the_curvature_is_minus_the_slope_of_the_residual(family: Family) -> None:
    at = predictors(family)
    for y in outcomes(family):
        ys = np.full_like(at, y)
        slope = (family.parts(at + STEP, ys).residual - family.parts(at - STEP, ys).residual) / (2 * STEP)
        np.testing.assert_allclose(family.parts(at, ys).curvature, -slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("family", FAMILIES, ids=IDS)
def test_rows_and_patterns_are_the_same_family_in_two_arithmetics(family: Family) -> None:
    """What a server computes with fixed bits is what a site computes with numpy."""
    at = predictors(family)
    curve = family.curve(at)
    for y in outcomes(family):
        parts = family.parts(at, np.full_like(at, y))
        np.testing.assert_allclose(curve.mean, parts.mean, rtol=1e-13)
        np.testing.assert_allclose(curve.weight, parts.weight, rtol=1e-11)
        np.testing.assert_allclose((y - curve.mean) * curve.slope, parts.residual, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES, ids=IDS)
@pytest.mark.parametrize("mean", [1e-6, 0.03, 0.5, 0.97])
def test_the_start_is_the_predictor_of_the_pooled_mean(family: Family, mean: float) -> None:
    assert float(family.curve(np.array([family.start(mean)])).mean[0]) == pytest.approx(mean, rel=1e-13)


@pytest.mark.parametrize("mean", [1e-3, 1.0, 40.0, 3e8])
@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-6, 0.01, 0.0499, 0.0501, 0.6])
def test_a_deviance_of_counts_near_their_means_loses_no_digits(mean: float, apart: float) -> None:
    y = mean * (1.0 + apart)
    with localcontext() as context:
        context.prec = 60
        exact = 2 * (Decimal(y) * (Decimal(y) / Decimal(mean)).ln() - (Decimal(y) - Decimal(mean)))
    assert float(unit_deviance(np.array([y]), np.array([mean]))[0]) == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("family", FAMILIES, ids=IDS)
def test_a_block_is_the_sum_of_its_rows(family: Family) -> None:
    rng = np.random.default_rng(1)
    y = rng.choice(outcomes(family), 30)
    eta = rng.choice(predictors(family), 30)
    rows = [family.parts(eta[k : k + 1], y[k : k + 1]) for k in range(30)]
    all_parts = family.parts(eta, y)
    np.testing.assert_array_equal(all_parts.deviance, np.concatenate([r.deviance for r in rows]))
    np.testing.assert_array_equal(
        family.compute_saturated(y), [family.compute_saturated(y[k : k + 1])[0] for k in range(30)]
    )
    np.testing.assert_array_equal(all_parts.residual, np.concatenate([r.residual for r in rows]))
    np.testing.assert_array_equal(all_parts.weight, np.concatenate([r.weight for r in rows]))


# Far out


def test_no_code_asks_a_family_for_its_name_to_know_what_it_is() -> None:
    files = [file for room in ("learners", "node") for file in (ROOT / room).rglob("*.py")]
    asking = re.compile(r"\.law\b|family\.name (?:[!=]=|(?:not )?in )")
    assert len(files) > 200
    assert [file.name for file in files if asking.search(file.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("family", FAMILIES, ids=IDS)
def test_the_textbook_score_of_the_pooled_fit_is_that_of_the_rows(family: Family) -> None:
    assert family.certified
    for y in outcomes(family):
        at = predictors(family)[1:-1]
        outcome = np.full(len(at), y)
        score, weight = family.score_by_definition(at, outcome)
        parts = family.parts(at, outcome)
        assert score == pytest.approx(parts.residual, rel=1e-9)
        assert weight == pytest.approx(parts.weight, rel=1e-9)


@pytest.mark.parametrize("family", FAMILIES, ids=IDS)
def test_synthetic_outcomes_have_the_mean_that_is_asked(family: Family) -> None:
    rng = np.random.default_rng(3)
    eta = rng.normal(size=40_000)
    drawn = family.draw(eta + family.shift_to(eta, 0.2), (0.0, 100.0), rng)
    assert family.whole == (family.shift_to(eta, 0.2) != 0.0)
    if family.whole:
        assert float(drawn.mean()) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("family", FAMILIES, ids=IDS)
@pytest.mark.parametrize("eta", [-750.0, -40.0, 40.0, 750.0])
def test_far_out_everything_is_finite_and_of_the_right_sign(family: Family, eta: float) -> None:
    for y in outcomes(family):
        parts = family.parts(np.array([eta]), np.array([y]))
        assert np.isfinite([parts.residual[0], parts.weight[0], parts.curvature[0], parts.deviance[0]]).all()
        assert parts.weight[0] >= 0
        assert parts.curvature[0] >= 0 or not family.concave or family.bounded
        assert parts.deviance[0] >= 0
        if family.law == "binomial":
            assert parts.residual[0] * (y - 0.5) >= 0


def digits_logit(eta: Decimal, y: int) -> tuple[Decimal, Decimal, Decimal]:
    mu = 1 / (1 + (-eta).exp())
    return y - mu, mu * (1 - mu), -2 * (mu if y else 1 - mu).ln()


def digits_cloglog(eta: Decimal, y: int) -> tuple[Decimal, Decimal, Decimal]:
    hazard = eta.exp()
    mu = 1 - (-hazard).exp()
    slope = hazard * (1 - mu)
    return slope / mu if y else -hazard, slope * hazard / mu, -2 * (mu.ln() if y else -hazard)


def digits_probit(eta: Decimal, y: int) -> tuple[Decimal, Decimal, Decimal]:
    below, above = digits_normal(eta), digits_normal(-eta)
    density = (-eta * eta / 2).exp() / (2 * PI).sqrt()
    residual = density / below if y else -density / above
    return residual, density * density / below / above, -2 * (below if y else above).ln()


def digits_normal(x: Decimal) -> Decimal:
    """The normal distribution function by its continued fraction (|x| of 3 and more)."""
    if x > 0:
        return 1 - digits_normal(-x)
    fraction = -x
    for k in range(2000, 0, -1):
        fraction = -x + k / fraction
    return (-x * x / 2).exp() / (2 * PI).sqrt() / fraction


PI = Decimal("3.14159265358979323846264338327950288419716939937510")


@pytest.mark.parametrize("eta", [-40.0, -20.0, -5.0, 3.0, 5.0, 20.0])
@pytest.mark.parametrize("y", [0, 1])
@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_binary_families_agree_with_fifty_digits(link: str, y: int, eta: float) -> None:
    digits = {"logit": digits_logit, "probit": digits_probit, "cloglog": digits_cloglog}[link]
    if link == "cloglog" and eta == 20.0:
        eta = 4.0  # beyond, 1 - mu has more than fifty zeros
    with localcontext() as context:
        context.prec = 1200 if link == "probit" else 120
        residual, weight, deviance = (float(d) for d in digits(Decimal(eta), y))
    parts = choose_family("binomial", link).parts(np.array([eta]), np.array([float(y)]))
    # Differences from 1 are exact in absolute terms, as they add to sums of that order; weights in relative terms.
    assert parts.residual[0] == pytest.approx(residual, rel=1e-11, abs=2e-16)
    assert parts.weight[0] == pytest.approx(weight, rel=1e-11)
    assert parts.deviance[0] == pytest.approx(deviance, rel=1e-11, abs=1e-14)


def test_poisson_means_are_capped_where_no_count_can_be() -> None:
    family = choose_family("poisson", None)
    far = family.parts(np.array([LOG_LIMIT, LOG_LIMIT + 100]), np.array([3.0, 3.0]))
    assert far.weight[0] == far.weight[1] == pytest.approx(np.exp(LOG_LIMIT))
    assert far.residual[0] == far.residual[1]


# Names and outcomes


def test_each_family_has_its_canonical_link_by_default() -> None:
    links = {name: choose_family(name, None).link for name in all_families() if name not in APART}
    assert links == {
        "binomial": "logit",
        "quasibinomial": "logit",
        "gamma": "inverse",
        "gaussian": "identity",
        "inverse_gaussian": "1/mu^2",
        "multinomial": "logit",
        "ordinal": "logit",
        "negative_binomial": "log",
        "poisson": "log",
        "quasipoisson": "log",
    }


@pytest.mark.parametrize(
    ("name", "link", "offered"),
    [
        ("binomial", "inverse", "'binomial' has no link 'inverse'; its links are logit, probit, cloglog, cauchit, log"),
        ("poisson", "logit", "'poisson' has no link 'logit'; its links are log, identity, sqrt"),
        ("beta", None, "no family 'beta' here; there are binomial, quasibinomial, gamma, gaussian, inverse_gaussian"),
    ],
)
def test_a_family_that_there_is_not_is_refused_with_those_that_there_are(
    name: str, link: str | None, offered: str
) -> None:
    with pytest.raises(StudyError, match=offered) as caught:
        choose_family(name, link, by_rows=True)
    assert caught.value.code == "CO-S303"


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("binomial", {"binary"}),
        ("poisson", {"count"}),
        ("gaussian", {"number", "count"}),
        ("gamma", {"number", "count"}),
        ("inverse_gaussian", {"number", "count"}),
    ],
)
def test_an_outcome_of_another_type_is_refused(name: str, allowed: set[str]) -> None:
    variables = {
        "binary": Variable(type="binary"),
        "number": Variable(type="number", range=(0.1, 1)),
        "count": Variable(type="count", range=(1, 9)),
        "category": Variable(type="category", levels=("a", "b")),
    }
    family = choose_family(name, None)
    for kind in allowed:
        family.check_outcome("y", variables[kind])
    for kind in variables.keys() - allowed:
        with pytest.raises(StudyError, match=f"declared as {kind}") as caught:
            family.check_outcome("y", variables[kind])
        assert caught.value.code == "CO-S301"


def test_arrays_are_not_changed() -> None:
    eta, y = ETA.copy(), np.ones_like(ETA)
    for family in FAMILIES:
        family.parts(eta, y)
        family.compute_saturated(y)
    np.testing.assert_array_equal(eta, ETA)
    np.testing.assert_array_equal(y, 1.0)
