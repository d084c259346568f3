"""The site's patients in order of first sight, and the raw values of each column by patient, with all former ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coterie_node.privacy.prints import UNKNOWN_PRINT, Fingerprints, PatientPrints

Indices = NDArray[np.uint32]
PatientMask = NDArray[np.bool_]


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
        order = np.argsort(prints, kind="stable").astype(np.uint32)
        ordered = prints[order]
        begins = np.ones(len(prints), bool)
        begins[1:] = ordered[1:] != ordered[:-1]
        places, new = self._places(ordered[begins], order[begins])
        out = np.empty(len(prints), np.uint32)
        out[order] = places[np.cumsum(begins, dtype=np.uint32) - 1]
        return (self if not len(new) else PatientDictionary(np.concatenate([self.prints, prints[new]]))), out

    def _places(self, sorted_prints: PatientPrints, first: Indices) -> tuple[Indices, Indices]:
        """The index (k,) of each distinct print, which comes first in row `first` (k,), and the rows of new ones."""
        order = np.argsort(self.prints, kind="stable").astype(np.uint32)
        former = self.prints[order]
        at = np.minimum(np.searchsorted(former, sorted_prints), max(len(former) - 1, 0))
        known = former[at] == sorted_prints if len(former) else np.zeros(len(sorted_prints), bool)
        places = np.empty(len(sorted_prints), np.uint32)
        places[known] = order[at[known]]
        by_row = np.argsort(first[~known], kind="stable")
        rank = np.empty(len(by_row), np.uint32)
        rank[by_row] = np.arange(len(by_row), dtype=np.uint32)
        places[~known] = len(self.prints) + rank
        return places, first[~known][by_row]


@dataclass(frozen=True)
class Change:
    """Patients whose value was another one in the version before: their indices (m,) and former prints (m,)."""

    at: Indices
    former: Fingerprints


@dataclass(frozen=True)
class ColumnVersions:
    """One raw column by patient: the latest value prints (n,), UNKNOWN_PRINT where there is none, and the changes.

    A new version begins when a patient's value changes; patients who come for the first time extend the latest one.
    Changes stand oldest first.
    """

    latest: Fingerprints = field(default_factory=lambda: np.empty(0, np.uint32))
    changes: tuple[Change, ...] = ()

    @property
    def version(self) -> int:
        """Number of the latest version."""
        return len(self.changes)

    def add(self, at: Indices, prints: Fingerprints, size: int) -> ColumnVersions:
        """The column with the values (m,) of these patients, in a dictionary of `size` patients."""
        if len(at) == size == len(self.latest) and np.array_equal(self.latest, prints) and _is_all(at):
            return self
        before = self.latest[at[at < len(self.latest)]]
        known = np.zeros(len(at), bool)
        known[at < len(self.latest)] = before != UNKNOWN_PRINT
        former = np.zeros(len(at), np.uint32)
        former[at < len(self.latest)] = before
        other = known & (former != prints)
        changes = (*self.changes, Change(at[other], former[other])) if other.any() else self.changes
        return ColumnVersions(_with_values(self.latest, at, prints, size), changes)

    def extend(self, size: int) -> ColumnVersions:
        """The column in a dictionary of `size` patients: what came since has no value yet."""
        missing = size - len(self.latest)
        if missing <= 0:
            return self
        return ColumnVersions(np.concatenate([self.latest, np.full(missing, UNKNOWN_PRINT, np.uint32)]), self.changes)

    def equals(self, other: ColumnVersions) -> bool:
        """Whether both have the same values and changes, the other one being an earlier state of this one."""
        return self.version == other.version and np.array_equal(self.latest, other.latest)

    def at_version(self, version: int, patients: Indices) -> Fingerprints:
        """The prints (m,) that these patients had in a version."""
        values = self.latest
        for change in reversed(self.changes[version:]):
            values = values.copy() if values is self.latest else values
            values[change.at] = change.former
        return values[patients]

    def find_changes_since(self, version: int) -> Indices:
        """The patients whose value changed after a version."""
        parts = [change.at for change in self.changes[version:]]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint32)


def _with_values(latest: Fingerprints, at: Indices, prints: Fingerprints, size: int) -> Fingerprints:
    """The values with those of some patients in place; the same array where nothing changes or all of them come."""
    if len(at) == size and _is_all(at):
        return prints
    out = np.full(size, UNKNOWN_PRINT, np.uint32)
    out[: len(latest)] = latest
    out[at] = prints
    return out


def _is_all(at: Indices) -> bool:
    """Whether these are all places in their order."""
    return np.array_equal(at, np.arange(len(at), dtype=np.uint32))
