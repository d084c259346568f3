"""A fit with an offset begins with the step of the model without it; with the intercept alone where that is worse."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from support.learners.cohorts import Array, Codes, matrix, split, study
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit
from coterie_learners.glore.glore import glore
from coterie_learners.study.document import Study

N = 900
LINKS = {"poisson": sm.families.Poisson(), "binomial": sm.families.Binomial()}
# How closely follow-up goes with age.
CLOSE = 1.5


def draw(together: float, seed: int = 3) -> Codes:
    """Rows whose offset is `together` times the age, and as much again by chance."""
    rng = np.random.default_rng(seed)
    codes = {"age": rng.normal(size=N).clip(-5, 5), "crp": rng.normal(size=N).clip(-4, 6)}
    codes |= {"male": rng.integers(0, 2, N).astype(float), "stage": rng.integers(0, 3, N).astype(float)}
    codes["years"] = np.clip(together * codes["age"] + 0.3 * rng.normal(size=N), -9, 9)
    eta = matrix(codes) @ np.array([0.3, 0.1, -0.3, 0.4, 0.3, -0.5]) + codes["years"]
    codes["visits"] = rng.poisson(np.exp(eta)).astype(float)
    codes["died"] = (rng.random(N) < 1.0 / (1.0 + np.exp(-eta))).astype(float)
    return codes


def outcome(family: str) -> str:
    return "visits" if family == "poisson" else "died"


def offset_study(family: str, offset: str = " + offset(years)", count: int = 3) -> Study:
    declared = {"years": {"type": "number", "range": [-9, 9]}, "visits": {"type": "count", "range": [0, 100000]}}
    return study(f"{outcome(family)} ~ age + crp + male + stage{offset}", count, declared, family=family)


def play(of: Study, codes: Codes) -> tuple[Fit, MemoryProtocol]:
    table = MemoryProtocol(glore, of, split(of, codes))
    fit = table.play()[of.sites[0]]
    assert isinstance(fit, Fit)
    return fit, table


def pooled(family: str, codes: Codes) -> Array:
    model = sm.GLM(codes[outcome(family)], matrix(codes), family=LINKS[family], offset=codes["years"])
    return np.asarray(model.fit(tol=1e-13, maxiter=200).params)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("together", [-CLOSE, -1.0, 0.0, 0.5, CLOSE])
@pytest.mark.parametrize("family", list(LINKS))
def test_the_fit_is_that_of_the_pooled_rows(family: str, together: float, count: int) -> None:
    codes = draw(together)
    fit, table = play(offset_study(family, count=count), codes)
    assert np.max(np.abs(fit.estimates - pooled(family, codes)) / fit.std_errors) < 1e-8
    assert table.auditor().unchecked == 0


@pytest.mark.parametrize("family", list(LINKS))
def test_an_offset_by_chance_costs_no_round(family: str) -> None:
    codes = draw(0.0)
    fit, _ = play(offset_study(family), codes)
    plain, _ = play(offset_study(family, offset=""), codes)
    assert fit.rounds <= plain.rounds


def test_a_wrong_guess_costs_one_round() -> None:
    """Follow-up that goes with age: the first step takes it for an effect of age, and is worse than no step at all."""
    codes = draw(CLOSE)
    _, table = play(offset_study("poisson"), codes)
    first, second = (next(iter(table.posts(f"model/{k}").values())) for k in (0, 1))
    assert np.any(first["step"])
    assert not np.any(second["step"])
    assert second["beta"].tobytes() == first["base"].tobytes()
    assert int(second["known"]) == 1
    assert int(second["halvings"]) == 0
