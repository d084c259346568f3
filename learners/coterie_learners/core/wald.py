"""Joint Wald tests of whole terms: does a category with all its levels matter, does an interaction?

Rao, Linear Statistical Inference, 2nd ed. 1973, section 6e: b' V^-1 b of a term's coefficients b with covariance V is
about chi-squared on as many degrees of freedom; over them it is F where the dispersion is estimated. As `anova` of a
sandwich or of a survey model gives them (survey::regTermTest, aod::wald.test). Nothing here is posted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coterie_learners.core.fit import Fit
from coterie_learners.numeric.distributions import chi_squared_above, f_above


def joint_tests(fit: Fit, columns: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """A line for each term of the formula, by the columns that it made, as JSON has it: chi-squared or F, df and p."""
    if fit.covariance is None or not np.all(np.isfinite(fit.covariance)):
        return []
    places = {name: k for k, name in enumerate(fit.terms)}
    present = {term: [places[name] for name in names if name in places] for term, names in columns.items()}
    return [describe_test(fit, term, at) for term, at in present.items() if at]


def describe_test(fit: Fit, term: str, at: Sequence[int]) -> dict[str, Any]:
    """The test of the coefficients at these places."""
    assert fit.covariance is not None
    estimates, covariance = fit.estimates[list(at)], fit.covariance[np.ix_(at, at)]
    scale = np.sqrt(np.diag(covariance))
    if not np.all(scale > 0.0):
        return {"term": term, "df": len(at), "statistic": float("nan"), "p": float("nan")}
    z = estimates / scale
    chi2 = max(float(z @ np.linalg.solve(covariance / np.outer(scale, scale), z)), 0.0)
    if fit.dispersion_known or fit.df_residual is None:
        return {"term": term, "df": len(at), "statistic": chi2, "p": chi_squared_above(chi2, len(at))}
    value, df = np.array([chi2 / len(at)]), np.array([float(len(at))])
    p = float(f_above(value, df, fit.df_residual)[0])
    return {"term": term, "df": len(at), "statistic": float(value[0]), "p": p}
