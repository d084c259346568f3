"""What has left a site so far, by population: how much of its patients is known, and what would be refused next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.errors import pluralise
from coterie_node.privacy.entries import ReleaseHead
from coterie_node.privacy.equations import Budget, count_unknowns
from coterie_node.privacy.log import PrivacyLog


@dataclass(frozen=True)
class Population:
    """Releases whose rows overlap, in order; `smallest`: the fewest patients that two of them differ by, if they do."""

    heads: tuple[ReleaseHead, ...]
    smallest: int | None

    @property
    def rows(self) -> int:
        """Patients of the smallest release."""
        return min(head.n for head in self.heads)

    @property
    def columns(self) -> int:
        """Design columns of all releases."""
        return len(set().union(*(head.terms for head in self.heads)))

    @property
    def budget(self) -> Budget:
        """Equations of all plain sums, and the values that are unknown."""
        plain = [head for head in self.heads if head.kind == "plain"]
        measured = set().union(*(head.measured for head in plain)) if plain else set()
        return Budget(sum(head.equations for head in plain), count_unknowns(self.rows, len(measured)))

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        return {
            "studies": list(dict.fromkeys(head.study for head in self.heads)),
            "releases": len(self.heads),
            "masked": sum(head.kind == "masked" for head in self.heads),
            "rows": self.rows,
            "columns": self.columns,
            "equations": self.budget.equations,
            "unknowns": self.budget.unknowns,
            "smallest_known_set": self.smallest,
            "allowed": [head.reason for head in self.heads if head.reason],
            "refused_next": self.list_next_refusals(),
        }

    def list_next_refusals(self) -> list[str]:
        """What would be refused next, in words."""
        out = ["these patients with fewer than the floor more, fewer, or changed"]
        if any(head.kind == "masked" for head in self.heads):
            out.append("a masked sum with one or two sites more or fewer while the others' rows stay the same")
        if self.budget.unknowns:
            spare = self.budget.unknowns - self.budget.equations
            out.append(f"plain sums with {pluralise(max(spare, 0), 'equation')} more on these rows")
        out.append(f"{pluralise(max(self.rows - self.columns, 0), 'column')} more on these rows")
        return out


def group_populations(log: PrivacyLog) -> list[Population]:
    """The log's releases by population, without those that have lost a part."""
    lost, sets = set(log.list_losses()), _RowSets(log)
    heads = [head for head in log.heads() if lost.isdisjoint(head.list_blobs())]
    alike: dict[tuple[object, ...], list[int]] = {}
    for place, head in enumerate(heads):
        alike.setdefault((head.identified, head.rows, head.n, frozenset(head.columns)), []).append(place)
    groups: list[list[list[int]]] = []
    for places in alike.values():
        near = [group for group in groups if any(sets.overlap(heads[places[0]], heads[other[0]]) for other in group)]
        joined = [*(same for group in near for same in group), places]
        groups = [group for group in groups if group not in near] + [joined]
    return [_make_population(sets, heads, group) for group in groups]


def _make_population(sets: _RowSets, heads: Sequence[ReleaseHead], group: Sequence[Sequence[int]]) -> Population:
    """The population of the heads at these places, of which those together have the same rows."""
    firsts = [heads[places[0]] for places in group]
    apart = (sets.count_apart(a, b) for k, a in enumerate(firsts) for b in firsts[:k])
    members = sorted(place for places in group for place in places)
    return Population(tuple(heads[place] for place in members), min(filter(None, apart), default=None))


@dataclass(frozen=True)
class _RowSets:
    """Sets of patients of releases, each read once."""

    log: PrivacyLog
    _packed: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    def _read(self, head: ReleaseHead) -> NDArray[np.uint8]:
        if head.rows not in self._packed:
            self._packed[head.rows] = np.packbits(self.log.bits(head, 0))
        return self._packed[head.rows]

    def overlap(self, a: ReleaseHead, b: ReleaseHead) -> bool:
        """Whether two releases have a patient in common, or a column where one has no identifiers."""
        if not (a.identified and b.identified):
            return bool(set(a.columns) & set(b.columns))
        first, second = self._read(a), self._read(b)
        size = min(len(first), len(second))
        return bool((first[:size] & second[:size]).any())

    def count_apart(self, a: ReleaseHead, b: ReleaseHead) -> int:
        """How many patients are in only one of two releases; without identifiers, by how many rows they differ."""
        if not (a.identified and b.identified):
            return abs(a.n - b.n)
        first, second = self._read(a), self._read(b)
        size = min(len(first), len(second))
        parts = (first[:size] ^ second[:size], first[size:], second[size:])
        return sum(int(np.bitwise_count(part).sum()) for part in parts)
