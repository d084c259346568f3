"""Payloads: named arrays <-> canonical bytes <-> compressed bytes. Never pickle; every limit is checked before use.

Canonical form: 4-byte length, a JSON header (stamp and a list of [name, dtype, shape], sorted by name), then each
array little-endian in C order, padded to 8 bytes. Equal values give equal bytes (-0.0 is written as 0.0), so equal
payloads have equal CIDs. The stamp binds a payload to its study, topic, site and attempt.
Packed form: magic, codec (0 stored, 1 DEFLATE as in D-CLEF, 2 byte-shuffle + zstd), raw length, body.
"""

from __future__ import annotations

import json
import math
import re
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from coterie_learners.errors import ProtocolError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Payload = Mapping[str, Any]

MAGIC = b"CTR1"
STORED, DEFLATE, SHUFFLE_ZSTD = 0, 1, 2
# The most bytes of one payload. The ledger takes no more (coterie_chain.store.protocol.MAX_BLOB).
MAX_RAW = 1 << 27
MAX_HEADER = 1 << 16
MAX_ARRAYS = 256
_FAST_WITHOUT_SIZE: Mapping[int, int] = {
    zstd.CompressionParameter.compression_level: 1,
    zstd.CompressionParameter.content_size_flag: 0,
}
# A frame may ask for no more memory than the largest payload takes.
_BOUNDED_WINDOW: Mapping[int, int] = {zstd.DecompressionParameter.window_log_max: 27}
_DTYPE = re.compile(r"<f8|<i8|<u8|\|u1|\|b1|\|S[1-9][0-9]{0,3}")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,63}")


@dataclass(frozen=True)
class Stamp:
    """What a payload is bound to: the study's hash in hexadecimal digits, topic, site and attempt."""

    study: str
    topic: str
    site: str
    attempt: int


@dataclass(frozen=True)
class Field:
    """Form of one array: numpy dtype string ("<f8", "<i8", "<u8", "|u1", "|b1", "|S16"), shape (None: any length)."""

    dtype: str
    shape: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class Schema:
    """Form of a topic's payload: its fields, those that may be absent, and the learner's own check of the values."""

    fields: Mapping[str, Field]
    optional: frozenset[str] = frozenset()
    check: Callable[[Payload], None] | None = None


def canonical(payload: Payload) -> bytes:
    """The arrays alone as canonical bytes: equal exactly when all names, types, shapes and values are."""
    return _serialise({}, payload)


def encode(stamp: Stamp, payload: Payload) -> bytes:
    """A stamped payload as canonical bytes."""
    return _serialise({"stamp": [stamp.study, stamp.topic, stamp.site, stamp.attempt]}, payload)


def decode(raw: bytes) -> tuple[Stamp, Payload]:
    """The inverse of encode, for bytes from anywhere; ProtocolError CO-P1xx says what is wrong."""
    stamp, arrays = decode_own(raw)
    if encode(stamp, arrays) != raw:
        raise _reject("CO-P109", "The payload is not in canonical form: other bytes have the same values.")
    return stamp, arrays


def decode_own(raw: bytes) -> tuple[Stamp, Payload]:
    """The same for bytes that this process has computed itself, or has compared with what it computed."""
    header, at = _header(raw)
    stamp = _stamp(header.get("stamp"))
    arrays: dict[str, NDArray[Any]] = {}
    for name, dtype, shape in _array_list(header.get("arrays")):
        if name in arrays or not _NAME.fullmatch(name) or not _DTYPE.fullmatch(dtype):
            raise _reject("CO-P104", f"The payload declares an array {name[:64]!r} of type {dtype[:16]!r}.")
        arrays[name], at = _array(raw, at, dtype, shape)
    if at != len(raw):
        raise _reject("CO-P105", f"The payload has {len(raw) - at} bytes after its last array.")
    return stamp, arrays


def pack(raw: bytes, codec: int) -> bytes:
    """Compress canonical bytes."""
    if codec == DEFLATE:
        body = zlib.compress(raw, 6)
    elif codec == SHUFFLE_ZSTD:
        body = zstd.compress(_shuffle(raw), options=_FAST_WITHOUT_SIZE)
    else:
        body = raw
    return MAGIC + bytes([codec]) + len(raw).to_bytes(8, "little") + body


def unpack(blob: bytes, max_raw: int = MAX_RAW) -> bytes:
    """Decompress bytes from anywhere; never unpacks more than `max_raw` bytes, whatever the header claims."""
    if blob[:4] != MAGIC or len(blob) < 13 or blob[4] not in (STORED, DEFLATE, SHUFFLE_ZSTD):
        raise _reject("CO-P101", f"The bytes are not a Coterie payload (they begin with {blob[:8].hex()}).")
    size, body = int.from_bytes(blob[5:13], "little"), blob[13:]
    if size > max_raw:
        raise _reject("CO-P102", f"The payload unpacks to {size} bytes; the limit is {max_raw}.")
    raw = _inflate(blob[4], body, size)
    if len(raw) != size:
        raise _reject("CO-P103", f"The payload unpacks to another length than the {size} bytes it declares.")
    return raw


def check(payload: Payload, schema: Schema) -> None:
    """Check names, types, shapes and finiteness, then the learner's own check; ProtocolError says which fails."""
    missing = schema.fields.keys() - schema.optional - payload.keys()
    unknown = payload.keys() - schema.fields.keys()
    if missing or unknown:
        raise _reject("CO-P106", f"The payload lacks {sorted(missing)} and has unknown {sorted(unknown)}.")
    for name, array in payload.items():
        _check_field(name, np.asarray(array), schema.fields[name])
    if schema.check is not None:
        schema.check(payload)


def check_finite(payload: Payload) -> None:
    """Refuse NaN and infinities, whatever the schema."""
    for name, array in payload.items():
        values = np.asarray(array)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise _reject("CO-P107", f"The payload's {name!r} holds NaN or infinite values.")


def _check_field(name: str, array: NDArray[Any], field: Field) -> None:
    fits = len(array.shape) == len(field.shape) and all(
        want in (None, have) for have, want in zip(array.shape, field.shape, strict=True)
    )
    if not fits or _normal_type(array.dtype).str != field.dtype:
        raise _reject(
            "CO-P108",
            f"The payload's {name!r} has type {array.dtype.str} and shape {array.shape}; "
            f"the protocol asks for {field.dtype} and {field.shape}.",
        )


def _normal(value: Any) -> NDArray[Any]:
    """One representation per value: 64-bit little-endian numbers, positive zero, C order."""
    array = np.asarray(value)
    kind = _normal_type(array.dtype)
    return np.asarray(array.astype(kind, copy=False) + 0.0 if kind.kind == "f" else array.astype(kind, copy=False))


@lru_cache(maxsize=64)
def _normal_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which a payload holds values of this one."""
    if dtype.kind == "f":
        return np.dtype("<f8")
    if dtype.kind == "i" or (dtype.kind == "u" and dtype.itemsize in (2, 4)):
        return np.dtype("<i8")
    if dtype.kind == "u":
        return np.dtype("|u1" if dtype.itemsize == 1 else "<u8")
    return dtype


def _serialise(header: dict[str, Any], payload: Payload) -> bytes:
    # A signalling NaN of a peer must not warn before it is refused.
    with np.errstate(invalid="ignore"):
        arrays = {name: _normal(payload[name]) for name in sorted(payload)}
    for name, array in arrays.items():
        if not _NAME.fullmatch(name) or not _DTYPE.fullmatch(array.dtype.str):
            raise ProtocolError("CO-P104", f"A payload cannot hold {name!r} of type {array.dtype.str}.")
    listed = [[name, a.dtype.str, list(a.shape)] for name, a in arrays.items()]
    text = json.dumps({**header, "arrays": listed}, sort_keys=True, separators=(",", ":")).encode()
    head = len(text).to_bytes(4, "little") + text
    return b"".join(_pad_array(part) for part in (head, *(a.tobytes() for a in arrays.values())))


def _pad_array(part: bytes) -> bytes:
    return part + bytes(-len(part) % 8)


def _header(raw: bytes) -> tuple[dict[str, Any], int]:
    size = int.from_bytes(raw[:4], "little")
    if len(raw) < 4 or size > MAX_HEADER or 4 + size > len(raw):
        raise _reject("CO-P104", "The payload's header is cut or too long.")
    try:
        # Not json.loads: some packages raise Python's recursion limit so far that nested brackets crash the process.
        header = from_json(raw[4 : 4 + size], allow_inf_nan=False)
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise _reject("CO-P104", "The payload's header is not JSON.")
    return header, 4 + size + (-(4 + size) % 8)


def _stamp(value: Any) -> Stamp:
    kinds = (str, str, str, int)
    if not isinstance(value, list) or [type(v) for v in value] != list(kinds):
        raise _reject("CO-P104", "The payload's stamp is not [study, topic, site, attempt].")
    return Stamp(*value)


def _array_list(value: Any) -> list[tuple[str, str, list[int]]]:
    if not isinstance(value, list) or len(value) > MAX_ARRAYS or not all(map(_is_array_entry, value)):
        raise _reject("CO-P104", "The payload's list of arrays is malformed.")
    return [(name, dtype, shape) for name, dtype, shape in value]


def _is_array_entry(entry: Any) -> bool:
    """Whether an entry is [name, dtype, shape] with a shape of whole numbers."""
    if not isinstance(entry, list) or [type(part) for part in entry] != [str, str, list]:
        return False
    return all(type(d) is int and d >= 0 for d in entry[2])


def _array(raw: bytes, at: int, dtype: str, shape: list[int]) -> tuple[NDArray[Any], int]:
    # The extent bounds the other dimensions of an empty array, which numpy multiplies too.
    few, width = shape[:4], np.dtype(dtype).itemsize
    extent = math.prod([max(dimension, 1) for dimension in few]) * width
    count = math.prod(few)
    size = count * width
    if len(shape) > 4 or extent > MAX_RAW or at + size + (-size % 8) > len(raw):
        content = f"{min(extent, MAX_RAW)} bytes in {len(shape)} dimensions"
        raise _reject("CO-P105", f"The payload is too short for an array of {content}.")
    if dtype == "|b1" and size and max(raw[at : at + size]) > 1:
        raise _reject("CO-P109", "The payload holds a boolean that is neither 0 nor 1.")
    return np.frombuffer(raw, dtype, count, at).reshape(shape), at + size + (-size % 8)


def _inflate(codec: int, body: bytes, size: int) -> bytes:
    try:
        if codec == DEFLATE:
            stream = zlib.decompressobj()
            return _read_whole(stream, stream.decompress(body, size + 1), size)
        if codec == SHUFFLE_ZSTD:
            frame = zstd.ZstdDecompressor(options=_BOUNDED_WINDOW)
            return _unshuffle(_read_whole(frame, frame.decompress(body, size + 1), size))
    except (zlib.error, zstd.ZstdError) as error:
        raise _reject("CO-P103", f"The payload does not unpack: {error}.") from None
    return body


class _Decompressor(Protocol):
    """What has unpacked the beginning of some bytes."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    @property
    def unused_data(self) -> bytes:
        """The bytes behind its end."""


def _read_whole(stream: _Decompressor, raw: bytes, size: int) -> bytes:
    """What one whole stream unpacks to; more than `size` bytes are refused later."""
    if len(raw) <= size and (not stream.eof or stream.unused_data):
        raise _reject("CO-P103", "The payload does not unpack: its stream is cut, or bytes follow it.")
    return raw


def _shuffle(raw: bytes) -> bytes:
    """Group the k-th bytes of all 8-byte words: neighbours in floats are alike byte by byte."""
    return np.frombuffer(raw, np.uint8).reshape(-1, 8).T.tobytes()


def _unshuffle(raw: bytes) -> bytes:
    if len(raw) % 8:
        raise _reject("CO-P103", "The payload does not unpack to whole 8-byte words.")
    return np.frombuffer(raw, np.uint8).reshape(8, -1).T.tobytes()


def _reject(code: str, cause: str) -> ProtocolError:
    return ProtocolError(code, f"{cause} Ask the site that posted it to check its node and version.")
