"""Score and weight of a row from the textbook's own formulas, for the pooled fit that a study is compared with.

McCullagh and Nelder 1989, section 2.5: (y - mu) mu' / V and mu'^2 / V. Nothing here is used by a fit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from coterie_learners.numeric.array import Array

# The mean of a predictor by link, and its slope.
MEANS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "log": (np.exp, np.exp),
    "identity": (np.asarray, np.ones_like),
    "inverse": (lambda eta: 1.0 / eta, lambda eta: -(eta**-2.0)),
    "sqrt": (np.square, lambda eta: 2.0 * eta),
    "cauchit": (lambda eta: 0.5 + np.arctan(eta) / np.pi, lambda eta: 1.0 / (np.pi * (1.0 + eta**2))),
    "1/mu^2": (lambda eta: eta**-0.5, lambda eta: -0.5 * eta**-1.5),
}


def score_by_textbook(link: str, variance: Callable[[Array], Array], eta: Array, y: Array) -> tuple[Array, Array]:
    """Score and expected weight (m,) each of rows with outcome y (m,) at predictors eta (m,)."""
    mean, slope = (function(eta) for function in MEANS[link])
    spread = variance(mean)
    return np.asarray((y - mean) * slope / spread), np.asarray(slope**2 / spread)
