"""Survival of a row at given times by a Cox model with one baseline hazard, with its errors, as R's `survfit` has it.

A result's baseline holds, by stratum and step, the cumulative hazard H at the centre of the covariates, its variance V,
and the sums m of mean covariates times hazard. For a row z away from the centre with offset o, and C the covariance,

    S = exp(-H e^(o + z'b)),   Var(log S) = e^(2 (o + z'b)) (V + (z H - m)' C (z H - m)).

Limits are those of log S, at most 1 (`conf.type = "log"`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array
from coterie_node.errors import ConfigError

_ROUNDING = 1e-9


@dataclass(frozen=True)
class BaselineStratum:
    """The baseline of one stratum by step: `times`, `hazard`, `variance` (t,) and `mean` (t, p)."""

    times: Array
    hazard: Array
    variance: Array
    mean: Array

    def find(self, at: float) -> tuple[float, float, Array]:
        """Hazard, its variance and the mean sums at a time; zero before the first event."""
        place = int(np.searchsorted(self.times, at * (1 + _ROUNDING), side="right")) - 1
        if place < 0:
            return 0.0, 0.0, np.zeros(self.mean.shape[1])
        return float(self.hazard[place]), float(self.variance[place]), self.mean[place]


@dataclass(frozen=True)
class BaselineSurvival:
    """The baseline hazards of a result, and the times `at` which survival is predicted.

    `by` names the column of the stratum, whose levels are those of `strata` in order; empty if there is one stratum.
    """

    at: tuple[float, ...]
    by: str
    centre: Array
    strata: tuple[BaselineStratum, ...]

    def predict(
        self, rows: tuple[Array, Array, NDArray[np.int64]], model: tuple[Array, Array], quantile: float
    ) -> dict[str, Array]:
        """Survival with limits by time, each (m,); rows are x (m, p), offset and stratum (m,), the model b and C."""
        return dict(part for time in self.at for part in self._predict_at(time, rows, model, quantile))

    def _predict_at(
        self, at: float, rows: tuple[Array, Array, NDArray[np.int64]], model: tuple[Array, Array], quantile: float
    ) -> Iterator[tuple[str, Array]]:
        (x, offset, level), (beta, covariance) = rows, model
        z = x - self.centre
        times = np.exp(z @ beta + offset)
        hazard, variance, mean = (
            np.array(part)[level] for part in zip(*(s.find(at) for s in self.strata), strict=True)
        )
        drift = z * hazard[:, None] - mean
        error = times * np.sqrt(variance + np.maximum(np.sum((drift @ covariance) * drift, axis=1), 0.0))
        logs = -hazard * times
        yield f"survival[{at:g}]", np.exp(logs)
        yield f"survival_se[{at:g}]", np.exp(logs) * error
        yield f"survival_low[{at:g}]", np.exp(logs - quantile * error)
        yield f"survival_high[{at:g}]", np.exp(np.minimum(logs + quantile * error, 0.0))


def open_survival(
    result: Mapping[str, Any], where: str, at: Sequence[float], levels: Mapping[str, Sequence[str]]
) -> BaselineSurvival | None:
    """The baseline of a result, or None where no time is asked for; ConfigError (CO-F366, CO-F354) without one.

    `levels`: those of each column that may be the strata.
    """
    if not at:
        return None
    baseline = _find_baseline(result)
    if baseline is None:
        message = f"{where} has no baseline hazard, so it cannot predict survival"
        raise ConfigError("CO-F366", f'{message}. Take a Cox model with baseline = "common", or leave --at out.')
    try:
        horizon = float(baseline["grid"]["horizon"])
        by = str(baseline["by"] or "")
        centre = np.array(baseline["centre"], dtype=np.float64)
        parts = {str(part["stratum"]): _read_stratum(part, len(centre)) for part in baseline["strata"]}
        strata = tuple(parts[level] for level in (levels[by] or ("0", "1"))) if by else (parts[""],)
        opened = BaselineSurvival(tuple(at), by, centre, strata)
    except (KeyError, TypeError, ValueError, IndexError):
        message = f"{where} has a baseline hazard that cannot be read"
        raise ConfigError("CO-F354", f"{message}. Print the result again with `coterie study result --json`.") from None
    wrong = [time for time in at if not 0.0 <= time <= horizon]
    if wrong:
        message = f"--at {wrong[0]:g} lies outside the grid of {where}, which ends at {horizon:g}"
        raise ConfigError("CO-F366", f"{message}. Choose a time in the grid.")
    return opened


def _find_baseline(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    details = result.get("details")
    cox = details.get("cox") if isinstance(details, Mapping) else None
    baseline = cox.get("baseline") if isinstance(cox, Mapping) else None
    return baseline if isinstance(baseline, Mapping) else None


def _read_stratum(part: Mapping[str, Any], p: int) -> BaselineStratum:
    """One stratum; ValueError if its columns do not belong together, or hold what is no number."""
    times, hazard, variance = (np.array(part[name], dtype=np.float64) for name in ("times", "hazard", "variance"))
    mean = np.array(part["mean"], dtype=np.float64).reshape(len(times), p)
    if {hazard.shape, variance.shape} != {times.shape} or np.any(np.diff(times) <= 0.0):
        raise ValueError("columns differ in length, or times do not rise")
    if not all(np.all(np.isfinite(column)) for column in (times, hazard, variance, mean)):
        raise ValueError("a value is no number")
    return BaselineStratum(times, hazard, variance, mean)
