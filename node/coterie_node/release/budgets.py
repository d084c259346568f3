"""What has left a site so far, by population: how much of its patients is known, and what would be refused next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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
            out.append(f"plain sums with {max(spare, 0)} equations more on these rows")
        out.append(f"{max(self.rows - self.columns, 0)} columns more on these rows")
        return out


def group_populations(log: PrivacyLog) -> list[Population]:
    """The log's releases by population."""
    groups: list[list[ReleaseHead]] = []
    for head in log.heads():
        near = [group for group in groups if any(_overlap(log, head, other) for other in group)]
        joined = [other for group in near for other in group] + [head]
        groups = [group for group in groups if group not in near] + [joined]
    return [Population(tuple(group), _smallest(log, group)) for group in groups]


def _overlap(log: PrivacyLog, a: ReleaseHead, b: ReleaseHead) -> bool:
    if a.identified and b.identified:
        first, second = _align(log, a, b)
        return bool((first & second).any())
    return bool(set(a.columns) & set(b.columns))


def _smallest(log: PrivacyLog, group: Sequence[ReleaseHead]) -> int | None:
    return min(_differences(log, group), default=None)


def _differences(log: PrivacyLog, group: Sequence[ReleaseHead]) -> Iterator[int]:
    for k, a in enumerate(group):
        for b in group[:k]:
            if a.identified and b.identified:
                first, second = _align(log, a, b)
                apart = int(np.count_nonzero(first ^ second))
            else:
                apart = abs(a.n - b.n)
            if apart:
                yield apart


def _align(log: PrivacyLog, a: ReleaseHead, b: ReleaseHead) -> tuple[Any, Any]:
    size = max(len(log.bits(a, 0)), len(log.bits(b, 0)))
    return log.bits(a, size), log.bits(b, size)
