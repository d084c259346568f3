"""A study's conditions and derived variables, checked, in the order in which a site computes them on its own rows.

Rows of the file that fulfil the conditions on rows stay. If the study joins a patient's rows, patients take the place
of rows, and only patients stay who fulfil the conditions on patients. A variable may be derived from derived ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import IN_EVALUATION, Variable
from coterie_learners.study.preparation.aggregates import combine_visits
from coterie_learners.study.preparation.kinds import Space, Typed, ValueType, Visits, explain_in
from coterie_learners.study.preparation.typed import Scope
from coterie_learners.study.rows import Codes
from coterie_learners.study.syntax import Bracket, Call, Chain, Node, Symbol, parse_expression

if TYPE_CHECKING:
    from coterie_learners.study.document import Study

# A number in place of all visits of a patient (`combine_visits`), or of a raw value.
BEHIND = Variable(type="number", range=(-1e300, 1e300))
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Condition:
    """One condition of the cohort, as it is written and checked."""

    text: str
    typed: Typed


@dataclass(frozen=True)
class ConditionCount:
    """How many a condition left out: those for which it is false, and those for which it is unknown."""

    rule: str
    false: int
    unknown: int


@dataclass(frozen=True)
class DerivedColumn:
    """A derived variable: its values (m,), the columns of the file behind it, and what it is."""

    values: Array
    sources: tuple[str, ...]
    kind: ValueType


@dataclass(frozen=True)
class Selection:
    """Those of some rows or patients that stay (m,), the derived values of all of them, and the counts by rule."""

    stay: Mask
    derived: Codes
    counts: tuple[ConditionCount, ...]


@dataclass(frozen=True)
class Preparation:
    """What a site does with its rows. `raw`: the columns of the file that conditions and derivations read.

    `by_patient`: whether a patient's rows are taken together.
    """

    raw: tuple[str, ...]
    order: str
    row_rules: tuple[Condition, ...]
    patient_rules: tuple[Condition, ...]
    row_derived: Mapping[str, Typed]
    patient_derived: Mapping[str, Typed]

    @property
    def by_patient(self) -> bool:
        """Whether patients take the place of rows."""
        return bool(self.patient_rules or self.patient_derived)

    @property
    def rules(self) -> tuple[Condition, ...]:
        """All conditions in their order."""
        return (*self.row_rules, *self.patient_rules)

    @property
    def derived(self) -> dict[str, Typed]:
        """All derived variables."""
        return {**self.row_derived, **self.patient_derived}

    def select_rows(self, values: Codes) -> Selection:
        """Which rows stay, and the variables that are derived row by row."""
        rows = {name: np.asarray(column, dtype=np.float64) for name, column in values.items()}
        n = len(next(iter(rows.values())))
        for name, typed in self.row_derived.items():
            rows[name] = _compute(typed, Space(rows), n)
        derived = {name: rows[name] for name in self.row_derived}
        stay, counts = _apply(self.row_rules, Space(rows), n)
        return Selection(stay, derived, counts)

    def select_patients(self, values: Codes, patient: NDArray[np.int64]) -> Selection:
        """The variables of patients, from rows (m,) that stay; `patient` (m,) numbers each row's patient from 0."""
        rows = {name: np.asarray(column, dtype=np.float64) for name, column in values.items()}
        count = int(patient.max(initial=-1)) + 1
        visits = Visits(patient, count, rows.get(self.order))
        patients: dict[str, Array] = {}
        for name, typed in self.patient_derived.items():
            patients[name] = _compute(typed, Space(rows, patients, visits), count)
        stay, counts = _apply(self.patient_rules, Space(rows, patients, visits), count)
        behind = {name: combine_visits(rows[name], visits) for name in self.raw}
        return Selection(stay, {**behind, **patients}, counts)


def plan_preparation(study: Study) -> Preparation | None:
    """The checked conditions and derivations of a study, None if it has none; StudyError (CO-S214, CO-S215)."""
    texts = study.derivations
    if not texts and not study.cohort.where:
        return None
    declared = {name: ValueType.of(v) for name, v in study.variables.items() if name not in texts}
    order, kinds, typed = study.cohort.order, dict(declared), dict[str, Typed]()
    for name, node in _sort_derivations(texts):
        scope = Scope(kinds, explain_in(_name_place(name), texts[name]), bool(study.patient), bool(order))
        typed[name] = _type_derived(scope, node, name)
        kinds[name] = _declare(name, typed[name].kind, study.variables.get(name))
    rules = [_type_rule(study, text, kinds) for text in study.cohort.where]
    units = [rule.typed.kind.unit for rule in rules]
    if units != sorted(units, key=("row", "patient").index):
        raise StudyError("CO-S215", "cohort.where has a condition on rows after one on patients. Write it before.")
    read = frozenset[str]().union(*(t.sources for t in (*typed.values(), *(rule.typed for rule in rules))))
    by_patient = "patient" in units or any(t.kind.unit == "patient" for t in typed.values())
    if by_patient and IN_EVALUATION in typed and typed[IN_EVALUATION].kind.unit == "row":
        message = "evaluate.where is a condition on visits, and the study takes a patient's visits together"
        raise StudyError("CO-S215", f"{message}. Write one on the patient, such as first(admission) >= 2024-01-01.")
    _check_order(study, declared)
    names = {*read, *([order] if order and by_patient else [])}
    return Preparation(
        tuple(name for name in declared if name in names),
        order,
        tuple(rule for rule in rules if rule.typed.kind.unit == "row"),
        tuple(rule for rule in rules if rule.typed.kind.unit == "patient"),
        {name: t for name, t in typed.items() if t.kind.unit == "row"},
        {name: t for name, t in typed.items() if t.kind.unit == "patient"},
    )


def derive_texts(texts: Mapping[str, str], declared: Mapping[str, Variable], values: Codes) -> dict[str, DerivedColumn]:
    """The variables that these texts derive row by row from columns (m,), in the order of `_sort_derivations`.

    `declared` says what each column of the file is. StudyError as in `plan_preparation`.
    """
    kinds = {name: ValueType.of(variable) for name, variable in declared.items()}
    rows = {name: np.asarray(values[name], dtype=np.float64) for name in declared}
    n, out = len(next(iter(rows.values()))), dict[str, DerivedColumn]()
    for name, node in _sort_derivations(texts):
        scope = Scope(kinds, explain_in(_name_place(name), texts[name]), False, False)
        typed = _type_derived(scope, node, name)
        sources = {raw for read in typed.sources for raw in (out[read].sources if read in out else (read,))}
        rows[name], kinds[name] = _compute(typed, Space(rows), n), typed.kind
        out[name] = DerivedColumn(rows[name], tuple(sorted(sources)), typed.kind)
    return out


def declare_derived(study: Study) -> dict[str, Variable]:
    """The declarations of all derived variables, those that the study states itself among them."""
    plan = plan_preparation(study)
    out = {} if plan is None else {name: typed.kind.declare() for name, typed in plan.derived.items()}
    return {name: study.variables.get(name, variable) for name, variable in out.items()}


def _check_order(study: Study, declared: Mapping[str, ValueType]) -> None:
    order = study.cohort.order
    if order and (order not in declared or declared[order].form not in ("date", "number")):
        raise StudyError("CO-S215", f"cohort.order = {order!r} is no declared date or number of the file.")


def _name_place(name: str) -> str:
    return "evaluate.where" if name == IN_EVALUATION else f"derive.{name}"


def _type_derived(scope: Scope, node: Node, name: str) -> Typed:
    typed = scope.type_as(node, "truth") if name == IN_EVALUATION else scope.type(node)
    if typed.kind.unit == "constant":
        raise scope.explain("it is the same for everybody", 0)
    if typed.kind.form == "number" and not typed.kind.low < typed.kind.high:
        raise scope.explain("it is the same for all declared values", 0)
    if name in scope.names:
        raise scope.explain(f"{name} is derived and a column of the file", 0)
    return typed


def _type_rule(study: Study, text: str, kinds: Mapping[str, ValueType]) -> Condition:
    explain = explain_in("cohort.where", text)
    scope = Scope(kinds, explain, bool(study.patient), bool(study.cohort.order))
    typed = scope.type_as(parse_expression(text, explain), "truth")
    if typed.kind.unit == "constant":
        raise explain("a condition names a variable", 0)
    return Condition(text, typed)


def _declare(name: str, kind: ValueType, stated: Variable | None) -> ValueType:
    """The kind of a derived variable, narrowed to what the study states of it."""
    if stated is None:
        return kind
    own = ValueType.of(stated, kind.unit)
    both = (own.form, kind.form)
    fits = own.form == kind.form and (kind.form != "category" or set(own.levels) == set(kind.levels))
    if not fits or (own.whole and not kind.whole):
        message = (
            f"[variables.{name}] says {own.name}, and [derive] gives {kind.name}"
            if both[0] != both[1]
            else (f"[variables.{name}] has other levels, or counts where [derive] gives fractions")
        )
        raise StudyError("CO-S215", f"{message}. Leave the declaration out, or correct it.")
    return replace(own, levels=kind.levels)


def _sort_derivations(texts: Mapping[str, str]) -> list[tuple[str, Node]]:
    """The derived variables, each after those that it reads; StudyError if one reads itself."""
    nodes = {name: parse_expression(text, explain_in(_name_place(name), text)) for name, text in texts.items()}
    waiting = {name: {read for read in _list_symbols(node) if read in nodes} for name, node in nodes.items()}
    out: list[tuple[str, Node]] = []
    while waiting:
        ready = sorted(name for name, reads in waiting.items() if not reads)
        if not ready:
            raise StudyError("CO-S215", f"Derived variables read each other in a circle: {', '.join(sorted(waiting))}.")
        out += [(name, nodes[name]) for name in ready]
        waiting = {name: reads - set(ready) for name, reads in waiting.items() if name not in ready}
    return out


def list_sources(study: Study, names: Sequence[str]) -> tuple[str, ...]:
    """The derived variables among these, those that they are derived from, and the columns behind them."""
    reads = {name: _list_symbols(node) for name, node in _sort_derivations(study.derive)}
    known: list[str] = []
    waiting = [name for name in names if name in study.derive]
    while waiting:
        name = waiting.pop()
        known.append(name)
        waiting += sorted(read for read in reads.get(name, ()) if read not in (*known, *waiting))
    return tuple(known)


def _list_symbols(node: Node) -> set[str]:
    parts: Sequence[Any] = ()
    if isinstance(node, Symbol):
        return {node.name}
    if isinstance(node, Bracket):
        parts = [node.inner]
    elif isinstance(node, Call):
        parts = [value for _, value in node.arguments]
    elif isinstance(node, Chain):
        parts = [part for _, part in node.parts]
    return set().union(*map(_list_symbols, parts))


def _compute(typed: Typed, space: Space, n: int) -> Array:
    with np.errstate(all="ignore"):  # rows that no condition lets in may lie beyond what a function takes
        return np.broadcast_to(np.asarray(typed.compute(space), dtype=np.float64), (n,))


def _apply(rules: Sequence[Condition], space: Space, n: int) -> tuple[Mask, tuple[ConditionCount, ...]]:
    """The mask of those that fulfil all conditions, and how many each one left out after those before it."""
    stay, counts = np.ones(n, dtype=bool), []
    for rule in rules:
        answer = _compute(rule.typed, space, n)
        false, unknown = stay & (answer == 0.0), stay & np.isnan(answer)
        counts.append(ConditionCount(rule.text, int(np.count_nonzero(false)), int(np.count_nonzero(unknown))))
        stay &= answer == 1.0
    return stay, tuple(counts)
