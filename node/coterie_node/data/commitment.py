"""A site's commitment to the rows that it will use: a salted Merkle root and counts; only their digest leaves.

The digest goes on the ledger when the site joins. It shows nothing (the salt is secret and random), and later it lets
an inspector at the site see that the rows at hand are those of the study: the same rows, salt and counts give the same
digest. Leaves are runs of 256 rows, SHA-256(0x00, salt, number, bytes); nodes SHA-256(0x01, left, right).
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, MutableMapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from coterie_learners.study.document import Study
from coterie_learners.study.rows import CodedRows, Data, OwnColumns
from coterie_node.data.load import Loaded

RUN = 256


@runtime_checkable
class HashesElsewhere(Protocol):
    """Rows on other machines, which hash them."""

    def hash_leaves(self, salt: bytes) -> list[bytes]:
        """The leaf of each run of rows, in order."""


@dataclass(frozen=True)
class Snapshot:
    """What a site commits to: its rows' root under its salt, counts, and the digest of what they came from.

    provenance: digests of a mapping and of a query, and the version of a database server, where there are any.
    """

    root: str
    salt: str
    read: int
    used: int
    missing: dict[str, int]
    source: str
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> bytes:
        """What goes on the ledger (32 bytes)."""
        return hashlib.sha256(self.document).digest()

    @property
    def document(self) -> bytes:
        """Canonical JSON, which stays at the site."""
        plain = asdict(self)
        if not self.provenance:  # as snapshots were before there were mappings
            del plain["provenance"]
        return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def commit(loaded: Loaded | None, study: Study, scope: str, vault: MutableMapping[str, bytes]) -> bytes:
    """The digest of this site's snapshot for a study on a network; the salt is drawn once and kept in the vault.

    Zero for a helper without data.
    """
    if loaded is None:
        return bytes(32)
    label = snapshot_label(study, scope)
    salt = bytes.fromhex(json.loads(vault[label])["salt"]) if label in vault else secrets.token_bytes(32)
    snapshot = make_snapshot(loaded, salt)
    vault[label] = snapshot.document
    return snapshot.digest


def snapshot_label(study: Study, scope: str) -> str:
    """The label of a study's snapshot in the vault."""
    return f"snapshot/{scope}/{study.hash.hex()}"


def find_snapshot(study: Study, scope: str, vault: MutableMapping[str, bytes]) -> Snapshot | None:
    """The snapshot that was committed to, if there was one."""
    document = vault.get(snapshot_label(study, scope))
    return None if document is None else Snapshot(**json.loads(document))


def make_snapshot(loaded: Loaded, salt: bytes) -> Snapshot:
    """The snapshot of a site's rows as they are now."""
    root = root_of(loaded.rows, salt).hex()
    source = loaded.source
    counts = (loaded.read, loaded.n, dict(loaded.missing))
    return Snapshot(root, salt.hex(), *counts, source.digest().hex(), dict(source.origin.provenance))


def root_of(data: Data, salt: bytes) -> bytes:
    """The salted Merkle root of all rows, in their order."""
    level = data.hash_leaves(salt) if isinstance(data, HashesElsewhere) else _hash_rows(data, salt)
    while len(level) > 1:
        pairs = [level[k : k + 2] for k in range(0, len(level), 2)]
        level = [hashlib.sha256(b"\1" + b"".join(pair)).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    return level[0] if level else _leaf(salt, 0, b"")


def hash_runs(table: np.ndarray[Any, np.dtype[Any]], salt: bytes, first: int) -> list[bytes]:
    """The leaves of rows (m, k) without texts, whose first run has this number."""
    return [_leaf(salt, first + k, run) for k, run in enumerate(_cut_runs(table, []))]


def _hash_rows(data: Data, salt: bytes) -> list[bytes]:
    runs = (run for table, texts in _tables(data) for run in _cut_runs(table, texts))
    return [_leaf(salt, number, run) for number, run in enumerate(runs)]


def _leaf(salt: bytes, number: int, run: bytes) -> bytes:
    return hashlib.sha256(b"\0" + salt + number.to_bytes(8, "big") + run).digest()


def _cut_runs(table: np.ndarray[Any, np.dtype[Any]], texts: list[tuple[str, ...]]) -> Iterator[bytes]:
    for at in range(0, len(table), RUN):
        yield np.ascontiguousarray(table[at : at + RUN]).tobytes() + json.dumps(texts[at : at + RUN]).encode()


def _tables(data: Data) -> Iterator[tuple[np.ndarray[Any, np.dtype[np.float64]], list[tuple[str, ...]]]]:
    """Blocks of rows as numbers (m, k), and the texts that identify them where columns are split."""
    if isinstance(data, OwnColumns):
        parts = [data.x, *(part[:, None] for part in (data.y, data.offset) if part is not None)]
        yield np.hstack(parts), list(data.identifiers)
        yield np.zeros((len(data.incomplete), 0)), list(data.incomplete)
    elif isinstance(data, CodedRows):
        for codes in data.codes():
            yield np.column_stack([codes[name] for name in sorted(codes)]), []
    else:
        for block in data.blocks():
            more = [part for part in (block.offset, block.prior) if part is not None]
            yield np.column_stack([block.x, block.y, *more]), []
