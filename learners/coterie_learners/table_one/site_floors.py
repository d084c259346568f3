"""Which parts of a table a site can count outside: those of which no small group of its patients can be solved.

Every count, also of missing values, is 0 or at least the floor, so the same holds for every sum of counts. A number has
more than a few values in each group, and no patient who makes up nearly all of its sum or of its squares (the p% rule:
Hundepool et al., Statistical Disclosure Control, 2012, section 4.2.1). In a sensitive variable, and of an event,
nowhere do all patients have one level.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.study.elsewhere import CodesElsewhere
from coterie_learners.study.rows import CodedRows
from coterie_learners.table_one.site_tally import Slots, Tally, find_slots, tally_rows
from coterie_learners.table_one.table_plan import Alternative, CharacteristicsPlan, CountedItem

# A number with so few values in a group is solved by its moments.
_FEW_VALUES = 3
# The p of the p% rule.
_DOMINANCE = 0.1
# Values that are looked at first: nearly all columns have many of them.
_SAMPLE = 64

# Whether a number's moments can be shown in a way.
JudgeMoments = Callable[[str, Alternative], bool]


def list_passes(plan: CharacteristicsPlan, rows: CodedRows) -> Array:
    """For every way to show every item, in the plan's order, whether this site's counts allow it (1 or 0)."""
    if plan.floor <= 1:
        return np.ones(sum(len(item.alternatives) for item in plan.items))
    tally, judge = tally_rows(plan, rows), judge_moments(plan, rows)
    flags = [allows_way(plan, tally, judge, item, way) for item in plan.items for way in item.alternatives]
    return np.array(flags, dtype=np.float64)


def allows_way(
    plan: CharacteristicsPlan, tally: Tally, judge: JudgeMoments, item: CountedItem, way: Alternative
) -> bool:
    """Whether a site's part of an item may be counted outside in a way."""
    counts = tally.count(plan, item, way)
    if _is_small(plan, counts) or _fills(plan, item, counts):
        return False
    if item.kind == "bins":
        return not _is_small(plan, tally.count(plan, CountedItem("number", item.name, ()), way))
    name = {"number": item.name, "rate": plan.options.time}.get(item.kind)
    return name is None or judge(name, way)


def _is_small(plan: CharacteristicsPlan, counts: Array) -> bool:
    return bool(np.any((counts > 0) & (counts < plan.floor)))


def _fills(plan: CharacteristicsPlan, item: CountedItem, counts: Array) -> bool:
    """Whether all of a group have one level of what must not be known of all; nobody with the event is no level."""
    if item.kind == "rate":
        levels, total = counts[:, 1:2], counts[:, :2].sum(axis=1, keepdims=True)
    elif item.kind == "levels" and item.name in plan.study.disclosure.sensitive:
        levels = counts[:, : counts.shape[1] - plan.lacks]
        total = levels.sum(axis=1, keepdims=True)
    else:
        return False
    return bool(np.any((levels == total) & (total > 0)))


def judge_moments(plan: CharacteristicsPlan, rows: CodedRows) -> JudgeMoments:
    """The judgement on each number of these rows, whose values it keeps by group."""
    if isinstance(rows, CodesElsewhere):
        known = rows.together(partial(_judge_all, plan))
        return lambda name, way: known[name, way.grouped]
    judge = _judge_numbers(plan, rows)
    return lambda name, way: judge(name, way.grouped)


def _list_numbers(plan: CharacteristicsPlan) -> list[str]:
    numbers = [line.name for line in plan.lines if not line.levels]
    return numbers + ([plan.options.time] if plan.options.time and plan.options.time not in numbers else [])


def _judge_all(plan: CharacteristicsPlan, rows: CodedRows) -> dict[tuple[str, bool], bool]:
    """The judgement on each number, of all rows together and by group."""
    judge = _judge_numbers(plan, rows)
    return {(name, grouped): judge(name, grouped) for name in _list_numbers(plan) for grouped in (False, True)}


def _judge_numbers(plan: CharacteristicsPlan, rows: CodedRows) -> Callable[[str, bool], bool]:
    numbers = _list_numbers(plan)
    parts: dict[str, list[Array]] = {name: [] for name in numbers}
    slots: list[Slots] = []
    for codes in rows.codes():
        slots.append(find_slots(plan, codes))
        for name in numbers:
            parts[name].append(np.asarray(codes[name], dtype=np.float64))
    places = np.concatenate(slots)
    groups = [np.flatnonzero(places == slot) for slot in range(plan.slots)]
    verdicts: dict[tuple[str, bool], bool] = {}

    def judge(name: str, grouped: bool) -> bool:
        key = name, grouped
        if key not in verdicts:
            values = np.concatenate(parts[name])
            chosen = (values.take(group) for group in groups) if grouped else (values,)
            verdicts[key] = all(hides_patients(_drop_missing(part)) for part in chosen)
        return verdicts[key]

    return judge


def _drop_missing(values: Array) -> Array:
    lacking = np.isnan(values)
    return values[~lacking] if lacking.any() else values


def hides_patients(values: Array) -> bool:
    """Whether sum and squares of these values show no patient's; nobody's show nothing."""
    if not len(values):
        return True
    if len(np.unique(values[:_SAMPLE])) <= _FEW_VALUES and len(np.unique(values)) <= _FEW_VALUES:
        return False
    if _is_dominated(np.abs(values)):
        return False
    low, high = float(values.min()), float(values.max())
    about = values - 0.5 * (low + high)
    # Squares about any centre are at least those about the mean, and none is above the range's.
    spread = float((about * about).sum() - about.sum() ** 2 / len(about))
    if spread > (2.5 + _DOMINANCE) * (high - low) ** 2:
        return True
    return not _is_dominated((values - np.median(values)) ** 2)


def _is_dominated(sizes: Array) -> bool:
    """Whether the patient with the second largest size could tell the largest to within a share of it."""
    if len(sizes) < 3:
        return True
    if float(sizes.sum()) > (2.0 + 2.0 * _DOMINANCE) * float(sizes.max()):
        return False  # even if the second is as large as the first
    second, first = np.partition(sizes, -2)[-2:]
    return float(sizes.sum() - first - second) < _DOMINANCE * float(first)
