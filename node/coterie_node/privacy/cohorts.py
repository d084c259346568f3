"""A declared cohort: a study's patients under a name, so that later studies of that name stand on the same ones.

Without identifiers a patient of the cohort is known again by the values of the columns that are complete in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from coterie_node.privacy.prints import PatientPrints, PrintedRows
from coterie_node.privacy.storage import LogStorage, read_blob


@dataclass(frozen=True)
class JoinCohort:
    """Prints (n,) of a cohort's patients, sorted; `columns`: by whose values they are known without an identifier."""

    prints: PatientPrints
    columns: tuple[str, ...]

    def select(self, printed: PrintedRows) -> NDArray[np.intp]:
        """The rows (m,) of a file that are of the cohort, in the file's order; each patient counts once."""
        words = _words(printed, self.columns)
        mask = np.isin(words, self.prints)
        return np.flatnonzero(mask)


def find_cohort(storage: LogStorage, name: str) -> JoinCohort | None:
    """The cohort of this name, or None if no study has declared it; StoreFault (CO-C214) if it is damaged."""
    place = f"cohort/{name}"
    if place not in storage:
        return None
    return read_blob(storage, place, _read_cohort)


def _read_cohort(raw: bytes) -> JoinCohort:
    head, _, body = raw.partition(b"\n")
    return JoinCohort(np.frombuffer(body, np.uint64), tuple(map(str, from_json(head))))


def keep_cohort(storage: LogStorage, name: str, printed: PrintedRows, complete: Sequence[str]) -> JoinCohort:
    """Keep the rows of a study as the cohort of this name."""
    columns = () if printed.patients is not None else tuple(sorted(complete))
    cohort = JoinCohort(np.sort(_words(printed, columns)), columns)
    storage[f"cohort/{name}"] = json.dumps(list(columns)).encode() + b"\n" + cohort.prints.tobytes()
    return cohort


def _words(printed: PrintedRows, columns: Sequence[str]) -> PatientPrints:
    """One 64-bit word for each row: the patient's print, or the values of the columns with their k-th occurrence."""
    if printed.patients is not None and not columns:
        return printed.patients
    words = np.zeros(printed.n, np.uint64)
    for name in columns:
        words = (words ^ (words >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + printed.columns[name]
    order = np.argsort(words, kind="stable")
    ordered = words[order]
    starts = np.searchsorted(ordered, ordered, side="left")
    occurrence = np.empty(printed.n, np.uint64)
    occurrence[order] = (np.arange(printed.n) - starts).astype(np.uint64)
    return words * np.uint64(0xD6E8FEB86659FD93) + occurrence
