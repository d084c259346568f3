"""From estimates and their covariance to the table that a statistician reads.

Wald tests and intervals (McCullagh and Nelder 1989, section 4.4): normal where the dispersion is known, Student's t
with n - p degrees of freedom where it is estimated, as R's summary.glm does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special

from coterie_learners.rows import Array

LEVEL = 0.95


@dataclass(frozen=True)
class Fit:
    """A fitted model in the variables' own units.

    `covariance` includes the dispersion. `null_deviance` is None where the null model has no closed form. `ratio`
    names what exp(estimate) is ("OR", "IRR"), or is empty.
    """

    learner: str
    family: str
    link: str
    terms: tuple[str, ...]
    estimates: Array
    covariance: Array
    n: int
    events: int | None
    rounds: int
    converged: bool
    dispersion: float
    dispersion_known: bool
    deviance: float
    null_deviance: float | None
    log_likelihood: float
    ratio: str = ""
    notes: tuple[str, ...] = ()

    @property
    def std_errors(self) -> Array:
        """Standard errors (p,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def parameters(self) -> int:
        """Estimated parameters, the dispersion among them where it is estimated."""
        return len(self.terms) + (0 if self.dispersion_known else 1)

    @property
    def aic(self) -> float:
        """Akaike's information criterion."""
        return 2.0 * self.parameters - 2.0 * self.log_likelihood

    @property
    def bic(self) -> float:
        """Schwarz's information criterion."""
        return self.parameters * float(np.log(self.n)) - 2.0 * self.log_likelihood


@dataclass(frozen=True)
class Row:
    """One line of the coefficient table; z is t where the dispersion is estimated."""

    term: str
    estimate: float
    std_error: float
    z: float
    p_value: float
    ci_low: float
    ci_high: float

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        return asdict(self)


def table(fit: Fit, level: float = LEVEL) -> tuple[Row, ...]:
    """The coefficient table with two-sided Wald p-values and intervals at `level`."""
    z = fit.estimates / fit.std_errors
    if fit.dispersion_known:
        p_values, quantile = 2.0 * special.ndtr(-np.abs(z)), float(special.ndtri(0.5 + level / 2))
    else:
        freedom = fit.n - len(fit.terms)
        p_values, quantile = 2.0 * special.stdtr(freedom, -np.abs(z)), float(special.stdtrit(freedom, 0.5 + level / 2))
    half = quantile * fit.std_errors
    columns: Sequence[Array] = (fit.estimates, fit.std_errors, z, p_values, fit.estimates - half, fit.estimates + half)
    return tuple(Row(term, *map(float, values)) for term, *values in zip(fit.terms, *columns, strict=True))
