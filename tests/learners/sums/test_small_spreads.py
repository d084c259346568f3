"""Outcomes above zero that vary little beside their mean: right numbers, or a word that none are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf
from support.lanes import later
from support.learners import cohorts
from support.learners.cohorts import Array, Codes
from support.learners.metamorphic import Trial

from coterie_learners.core.fit import Fit, coefficient_table
from coterie_learners.errors import StudyError
from coterie_learners.sums.families.gamma import Gamma
from coterie_learners.sums.family import Totals

N = 300
FAMILIES = ("gamma", "inverse_gaussian")
LINKS = ("identity", "log")
TABLE = {"name": "cola", "suppress": "none"}


def draw(mean: float, spread: float, seed: int = 3) -> tuple[Codes, Array]:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 2, N).astype(float)
    return {"a": a, "y": mean + spread * np.round(0.5 * a + rng.normal(0, 1, N), 3)}, a


def fit(codes: Codes, mean: float, **learner: Any) -> Fit:
    variables: dict[str, dict[str, Any]] = {
        "y": {"type": "number", "range": [mean / 2, mean * 2]},
        "a": {"type": "binary"},
    }
    return Trial("y ~ a", learner, codes, variables, tuple(cohorts.even_sizes(N, 3))).fit()


def by_definition(codes: Codes, power: int) -> tuple[list[float], list[float], float]:
    """Means of both groups with standard errors, and the dispersion by Pearson, variance mu^power, in fifty digits."""
    with mp.workdps(50):
        groups = [[mpf(float(v)) for v in codes["y"][codes["a"] == level]] for level in (0.0, 1.0)]
        means = [sum(g) / len(g) for g in groups]
        squares = sum((v - m) ** 2 / m**power for g, m in zip(groups, means, strict=True) for v in g)
        phi = squares / (N - 2)
        errors = [mp.sqrt(phi * m**power / len(g)) for g, m in zip(groups, means, strict=True)]
        return [float(m) for m in means], [float(e) for e in errors], float(phi)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(1e3, 0.1), *later((1e5, 0.1), (1e7, 0.1))])
@pytest.mark.parametrize("aggregation", ["plain", *later("masked")])
def test_a_model_of_residuals_keeps_its_digits(family: str, size: tuple[float, float], aggregation: str) -> None:
    mean, _ = size
    codes, _ = draw(*size)
    got = fit(codes, mean, name="glore", family=family, link="identity", aggregation=aggregation, opening="none")
    means, errors, phi = by_definition(codes, 2 if family == "gamma" else 3)
    np.testing.assert_allclose(got.estimates, [means[0], means[1] - means[0]], rtol=1e-6)
    doubted = any("masked sums" in warning for warning in got.warnings)
    assert got.dispersion == pytest.approx(phi, rel=1e-3 if doubted else 1e-6)
    assert got.std_errors == pytest.approx([errors[0], math.hypot(*errors)], rel=1e-3 if doubted else 1e-6)


def test_residuals_below_the_last_digit_of_masked_sums_have_no_standard_error() -> None:
    mean = 1e7
    codes, a = draw(mean, 0.1)
    got = fit(codes, mean, name="glore", family="inverse_gaussian", link="log", opening="none")
    means = [float(np.mean(codes["y"][a == level])) for level in (0.0, 1.0)]
    np.testing.assert_allclose(got.estimates[0], math.log(means[0]), rtol=1e-12)
    assert math.isnan(got.dispersion)
    assert np.isnan(got.std_errors).all()
    assert got.log_likelihood is None
    assert got.warnings[0].startswith("The squares of the residuals of y are smaller than the last digit of masked")
    assert not any("collinear" in warning or "without error" in warning for warning in got.warnings)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("aggregation", ["masked", "plain"])
@pytest.mark.parametrize("link", ["log", *later("identity")])
def test_an_outcome_without_chance_is_called_so(family: str, aggregation: str, link: str) -> None:
    codes, _ = draw(4.2, 0.0)
    got = fit(codes, 4.2, name="glore", family=family, link=link, aggregation=aggregation, opening="none")
    assert got.estimates[0] == pytest.approx(4.2 if link == "identity" else math.log(4.2), rel=1e-12)
    assert got.dispersion == 0.0
    assert got.warnings[0].startswith("The columns give the outcome without error")
    assert len(got.warnings) == 1
    assert got.log_likelihood is None
    assert np.isnan([(row.z, row.p_value) for row in coefficient_table(got)]).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(50.0, 9.0), (1e4, 1.0), *later((1e3, 0.1))])
def test_a_table_has_the_standard_errors_of_the_residuals(family: str, size: tuple[float, float]) -> None:
    mean, _ = size
    codes, _ = draw(*size)
    got = fit(codes, mean, family=family, link="identity", **TABLE)
    means, errors, phi = by_definition(codes, 2 if family == "gamma" else 3)
    np.testing.assert_allclose(got.estimates, [means[0], means[1] - means[0]], rtol=1e-8)
    assert got.std_errors == pytest.approx([errors[0], math.hypot(*errors)], rel=1e-6)
    assert got.dispersion == pytest.approx(phi, rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(1e7, 0.1), (4.2, 0.0), *later((1e6, 0.1))])
def test_a_table_whose_squares_about_zero_have_lost_the_residuals_is_no_fit(
    family: str, size: tuple[float, float]
) -> None:
    mean, _ = size
    codes, _ = draw(*size)
    with pytest.raises(StudyError, match=r"varies so little beside its mean .* Choose the learner glore") as caught:
        fit(codes, mean, family=family, link="log", **TABLE)
    assert caught.value.code == "CO-N208"


@pytest.mark.parametrize("relative", [1.0, 1e-2, 1e-6, 1e-12, 1e-16])
def test_the_likelihood_of_gamma_outcomes_has_its_digits_whatever_their_spread(relative: float) -> None:
    deviance = 250.0 * relative
    got = Gamma("log").log_likelihood(Totals(250.0, 500.0, -77.0), deviance)
    with mp.workdps(60):
        shape = mpf(250) / mpf(deviance)
        wanted = 250 * (shape * mp.log(shape) - shape - mp.loggamma(shape) + mpf(1) / 2) - 77
    assert got == pytest.approx(float(wanted), rel=1e-13)
