"""What every site derives from a Cox study alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Within

from coterie_learners.core.masked_sum import MIN_PARTIES
from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import options_of
from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import INTERCEPT, Design
from coterie_learners.study.document import ColumnName, Frozen, Study, Text, Variable
from coterie_learners.study.rows import Block, CodedBlocks, Rows
from coterie_learners.sums.opening.counts import Opening
from coterie_learners.sums.opening.steps import OpeningMode, check_opening
from coterie_learners.survival.plan import TimeGrid, check_grid, check_roles, list_divisors

# The function of time in the test of proportional hazards.
TimeScale = Literal["km", "identity", "log", "none"]


class CoxOptions(Frozen):
    """The learner section of a Cox study.

    `time`, `event`, `entry` and `strata` name columns; `weights` the one that weighs rows. `cause`: of an `event` that
    is a category, the level that is the event; patients with another one are censored. `ties` "exact" are those of a
    discrete partial likelihood. `firth`: Firth's penalty on the information. `baseline`: whether each
    site has a baseline hazard of its own, or all have one on the `time_grid`. `ridge` penalises half the squared
    coefficients in the variables' own units. `robust`: sandwich errors of rows, or of each "patient" together.
    `proportionality`: the function of time in the test of proportional hazards; auto: "km" for a common baseline, else
    "identity". `tolerance` is in standard errors. `opening`: whether the sums begin with the pool's counts of levels,
    or with bits on them; without either release gates refuse. `aggregation` auto: masked with three sites or more.
    """

    time: ColumnName
    event: ColumnName
    entry: ColumnName | None = None
    strata: ColumnName | None = None
    cause: Text = ""
    ties: Literal["efron", "breslow", "exact"] = "efron"
    firth: bool = False
    baseline: Literal["site", "common"] = "site"
    time_grid: TimeGrid | None = None
    weights: Annotated[str, Within(pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,63})?$")] = ""
    ridge: Annotated[float, Within(ge=0)] = 0.0
    robust: bool | Literal["patient"] = False
    proportionality: Literal["auto", "km", "identity", "log", "none"] = "auto"
    aggregation: Literal["auto", "masked", "plain"] = "auto"
    opening: OpeningMode = "counts"
    max_rounds: Annotated[int, Within(ge=1, le=200)] = 25
    tolerance: Annotated[float, Within(gt=0, le=1e-2)] = 1e-10


@dataclass(frozen=True)
class CoxPlan:
    """What every site derives from the study alone.

    `shift` and `units` (p,): where a column's values lie so close together in its declared range that sums would lose
    them, a server sets these after the first round; empty in most studies. `looks`: how often it has.
    """

    study: Study
    design: Design
    options: CoxOptions
    masked: bool
    shift: tuple[float, ...] = ()
    units: tuple[float, ...] = ()
    looks: int = 0

    @classmethod
    def of(cls, study: Study) -> CoxPlan:
        """The plan of a study."""
        options = options_of(study, CoxOptions)
        several = len(study.sites) >= MIN_PARTIES or options.baseline == "site"
        masked = options.aggregation == "masked" or (options.aggregation == "auto" and several)
        return cls(study, Design(_read_cause_as_event(study, options)), options, masked)

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the coefficients; the baseline hazards take the place of an intercept."""
        return tuple(name for name in self.design.names if name != INTERCEPT)

    @property
    def p(self) -> int:
        """Number of coefficients."""
        return len(self.terms)

    @property
    def upper(self) -> tuple[int, ...]:
        """Shape of the upper triangle of a matrix of all coefficients."""
        return (self.p * (self.p + 1) // 2,)

    @property
    def scale(self) -> Array:
        """The number by which each column is divided (p,)."""
        declared = np.array([column.scale for column in self.design.columns[1:]])
        return declared * np.array(self.units) if self.units else declared

    @property
    def centre(self) -> Array:
        """The number that is subtracted from each column (p,)."""
        columns = self.design.columns[1:]
        declared = np.array([column.centre for column in columns])
        if not self.units:
            return declared
        return np.asarray(declared + np.array([column.scale for column in columns]) * np.array(self.shift))

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Which columns are made of numbers (p,)."""
        types = self.design.declared
        return np.array(
            [any(types[f.variable].type in ("number", "count") for f in c.factors) for c in self.design.columns[1:]]
        )

    def move(self, shift: Array, units: Array) -> CoxPlan:
        """The plan with its columns about these places and in these units, both in those that it has now."""
        before, unit = (np.array(v) if v else np.full(self.p, d) for v, d in ((self.shift, 0.0), (self.units, 1.0)))
        moved = tuple((before + unit * shift).tolist()), tuple((unit * units).tolist())
        return replace(self, shift=moved[0], units=moved[1], looks=self.looks + 1)

    def place(self, x: Array) -> Array:
        """Columns (n, p) on the scale of the declared ranges, about the plan's places and in its units."""
        return np.asarray((x - np.array(self.shift)) / np.array(self.units)) if self.units else x

    @property
    def penalty(self) -> Array:
        """The ridge on half the squared coefficients of the scaled columns (p,)."""
        return self.options.ridge / self.scale**2

    @property
    def efron(self) -> bool:
        """Whether ties are Efron's."""
        return self.options.ties == "efron"

    @property
    def exact(self) -> bool:
        """Whether ties are exact."""
        return self.options.ties == "exact"

    @property
    def event_code(self) -> int:
        """The number that the event has among the values of its column."""
        return self.study.variables[self.options.event].levels.index(self.options.cause) if self.options.cause else 1

    @property
    def event_name(self) -> str:
        """The event in words."""
        return f"{self.options.event}[{self.options.cause}]" if self.options.cause else self.options.event

    @property
    def weighs(self) -> bool:
        """Whether rows weigh by a column or an offset."""
        return bool(self.design.weights or self.design.formula.offset)

    @property
    def transform(self) -> TimeScale:
        """The function of time in the test of proportional hazards."""
        choice = self.options.proportionality
        if choice == "auto" and (self.exact or self.options.firth):
            return "none"
        if choice == "auto":
            return "km" if self.options.baseline == "common" else "identity"
        return choice

    @property
    def by_patient(self) -> bool:
        """Whether a patient may have several rows."""
        return bool(self.study.patient) and (self.options.entry is not None or self.options.robust == "patient")

    @property
    def grid(self) -> TimeGrid:
        """The declared grid of a common baseline."""
        assert self.options.time_grid is not None
        return self.options.time_grid

    @property
    def multiples(self) -> tuple[int, ...]:
        """By how much the grid may be coarsened."""
        return list_divisors(self.grid.steps)

    @property
    def floor(self) -> int:
        """The least count of patients, above zero, that may be shown."""
        return self.study.disclosure.cell

    @property
    def strata(self) -> int:
        """Number of strata of a common baseline."""
        if self.options.strata is None:
            return 1
        return len(self.study.variables[self.options.strata].levels) or 2

    @property
    def opening(self) -> Opening:
        """The opening step: the pool's counts of levels."""
        return Opening(
            self.design,
            self.study.disclosure.cell,
            True,
            self.read_rows,
            by_patient=self.by_patient,
            by_rows=True,
            by_bits=self.options.opening == "bits",
            cause=self.options.cause,
        )

    def read_rows(self, site: Site) -> Rows:
        """A site's rows as blocks of the design, each row with the number of its patient where these are known."""
        rows = CodedBlocks(self.design, site.codes)
        identifiers = site.read_patients() if self.by_patient else None
        if identifiers is None and self.by_patient:
            identifiers = [str(at) for at in range(rows.n)]
        events = _EventRows(rows, self.event_code) if self.options.cause else rows
        return events if identifiers is None else _NumberedRows(events, np.unique(identifiers, return_inverse=True)[1])


def _read_cause_as_event(study: Study, options: CoxOptions) -> Study:
    """The study with the event as 0 or 1, where it is one of several causes."""
    if not options.cause or options.event not in study.variables:
        return study
    binary = Variable(type="binary", label=study.variables[options.event].label)
    return study.model_copy(update={"variables": {**study.variables, options.event: binary}})


class _EventRows:
    """Rows whose outcome is whether they have this value of it."""

    def __init__(self, rows: Rows, code: int) -> None:
        self._rows, self._code = rows, code

    @property
    def n(self) -> int:
        """Number of rows."""
        return self._rows.n

    def blocks(self) -> Iterator[Block]:
        """The rows, block by block."""
        return (replace(block, y=(block.y == self._code).astype(np.float64)) for block in self._rows.blocks())


class _NumberedRows:
    """Rows with the number of each one's patient."""

    def __init__(self, rows: Rows, patient: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
        self._rows, self._patient = rows, patient.ravel()

    @property
    def n(self) -> int:
        """Number of rows."""
        return self._rows.n

    def blocks(self) -> Iterator[Block]:
        """The rows, block by block."""
        at = 0
        for block in self._rows.blocks():
            yield replace(block, group=self._patient[at : at + len(block)])
            at += len(block)


def check_cox_plan(plan: CoxPlan) -> None:
    """StudyError for a study that has no Cox model here."""
    options, formula = plan.options, plan.design.formula
    roles = {"time": options.time, "event": options.event, "entry": options.entry, "strata": options.strata}
    check_roles(plan.study, roles)
    _check_cause(plan)
    if plan.masked:
        check_opening(plan.study, options.opening, plan.weighs)
    sources = {source for name in plan.design.list_covariates() for source in plan.design.sources_of(name)}
    covariates = sources | {formula.offset or "", plan.design.weights}
    twice = sorted(covariates & {name for name in roles.values() if name is not None})
    if twice:
        message = f"The formula or its weights, and the learner section, both use {', '.join(twice)}"
        raise StudyError("CO-S204", f"{message}. Use each once.")
    if formula.outcome != options.event or not formula.terms or not formula.intercept:
        message = f"The formula is {plan.study.formula!r}"
        advice = f"Write `{options.event} ~` and the covariates, without -1"
        raise StudyError("CO-S337", f"{message}. {advice}; baseline hazards take the place of the intercept.")
    _check_baseline(plan)
    _check_errors(plan)
    _check_methods(plan)
    _check_sites(plan)


def _check_cause(plan: CoxPlan) -> None:
    event, cause = plan.options.event, plan.options.cause
    levels = plan.study.variables[event].levels
    if not levels and not cause:
        return
    if cause not in levels[1:]:
        what = f"{event} has the causes {', '.join(levels[1:])}" if levels else f"{event} is binary and has no causes"
        advice = "Set `cause` to one of them" if levels else "Leave `cause` out"
        raise StudyError("CO-S346", f"{what}; the study names {cause or 'none'}. {advice}.")


def _check_methods(plan: CoxPlan) -> None:
    """StudyError for exact ties, or Firth's penalty, together with an option that they do not allow."""
    options = plan.options
    names = {"exact ties": plan.exact, "Firth's penalty": options.firth}
    method = next((name for name, chosen in names.items() if chosen), None)
    if method is None:
        return
    others = {
        'baseline = "common"': options.baseline == "common",
        "`weights`": bool(options.weights),
        "`robust`": bool(options.robust),
        "`proportionality`": options.proportionality not in ("auto", "none"),
        "`ridge`": bool(options.ridge) and options.firth,
        "exact ties": plan.exact and options.firth,
    }
    beside = [name for name, chosen in others.items() if chosen]
    if not beside:
        return
    message = f"{method[0].upper()}{method[1:]} does not go with {', '.join(beside)}"
    if plan.exact and options.baseline == "common":
        message += ": no sums over the sites give it without showing each patient's risk (decision 38)"
    raise StudyError("CO-S347", f'{message}. Leave it out; baseline = "site" has both methods.')


def _check_sites(plan: CoxPlan) -> None:
    if plan.masked and len(plan.study.sites) < MIN_PARTIES:
        message = f"A Cox study has masked sums, and over {len(plan.study.sites)} sites each would learn the other's"
        raise StudyError("CO-S305", f"{message}. Take part with three sites or more.")
    if plan.study.ledger.silent_site == "exclude":
        message = "Sums over all sites and then over fewer would show what the excluded site holds"
        raise StudyError("CO-S306", f'{message}. Set silent_site = "wait" or "abort".')


def _check_baseline(plan: CoxPlan) -> None:
    options, common = plan.options, plan.options.baseline == "common"
    if common != (options.time_grid is not None):
        message = 'A common baseline needs a `time_grid`, and baseline = "site" has none'
        raise StudyError("CO-S344", f'{message}. Set baseline = "common" and time_grid both, or neither.')
    if common:
        check_grid(plan.study, options.time, plan.grid, plan.strata)
    if not common and options.aggregation == "plain":
        message = 'With baseline = "site" all sums are masked'
        raise StudyError("CO-S344", f'{message}. Leave aggregation out, or set baseline = "common".')
    if not common and options.proportionality == "km":
        message = 'proportionality = "km" needs a survival curve of the pool, which baseline = "site" does not have'
        raise StudyError("CO-S344", f'{message}. Set it to "identity" or "log", or baseline to "common".')


def _check_errors(plan: CoxPlan) -> None:
    options = plan.options
    if options.robust == "patient" and not plan.study.patient:
        message = 'robust = "patient" needs the column that identifies patients'
        raise StudyError("CO-S324", f'{message}. Name it: patient = "column".')
    if options.robust and options.ridge:
        raise StudyError("CO-S345", "A ridge has no robust standard errors here. Leave one of the two out.")
