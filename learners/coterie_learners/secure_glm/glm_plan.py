"""What all parties of a Secure GLM derive from the study alone: options, roles, sizes, and what to fit and open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import Field as Within

from coterie_learners.core.intervals import Intervals, merge_intervals
from coterie_learners.core.protocol import Posts, Site
from coterie_learners.core.registry import options_of
from coterie_learners.errors import DataError, StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.secure.lasso_plan import SharedPlan
from coterie_learners.secure.secure_join import check_range
from coterie_learners.secure_glm.shared_newton import FIELD_BITS, MOST_PENALTY, GlmTarget
from coterie_learners.shares.field import PrimeField as Numbers
from coterie_learners.study.design import Design
from coterie_learners.study.document import Frozen, Study
from coterie_learners.study.rows import join_blocks

# The secret frame has room for ranges whose middle is so many half-widths from zero, and for offsets below this.
_FARTHEST, LARGEST_OFFSET = 1024.0, 64.0
MOST_COLUMNS = 200
# Middle and half-width of an outcome of 0 and 1.
BINARY = (0.5, 0.5)


class SecureGlmOptions(Frozen):
    """The learner section of a study.

    `ridge` penalises half the squared coefficients in the variables' own units, except the intercept.
    `max_iterations`: evaluations of the likelihood at most; every `check_every` of them the sites open whether the fit
    has settled. `null_deviance` opens the number of events, `covariance` all of the coefficients' covariance, not only
    their standard errors. `passes`, `rows_per_column`, `questions`, `linkage`: as in Secure Lasso.
    """

    family: Literal["binomial"] = "binomial"
    link: Literal["logit"] = "logit"
    ridge: Annotated[float, Within(ge=0)] = 0.0
    max_iterations: Annotated[int, Within(ge=1, le=20)] = 16
    check_every: Annotated[int, Within(ge=1, le=20)] = 1
    null_deviance: bool = False
    covariance: bool = False
    linkage: Literal["masks", "paillier"] = "masks"
    passes: tuple[tuple[str, ...], ...] = ()
    rows_per_column: Annotated[int, Within(ge=1, le=1000)] = 10
    questions: Annotated[int, Within(ge=1, le=1000)] = 1


@dataclass(frozen=True)
class GlmPlan(SharedPlan):
    """What every site derives from the study alone; and where the columns lie in their ranges, once that is posted."""

    options: SecureGlmOptions

    @classmethod
    def of(cls, study: Study) -> GlmPlan:
        """The plan of a study."""
        return cls(study, Design(study), options_of(study, SecureGlmOptions))

    def narrow(self, terms: Posts) -> GlmPlan:
        """The plan with the intervals that all sites' columns lie in, from the first step's posts."""
        if self.joins:
            order = {name: self.order_of(name) for name in self.study.owners}
            return replace(self, intervals=merge_intervals(terms, self.width, order))
        posted = {name: terms[name] for name in self.study.owners}
        return replace(self, intervals=merge_intervals(posted, self.m, None))

    @cached_property
    def columns(self) -> Intervals:
        """The intervals of the columns; those of the declared ranges before others are known."""
        return Intervals.of_ranges(self.m) if self.intervals is None else self.intervals

    @property
    def width(self) -> int:
        """Numbers that a row is shared as: columns, the offset if there is one, the outcome."""
        return self.m + (self.design.formula.offset is not None) + 1

    @property
    def numbers(self) -> Numbers:
        """The field."""
        return Numbers(FIELD_BITS)

    @property
    def declared_outcome(self) -> tuple[float, float]:
        """Middle and half-width of an outcome of 0 and 1."""
        return BINARY

    @property
    def largest_offset(self) -> float:
        """The largest magnitude of an offset."""
        return LARGEST_OFFSET

    def order_of(self, owner: str) -> list[int]:
        """Places of an owner's columns in the joined table; the offset and the outcome are the last."""
        part, offset = Design(self.study, owner), self.design.formula.offset
        names = self.design.names[1:]
        own_offset = [self.m] if offset is not None and offset in self.study.columns[owner] else []
        own_outcome = [self.width - 1] if part.outcome_here else []
        return [names.index(name) for name in part.names] + own_offset + own_outcome

    def tabulate_rows(self, site: Site) -> Array:
        """A site's rows (n, width): columns in [-1, 1] of their declared ranges, the offset as it is, the outcome."""
        block = join_blocks(site.rows)
        x = check_range(self.design.scale(block.x)[:, 1:], site.name)
        if block.offset is None:
            return np.column_stack([x, block.y])
        if not np.all(np.abs(block.offset) <= LARGEST_OFFSET):
            message = f"{site.name}: an offset lies outside -{LARGEST_OFFSET:g} to {LARGEST_OFFSET:g}"
            raise DataError("CO-D343", f"{message}, beyond which the secure numbers do not reach. Correct the value.")
        return np.column_stack([x, block.offset, block.y])

    @property
    def scales(self) -> Array:
        """Units in one half-width of each column's interval (m,)."""
        return np.asarray(np.array([column.scale for column in self.design.columns[1:]]) * self.columns.half[: self.m])

    @cached_property
    def target(self) -> GlmTarget:
        """What to fit and open; StudyError (CO-S545) for numbers that the field does not hold."""
        o = self.options
        declared = np.array([(column.centre, column.scale) for column in self.design.columns[1:]]).reshape(-1, 2)
        middles = (declared[:, 0] + declared[:, 1] * self.columns.middle[: self.m]) / self.scales
        ridge = np.concatenate([[0.0], o.ridge / self.scales**2])
        if np.any(np.abs(middles) > _FARTHEST) or np.any(ridge > MOST_PENALTY * self.floor):
            message = "A range lies too far from zero, or the ridge is too large, for the field of secure numbers"
            raise StudyError("CO-S545", f"{message}. Declare values less a constant, other units, or a smaller ridge.")
        intercept = np.concatenate([[1.0], -middles])
        return GlmTarget(ridge, intercept, o.max_iterations, o.check_every, o.covariance, o.null_deviance)
