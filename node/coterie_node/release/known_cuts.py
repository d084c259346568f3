"""Few patients between two ways to cut one column: bins of tables, steps of curves, intervals of formulas.

Each way shows sums over the patients up to each of its ends. Over the same patients, the sums up to an end of one way
less those up to an end of another are the sums of the patients between. So between two neighbouring ends of two ways
nobody lies, or the floor. `known_functions` judges what formulas derive otherwise, such as splines.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.disclosure import ColumnCut
from coterie_learners.study.derived import Derived, derive, list_switches
from coterie_learners.study.design import Design
from coterie_learners.study.document import Variable
from coterie_learners.study.syntax import Call, parse_syntax
from coterie_node.privacy.entries import ReleaseHead
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.prints import RawRows
from coterie_node.release.derivations.logged_derivations import derive_logged

# How far behind an end a value may lie and be counted before it, as a share of the width there.
_ROUNDING = 1e-9
PartPlaces = NDArray[np.int64]
RawValues = Mapping[str, NDArray[Any]]
_WAY_OUT = (
    "Use the ends of the earlier study, or ends that are further apart, or let a person say yes with a reason (coterie "
    "release allow)."
)


@dataclass(frozen=True)
class Way:
    """A way to cut a column, or several: which patients (n,) are in which part, and what splits each part.

    `is_derived`: the parts are levels of a variable that the study derives under a name.
    """

    study: str
    columns: tuple[str, ...]
    places: PartPlaces = field(repr=False)
    by: tuple[str, ...] = ()
    is_derived: bool = False


def log_functions(design: Design) -> dict[str, dict[str, Any]]:
    """The functions of a formula, as the log keeps them: the declared variables behind each."""
    variables = design.study.variables
    return {
        name: {source: variables[source].model_dump() for source in parts[0].sources}
        for name, parts in design.functions.items()
    }


def is_cutting(head: ReleaseHead) -> bool:
    """Whether a release may cut columns, or has functions of them."""
    return bool(head.cuts or head.functions or head.derivations)


def derive_again(functions: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[Call, tuple[Derived, ...]]]:
    """The functions of a study that the log keeps."""
    for name, plain in functions.items():
        call = parse_syntax(name, name)
        assert isinstance(call, Call)
        yield call, derive(call, {source: Variable.model_validate(kind) for source, kind in plain.items()})


def list_ways(head: ReleaseHead, rows: RawRows) -> Iterator[Way]:
    """The ways in which a release cuts the columns of these rows, or what it derives of them."""
    derived = derive_logged(head, rows)
    values = {**rows.values, **{name: derivation.values for name, derivation in derived.items()}}
    for plain in head.cuts:
        cut = ColumnCut(plain["column"], tuple(plain["breaks"]), tuple(plain["by"]))
        if cut.column in derived or (cut.column in values and cut.column not in head.derivations):
            sources = derived[cut.column].sources if cut.column in derived else (cut.column,)
            yield Way(head.study, sources, _place(cut, values[cut.column]), cut.by)
    by = tuple(head.columns) if head.kind == "plain" else ()
    for name, derivation in derived.items():
        # Before a release is written down its tables are not listed.
        if (name in head.tables or not head.tables) and derivation.kind.form in ("truth", "category"):
            places = np.nan_to_num(derivation.values, nan=-1.0).astype(np.int64)
            yield Way(head.study, derivation.sources, places, by, is_derived=True)
    for call, parts in derive_again(head.functions):
        if not set(parts[0].sources) <= set(values):
            continue
        if parts[0].variable.levels:
            places = np.nan_to_num(parts[0].transform(values), nan=-1.0)  # who lacks the value is in a part of its own
            yield Way(head.study, parts[0].sources, places.astype(np.int64), by)
        for sources, switch in list_switches(call):
            yield Way(head.study, sources, switch(values).astype(np.int64), by)


def _place(cut: ColumnCut, values: NDArray[Any]) -> PartPlaces:
    ends = np.asarray(cut.breaks, dtype=np.float64)
    margin = _ROUNDING * (np.diff(ends).min() if len(ends) > 1 else 1.0)
    return np.searchsorted(ends + margin, np.asarray(values, dtype=np.float64), side="left").astype(np.int64)


def judge_cuts(head: ReleaseHead, former: Sequence[ReleaseHead], rows: RawRows, floor: int) -> Iterator[Objection]:
    """Objections where few patients lie between an end of a release and another end of it, or of former ones."""
    own = list(list_ways(head, rows))
    ways = [*own, *(way for other in former for way in list_ways(other, rows))] if own and floor > 1 else []
    for column in dict.fromkeys(way.columns[0] for way in own if len(way.columns) == 1):
        same = [way for way in ways if way.columns == (column,)]
        if len(same) > 1 and _find_few(same, rows.values, floor):
            yield _refuse((column,), [way.study for way in same], head)
    for way, other in itertools.product(own, ways):
        several = (len(way.columns) > 1 or len(other.columns) > 1) and not (way.is_derived and other.is_derived)
        if several and way is not other and set(way.columns) & set(other.columns) and _differ_by_few(way, other, floor):
            yield _refuse(way.columns, [other.study], head)
            return


def _find_few(ways: Sequence[Way], values: RawValues, floor: int) -> bool:
    """Whether few patients lie between two ends, among all patients or those of a level that two ways split by."""
    (column,) = ways[0].columns
    order = np.argsort(np.asarray(values[column], dtype=np.float64), kind="stable")
    ends = [1 + np.flatnonzero(np.diff(way.places[order])) for way in ways]
    if _meet_closely(ends, ways, floor):
        return True
    for name in dict.fromkeys(name for way in ways for name in way.by if name in values and name != column):
        split = [k for k, way in enumerate(ways) if name in way.by]
        levels = np.unique(values[name]) if len(split) > 1 else np.empty(0)
        for level in levels if len(levels) <= _MOST_LEVELS else ():
            before = np.concatenate([[0], np.cumsum(np.asarray(values[name])[order] == level)])
            if _meet_closely([before[ends[k]] for k in split], [ways[k] for k in split], floor):
                return True
    return False


def _differ_by_few(a: Way, b: Way, floor: int) -> bool:
    """Whether a part of one way, or all up to it, is one of the other way except few patients, and neither is small.

    No order of a column makes these parts, so that each is compared with each.
    """
    levels = [np.unique(way.places, return_inverse=True) for way in (a, b)]
    sizes = [len(distinct) for distinct, _ in levels]
    if sizes[0] * sizes[1] > _MOST_LEVELS**2:
        return False
    joint = np.zeros(sizes, np.int64)
    np.add.at(joint, (levels[0][1].ravel(), levels[1][1].ravel()), 1)
    left, right = (np.vstack([np.eye(size), np.tri(size)]) for size in sizes)
    both = left @ joint @ right.T
    here, there = (left @ joint.sum(axis=1))[:, None], (right @ joint.sum(axis=0))[None, :]
    apart, rest = here + there - 2 * both, joint.sum() - here - there + both
    return bool(np.any((apart > 0) & (apart < floor) & (both >= floor) & (rest >= floor)))


def _meet_closely(ends: Sequence[PartPlaces], ways: Sequence[Way], floor: int) -> bool:
    """Whether two neighbouring ends of two ways have fewer patients than the floor between them.

    `ends`: how many patients lie before each end, by way. Both ends of one way are judged where it is counted, and two
    derived variables as `known_derivations` does.
    """
    derived = {k for k, way in enumerate(ways) if way.is_derived}
    owners: dict[int, set[int]] = {}
    for k, own in enumerate(ends):
        for end in own.tolist():
            owners.setdefault(end, set()).add(k)
    pairs = itertools.pairwise(sorted(owners))
    close = (owners[a] | owners[b] for a, b in pairs if b - a < floor and owners[a].isdisjoint(owners[b]))
    return any(not both <= derived for both in close)


# A column by which ways are split has at most so many levels.
_MOST_LEVELS = 50


def _refuse(columns: Sequence[str], studies: Sequence[str], head: ReleaseHead) -> Objection:
    others = [name for name in dict.fromkeys(studies) if name != head.study] or [head.study]
    shown = " and ".join(map(repr, others[:2]))
    grade = Grade.ASK if head.kind == "masked" and not head.cuts else Grade.REFUSE
    sentence = (
        f"it cuts {' and '.join(columns)} at other places than the study {shown} does, and between two of them "
        f"lie few patients of this site (neighbouring cuts): together the two show these patients' own sums. {_WAY_OUT}"
    )
    return Objection(grade, "neighbouring cuts", sentence, others[0], subject=f"{'/'.join(columns)} of {shown}")
