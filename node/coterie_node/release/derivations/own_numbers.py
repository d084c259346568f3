"""Derived numbers that are a sum of multiples of their own sources, except for few patients.

`2 * lab + (visit_number == 18)` looks like a measurement. Less twice the sums of `lab`, which another study shows, its
sums are those of one patient. A sum of multiples is recognised by some rows that all follow it: it is solved on random
ones and tried on all (Fischler and Bolles, Random sample consensus, Communications of the ACM 24, 1981).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.preparation.plan import plan_preparation
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.values import is_dominated
from coterie_node.release.derivations.known_derivations import Sizes

_TRIALS = 40
# Rows on which each trial is tried, where there are more.
_SAMPLED = 2000
# Rows on which a sum is solved, for each of its unknowns.
_ROWS = 3
_ROUNDED = 1e-9
# The share of rows that a sum explains.
_EXPLAINED = 0.8


def judge_own_numbers(
    numbers: Mapping[str, NDArray[Any]], values: Mapping[str, NDArray[Any]], design: Design, sizes: Sizes
) -> Iterator[Objection]:
    """Objections to derived numbers (n,) that follow a rule for all patients of this site except for few.

    `values`: the raw columns (n,) and all derived ones.
    """
    sources = _list_sources(design)
    for name in numbers:
        raw = [source for source in _list_raw(name, sources) if source in values]
        if name in sources and raw and _differs_for_few(numbers[name], [values[s] for s in raw], sizes.floor):
            yield _object(name, raw, sizes)


def _list_sources(design: Design) -> dict[str, tuple[str, ...]]:
    """What stands behind each derived column; what is made of a patient's visits is like a column of the file."""
    out = {name: part.sources for name, part in design.derived.items()}
    plan = plan_preparation(design.study)
    for name, typed in ({} if plan is None else plan.derived).items():
        if plan is not None and (not plan.by_patient or typed.sources <= plan.patient_derived.keys()):
            out[name] = tuple(typed.sources)
    return out


def _list_raw(name: str, sources: Mapping[str, Sequence[str]]) -> list[str]:
    """The columns of the file behind a derived one, through other derived ones."""
    if name not in sources:
        return [name]
    return sorted({raw for source in sources[name] for raw in _list_raw(source, sources)})


def _differs_for_few(number: NDArray[Any], columns: Sequence[NDArray[Any]], floor: int) -> bool:
    whole = np.column_stack([*columns, np.ones(len(number)), number]).astype(np.float64)
    whole = whole[np.isfinite(whole).all(axis=1)]
    x, y = whole[:, :-1] / np.maximum(np.abs(whole[:, :-1]).max(axis=0, initial=0.0), 1e-300), whole[:, -1]
    rows = _ROWS * x.shape[1]
    if len(y) < 2 * rows:
        return False
    rest = _find_rest(x, y, rows)
    few = int(np.count_nonzero(rest))
    return 0 < few < floor or (0 < few <= (1 - _EXPLAINED) * len(y) and is_dominated(rest))


def _find_rest(x: Array, y: Array, rows: int) -> Array:
    """How far off (n,) the sum of multiples is that explains most of some rows; 0 where it is not off."""
    random, tolerance = np.random.default_rng(0), _ROUNDED * float(np.abs(y).max(initial=0.0))
    sample = random.choice(len(y), min(_SAMPLED, len(y)), replace=False)
    best, least = np.zeros(x.shape[1]), len(sample) + 1
    for _ in range(_TRIALS):
        at = random.choice(sample, rows, replace=False)
        multiples = np.linalg.lstsq(x[at], y[at], rcond=None)[0]
        off = int(np.count_nonzero(np.abs(y[sample] - x[sample] @ multiples) > tolerance))
        best, least = (multiples, off) if off < least else (best, least)
    rest = np.abs(y - x @ best)
    return np.asarray(np.where(rest > tolerance, rest, 0.0))


def _object(name: str, raw: Sequence[str], sizes: Sizes) -> Objection:
    sentence = (
        f"{name} is a sum of multiples of {', '.join(raw)} except for few patients of this site (derived otherwise): "
        "with the sums of these columns it shows these patients' own. Derive it without a comparison that few fulfil, "
        "or let a person say yes with a reason (coterie release allow)."
    )
    return Objection(Grade.REFUSE if sizes.plain else Grade.ASK, "derived otherwise", sentence, subject=name)
