"""The test that hazards are proportional, by term and for all, as R's `cox.zph` has it from version 3.0 on.

Grambsch and Therneau, Biometrika 1994;81:515-526. A score test that coefficients change with a function g of time: at
the maximum the score of the coefficients is zero, that of their change is U, and [I, G; G, Q] is the information, G
and Q being I with each time weighted by g and g^2. The test is U' (Q - G I^-1 G)^-1 U. A shift of g changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coterie_learners.core.payload import Payload
from coterie_learners.cox.cox_plan import CoxPlan
from coterie_learners.errors import Collinear
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import chi_squared_above


def assess_proportionality(plan: CoxPlan, end: Payload) -> dict[str, Any]:
    """The tests as JSON has them; NaN where a term cannot change with time, as with one time alone."""
    information, cross, square = (
        linalg.symmetric(np.asarray(end[name]), plan.p) for name in ("information", "drift_cross", "drift_square")
    )
    drift, square = np.asarray(end["drift"]), square + np.diag(plan.penalty)
    factor = linalg.cholesky(information, plan.terms)
    places = {term: [plan.terms.index(n) for n in names] for term, names in plan.design.by_term.items()}
    places["GLOBAL"] = list(range(plan.p))
    terms = []
    for term, at in places.items():
        rest = square[np.ix_(at, at)] - linalg.matmul(cross[at], linalg.solve(factor, cross[at].T))
        chi2 = _square_score(drift[at], 0.5 * (rest + rest.T), square[np.ix_(at, at)])
        p = chi_squared_above(chi2, len(at)) if chi2 == chi2 else chi2
        terms.append({"term": term, "chi2": chi2, "df": len(at), "p": p})
    return {"transform": plan.transform, "terms": terms}


def _square_score(drift: Array, rest: Array, whole: Array) -> float:
    """U' R^-1 U; NaN where what is left of the information is rounding."""
    if not np.all(np.diag(rest) > 1e-10 * np.diag(whole)):
        return float("nan")
    try:
        factor = linalg.cholesky(rest, [str(k) for k in range(len(rest))])
    except Collinear:
        return float("nan")
    return linalg.dot(drift, linalg.solve(factor, drift))
