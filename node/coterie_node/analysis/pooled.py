"""The pooled fit of an independent library, with which a federated fit is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coterie_learners.core.fit import Fit


@dataclass(frozen=True)
class Reference:
    """The pooled fit, by term, in the variables' own units; standard errors if they are to be compared."""

    estimates: Mapping[str, float]
    std_errors: Mapping[str, float] | None = None

    def differences(self, fit: Fit) -> dict[str, float]:
        """Largest absolute differences of a fit with the same terms."""
        gaps = {"max_abs_estimate": _largest(fit, fit.estimates.tolist(), self.estimates)}
        if self.std_errors is not None:
            gaps["max_abs_std_error"] = _largest(fit, fit.std_errors.tolist(), self.std_errors)
        return gaps


def _largest(fit: Fit, values: list[float], wanted: Mapping[str, float]) -> float:
    return max(abs(value - wanted[term]) for term, value in zip(fit.terms, values, strict=True))
