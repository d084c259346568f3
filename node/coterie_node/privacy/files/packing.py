"""Arrays of the log as bytes and back: whatever else stands there is a ValueError, and takes no memory before."""

from __future__ import annotations

import json
import zlib
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from coterie_node.privacy.patients import Change, ColumnVersions, PatientMask

# Places of patients have 32 bits.
_MOST_PATIENTS = 1 << 32


def pack_bits(bits: PatientMask) -> bytes:
    """How many bits there are, and the bits."""
    return len(bits).to_bytes(8, "big") + zlib.compress(np.packbits(bits).tobytes(), 1)


def unpack_bits(raw: bytes) -> PatientMask:
    """The inverse of pack_bits."""
    count = int.from_bytes(raw[:8], "big")
    if len(raw) < 8 or count > _MOST_PATIENTS:
        raise ValueError(f"it says that it has {count} bits")
    return np.unpackbits(np.frombuffer(_inflate(raw[8:], -(-count // 8)), np.uint8), count=count).astype(bool)


def pack_words(words: NDArray[np.uint32]) -> bytes:
    """Words of 32 bits, in short."""
    return zlib.compress(words.tobytes(), 1)


def unpack_words(raw: bytes) -> NDArray[np.uint32]:
    """The inverse of pack_words."""
    return np.frombuffer(_inflate(raw, None), np.uint32)


def pack_column(column: ColumnVersions) -> bytes:
    """One line of JSON with the lengths, then the latest prints, and each change's patients and former prints."""
    lengths = [len(column.latest), *(len(change.at) for change in column.changes)]
    parts = [column.latest, *(change.at for change in column.changes), *(change.former for change in column.changes)]
    return json.dumps(lengths).encode() + b"\n" + b"".join(part.astype("<u4").tobytes() for part in parts)


def unpack_column(raw: bytes) -> ColumnVersions:
    """The inverse of pack_column."""
    line, _, body = raw.partition(b"\n")
    lengths = [int(part) for part in line.strip(b"[] ").split(b",")]
    words = np.frombuffer(body, np.uint32)
    if min(lengths) < 0 or lengths[0] + 2 * sum(lengths[1:]) != len(words):
        raise ValueError(f"it has {len(words)} words, which is not what it says")
    cuts = list(accumulate(lengths + lengths[1:]))[:-1]
    latest, *parts = np.split(words, cuts)
    half = len(parts) // 2
    changes = tuple(Change(at, former) for at, former in zip(parts[:half], parts[half:], strict=True))
    if any(len(change.at) and int(change.at.max()) >= len(latest) for change in changes):
        raise ValueError("a value changed of a patient who is not in it")
    return ColumnVersions(latest, changes)


def _inflate(raw: bytes, size: int | None) -> bytes:
    """Decompressed bytes, of this size if one is given."""
    inflater = zlib.decompressobj()
    try:
        out = inflater.decompress(raw, 0 if size is None else size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not inflater.eof or (size is not None and len(out) != size):
        raise ValueError("it ends too early, or too late")
    return out
