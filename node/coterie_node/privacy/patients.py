"""The site's patients in order of first sight, and the raw values of each column by patient, with all former ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_node.privacy.prints import PatientPrints, Prints

Indices = NDArray[np.uint32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PatientDictionary:
    """Patient prints (n,) in order of first sight; a patient's place in it stays for ever."""

    prints: PatientPrints

    @classmethod
    def empty(cls) -> PatientDictionary:
        """A dictionary without patients."""
        return cls(np.empty(0, np.uint64))

    def place(self, prints: PatientPrints) -> tuple[PatientDictionary, Indices]:
        """The index (m,) of each print, and the dictionary with those that were not in it."""
        order = np.argsort(self.prints, kind="stable").astype(np.uint32)
        at = np.searchsorted(self.prints, prints, sorter=order)
        at[at == len(order)] = 0
        known = self.prints[order[at]] == prints if len(order) else np.zeros(len(prints), bool)
        out = np.empty(len(prints), np.uint32)
        out[known] = order[at[known]]
        new, first, inverse = np.unique(prints[~known], return_index=True, return_inverse=True)
        rank = np.empty(len(new), np.uint32)
        rank[np.argsort(first)] = np.arange(len(new), dtype=np.uint32)
        out[~known] = len(self.prints) + rank[inverse]
        return PatientDictionary(np.concatenate([self.prints, prints[~known][np.sort(first)]])), out


@dataclass(frozen=True)
class Change:
    """Patients whose value was another one in the version before: their indices (m,) and former prints (m,)."""

    at: Indices
    former: Prints


@dataclass(frozen=True)
class ColumnVersions:
    """One raw column by patient: the latest value prints (n,), which are known (n,), and the changes, oldest first.

    A new version begins when a patient's value changes; patients who come for the first time extend the latest one.
    """

    latest: Prints = field(default_factory=lambda: np.empty(0, np.uint32))
    known: Mask = field(default_factory=lambda: np.empty(0, bool))
    changes: tuple[Change, ...] = ()

    @property
    def version(self) -> int:
        """Number of the latest version."""
        return len(self.changes)

    def add(self, at: Indices, prints: Prints, size: int) -> ColumnVersions:
        """The column with the values (m,) of these patients, in a dictionary of `size` patients."""
        latest, known = _grown(self.latest, size), _grown(self.known, size)
        other = known[at] & (latest[at] != prints)
        changes = self.changes
        if other.any():
            changes = (*changes, Change(at[other], latest[at[other]]))
        latest[at], known[at] = prints, True
        return ColumnVersions(latest, known, changes)

    def at_version(self, version: int, patients: Indices) -> Prints:
        """The prints (m,) that these patients had in a version."""
        values = self.latest
        for change in reversed(self.changes[version:]):
            values = values.copy() if values is self.latest else values
            values[change.at] = change.former
        return values[patients]

    def changed_since(self, version: int) -> Indices:
        """The patients whose value changed after a version."""
        parts = [change.at for change in self.changes[version:]]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint32)


def _grown(values: NDArray[Any], size: int) -> NDArray[Any]:
    out = np.zeros(max(size, len(values)), values.dtype)
    out[: len(values)] = values
    return out
