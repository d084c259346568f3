"""What every site derives from a study of a category alone: its coefficients, where they stand, and what they are."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from coterie_learners.core import masked_sum
from coterie_learners.core.masked_sum import SiteSums
from coterie_learners.core.model_warnings import advise_on_separation
from coterie_learners.core.protocol import Site
from coterie_learners.errors import StudyError
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Rows
from coterie_learners.sums.families import all_families, choose_family
from coterie_learners.sums.family import Family
from coterie_learners.sums.frame import Frame
from coterie_learners.sums.newton import FitRules
from coterie_learners.sums.opening.counts import Opening, PooledCounts
from coterie_learners.sums.penalty import Penalty
from coterie_learners.sums.rounds import Model

# Options of GLORE that say nothing of a category.
_WITHOUT = ("firth", "robust", "site_intercepts", "weights", "ridge", "penalise_intercept")


@dataclass(frozen=True)
class CategoryPlan:
    """The plan of a model for k levels on p columns, intercept first.

    Multinomial: p coefficients for each level after the first, level by level. Ordinal: k - 1 thresholds, then p - 1
    coefficients. `pooled`: the pool's counts, if it is open.
    """

    study: Study
    design: Design
    family: Family
    max_rounds: int
    tolerance: float
    opens: bool
    pooled: PooledCounts | None = None

    @classmethod
    def of(cls, study: Study, options: Any) -> CategoryPlan:
        """The plan of a study with GLORE's options."""
        family = choose_family(options.family, options.link)
        opens = options.opening != "none"
        return cls(study, Design(study), family, options.max_rounds, options.tolerance, opens)

    @property
    def ordinal(self) -> bool:
        """Whether the levels have an order."""
        return self.family.ordered

    @property
    def levels(self) -> tuple[str, ...]:
        """The outcome's levels."""
        return self.design.outcome.levels

    @property
    def p(self) -> int:
        """Number of columns."""
        return len(self.design.columns)

    @property
    def cuts(self) -> int:
        """Levels after the first, or thresholds."""
        return len(self.levels) - 1

    @property
    def q(self) -> int:
        """Number of coefficients."""
        return self.cuts + self.p - 1 if self.ordinal else self.cuts * self.p

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the coefficients, in the order of the sums."""
        columns, levels = self.design.names, self.levels
        if not self.ordinal:
            return tuple(f"{level}:{name}" for level in levels[1:] for name in columns)
        thresholds = tuple(f"{low}|{high}" for low, high in itertools.pairwise(levels))
        return (*thresholds, *columns[1:])

    @property
    def order(self) -> list[int]:
        """The places of the coefficients in the table: thresholds stand below, as in R's polr."""
        return [*range(self.cuts, self.q), *range(self.cuts)] if self.ordinal else list(range(self.q))

    @cached_property
    def rules(self) -> FitRules:
        """How the looks go, in which level numbers are counts: a look needs moments of columns alone."""
        model = Model.of(self.design, choose_family("poisson", None))
        unit = masked_sum.UNIT * len(self.study.sites)
        return FitRules(model, Penalty.ridge(self.p, 0.0, True), self.tolerance, unit, advise_on_separation(self.study))

    @property
    def look(self) -> SiteSums:
        """Form of a look."""
        return SiteSums(self.rules.model.shapes("look"), True)

    @property
    def round(self) -> SiteSums:
        """Form of a round."""
        triangle = self.q * (self.q + 1) // 2
        shapes = {"score": (self.q,), "information": (triangle,), "deviance": (), "counts": (len(self.levels),)}
        return SiteSums(shapes, True)

    @property
    def opening(self) -> Opening:
        """The opening step: patients by level of covariates and of the outcome."""
        floor, levels = self.study.disclosure.cell, self.levels
        return Opening(self.design, floor, True, read_site_rows, by_rows=True, outcome_levels=levels)

    def start(self) -> Array:
        """Coefficients (q,) that tell nothing: each level is as likely as another one."""
        out = np.zeros(self.q)
        if self.ordinal:
            shares = (np.arange(self.cuts) + 1.0) / len(self.levels)
            out[: self.cuts] = [linalg.log(share / (1.0 - share)) for share in shares.tolist()]
        return out

    def carry(self, frame: Frame) -> Array:
        """The matrix (q, q) that carries coefficients of a frame to the variables' own units."""
        if not self.ordinal:
            return np.asarray(np.kron(np.eye(self.cuts), frame.carry), dtype=np.float64)
        out = np.eye(self.q)
        out[: self.cuts, self.cuts :] = -frame.carry[0, 1:]
        out[self.cuts :, self.cuts :] = frame.carry[1:, 1:]
        return out


def has_levels(family: Any) -> bool:
    """Whether this is the name of a family whose outcome has several levels."""
    families = all_families()
    return family in families and not families[family].by_rows


def read_site_rows(site: Site) -> Rows:
    """The rows of a site."""
    return site.rows


def check_category(study: Study, options: Any) -> None:
    """StudyError for a study of which no model of a category can be made."""
    plan = CategoryPlan.of(study, options)
    plan.family.check_outcome(plan.design.formula.outcome, plan.design.outcome)
    chosen = [name for name in _WITHOUT if getattr(options, name)]
    chosen += ['opening = "bits"'] if options.opening == "bits" else []
    chosen += ["standardise"] if options.standardise else []
    chosen += ['intervals = "profile"'] if options.intervals == "profile" else []
    if chosen or plan.design.formula.offset:
        message = f"GLORE fits no {plan.family.name} model with {', '.join(chosen) or 'an offset'}"
        raise StudyError("CO-S342", f"{message}. Leave it out.")
    if not plan.design.formula.intercept:
        message = f"GLORE fits no {plan.family.name} model without an intercept"
        raise StudyError("CO-S342", f"{message}. Leave `0 +` or `- 1` out of the formula.")
    if options.aggregation == "plain":
        message = f"A {plan.family.name} model is fitted from masked sums alone"
        raise StudyError("CO-S343", f'{message}. Set aggregation = "masked", or choose COLA for a multinomial table.')
    if len(study.sites) < masked_sum.MIN_PARTIES:
        message = f"A {plan.family.name} model has masked sums; of {len(study.sites)} sites each would learn others'"
        raise StudyError("CO-S305", f"{message}. Take part with three sites or more.")
    if study.ledger.silent_site == "exclude":
        message = "Sums over all sites and then over fewer would show what the excluded site holds"
        raise StudyError("CO-S306", f'{message}. Set silent_site = "wait" or "abort".')
