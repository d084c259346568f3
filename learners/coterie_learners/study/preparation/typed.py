"""From the syntax of an expression to what computes its values, its types checked; nothing is evaluated as code.

Truths have three values, as in SQL: a comparison with a missing value is unknown (NaN), `unknown or true` is true,
`unknown and false` is false. A condition lets in rows for which it is true.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.study.days import read_day
from coterie_learners.study.derived import derive
from coterie_learners.study.expressions import (
    ARITHMETIC,
    COMPARISONS,
    apply_function,
    bound_function,
    combine,
    combine_bounds,
    list_names,
)
from coterie_learners.study.preparation.aggregates import AGGREGATES
from coterie_learners.study.preparation.calendar_functions import CALENDAR, type_calendar
from coterie_learners.study.preparation.kinds import MOST_VISITS, Compute, Space, Typed, Unit, ValueType
from coterie_learners.study.preparation.recode import type_recode
from coterie_learners.study.syntax import (
    Bracket,
    Call,
    Chain,
    Constant,
    Day,
    MakeError,
    Node,
    Quoted,
    Symbol,
    write_node,
)

FUNCTIONS = (*ARITHMETIC, "cut", "recode", *CALENDAR, *AGGREGATES)
_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Scope:
    """The meaning of names, what makes errors, and whether visits have an order and patients an identifier."""

    names: Mapping[str, ValueType]
    explain: MakeError
    identified: bool
    ordered: bool

    def type(self, node: Node) -> Typed:
        """The expression with its kind; StudyError (CO-S214) that points to the character that is wrong."""
        if isinstance(node, Bracket):
            return self.type(node.inner)
        if isinstance(node, Constant):
            kind = ValueType("number", "constant", node.value, node.value, node.value.is_integer())
            return Typed(kind, _NOTHING, lambda _: np.array(node.value))
        if isinstance(node, Day):
            return self._type_day(node)
        if isinstance(node, Symbol):
            return self._type_name(node)
        if isinstance(node, Quoted):
            raise self.explain("a text stands in ==, != or `in` beside a category, and in recode", node.at)
        if isinstance(node, Call):
            return self._type_call(node)
        return self._type_chain(node)

    def type_as(self, node: Node, form: str) -> Typed:
        """The same, of this form: "number" (truths are 0 and 1), "truth", "date"."""
        typed = self.type(node)
        if typed.kind.form != form and not (form == "number" and typed.kind.numeric):
            wanted = {"number": "a number", "truth": "a condition", "date": "a date"}[form]
            raise self.explain(f"{write_node(node)} is {typed.kind.name}, and {wanted} is wanted", node.at)
        return typed

    def join(self, node: Node, *parts: Typed) -> Unit:
        """The unit of what is made of these parts."""
        units = {part.kind.unit for part in parts} - {"constant"}
        if len(units) > 1:
            message = "it mixes values of visits with values of patients: take first(...), max(...) or another of"
            raise self.explain(f"{message} {', '.join(AGGREGATES)} of each visit's value", node.at)
        return units.pop() if units else "constant"

    def _type_day(self, node: Day) -> Typed:
        day = read_day(node.text)
        if day is None:
            raise self.explain(f"no calendar has the day {node.text}", node.at)
        return Typed(ValueType("date", "constant", day, day, True), _NOTHING, lambda _: np.array(day))

    def _type_name(self, node: Symbol) -> Typed:
        name = node.name
        if name not in self.names:
            near = difflib.get_close_matches(name, self.names, 1)
            hint = f"did you mean {near[0]}?" if near else f"add [variables.{name}], or [derive]"
            raise self.explain(f"{name} is no variable that the study declares or derives; {hint}", node.at)
        kind = self.names[name]
        if kind.unit == "patient":
            return Typed(kind, frozenset([name]), lambda space: space.patients[name])
        return Typed(kind, frozenset([name]), lambda space: space.rows[name])

    def _type_chain(self, node: Chain) -> Typed:
        (sign, first), *rest = node.parts
        if rest and rest[0][0] in ("and", "or"):
            return self._type_logic(node, rest[0][0])
        if rest and rest[0][0] in COMPARISONS:
            return self._type_comparison(node)
        typed = self.type(first)
        if sign == "-":
            typed = _negate(self.type_as(first, "number"))
        for sign, part in rest:
            typed = self._combine(node, sign, typed, first, part)
        return typed

    def _combine(self, node: Chain, sign: str, left: Typed, first: Node, part: Node) -> Typed:
        right = self.type(part)
        forms = (left.kind.form, right.kind.form)
        if "date" in forms:
            return self._combine_dates(node, sign, left, right)
        if not left.kind.numeric:
            raise self.explain(f"{write_node(first)} is {left.kind.name}; it is computed with numbers", first.at)
        if not right.kind.numeric:
            raise self.explain(f"{write_node(part)} is {right.kind.name}; it is computed with numbers", part.at)
        ends = self._bound(node, sign, left.kind, right.kind)
        whole = sign != "/" and left.kind.whole and right.kind.whole
        kind = ValueType("number", self.join(node, left, right), *ends, whole)
        return Typed(kind, left.sources | right.sources, _compute_pair(sign, left, right))

    def _bound(self, node: Node, sign: str, left: ValueType, right: ValueType) -> tuple[float, float]:
        try:
            ends = combine_bounds(node, sign, (left.low, left.high), (right.low, right.high))
        except StudyError as error:
            raise self.explain(error.message.removesuffix("."), node.at) from None
        if not np.all(np.isfinite(ends)):
            raise self.explain("it is beyond all numbers at an end of the declared ranges", node.at)
        return ends

    def _combine_dates(self, node: Chain, sign: str, left: Typed, right: Typed) -> Typed:
        forms = (left.kind.form, right.kind.form)
        days = forms == ("date", "date") and sign == "-"
        if not days and not (sign in ("+", "-") and forms == ("date", "number") and right.kind.whole):
            raise self.explain("of dates there is date - date (days) and date + or - whole days", node.at)
        ends = self._bound(node, sign, left.kind, right.kind)
        kind = ValueType("number" if days else "date", self.join(node, left, right), *ends, True)
        return Typed(kind, left.sources | right.sources, _compute_pair(sign, left, right))

    def _type_logic(self, node: Chain, sign: str) -> Typed:
        parts = [self.type_as(part, "truth") for _, part in node.parts]
        unit = self.join(node, *parts)
        decisive = 0.0 if sign == "and" else 1.0

        def compute(space: Space) -> Array:
            values = [part.compute(space) for part in parts]
            settled = np.logical_or.reduce([value == decisive for value in values])
            unknown = np.logical_or.reduce([np.isnan(value) for value in values])
            return np.where(settled, decisive, np.where(unknown, np.nan, 1.0 - decisive))

        return Typed(ValueType("truth", unit, whole=True), _NOTHING.union(*(part.sources for part in parts)), compute)

    def _type_comparison(self, node: Chain) -> Typed:
        if len(node.parts) > 2:
            raise self.explain("two comparisons in a row: write a <= x and x < b", node.at)
        (_, first), (sign, second) = node.parts
        if isinstance(first, Quoted):
            first, second = second, first
        if isinstance(second, Quoted):
            return self.type_level(first, [second], sign)
        left, right = self.type(first), self.type(second)
        alike = left.kind.form == right.kind.form == "date" or (left.kind.numeric and right.kind.numeric)
        if not alike:
            what = f"{write_node(first)} is {left.kind.name}, and {write_node(second)} is {right.kind.name}"
            raise self.explain(f"{what}: they cannot be compared", second.at)
        kind = ValueType("truth", self.join(node, left, right), whole=True)
        return Typed(kind, left.sources | right.sources, _compute_pair(sign, left, right))

    def type_level(self, node: Node, words: list[Quoted], sign: str = "==") -> Typed:
        """Whether a category has one of these levels (or none of them, with "!=")."""
        typed = self.type(node)
        if typed.kind.form != "category" or sign not in ("==", "!="):
            raise self.explain(f"{write_node(node)} is {typed.kind.name}; a text is compared by == or !=", words[0].at)
        for word in words:
            if word.text not in typed.kind.levels:
                levels = ", ".join(map(repr, typed.kind.levels[:12]))
                raise self.explain(f"{word.text!r} is no level of {write_node(node)}: {levels}", word.at)
        codes = np.array([typed.kind.levels.index(word.text) for word in words], dtype=np.float64)
        equal = sign == "=="

        def compute(space: Space) -> Array:
            values = typed.compute(space)
            return np.where(np.isnan(values), np.nan, (np.isin(values, codes) == equal).astype(np.float64))

        return Typed(ValueType("truth", typed.kind.unit, whole=True), typed.sources, compute)

    def _type_call(self, node: Call) -> Typed:
        if node.function in ("not", "missing", "in"):
            return self._type_test(node)
        if node.function in AGGREGATES:
            return self._type_aggregate(node)
        if node.function in CALENDAR:
            return type_calendar(self, node)
        if node.function == "recode":
            return type_recode(self, node)
        if node.function == "cut":
            return self._type_cut(node)
        if node.function not in ARITHMETIC:
            raise self.explain(f"{node.function} is no function; there are {', '.join(FUNCTIONS)}", node.at)
        typed = self.type_as(self.only_argument(node), "number")
        try:
            ends = bound_function(node, (typed.kind.low, typed.kind.high))
        except StudyError as error:
            raise self.explain(error.message.removesuffix("."), node.at) from None
        whole = typed.kind.whole and node.function in ("abs", "I")
        kind = ValueType("number", typed.kind.unit, *ends, whole)
        return Typed(kind, typed.sources, lambda space: apply_function(node.function, typed.compute(space)))

    def only_argument(self, node: Call) -> Node:
        """The one argument of a function."""
        if len(node.arguments) != 1 or node.arguments[0][0]:
            raise self.explain(f"{node.function} takes one argument", node.at)
        return node.arguments[0][1]

    def _type_test(self, node: Call) -> Typed:
        first = node.arguments[0][1]
        if node.function == "in":
            return self._type_membership(node, first)
        typed = self.type_as(first, "truth") if node.function == "not" else self.type(first)
        unit, sources = typed.kind.unit, typed.sources
        if node.function == "not":
            return Typed(ValueType("truth", unit, whole=True), sources, lambda space: 1.0 - typed.compute(space))
        return Typed(
            ValueType("truth", unit, whole=True),
            sources,
            lambda space: np.isnan(typed.compute(space)).astype(np.float64),
        )

    def _type_membership(self, node: Call, first: Node) -> Typed:
        values = [value for _, value in node.arguments[1:]]
        words = [value for value in values if isinstance(value, Quoted)]
        if values and len(words) == len(values):
            return self.type_level(first, words)
        numbers = [value.value for value in values if isinstance(value, Constant)]
        if not values or len(numbers) != len(values):
            raise self.explain('`in` is followed by texts or by numbers, such as ("a", "b")', node.at)
        typed, wanted = self.type_as(first, "number"), np.array(numbers)

        def compute(space: Space) -> Array:
            x = typed.compute(space)
            return np.where(np.isnan(x), np.nan, np.isin(x, wanted).astype(np.float64))

        return Typed(ValueType("truth", typed.kind.unit, whole=True), typed.sources, compute)

    def _type_aggregate(self, node: Call) -> Typed:
        name = node.function
        if not self.identified:
            raise self.explain(f"{name}() takes a patient's rows together, and the study names no `patient`", node.at)
        if name in ("first", "last") and not self.ordered:
            raise self.explain(f"{name}() needs an order of visits: cohort.order = the column of the date", node.at)
        if name == "count" and not node.arguments:
            kind = ValueType("number", "patient", 0.0, MOST_VISITS, True)
            return Typed(kind, _NOTHING, _count_rows)
        part = self.only_argument(node)
        wanted = {"any": "truth", "all": "truth", "count": "truth", "mean": "number", "sum": "number"}
        typed = self.type_as(part, wanted[name]) if name in wanted else self.type(part)
        if typed.kind.unit != "row":
            raise self.explain(f"{write_node(part)} is no value of a visit, so that {name}() changes nothing", part.at)
        if name in ("min", "max") and typed.kind.form == "category":
            raise self.explain(f"{write_node(part)} is a category; {name}() is of numbers and dates", part.at)
        return Typed(_kind_of(name, typed.kind), typed.sources, _compute_aggregate(name, typed))

    def _type_cut(self, node: Call) -> Typed:
        """R's cut, as in formulas: of arithmetic on variables."""
        names = list(dict.fromkeys(list_names(node.arguments[0][1]))) if node.arguments else []
        parts = {name: self.type_as(Symbol(name, node.at), "number") for name in names}
        unit = self.join(node, *parts.values())
        try:
            (made,) = derive(node, {name: part.kind.declare() for name, part in parts.items()})
        except StudyError as error:
            raise self.explain(error.message.removesuffix("."), node.at) from None
        kind = ValueType("category", unit, levels=made.variable.levels)

        def compute(space: Space) -> Array:
            return made.transform({name: part.compute(space) for name, part in parts.items()})

        return Typed(kind, frozenset(names), compute)


def _kind_of(aggregate: str, kind: ValueType) -> ValueType:
    """The kind of a patient's value."""
    if aggregate == "count":
        return ValueType("number", "patient", 0.0, MOST_VISITS, True)
    if aggregate == "mean":
        return ValueType("number", "patient", kind.low, kind.high)
    if aggregate == "sum":
        low, high = min(kind.low * MOST_VISITS, kind.low), max(kind.high * MOST_VISITS, kind.high)
        return ValueType("number", "patient", low, high, kind.whole)
    return kind.at("patient")


def _compute_aggregate(name: str, typed: Typed) -> Compute:
    def compute(space: Space) -> Array:
        assert space.visits is not None
        return AGGREGATES[name](np.asarray(typed.compute(space), dtype=np.float64), space.visits)

    return compute


def _count_rows(space: Space) -> Array:
    assert space.visits is not None
    return np.bincount(space.visits.patient, minlength=space.visits.count).astype(np.float64)


def _negate(typed: Typed) -> Typed:
    kind = ValueType("number", typed.kind.unit, -typed.kind.high, -typed.kind.low, typed.kind.whole)
    return Typed(kind, typed.sources, lambda space: -typed.compute(space))


def _compute_pair(sign: str, left: Typed, right: Typed) -> Callable[[Space], Array]:
    return lambda space: combine(sign, left.compute(space), right.compute(space))
