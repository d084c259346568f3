"""In which stage each count of an opening is opened: what may be part of a level comes after the level.

A level of one column of the file may hold levels that join it with other columns: products of the formula, and what a
function or the study derives from several columns. So levels are ordered by the number of columns that they join. Sizes
of weights come last, since a weight may be derived from anything, the outcome too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array, find_distinct
from coterie_learners.study.design import Design

# The stage of each level (k,), from 1.
Stages = NDArray[np.int64]


@dataclass(frozen=True)
class Stage:
    """What is opened together: the places of levels that are counted, and of those in which events are."""

    number: int
    levels: NDArray[np.int64]
    events: NDArray[np.int64]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is opened."""
        return not len(self.levels) and not len(self.events)

    def add(self, counts: Mapping[str, Array], opened: Mapping[str, Array]) -> dict[str, Array]:
        """The pool's counts (k,) with those that this stage has opened."""
        out = {key: value.copy() for key, value in counts.items()}
        for key in ("patients", "sites"):
            out[key][self.levels] = opened[key]
        out["events"][..., self.events] = opened["events"]
        return out


def order_levels(joined: Iterable[int], beside: Iterable[int], is_weight: NDArray[np.bool_]) -> Stages:
    """The stage of each level (k,) by the number of columns that it joins; everybody joins none.

    `beside`: the numbers of levels of other models that are opened in the same steps. `is_weight` (k,): the last ones.
    """
    own = np.array([*joined], dtype=np.int64)
    counted = find_distinct(np.array([*own[~is_weight & (own > 0)], *beside], dtype=np.int64))
    return np.where(is_weight, len(counted) + 1, np.searchsorted(counted, own) + 1).astype(np.int64)


def list_stages(levels: Stages, events: Stages) -> tuple[Stage, ...]:
    """The stages one after the other, from those of levels (k,) and of the events in them (k,), 0 for none."""
    numbers = range(1, int(max(levels.max(), events.max())) + 1)
    stages = (Stage(k, np.flatnonzero(levels == k), np.flatnonzero(events == k)) for k in numbers)
    return tuple(stage for stage in stages if not stage.is_empty)


def count_columns(design: Design, variable: str) -> int:
    """How many columns of the file are behind a variable, itself or others."""
    return len(_find_columns(design, variable))


def _find_columns(design: Design, name: str) -> frozenset[str]:
    """The columns of the file behind a variable, through what the formula and the study derive."""
    plan = design.study.preparation
    sources = design.sources_of(name)
    if sources == (name,):
        sources = tuple(plan.derived[name].sources) if plan is not None and name in plan.derived else ()
    return frozenset[str]().union(*(_find_columns(design, source) for source in sources)) or frozenset({name})
