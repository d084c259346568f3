"""What this site has released before: two aggregates over nearly the same rows give away the rows between them.

The book remembers, for every run of a study in which this site released anything, the sites, the columns, and a keyed
64-bit fingerprint of every row used (Carter and Wegman's multilinear hash; the key stays in the book). It never leaves.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.protocol import Site
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.rows import CodedRows, Data, OwnColumns

PREFIX = "released/"
KEY = "released-key"

Fingerprints = NDArray[np.uint64]


@dataclass(frozen=True)
class PastRelease:
    """One run of a study: its session on the ledger, name, sites and columns; `sums_only` as in the gate's verdict."""

    session: str
    name: str
    sites: tuple[str, ...]
    columns: tuple[str, ...]
    sums_only: bool
    prints: Fingerprints = field(repr=False)


@dataclass(frozen=True)
class ReleaseComparison:
    """Whether a release must stay for what was released before, and why; or a warning, or nothing."""

    refused: bool
    message: str = ""


@dataclass
class ReleaseLog:
    """The runs in which this site released anything, in its durable private memory."""

    vault: MutableMapping[str, bytes] = field(default_factory=dict)

    @property
    def key(self) -> bytes:
        """The secret key of the fingerprints, made when it is first needed."""
        if KEY not in self.vault:
            self.vault[KEY] = secrets.token_bytes(32)
        return self.vault[KEY]

    def add(self, release: PastRelease) -> None:
        """Write a run down; again for the same session, it is replaced."""
        head = [release.session, release.name, release.sites, release.columns, release.sums_only]
        label = hashlib.sha256(release.session.encode()).hexdigest()
        self.vault[PREFIX + label] = json.dumps(head).encode() + b"\n" + release.prints.tobytes()

    def others(self, session: str) -> Iterator[PastRelease]:
        """All runs but that of a session."""
        for label in [key for key in self.vault if key.startswith(PREFIX)]:
            head, _, prints = self.vault[label].partition(b"\n")
            past, name, sites, columns, sums_only = json.loads(head)
            if past != session:
                values = np.frombuffer(prints, np.uint64)
                yield PastRelease(past, name, tuple(sites), tuple(columns), bool(sums_only), values)


def release_of(site: Site, sums_only: bool, key: bytes) -> PastRelease:
    """This run as the book keeps it."""
    assert site.data is not None
    columns = Design(site.study, site.name).names
    prints = np.sort(fingerprints(site.data, key))
    return PastRelease(
        site.session, site.study.name, site.study.sites, (site.study.formula, *columns), sums_only, prints
    )


def compare_releases(release: PastRelease, past: Iterable[PastRelease], floor: int) -> ReleaseComparison:
    """Hold a run against those before: refused if the difference would single out patients, or another site."""
    warning = ""
    for past_release in past:
        apart = _count_different_rows(release.prints, past_release.prints)
        alone = set(release.sites) ^ set(past_release.sites)
        if release.columns != past_release.columns:
            is_close = 0 < abs(len(release.prints) - len(past_release.prints)) < floor
            warning = (
                f"Its rows are nearly as many as those released in {past_release.name!r}." if is_close else warning
            )
        elif 0 < apart < floor:
            return ReleaseComparison(True, _describe_row_overlap(past_release, floor))
        elif apart < floor and release.sums_only and past_release.sums_only and len(alone) == 1:
            return ReleaseComparison(True, _describe_single_site(past_release, next(iter(alone))))
    return ReleaseComparison(False, warning)


def _describe_row_overlap(past_release: PastRelease, floor: int) -> str:
    return (
        f"It differs by fewer than {floor} rows from what this site released in the study {past_release.name!r}: the "
        "difference of the two would give these patients away. Use the same rows, or wait for more."
    )


def _describe_single_site(past_release: PastRelease, alone: str) -> str:
    return (
        f"Sums over the same rows were released in the study {past_release.name!r}, "
        f"with {alone} in one of the two and not in "
        f"the other: their difference is what {alone} holds alone. Keep the sites, or change two of them."
    )


def _count_different_rows(a: Fingerprints, b: Fingerprints) -> int:
    """How many rows are in one of two sorted lists and not in the other."""
    own_values, counts = np.unique(a, return_counts=True)
    past_values, others = np.unique(b, return_counts=True)
    _, i, j = np.intersect1d(own_values, past_values, assume_unique=True, return_indices=True)
    return len(a) + len(b) - 2 * int(np.minimum(counts[i], others[j]).sum())


def fingerprints(data: Data, key: bytes) -> Fingerprints:
    """A keyed 64-bit fingerprint of every row (n,), in the order of the rows."""
    if isinstance(data, OwnColumns):
        texts = (json.dumps(row).encode() for row in data.identifiers)
        words = [hashlib.blake2b(text, digest_size=8, key=key).digest() for text in texts]
        return np.frombuffer(b"".join(words), np.uint64)
    return np.concatenate([_multilinear(columns, key) for columns in _tables(data)])


def _tables(data: Data) -> Iterator[list[Array]]:
    if isinstance(data, CodedRows):
        for codes in data.codes():
            yield [codes[name] for name in sorted(codes)]
        return
    assert not isinstance(data, OwnColumns)
    for block in data.blocks():
        offset = [] if block.offset is None else [block.offset]
        yield [*block.x.T, block.y, *offset]


def _multilinear(columns: list[Array], key: bytes) -> Fingerprints:
    stream = hashlib.shake_256(key).digest(16 * (len(columns) + 1))
    factors = np.frombuffer(stream, np.uint64).reshape(-1, 2)
    out = np.full(len(columns[0]), factors[-1, 0])
    for (low, high), column in zip(factors, columns, strict=False):
        words = np.ascontiguousarray(column + 0.0).view(np.uint64)
        # Both halves of a word count with odd factors of their own, so that sums of columns do not meet by design.
        out += (words & np.uint64(0xFFFFFFFF)) * (low | np.uint64(1)) + (words >> np.uint64(32)) * (high | np.uint64(1))
    return out
