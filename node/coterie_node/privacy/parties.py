"""The pooled sums that everybody knows: masked sums over several sets of parties must not give those of few sites.

An unknown is a site with a label of its rows (one raw column's units, by a keyed hash: equal labels, equal rows).
Everybody knows the sums whose shares are all on record. A sum that one party spoiled, by leaving its share out or
posting a false one, is known to that party alone: it has the shares of all others, and its own pads take off theirs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.spans import PRIMES, reduce_rows

# Sites that must stay in every sum that everybody knows, and others in every sum that one member knows.
EVERYBODY = 3
OTHERS = 2


@dataclass(frozen=True)
class PooledSum:
    """A masked sum over sites, each with the label of its rows; `missing`: whose share is missing or false."""

    study: str
    labels: Mapping[str, str]
    missing: frozenset[str] = frozenset()

    @property
    def unknowns(self) -> frozenset[tuple[str, str]]:
        """The sites of the sum with their labels."""
        return frozenset(self.labels.items())

    def without(self, site: str) -> frozenset[tuple[str, str]]:
        """The same without one site, which knows its own."""
        return frozenset(item for item in self.labels.items() if item[0] != site)


def judge_parties(new: PooledSum, past: Sequence[PooledSum], own: str = "") -> Objection | None:
    """The objection to a new masked sum that, with the former ones, shows what one or two sites hold, or None.

    `own` is the judging site; it hears of a member only where others do.
    """
    complete = [other for other in past if not other.missing]
    for sites in _find_exposed(new.unknowns, [other.unknowns for other in complete], EVERYBODY - 1):
        return _refuse(sites, complete, "everybody")
    for member in sorted(new.labels):
        known = [other.without(member) for other in past if other.missing <= {member}]
        for sites in _find_exposed(new.without(member), known, OTHERS - 1):
            return _refuse(sites, past, member)
    return None


def assume_unchanged(new: PooledSum, past: Sequence[PooledSum]) -> tuple[PooledSum, list[PooledSum]]:
    """The sums with the rows of each site that has no label in one of two of them taken for the same in both.

    A study without labels says nothing of what has changed since another one that has some.
    """
    unlabelled = {site for site, label in new.labels.items() if not label}

    def complete(other: PooledSum) -> PooledSum:
        labels = {site: label or new.labels.get(site, "") for site, label in other.labels.items()}
        return replace(other, labels=labels | dict.fromkeys(unlabelled & labels.keys(), ""))

    return new, [complete(other) for other in past]


Unknowns = frozenset[tuple[str, str]]


def _find_exposed(new: Unknowns, past: Sequence[Unknowns], most: int) -> Iterator[tuple[str, ...]]:
    """The sets of at most `most` sites whose sum can now be computed and could not before."""
    rows = list(dict.fromkeys([*past, new]))
    if new in past:
        return
    columns, matrix = _merge_columns(rows)
    sites = sorted({site for site, _ in columns})
    for size in range(1, most + 1):
        for group in itertools.combinations(sites, size):
            if _follows(matrix, [site in group for site, _ in columns]):
                yield group


def _merge_columns(rows: Sequence[Unknowns]) -> tuple[list[tuple[str, str]], NDArray[np.int64]]:
    columns = sorted(frozenset[tuple[str, str]]().union(*rows))
    return columns, np.array([[item in row for item in columns] for row in rows], dtype=np.int64)


def _follows(matrix: NDArray[np.int64], tail: Sequence[bool]) -> bool:
    """Whether the last row gives, with the others, one more combination that lies in the tail's columns alone."""
    return any(tail) and _grows_for_all(matrix.tobytes(), matrix.shape, tuple(tail))


@lru_cache(maxsize=1024)
def _grows_for_all(matrix_bytes: bytes, shape: tuple[int, ...], tail: tuple[bool, ...]) -> bool:
    """The same of the matrix with these bytes: the raw columns of a study mostly have one pattern of sums."""
    matrix, mask = np.frombuffer(matrix_bytes, dtype=np.int64).reshape(shape), np.array(tail)
    order = np.argsort(mask, kind="stable")
    start = int(np.count_nonzero(~mask))
    return all(_grows(matrix[:, order], start, prime) for prime in PRIMES)


def _grows(matrix: NDArray[Any], start: int, prime: int) -> bool:
    return len(reduce_rows(matrix, prime).tail(start)) > len(reduce_rows(matrix[:-1], prime).tail(start))


def _refuse(sites: Sequence[str], past: Sequence[PooledSum], reader: str) -> Objection:
    studies = list(dict.fromkeys(other.study for other in past))
    what = f"what {sites[0]} holds alone" if len(sites) == 1 else f"what {' and '.join(sites)} hold together"
    subject = ",".join(sites)
    if not past:
        few = f"It is a sum over too few sites: it would show {reader} {what} (site added)."
        return Objection(Grade.REFUSE, "site added", f"{few} Take part with three sites or more.", subject=subject)
    shown = " and ".join(repr(name) for name in studies[-3:])
    sentence = (
        f"With the masked sums of {shown} it would show {reader} {what} (site added): the other sites' rows are the "
        "same in both. Keep the sites, wait until two of the other sites have new patients, or let a person say yes "
        "with a reason (coterie release allow)."
    )
    return Objection(Grade.REFUSE, "site added", sentence, studies[-1], subject=subject)


def refuse_undone_masks(hidden: Sequence[str], study: str) -> Objection:
    """The objection to a release that, with one of another study, takes the masks off the sums of these sites."""
    names = " and ".join(hidden)
    sentence = (
        f"This study and {study!r} have sums of the same rows, one without masks and one under masks with {names}. "
        f"Together they would show the sums of {names} (masks undone). "
        "Use masked sums with the same sites, or let a person say yes with a reason (coterie release allow)."
    )
    return Objection(Grade.REFUSE, "masks undone", sentence, study, subject=",".join(hidden))
