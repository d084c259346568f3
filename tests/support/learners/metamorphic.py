"""Studies turned into other studies whose results are known: other units, places, ranges, signs, splits and orders."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from support.learners import cohorts
from support.learners.cohorts import Array, Codes
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit
from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.errors import LearnerError
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes, Data


@dataclass(frozen=True)
class Trial:
    """A study with the rows of all sites, and how far the declared ranges go.

    `ranges` by variable; `sizes` of the sites' parts; `order` of the sites.
    """

    formula: str
    learner: dict[str, Any]
    codes: Codes
    variables: dict[str, dict[str, Any]]
    sizes: tuple[int, ...] = (110, 100, 90)
    order: tuple[int, ...] = (0, 1, 2)

    @property
    def study(self) -> Study:
        """The study as people would write it."""
        names = [cohorts.NAMES[k] for k in self.order]
        return complete_study(
            Study.model_validate(
                {
                    "name": "turned",
                    "sites": names,
                    "formula": self.formula,
                    "variables": self.variables,
                    "learner": self.learner,
                    "disclosure": {"rows": 1, "cell": 0},
                }
            )
        )

    def fit(self) -> Fit:
        """The fit of all sites; LearnerError if the study is refused."""
        study = self.study
        learner = learner_of(study)
        parts = dict(zip(cohorts.NAMES, cohorts.split_sizes(self.codes, list(self.sizes)), strict=False))
        rows: dict[str, Data] = {
            name: cohorts.rows(study, parts[name]) if learner.reads == "rows" else ArrayCodes(parts[name])
            for name in study.sites
        }
        result = MemoryProtocol(learner.script, study, rows).play()[study.sites[0]]
        assert isinstance(result, Fit)
        return result

    def moved(self, name: str, times: float, plus: float) -> Trial:
        """The same patients with a variable in another unit and from another zero: times x + plus."""
        declared = self.variables[name]
        low, high = sorted(times * end + plus for end in declared["range"])
        options = dict(self.learner)
        if name in options.get("grids", {}):
            grid = sorted(times * value + plus for value in options["grids"][name])
            options["grids"] = {**options["grids"], name: grid}
        changed = {**declared, "range": [low, high]}
        codes = {**self.codes, name: times * self.codes[name] + plus}
        return replace(self, codes=codes, variables={**self.variables, name: changed}, learner=options)

    def widened(self, name: str, times: float, at: float = 0.5) -> Trial:
        """The same patients with a declared range so many times as wide; the old one lies at this share of the new."""
        low, high = self.variables[name]["range"]
        width = (high - low) * times
        start = low - (width - (high - low)) * at
        changed = {**self.variables[name], "range": [start, start + width]}
        return replace(self, variables={**self.variables, name: changed})


def agree(got: Fit, estimates: Array, errors: Array, digits: float = 8.0) -> str:
    """Empty if a fit has these numbers to so many digits (of the standard error, for estimates), else how far off."""
    off = float(np.max(np.abs(got.estimates - estimates) / np.maximum(np.abs(estimates), errors)))
    off_errors = float(np.max(np.abs(got.std_errors / errors - 1.0)))
    bound = 10.0**-digits
    return "" if off <= bound and off_errors <= bound else f"estimates {off:.1e}, standard errors {off_errors:.1e}"


def outcome_of(trial: Trial, want: Callable[[], tuple[Array, Array]]) -> str:
    """ "right", "refused CO-...", or how far off a fit is."""
    try:
        got = trial.fit()
    except LearnerError as error:
        return f"refused {error.code}"
    return agree(got, *want()) or "right"


def carry_forward(fit: Fit, name: str, times: float, plus: float) -> tuple[Array, Array]:
    """Estimates and errors of a fit after a covariate (a main effect alone) became times x + plus."""
    back = np.eye(len(fit.terms))
    j = fit.terms.index(name)
    back[j, j] = 1.0 / times
    if "(Intercept)" in fit.terms:
        back[fit.terms.index("(Intercept)"), j] = -plus / times
    assert fit.covariance is not None
    return back @ fit.estimates, np.sqrt(np.diag(back @ fit.covariance @ back.T))


def counts(outcomes: Iterable[str]) -> tuple[int, int, int]:
    """How many are right, refused and neither."""
    listed = list(outcomes)
    right, refused = (sum(o.startswith(word) for o in listed) for word in ("right", "refused"))
    return right, refused, len(listed) - right - refused
