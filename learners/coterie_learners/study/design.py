"""From declared variables and a formula to the same design matrix at every site.

The columns follow from the study alone, never from the data: levels, ranges, knots and the order of terms are
declared. `formula` reads the terms, and `derived` the functions in them, whose values are variables beside the declared
ones.

Inside, each numeric column is centred and scaled by the range that the study declares, so that all values lie in
[-1, 1]; estimates are carried back to the variables' own units by `Design.back`.
"""

from __future__ import annotations

import itertools
import math
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Generic, TypeVar

import numpy as np

from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.linalg import matmul, matvec
from coterie_learners.study.derived import Derived, derive
from coterie_learners.study.document import IN_EVALUATION, IdentifierKind, Study, Variable
from coterie_learners.study.formula import (
    MAX_COLUMNS,
    MAX_FORMULA,
    Formula,
    FormulaTerm,
    parse_formula,
    unite_formulas,
)
from coterie_learners.study.preparation.plan import BEHIND
from coterie_learners.study.rows import Block, Codes
from coterie_learners.study.time_columns import COLUMN_KEYS, list_time_columns

INTERCEPT = "(Intercept)"


@dataclass(frozen=True)
class Factor:
    """One factor of a column: a power of a numeric variable, or the indicator of one level of a category."""

    variable: str
    power: int = 1
    level: int | None = None

    def values(self, codes: Codes) -> Array:
        """The factor's values (m,) for rows given as numbers and level numbers."""
        column = codes[self.variable]
        if self.level is not None:
            return np.asarray(column == self.level, dtype=np.float64)
        out = column
        for _ in range(self.power - 1):  # not np.power, whose last bit depends on the processor
            out = out * column
        return out


Derivation = TypeVar("Derivation")


class _Derived:
    """Values computed from one study object, which keeps them: both leave memory together."""

    def __init__(self, study: Study) -> None:
        self.owner = weakref.ref(study)
        self.values: dict[object, Any] = {}

    @classmethod
    def of(cls, study: Study) -> _Derived:
        """The values computed from this very object, and not those that a copy brings along from its original."""
        found = study.__dict__.get(_PLACE)
        if found is None or found.owner() is not study:
            found = study.__dict__[_PLACE] = cls(study)
        return found

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        # A study that goes to another process computes them there.
        return _forget, ()


_PLACE = "_derived"


def _forget() -> None:
    return None


class PerStudy(Generic[Derivation]):
    """A function of a study alone, computed once for each study object, because a study never changes.

    All sites of a simulation, its gates and its replay read one study object. A daemon reads thousands in its life, so
    that nothing here may outlive the study.
    """

    def __init__(self, derive: Callable[[Study], Derivation]) -> None:
        self._derive = derive

    def __call__(self, study: Study) -> Derivation:
        """The value for this study."""
        values = _Derived.of(study).values
        if self not in values:
            values[self] = self._derive(study)
        known: Derivation = values[self]
        return known


@dataclass(frozen=True)
class Column:
    """One column of the design: the product of its factors, minus `centre`, over `scale`."""

    name: str
    factors: tuple[Factor, ...]
    centre: float
    scale: float


class Design:
    """The design matrix that a study declares; with `site`, the part whose variables this site holds.

    A part has the columns in their order in the whole, without the intercept, which belongs to no site. For a study of
    several models it is the joint design (`unite_formulas`), and `models` has the design of each.
    """

    def __init__(self, study: Study, site: str | None = None) -> None:
        self.study = study
        self.site = site if study.columns else None
        self._parts = tuple(design_of(part) for part in study.by_model.values()) if study.models else ()
        parts = [part.formula for part in self._parts]
        self.formula: Formula = unite_formulas(parts) if parts else _parse(study.formula, tuple(_list_free(study)))
        calls = self.formula.functions.items()
        self.functions: dict[str, tuple[Derived, ...]] = {name: derive(call, study.variables) for name, call in calls}
        if parts:
            return
        for name in self.inputs:
            if name not in study.variables:
                raise StudyError(
                    "CO-S202",
                    f"The formula names {name!r}, which the study does not declare. Add [variables.{name}].",
                )
        _check_units(self)
        _check_roles(self)
        _check_weights(self, self.weights)
        if study.columns:
            _check_split(self)

    @property
    def models(self) -> tuple[Design, ...]:
        """The design of each model of the study, in its order: this one, if there is one."""
        return self._parts or (self,)

    @property
    def outcome_here(self) -> str | None:
        """Name of the outcome, None in the part of a site that does not hold it."""
        name = self.formula.outcome
        return name if self._holds(name) else None

    @property
    def identifying(self) -> dict[str, IdentifierKind]:
        """The columns that identify patients in every site's file, with what each holds; none if the study has none."""
        return self.study.identifying or ({self.study.patient: "code"} if self.study.patient else {})

    @property
    def identifier(self) -> tuple[str, ...]:
        """Names of the columns that identify patients."""
        return tuple(self.identifying)

    @property
    def read(self) -> tuple[str, ...]:
        """Every variable of the rows: of the formula, what the cohort has complete, then what only stands behind."""
        return tuple(dict.fromkeys((*self.used, *self.behind)))

    @property
    def used(self) -> tuple[str, ...]:
        """The variables that a row of the study has: those of the formula, then what the cohort has complete."""
        more = (name for name in self.study.cohort.complete if self._holds(name))
        return tuple(dict.fromkeys((*self.inputs, *more)))

    @cached_property
    def behind(self) -> Mapping[str, Variable]:
        """Columns that only conditions or derivations read: they are kept for the privacy log, and may lack values.

        If the study is of patients instead of rows, a number is one value for each patient.
        """
        plan = self.study.preparation
        if plan is None:
            return {}
        names = [name for name in plan.raw if name not in self.used]
        return {name: BEHIND if plan.by_patient else self.study.variables[name] for name in names}

    @property
    def file_columns(self) -> tuple[str, ...]:
        """Every variable that is read from the file: the others are derived from these."""
        plan = self.study.preparation
        if plan is None:
            return self.used
        return tuple(dict.fromkeys((*(name for name in self.used if name not in self.study.derivations), *plan.raw)))

    def declaration(self, name: str) -> Variable:
        """What a column of `read` is."""
        return self.behind[name] if name in self.behind else self.study.variables[name]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The declared variables behind the model's: of a derived one those that it is derived from."""
        return tuple(dict.fromkeys(source for name in self.variables for source in self.sources_of(name)))

    @cached_property
    def derived(self) -> dict[str, Derived]:
        """The variables that the formula derives, by name, as far as this site has their sources."""
        return {name: part for name, part in self._derivations.items() if self._holds(name)}

    @cached_property
    def _derivations(self) -> dict[str, Derived]:
        """All variables that the formula derives, at whatever site."""
        return {part.name: part for parts in self.functions.values() for part in parts}

    @cached_property
    def declared(self) -> Mapping[str, Variable]:
        """The declaration of every variable, also of derived ones."""
        return self.study.variables | {name: part.variable for name, part in self.derived.items()}

    def sources_of(self, name: str) -> tuple[str, ...]:
        """The declared variables behind a variable or a function of the formula."""
        if name in self.functions:
            return self.functions[name][0].sources
        return self._derivations[name].sources if name in self._derivations else (name,)

    def list_descendants(self, names: Sequence[str]) -> tuple[str, ...]:
        """These variables and all that conditions of the study or its formula derive from them, however indirectly."""
        plan = self.study.preparation
        sources = {} if plan is None else {name: typed.sources for name, typed in plan.derived.items()}
        sources |= {name: frozenset(part.sources) for name, part in self.derived.items()}
        out = dict.fromkeys(names)
        while more := [name for name, read in sources.items() if name not in out and not read.isdisjoint(out)]:
            out |= dict.fromkeys(more)
        return tuple(out)

    def parts_of(self, name: str) -> tuple[str, ...]:
        """The variables of a part of a term: itself, or the arguments of a function."""
        return tuple(part.name for part in self.functions[name]) if name in self.functions else (name,)

    def derive(self, codes: Codes) -> Codes:
        """The same rows with the values of the derived variables that are not there yet."""
        with np.errstate(all="ignore"):  # rows that are left out later may lie beyond what a function takes
            new = {name: part.transform(codes) for name, part in self.derived.items() if name not in codes}
        return {**codes, **new} if new else codes

    @property
    def weights(self) -> str:
        """The variable by which the learner weighs rows; empty if it weighs none."""
        name = "" if self._parts else self.study.learner.options.get("weights", "")
        return name if isinstance(name, str) else ""

    @property
    def outcome(self) -> Variable:
        """The declared outcome."""
        return self.study.variables[self.formula.outcome]

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """Every variable that is needed here: the outcome, those of the terms, of a time to event, of an evaluation."""
        if self._parts:
            return tuple(dict.fromkeys(name for part in self._parts for name in part.variables))
        used = [self.formula.outcome, *self.list_covariates()]
        used += [name for name in (self.formula.offset, self.weights) if name]
        used += [*list_time_columns(self.study), *self.study.evaluate.by]
        used += [IN_EVALUATION] if self.study.evaluate.where else []
        return tuple(name for name in dict.fromkeys(used) if self._holds(name))

    def list_covariates(self) -> list[str]:
        """The variables of the terms, derived ones for functions, in the formula's order."""
        return [part for term in self.formula.terms for name, _ in term for part in self.parts_of(name)]

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns in order; the intercept, if any, is the first."""
        first = [Column(INTERCEPT, (), 0.0, 1.0)] if self.formula.intercept and self.site is None else []
        here = [term for term in self.formula.terms if all(self._holds(name) for name, _ in term)]
        # counted before a column is made: five categories of fifty levels would be 312 million of them
        count = len(first) + sum(self._count_columns(term) for term in here)
        if count > MAX_COLUMNS:
            raise StudyError(
                "CO-S203", f"The formula makes {count} columns; the limit is {MAX_COLUMNS}. Use a shorter formula."
            )
        return tuple(first + [c for term in here for c in self._columns_of(term)])

    @cached_property
    def by_term(self) -> dict[str, tuple[str, ...]]:
        """The names of the columns that each term of the formula makes."""
        here = [term for term in self.formula.terms if all(self._holds(name) for name, _ in term)]
        labels = {term: ":".join(self._label(Factor(name, power)) for name, power in term) for term in here}
        return {labels[term]: tuple(column.name for column in self._columns_of(term)) for term in here}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, as in the result table."""
        return tuple(c.name for c in self.columns)

    def block(self, codes: Codes) -> Block:
        """Design (m, p), outcome (m,) and offset (m,), in the variables' own units, of numbers and level numbers."""
        y = np.asarray(codes[self.formula.outcome], dtype=np.float64)
        offset = None if self.formula.offset is None else np.asarray(codes[self.formula.offset], dtype=np.float64)
        prior = np.asarray(codes[self.weights], dtype=np.float64) if self.weights else None
        return Block(self.raw(codes, len(y)), y, offset, prior=prior)

    def raw(self, codes: Codes, n: int) -> Array:
        """Design matrix (n, p) in the variables' own units, column by column in memory."""
        codes = self.derive(codes)
        x = np.empty((n, len(self.columns)), order="F")
        for j, column in enumerate(self.columns):
            _fill(x[:, j], column, codes)
        return x

    def matrix(self, codes: Codes, n: int) -> Array:
        """Design matrix (n, p) on the scale of the declared ranges, column by column in memory."""
        return self.scale(self.raw(codes, n))

    def scale(self, x: Array) -> Array:
        """A design matrix (n, p) of the variables' own units on the scale of the declared ranges."""
        out = np.array(x, order="F")
        for j, column in enumerate(self.columns):
            if column.centre:
                out[:, j] -= column.centre
            if column.scale != 1.0:
                out[:, j] /= column.scale
        return out

    @cached_property
    def back(self) -> Array:
        """The matrix T (p, p) that carries estimates from the inside scale to the variables' own units."""
        t = np.diag([1.0 / c.scale for c in self.columns])
        if self.formula.intercept and self.site is None:
            t[0, 1:] = [-c.centre / c.scale for c in self.columns[1:]]
        return t

    def outside(self, beta: Array, covariance: Array) -> tuple[Array, Array]:
        """Estimates (p,) and covariance (p, p) in the variables' own units."""
        whole = matmul(matmul(self.back, covariance), self.back.T)
        return matvec(self.back, beta), 0.5 * (whole + whole.T)

    def _holds(self, name: str) -> bool:
        return self.site is None or all(s in self.study.columns[self.site] for s in self.sources_of(name))

    def _columns_of(self, term: FormulaTerm) -> list[Column]:
        choices = [self._factors_of(variable, power, term) for variable, power in term]
        columns = [self._column(combination) for combination in itertools.product(*choices)]
        return columns[:-1] if self._is_redundant(term) else columns

    def _count_columns(self, term: FormulaTerm) -> int:
        """The number of columns of a term, with its redundant one."""
        levels = ((self._count_levels(name), (term, name) in self._full) for name, _ in term)
        numbers = math.prod(len(self.parts_of(name)) for name, _ in term)
        return numbers * math.prod(count - (not full) if count else 1 for count, full in levels)

    def _count_levels(self, name: str) -> int:
        """The levels of a category, and 0 of anything else."""
        part = self.parts_of(name)[0]  # of another site's columns, too
        variable = self._derivations[part].variable if part in self._derivations else self.study.variables[part]
        return len(variable.levels)

    def _is_redundant(self, term: FormulaTerm) -> bool:
        """Whether a term's columns add up to one of another term, so that its last has no coefficient (R's NA)."""
        full = [(name, power) for name, power in term if (term, name) in self._full]
        rest = frozenset(term) - frozenset(full)
        return len(full) > 1 and (rest in self._term_sets if rest else self.formula.intercept)

    @cached_property
    def _term_sets(self) -> frozenset[frozenset[tuple[str, int]]]:
        return frozenset(map(frozenset, self.formula.terms))

    def _factors_of(self, name: str, power: int, term: FormulaTerm) -> list[Factor]:
        count = self._count_levels(name)
        if not count:
            return [Factor(part, power) for part in self.parts_of(name)]
        first = 0 if (term, name) in self._full else 1
        return [Factor(name, level=k) for k in range(first, count)]

    @cached_property
    def _full(self) -> set[tuple[FormulaTerm, str]]:
        """Terms with the categories that have a column for every level there, the reference among them, as in R.

        A category has contrasts in a term only if the formula holds that term without it (an intercept counts as the
        empty term, and as present); and without an intercept the first category has a column for every level.
        """
        terms = self.formula.terms
        sets: frozenset[frozenset[tuple[str, int]]] = self._term_sets | {frozenset()}
        categories = [(term, name) for term in terms for name, _ in term if self._count_levels(name)]
        full = {(term, name) for term, name in categories if frozenset(f for f in term if f[0] != name) not in sets}
        return full if self.formula.intercept else full | set(categories[:1])

    def _column(self, factors: tuple[Factor, ...]) -> Column:
        name = ":".join(self._label(f) for f in factors)
        low, high = _product_range([self._range(f) for f in factors])
        if (low, high) == (0.0, 1.0):
            return Column(name, factors, 0.0, 1.0)
        centre = 0.5 * (low + high) if self.formula.intercept else 0.0
        scale = max(abs(low - centre), abs(high - centre))
        if not 0.0 < scale < math.inf:
            message = f"The declared ranges give {name} the range {low:.3g} to {high:.3g}"
            raise StudyError("CO-S207", f"{message}, with which nothing can be computed. Choose another unit.")
        return Column(name, factors, centre, scale)

    def _label(self, factor: Factor) -> str:
        if factor.level is not None:
            return f"{factor.variable}[{self.declared[factor.variable].levels[factor.level]}]"
        return factor.variable if factor.power == 1 else f"{factor.variable}^{factor.power}"

    def _range(self, factor: Factor) -> tuple[float, float]:
        if factor.level is not None:
            return 0.0, 1.0
        low, high = self.declared[factor.variable].bounds
        ends = [math.prod([bound] * factor.power) for bound in (low, high)]  # ** would raise where this gives inf
        straddles = factor.power % 2 == 0 and low < 0 < high
        return (0.0 if straddles else min(ends)), max(ends)


_DESIGNS = PerStudy(Design)


def design_of(study: Study, site: str | None = None) -> Design:
    """The design that a study declares, made once for each study; with `site`, that site's part, made at each call."""
    return Design(study, site) if site is not None and study.columns else _DESIGNS(study)


@lru_cache(maxsize=512)
def _parse(text: str, declared: tuple[str, ...]) -> Formula:
    return parse_formula(text, declared)


def _fill(out: Array, column: Column, codes: Codes) -> None:
    """Put a column's values in the variables' own units into `out` (m,)."""
    if not column.factors:
        out[:] = 1.0
        return
    out[:] = column.factors[0].values(codes)
    for factor in column.factors[1:]:
        out *= factor.values(codes)


def _product_range(ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The least and largest product, factor by factor: the same as over all 2^k corners."""
    low, high = 1.0, 1.0
    for bounds in ranges:
        corners = [end * bound for end in (low, high) for bound in bounds]
        low, high = min(corners), max(corners)
    return low, high


def _list_free(study: Study) -> tuple[str, ...]:
    """The declared variables that `.` means: those with no other role than that of a covariate."""
    options = study.learner.options
    roles = {options.get("weights"), *(options.get(key) for key in COLUMN_KEYS)}
    offset = set(re.findall(r"offset\(\s*([A-Za-z_][A-Za-z0-9_]*)\s*\)", study.formula[:MAX_FORMULA]))
    plan = study.preparation
    names = study.variables if plan is None or not plan.by_patient else plan.patient_derived
    others = {name for name in names if study.variables[name].type == "date"} | roles | offset
    others |= {IN_EVALUATION} if study.evaluate.where else set()
    return tuple(name for name in names if name not in others)


def _check_split(design: Design) -> None:
    study, formula = design.study, design.formula
    holder = {name: site for site, names in study.columns.items() for name in names}
    terms = [[source for name, _ in term for source in design.sources_of(name)] for term in formula.terms]
    used = {formula.outcome, *([formula.offset] if formula.offset else []), *itertools.chain.from_iterable(terms)}
    nowhere = sorted(used - set(holder))
    if nowhere:
        raise StudyError("CO-S208", f"No site holds {', '.join(nowhere)}. Add it to its site under [columns].")
    for term, sources in zip(formula.terms, terms, strict=True):
        sites = sorted({holder[name] for name in sources})
        if len(sites) > 1:
            name = ":".join(v for v, _ in term)
            message = f"The term {name} multiplies variables of {' and '.join(sites)}"
            raise StudyError("CO-S209", f"{message}; no site could compute it. Leave it out.")


def _check_units(design: Design) -> None:
    """StudyError for dates in a model, and for values of visits where the study is of patients."""
    study, plan = design.study, design.study.preparation
    dates = [name for name in design.used if study.variables[name].type == "date"]
    if dates:
        raise StudyError(
            "CO-S205",
            f"{dates[0]} is a date, which no model reads. Derive a number from it: [derive] "
            f'age = "years(birth, {dates[0]})".',
        )
    wrong = [] if plan is None or not plan.by_patient else [n for n in design.used if n not in plan.patient_derived]
    if wrong:
        raise StudyError(
            "CO-S215",
            f"{wrong[0]} is a value of each visit, and the study takes a patient's visits together. Derive a value of "
            f'the patient: [derive] NAME = "first({wrong[0]})".',
        )


def _check_roles(design: Design) -> None:
    study, formula = design.study, design.formula
    covariates = {source for name in design.list_covariates() for source in design.sources_of(name)}
    if formula.outcome in covariates or formula.offset in covariates:
        raise StudyError("CO-S204", "The outcome and the offset cannot be covariates as well. Use each variable once.")
    for variable, power in (f for term in formula.terms for f in term):
        if power > 1 and study.variables[variable].type not in ("number", "count"):
            raise StudyError(
                "CO-S205", f"{variable}^{power}: only a number or a count can be raised to a power. Use its levels."
            )
    if formula.offset and study.variables[formula.offset].type != "number":
        raise StudyError(
            "CO-S206", f"The offset {formula.offset!r} must be declared as a number. Change its declaration."
        )


def _check_weights(design: Design, name: str) -> None:
    if not name:
        return
    declared, formula = design.study.variables[name], design.formula
    covariates = {source for part in design.list_covariates() for source in design.sources_of(part)}
    if name in (formula.outcome, formula.offset) or name in covariates:
        raise StudyError("CO-S204", f"{name!r} weighs the rows; it cannot be in the formula as well.")
    if declared.type not in ("number", "count") or declared.bounds[0] <= 0.0:
        raise StudyError(
            "CO-S210",
            f"The weights {name!r} must be declared as a number or a count whose range begins above 0. "
            "Change the declaration; rows of weight 0 are no part of a model.",
        )
