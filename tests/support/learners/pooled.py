"""Fits that see all rows at once: statsmodels, and Newton's method by hand for what statsmodels does not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import statsmodels.api as sm
from support.learners.cohorts import Array, Codes, matrix

from coterie_learners.study.design import Design
from coterie_learners.study.document import Study

LINKS = {
    "logit": sm.families.links.Logit,
    "probit": sm.families.links.Probit,
    "cloglog": sm.families.links.CLogLog,
    "log": sm.families.links.Log,
    "identity": sm.families.links.Identity,
}
FAMILIES = {"binomial": sm.families.Binomial, "poisson": sm.families.Poisson, "gaussian": sm.families.Gaussian}


@dataclass(frozen=True)
class Pooled:
    """What a fit on all rows says."""

    estimates: Array
    std_errors: Array
    deviance: float
    null_deviance: float
    log_likelihood: float


def fit(study: Study, codes: Codes, x: Array | None = None) -> Pooled:
    """statsmodels' fit of the study's model; `x` is the design in the variables' own units (FORMULA's if None)."""
    formula, options = Design(study).formula, study.learner.options
    family = FAMILIES[options["family"]](link=LINKS[_link(options)]())
    offset = None if formula.offset is None else codes[formula.offset]
    model = sm.GLM(codes[formula.outcome], matrix(codes) if x is None else x, family=family, offset=offset)
    # Its own measure, the deviance, stops far too early where convergence is linear.
    done = model.fit(tol=1e-14, tol_criterion="params", maxiter=500)
    likelihood = done.llf
    if options["family"] == "gaussian":
        y = codes[formula.outcome] - (0.0 if offset is None else offset)
        likelihood = sm.OLS(y, model.exog).fit().llf
    return Pooled(
        np.asarray(done.params),
        np.asarray(done.bse),
        float(done.deviance),
        float(done.null_deviance),
        float(likelihood),
    )


def _link(options: dict[str, Any]) -> str:
    return str(options["link"] or {"binomial": "logit", "poisson": "log", "gaussian": "identity"}[options["family"]])


def penalised(x: Array, y: Array, penalty: Array) -> tuple[Array, Array]:
    """Logistic regression minus b' diag(penalty) b / 2: estimates, and their covariance H^-1 I H^-1."""
    beta = np.zeros(x.shape[1])
    for _ in range(100):
        mu = 1 / (1 + np.exp(-(x @ beta)))
        information = (x.T * (mu * (1 - mu))) @ x
        move = np.linalg.solve(information + np.diag(penalty), x.T @ (y - mu) - penalty * beta)
        beta = beta + move
        if np.abs(move).max() < 1e-15:
            break
    inverse = np.linalg.inv(information + np.diag(penalty))
    return beta, inverse @ information @ inverse
