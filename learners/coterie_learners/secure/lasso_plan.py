"""What all parties of a Secure Lasso derive from the study alone: options, roles, sizes, and what to minimise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import Field as Within
from pydantic import field_validator

from coterie_learners.core.intervals import Intervals, merge_intervals
from coterie_learners.core.protocol import Posts, Site
from coterie_learners.core.registry import options_of
from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.secure import paillier, secure_join
from coterie_learners.secure.fista import Rule
from coterie_learners.secure.identifier_tags import Deal, LinkagePass
from coterie_learners.secure.lasso_model import Target
from coterie_learners.secure.moments import field_bits
from coterie_learners.secure.secure_join import JoinPlan, check_range
from coterie_learners.shares.field import PrimeField as Numbers
from coterie_learners.shares.shamir3 import COMPUTING
from coterie_learners.study.design import Design
from coterie_learners.study.document import Frozen, Schedule, Study
from coterie_learners.study.rows import join_blocks

# No number overflows with so many rows; the field is chosen before anybody knows how many there are.
MAX_ROWS = 1 << 22


class SecureLassoOptions(Frozen):
    """The learner section of a study.

    `alpha` one penalty or a path of them; `l1_ratio` as scikit-learn's (1 Lasso, 0 ridge). `penalise`: coefficients in
    the variables' own units, or of variables divided by their standard deviation in the cohort. `passes`: see
    identifiers.py; empty means all identifying columns at once. `rows_per_column`: the least cohort, in rows for each
    column. `questions`: how many studies an owner answers on the same patients. `show`: the coefficients of every
    penalty, or after cross-validation only of the best. `seed`: deals rows to folds and to those held out; without one
    chance does.
    """

    alpha: tuple[Annotated[float, Within(ge=0)], ...] = (0.01,)
    l1_ratio: Annotated[float, Within(ge=0, le=1)] = 1.0
    penalise: Literal["units", "cohort"] = "units"
    tolerance: Annotated[float, Within(ge=1e-9, le=1e-2)] = 1e-7
    max_iterations: Annotated[int, Within(ge=1, le=10_000)] = 1000
    check_every: Annotated[int, Within(ge=0, le=1000)] = 10
    folds: Annotated[int, Within(ge=0, le=20)] = 0
    held_out: Annotated[float, Within(ge=0, le=0.5)] = 0.0
    absolute_error: bool = False
    show: Literal["best", "path"] = "best"
    linkage: Literal["masks", "paillier"] = "masks"
    passes: tuple[tuple[str, ...], ...] = ()
    rows_per_column: Annotated[int, Within(ge=1, le=1000)] = 10
    questions: Annotated[int, Within(ge=1, le=1000)] = 1
    seed: Annotated[int, Within(ge=0, lt=1 << 53)] | None = None

    @field_validator("alpha", mode="before")
    @classmethod
    def _as_path(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value

    @field_validator("alpha")
    @classmethod
    def _not_empty(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not 1 <= len(value) <= 200:
            raise ValueError("between 1 and 200 penalties")
        return value


class SharedOptions(Protocol):
    """The options that learners on shares have in common; see `SecureLassoOptions`."""

    @property
    def linkage(self) -> Literal["masks", "paillier"]:
        """How columns are joined."""

    @property
    def passes(self) -> tuple[tuple[str, ...], ...]:
        """Sets of identifying columns, one after the other."""

    @property
    def rows_per_column(self) -> int:
        """The least cohort, in rows for each column."""

    @property
    def questions(self) -> int:
        """How many studies an owner answers on the same patients."""


@dataclass(frozen=True)
class SharedPlan(ABC):
    """What every site derives from a study whose rows or columns are shared among three parties.

    `intervals`: where the columns lie in their ranges, once that is posted.
    """

    study: Study
    design: Design
    options: SharedOptions
    intervals: Intervals | None = None

    @property
    @abstractmethod
    def numbers(self) -> Numbers:
        """The field."""

    @property
    @abstractmethod
    def declared_outcome(self) -> tuple[float, float]:
        """Middle and half-width of the outcome's declared range."""

    @property
    def largest_offset(self) -> float:
        """The largest magnitude of an offset, if there may be one."""
        return 1.0

    @abstractmethod
    def tabulate_rows(self, site: Site) -> Array:
        """A site's own rows as they are shared, where rows are split."""

    @property
    def deal(self) -> Deal | None:
        """How joint rows are dealt to folds, if by a seed."""
        return None

    @property
    def joins(self) -> bool:
        """Whether the sites hold columns, and have to find their joint patients first."""
        return bool(self.study.columns)

    @property
    def m(self) -> int:
        """Number of columns without the intercept."""
        return len(self.design.columns) - 1

    @property
    def helpers(self) -> tuple[str, ...]:
        """Sites without data."""
        return tuple(name for name in self.study.sites if name not in self.study.owners)

    @property
    def computing(self) -> tuple[str, ...]:
        """The three sites that hold shares; a helper is the last."""
        return (*self.study.owners[: COMPUTING - len(self.helpers)], *self.helpers)

    @property
    def questions(self) -> int:
        """How many studies an owner answers on the same patients."""
        return self.options.questions

    @property
    def floor(self) -> int:
        """The least number of rows."""
        return max(self.study.rows.minimum, self.options.rows_per_column * max(self.m, 1))

    @cached_property
    def link(self) -> JoinPlan:
        """The join."""
        owners, columns = self.study.owners, tuple(self.study.identifying)
        passes = tuple(LinkagePass.of(part, columns) for part in self.options.passes or (columns,))
        widths = {name: len(self.order_of(name)) for name in owners}
        return JoinPlan(
            owners,
            self.helpers[0],
            widths,
            passes,
            len(columns),
            self.floor,
            self.numbers,
            self.options.linkage,
            self.declared_outcome,
            self.deal,
            self.largest_offset,
        )

    def order_of(self, owner: str) -> list[int]:
        """Places of an owner's columns in the joined table, whose last column is the outcome."""
        part = Design(self.study, owner)
        names = self.design.names[1:]
        return [names.index(name) for name in part.names] + ([self.m] if part.outcome_here else [])


def check_silence(study: Study) -> None:
    """StudyError for a study that would go on without one of the three parties."""
    if study.ledger.silent_site == "exclude":
        message = "The parties of a secure computation cannot go on without one of them"
        raise StudyError("CO-S542", f'{message}. Set silent_site to "wait" or "abort".')


def check_linkage(plan: SharedPlan) -> None:
    """StudyError for a study whose columns cannot be joined, or not here."""
    if plan.joins:
        if plan.options.linkage == "paillier":
            paillier.library()
        _ = plan.link


def plan_schedule(plan: SharedPlan) -> Schedule:
    """The join (or the commitments), one interactive step, and a word of every site that it has read the result."""
    return Schedule(opening=secure_join.schedule_join(plan.link) if plan.joins else ("each",), closing=("each", "each"))


@dataclass(frozen=True)
class LassoPlan(SharedPlan):
    """What every site derives from the study alone; and where the columns lie in their ranges, once that is posted."""

    options: SecureLassoOptions

    @classmethod
    def of(cls, study: Study) -> LassoPlan:
        """The plan of a study."""
        return cls(study, Design(study), options_of(study, SecureLassoOptions))

    def narrow(self, terms: Posts) -> LassoPlan:
        """The plan with the intervals that all sites' columns lie in, from the first step's posts."""
        order = {name: self.order_of(name) for name in self.link.owners} if self.joins else None
        return replace(self, intervals=merge_intervals(terms, self.m + 1, order))

    @cached_property
    def columns(self) -> Intervals:
        """The intervals of the columns, the outcome last; those of the declared ranges before others are known."""
        return Intervals.of_ranges(self.m + 1) if self.intervals is None else self.intervals

    @property
    def deal(self) -> Deal | None:
        """How joint rows are dealt to folds, if by a seed."""
        o = self.options
        return None if o.seed is None else Deal(o.seed, max(o.folds, 1), o.held_out)

    def tabulate_rows(self, site: Site) -> Array:
        """A site's rows (n, m + 1) in [-1, 1] of their declared ranges, the outcome last."""
        block = join_blocks(site.rows)
        centre, scale = self.declared_outcome
        x = self.design.scale(block.x)[:, 1:]
        return check_range(np.column_stack([x, (block.y - centre) / scale]), site.name)

    @cached_property
    def numbers(self) -> Numbers:
        """The field."""
        return Numbers.of_size(field_bits(MAX_ROWS, self.m, self.target.ridge))

    @cached_property
    def target(self) -> Target:
        """What to minimise and to open."""
        o = self.options
        scales = np.array([column.scale for column in self.design.columns[1:]]) * self.columns.half[:-1]
        return Target(
            penalties=o.alpha,
            l1_ratio=o.l1_ratio,
            cohort=o.penalise == "cohort",
            scales=scales,
            outcome_scale=self.outcome[1],
            rule=Rule(o.max_iterations, o.check_every, o.tolerance),
            folds=o.folds,
            held_out=o.held_out > 0,
            path=o.show == "path",
        )

    @property
    def declared_outcome(self) -> tuple[float, float]:
        """Middle and half-width of the outcome's declared range."""
        low, high = self.design.outcome.bounds
        return 0.5 * (low + high), 0.5 * (high - low)

    @property
    def outcome(self) -> tuple[float, float]:
        """Middle and half-width of the outcome's interval."""
        centre, scale = self.declared_outcome
        return centre + scale * float(self.columns.middle[-1]), scale * float(self.columns.half[-1])

    @property
    def middles(self) -> Array:
        """Middles (m) of the columns' intervals in the variables' own units."""
        declared = np.array([(column.centre, column.scale) for column in self.design.columns[1:]])
        return np.asarray(declared[:, 0] + declared[:, 1] * self.columns.middle[:-1])

    def cuts(self, n: int) -> list[int]:
        """The places at which n rows are cut into the folds (or one group of rows to fit) and the rows held out."""
        fitted = n - int(n * self.options.held_out)
        folds = max(self.options.folds, 1)
        return [fitted * k // folds for k in range(folds + 1)] + ([n] if self.options.held_out else [])
