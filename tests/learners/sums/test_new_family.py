"""A new family is one file: GLORE fits it, in the clear and under masks, with nothing else changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from support.learners import cohorts
from support.learners.table import MemoryProtocol

from coterie_learners.glore.glore import glore
from coterie_learners.sums import families

FOLDER = Path(cohorts.__file__).parent / "new_family"


@pytest.fixture
def geometric(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The family's file in the folder of the families."""
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(FOLDER)])
    families.all_families.cache_clear()
    cohorts._complete_study.cache_clear()
    yield
    families.all_families.cache_clear()
    cohorts._complete_study.cache_clear()


@pytest.mark.usefixtures("geometric")
@pytest.mark.parametrize("aggregation", ["plain", "masked"])
def test_a_family_in_a_file_of_its_own_is_fitted_as_statsmodels_fits_it(aggregation: str) -> None:
    study = cohorts.study("visits ~ age + male", 3, family="geometric", aggregation=aggregation)
    codes = cohorts.draw(600)
    fit = MemoryProtocol(glore, study, cohorts.split(study, codes)).play()[study.sites[0]]
    x = sm.add_constant(np.column_stack([codes["age"], codes["male"]]))
    family = sm.families.NegativeBinomial(sm.families.links.Log(), alpha=1.0)
    reference = sm.GLM(codes["visits"], x, family=family).fit(tol=1e-14, maxiter=200)
    np.testing.assert_allclose(fit.estimates, reference.params, rtol=1e-9)
    np.testing.assert_allclose(fit.std_errors, reference.bse, rtol=1e-8)
    assert (fit.family, fit.link, fit.ratio) == ("geometric", "log", "IRR")


@pytest.mark.usefixtures("geometric")
def test_a_family_brings_the_score_of_its_pooled_fit() -> None:
    family = families.choose_family("geometric", None)
    eta, y = np.array([-1.0, 0.0, 1.5]), np.array([0.0, 3.0, 2.0])
    score, weight = family.score_by_definition(eta, y)
    assert score == pytest.approx(family.parts(eta, y).residual)
    assert weight == pytest.approx(family.parts(eta, y).weight)


def test_without_the_file_there_is_no_such_family() -> None:
    assert "geometric" not in families.all_families()
