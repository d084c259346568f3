"""From declared variables and a formula to the same design matrix at every site.

The columns follow from the study alone, never from the data: levels, ranges and the order of terms are declared. A
formula has names, `a:b` (product), `a*b` (a + b + a:b), `a^2` (power of a number), `offset(a)` and `-1` (no
intercept). It is parsed, never evaluated.

Inside, each numeric column is centred and scaled by the range that the study declares, so that all values lie in
[-1, 1]; estimates are carried back to the variables' own units by `Design.back`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.linalg import matmul, matvec
from coterie_learners.study.document import IdentifierKind, Study, Variable
from coterie_learners.study.rows import Block, Codes
from coterie_learners.study.time_columns import list_time_columns

INTERCEPT = "(Intercept)"
MAX_COLUMNS = 2000
MAX_FORMULA = 10_000
_FACTOR = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)(?:\^([1-9][0-9]?))?$")
_OFFSET = re.compile(r"^offset\(\s*([A-Za-z_][A-Za-z0-9_]*)\s*\)$")


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


@dataclass(frozen=True)
class Column:
    """One column of the design: the product of its factors, minus `centre`, over `scale`."""

    name: str
    factors: tuple[Factor, ...]
    centre: float
    scale: float


@dataclass(frozen=True)
class Formula:
    """A parsed formula: outcome, terms as tuples of (variable, power), intercept or not, offset variable or none."""

    outcome: str
    terms: tuple[tuple[tuple[str, int], ...], ...]
    intercept: bool
    offset: str | None


class Design:
    """The design matrix that a study declares; with `site`, the part whose variables this site holds.

    A part has the columns in their order in the whole, without the intercept, which belongs to no site. Of a study of
    several models it is the design of all together (`unite_formulas`), and `models` has that of each.
    """

    def __init__(self, study: Study, site: str | None = None) -> None:
        self.study = study
        self.site = site if study.columns else None
        self._parts = tuple(Design(part) for part in study.by_model.values()) if study.models else ()
        parts = [part.formula for part in self._parts]
        self.formula: Formula = unite_formulas(parts) if parts else parse_formula(study.formula)
        if parts:
            return
        for name in self.variables:
            if name not in study.variables:
                raise StudyError(
                    "CO-S202",
                    f"The formula names {name!r}, which the study does not declare. Add [variables.{name}].",
                )
        _check_roles(study, self.formula)
        _check_weights(study, self.formula, self.weights)
        if study.columns:
            _check_split(study, self.formula)

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
        """Every variable that is read from the file: those of the formula, then what the cohort has complete."""
        more = (name for name in self.study.cohort.complete if self._holds(name))
        return tuple(dict.fromkeys((*self.variables, *more)))

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
        """Every variable that the model needs here: the outcome, those of the terms, then those of a time to event."""
        if self._parts:
            return tuple(dict.fromkeys(name for part in self._parts for name in part.variables))
        used = [self.formula.outcome, *(v for term in self.formula.terms for v, _ in term)]
        used += [name for name in (self.formula.offset, self.weights) if name]
        used += list_time_columns(self.study)
        return tuple(name for name in dict.fromkeys(used) if self._holds(name))

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

    @property
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
        return self.site is None or name in self.study.columns[self.site]

    def _columns_of(self, term: tuple[tuple[str, int], ...]) -> list[Column]:
        choices = [self._factors_of(variable, power, term) for variable, power in term]
        columns = [self._column(combination) for combination in itertools.product(*choices)]
        return columns[:-1] if self._is_redundant(term) else columns

    def _count_columns(self, term: tuple[tuple[str, int], ...]) -> int:
        """How many columns a term has, its redundant one among them."""
        levels = ((len(self.study.variables[name].levels), (term, name) in self._full) for name, _ in term)
        return math.prod(count - (not full) if count else 1 for count, full in levels)

    def _is_redundant(self, term: tuple[tuple[str, int], ...]) -> bool:
        """Whether a term's columns add up to one of another term, so that its last has no coefficient (R's NA)."""
        full = [(name, power) for name, power in term if (term, name) in self._full]
        rest = frozenset(term) - frozenset(full)
        return len(full) > 1 and (rest in self._term_sets if rest else self.formula.intercept)

    @cached_property
    def _term_sets(self) -> frozenset[frozenset[tuple[str, int]]]:
        return frozenset(map(frozenset, self.formula.terms))

    def _factors_of(self, name: str, power: int, term: tuple[tuple[str, int], ...]) -> list[Factor]:
        variable = self.study.variables[name]
        if variable.type != "category":
            return [Factor(name, power)]
        first = 0 if (term, name) in self._full else 1
        return [Factor(name, level=k) for k in range(first, len(variable.levels))]

    @cached_property
    def _full(self) -> set[tuple[tuple[tuple[str, int], ...], str]]:
        """Terms with the categories that have a column for every level there, the reference among them, as in R.

        A category has contrasts in a term only if the formula holds that term without it (an intercept counts as the
        empty term, and as present); and without an intercept the first category has a column for every level.
        """
        terms = self.formula.terms
        sets: frozenset[frozenset[tuple[str, int]]] = self._term_sets | {frozenset()}
        categories = [
            (term, name) for term in terms for name, _ in term if self.study.variables[name].type == "category"
        ]
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
            return f"{factor.variable}[{self.study.variables[factor.variable].levels[factor.level]}]"
        return factor.variable if factor.power == 1 else f"{factor.variable}^{factor.power}"

    def _range(self, factor: Factor) -> tuple[float, float]:
        if factor.level is not None:
            return 0.0, 1.0
        low, high = self.study.variables[factor.variable].bounds
        ends = [math.prod([bound] * factor.power) for bound in (low, high)]  # ** would raise where this gives inf
        straddles = factor.power % 2 == 0 and low < 0 < high
        return (0.0 if straddles else min(ends)), max(ends)


@lru_cache(maxsize=512)
def parse_formula(text: str) -> Formula:
    """Parse `outcome ~ terms`; StudyError names the part that is not understood.

    Terms are counted before they are made: `a*b*c*...` of 30 variables stands for a thousand million of them.
    """
    if len(text) > MAX_FORMULA:
        raise StudyError(
            "CO-S201", f"The formula has {len(text)} characters; the limit is {MAX_FORMULA}. Use a shorter one."
        )
    left, tilde, right = text.partition("~")
    outcome = left.strip()
    if not tilde or not _FACTOR.match(outcome) or "^" in outcome:
        raise StudyError(
            "CO-S201", f"The formula {text!r} does not begin with `outcome ~`. Write it as docs/study.md shows."
        )
    intercept, offset = True, None
    terms: dict[frozenset[tuple[str, int]], tuple[tuple[str, int], ...]] = {}
    parts = _parts(right, text)
    _check_count(parts)
    for part in parts:
        named = _OFFSET.match(part)
        if part in ("-1", "0"):
            intercept = False
        elif named is not None and offset is None:
            offset = named[1]
        elif part != "1":
            for term in _expand(part, text):
                terms.setdefault(frozenset(term), term)  # a:b and b:a are one term
    if not terms and not intercept:
        raise StudyError("CO-S201", f"The formula {text!r} has no terms. Add one after `~`.")
    return Formula(outcome, tuple(sorted(terms.values(), key=len)), intercept, offset)


def unite_formulas(formulas: Sequence[Formula]) -> Formula:
    """One formula whose columns hold those of several: their terms, and outcomes other than the first as terms.

    Offsets and weights are no columns of it.
    """
    first = formulas[0].outcome
    outcomes: list[tuple[tuple[str, int], ...]] = [((f.outcome, 1),) for f in formulas if f.outcome != first]
    terms = {frozenset(term): term for term in (*outcomes, *(term for f in formulas for term in f.terms))}
    return Formula(first, tuple(sorted(terms.values(), key=len)), intercept=True, offset=None)


def _check_count(parts: Sequence[str]) -> None:
    """StudyError (CO-S203) if the parts stand for more terms than a design may have columns."""
    exponents = [part.count("*") + 1 for part in parts]
    if max(exponents) > MAX_COLUMNS.bit_length() or sum(2**k - 1 for k in exponents) > MAX_COLUMNS:
        message = f"The formula stands for more than {MAX_COLUMNS} terms (a*b*c stands for 7)"
        raise StudyError("CO-S203", f"{message}. Use a shorter formula, or `:` for single products.")


def _parts(right: str, text: str) -> list[str]:
    if right.strip().endswith("+"):
        raise StudyError(
            "CO-S201", f"The formula {text!r} ends with `+`. Add the term that is missing, or delete the `+`."
        )
    parts = [p.strip() for p in right.replace("-", "+-").split("+")]
    cleaned = [re.sub(r"^-\s*", "-", p) for p in parts if p]
    if not cleaned or any(p.startswith("-") and p != "-1" for p in cleaned):
        raise StudyError("CO-S201", f"The formula {text!r} takes `+` between terms, and `-1` for no intercept.")
    return cleaned


def _expand(part: str, text: str) -> list[tuple[tuple[str, int], ...]]:
    groups = [[_factor(f, text) for f in g.split(":")] for g in part.split("*")]
    subsets = (s for n in range(1, len(groups) + 1) for s in itertools.combinations(groups, n))
    return [tuple(sorted({f for g in s for f in g}, key=[f for g in s for f in g].index)) for s in subsets]


def _factor(part: str, text: str) -> tuple[str, int]:
    match = _FACTOR.match(part.strip())
    if match is None:
        raise StudyError(
            "CO-S201",
            f"In the formula {text!r}, {part.strip()!r} is neither a variable nor a power of one. Correct the term.",
        )
    return match[1], int(match[2] or 1)


def _fill(out: Array, column: Column, codes: Codes) -> None:
    """Put a column's values in the variables' own units into `out` (m,)."""
    if not column.factors:
        out[:] = 1.0
        return
    out[:] = column.factors[0].values(codes)
    for factor in column.factors[1:]:
        out *= factor.values(codes)


def _product_range(ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The least and largest product, factor by factor: as all corners give, of which there are 2^k."""
    low, high = 1.0, 1.0
    for bounds in ranges:
        corners = [end * bound for end in (low, high) for bound in bounds]
        low, high = min(corners), max(corners)
    return low, high


def _check_split(study: Study, formula: Formula) -> None:
    holder = {name: site for site, names in study.columns.items() for name in names}
    used = {formula.outcome, *([formula.offset] if formula.offset else []), *(v for t in formula.terms for v, _ in t)}
    nowhere = sorted(used - set(holder))
    if nowhere:
        raise StudyError("CO-S208", f"No site holds {', '.join(nowhere)}. Add it to its site under [columns].")
    for term in formula.terms:
        sites = sorted({holder[name] for name, _ in term})
        if len(sites) > 1:
            name = ":".join(v for v, _ in term)
            message = f"The term {name} multiplies variables of {' and '.join(sites)}"
            raise StudyError("CO-S209", f"{message}; no site could compute it. Leave it out.")


def _check_roles(study: Study, formula: Formula) -> None:
    covariates = {v for term in formula.terms for v, _ in term}
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


def _check_weights(study: Study, formula: Formula, name: str) -> None:
    if not name:
        return
    declared = study.variables[name]
    if name in (formula.outcome, formula.offset) or any(name == v for term in formula.terms for v, _ in term):
        raise StudyError("CO-S204", f"{name!r} weighs the rows; it cannot stand in the formula as well.")
    if declared.type not in ("number", "count") or declared.bounds[0] <= 0.0:
        raise StudyError(
            "CO-S210",
            f"The weights {name!r} must be declared as a number or a count whose range begins above 0. "
            "Change the declaration; rows of weight 0 are no part of a model.",
        )
