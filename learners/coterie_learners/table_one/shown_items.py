"""Which way each item of a table is shown, and where its numbers stand in what the sites post."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from coterie_learners.core.disclosure import ColumnCut
from coterie_learners.errors import ProtocolError
from coterie_learners.numeric.array import Array
from coterie_learners.table_one.site_tally import Tally
from coterie_learners.table_one.table_plan import Alternative, CharacteristicsPlan, CountedItem

# The kinds of items that have a sum beside their counts.
_SUMMED = ("number", "rate")
# A sum of values at the end of the range leaves it by rounding alone.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Shown:
    """The plan with the way of each item; None for what is not shown."""

    plan: CharacteristicsPlan
    ways: tuple[Alternative | None, ...]

    @cached_property
    def items(self) -> tuple[tuple[CountedItem, Alternative], ...]:
        """The items that are shown."""
        pairs = zip(self.plan.items, self.ways, strict=True)
        return tuple((item, way) for item, way in pairs if way is not None)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of a site's counts and sums."""
        counts = sum(int(np.prod(self._shape(item, way))) for item, way in self.items)
        return {"counts": (counts,), "sums": (sum(self._rows(way) for _, way in self._list_summed()),)}

    def find_way(self, kind: str, name: str) -> Alternative | None:
        """How an item is shown."""
        pairs = zip(self.plan.items, self.ways, strict=True)
        return next((way for item, way in pairs if (item.kind, item.name) == (kind, name)), None)

    def pack_counts(self, tally: Tally) -> Array:
        """The counts of what is shown, one after the other."""
        return np.concatenate([tally.count(self.plan, item, way).ravel() for item, way in self.items])

    def pack_sums(self, tally: Tally) -> Array:
        """The sums of what is shown."""
        return np.concatenate([np.zeros(0), *(tally.add_up(item, way) for item, way in self._list_summed())])

    def pack_squares(self, squares: Mapping[str, Array]) -> Array:
        """Squares by number in the places of the sums; 0 at times."""
        shown = ((item.name if item.kind == "number" else "", self._rows(way)) for item, way in self._list_summed())
        return np.concatenate([np.zeros(0), *(squares.get(name, np.zeros(rows)) for name, rows in shown)])

    def read_counts(self, counts: Array) -> dict[tuple[str, str], Array]:
        """The counts (s, ...) of each item that is shown, by kind and name."""
        out: dict[tuple[str, str], Array] = {}
        at = 0
        for item, way in self.items:
            shape = self._shape(item, way)
            size = int(np.prod(shape))
            out[item.kind, item.name] = counts[at : at + size].reshape(shape)
            at += size
        return out

    def read_sums(self, sums: Array) -> dict[tuple[str, str], Array]:
        """The sums or squares (s,) of each item that has any."""
        out: dict[tuple[str, str], Array] = {}
        at = 0
        for item, way in self._list_summed():
            out[item.kind, item.name] = sums[at : at + self._rows(way)]
            at += self._rows(way)
        return out

    def find_means(self, pooled: Mapping[str, Any]) -> dict[str, Array]:
        """The pooled mean (s,) of each number on the declared scale; 0 where nobody has a value."""
        counts, sums = self.read_counts(np.asarray(pooled["counts"])), self.read_sums(np.asarray(pooled["sums"]))
        present = {name: counts[kind, name][:, 0] for kind, name in sums if kind == "number"}
        return {name: sums["number", name] / np.where(n > 0, n, 1.0) for name, n in present.items()}

    def list_cells(self, counts: Array) -> tuple[dict[str, int], dict[str, str]]:
        """Every count of one site by a name of its own, and its kind."""
        cells: dict[str, int] = {}
        kinds: dict[str, str] = {}
        for (kind, name), values in self.read_counts(counts).items():
            for place, count in np.ndenumerate(values):
                cell = f"{kind} {name} {'/'.join(map(str, place))}"
                cells[cell], kinds[cell] = round(float(count)), f"{name or 'patients'} by group"
        return cells, kinds

    def list_cuts(self) -> Iterator[ColumnCut]:
        """The numbers that are counted by bins."""
        for item, way in self.items:
            if item.kind == "bins":
                ends = self.plan.bins[item.name].list_ends(way.multiple)[:-1, 1]
                group = self.plan.group if way.grouped else None
                yield ColumnCut(item.name, tuple(ends.tolist()), () if group is None else (group.name,))

    def check(self, pooled: Mapping[str, Any]) -> None:
        """ProtocolError for counts that contradict each other."""
        counts = self.read_counts(np.asarray(pooled["counts"]))
        total = float(counts["patients", ""].sum())
        for (kind, name), values in counts.items():
            part = float(values.sum())
            if part > total or (part < total and kind in ("levels", "number")):
                message = f"The counts of {name!r} add up to {part:.0f} patients of {total:.0f}"
                raise ProtocolError("CO-P508", f"{message}, which no patients can give.")
        for (kind, name), sums in self.read_sums(np.asarray(pooled["sums"])).items():
            cells = counts[kind, name]
            present = cells[:, 0] if kind == "number" else cells[:, :2].sum(axis=1)
            if np.any(np.abs(sums) > present * (1.0 + _ROUNDING)):
                message = f"The sum of {name!r} leaves the declared range"
                raise ProtocolError("CO-P508", f"{message}, which no patients can give.")

    def _list_summed(self) -> Iterator[tuple[CountedItem, Alternative]]:
        return ((item, way) for item, way in self.items if item.kind in _SUMMED)

    def _rows(self, way: Alternative) -> int:
        return self.plan.slots if way.grouped else 1

    def _shape(self, item: CountedItem, way: Alternative) -> tuple[int, int]:
        plan, rows = self.plan, self._rows(way)
        if item.kind == "patients":
            return rows, 1
        if item.kind == "bins":
            return rows, plan.bins[item.name].count_cells(way.multiple)
        if item.kind == "rate":
            return rows, 6 if plan.lacks else 2
        levels = next(len(line.levels) for line in plan.lines if line.name == item.name)
        return rows, (levels or 1) + plan.lacks


def choose_ways(plan: CharacteristicsPlan, passing: Array, sites: int) -> Shown:
    """For each item the first way at which all sites pass."""
    ways: list[Alternative | None] = []
    at = 0
    for item in plan.items:
        passes = np.rint(passing[at : at + len(item.alternatives)]) == sites
        ways.append(next((way for way, good in zip(item.alternatives, passes.tolist(), strict=True) if good), None))
        at += len(item.alternatives)
    return Shown(plan, tuple(ways))


def choose_site_ways(shown: Shown, passing: Array, sites: int) -> Shown:
    """What each site shows of all its own patients: what the table shows and all sites pass without groups."""
    ways: list[Alternative | None] = []
    at = 0
    for item, way in zip(shown.plan.items, shown.ways, strict=True):
        flags = np.rint(passing[at : at + len(item.alternatives)]) == sites
        whole = None if way is None else Alternative(False, way.multiple)
        ways.append(whole if whole in item.alternatives and flags[item.alternatives.index(whole)] else None)
        at += len(item.alternatives)
    return Shown(shown.plan, tuple(ways))
