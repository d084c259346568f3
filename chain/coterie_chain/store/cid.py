"""CIDs in our own process: computed before a store sees the bytes, verified block by block after.

Theory of operation. A payload of at most 1 MiB is one raw block: the digest in its CID is its SHA-256. A larger one is
cut into raw leaves of 1 MiB under a balanced UnixFS tree of 174 links a node, as `ipfs add --cid-version=1 --raw-leaves
--chunker=size-1048576 --max-file-links=174` does, so that a folder, a memory twin and a Kubo swarm agree on every CID.
Reading trusts nobody: each block is hashed before it is looked into, and size, count and depth are bounded.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256

from coterie_chain.errors import BlobCorrupt, BlobUnusable

RAW = 0x55
DAG_PB = 0x70
CHUNK = 1 << 20
# What Kubo cuts by default.
SMALLEST_CHUNK = 1 << 18
FANOUT = 174
# Kubo refuses larger blocks; with 1 MiB leaves, 16384 blocks and 8 levels are far beyond any payload we allow.
MAX_BLOCK = 1 << 21
MAX_BLOCKS = 1 << 14
MAX_DEPTH = 8

_SHA2_256 = b"\x12\x20"
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
MAX_TEXT = 64
VARINT, BYTES = 0, 2
UNIXFS_RAW, UNIXFS_FILE = 0, 2


@dataclass(frozen=True)
class Cid:
    """Name of a block: CID version 0 or 1, codec (raw or dag-pb), SHA-256 of the block (32 bytes)."""

    version: int
    codec: int
    digest: bytes

    def __post_init__(self) -> None:
        known = (self.version, self.codec) in {(0, DAG_PB), (1, RAW), (1, DAG_PB)}
        if not known or len(self.digest) != 32:
            values = f"version {self.version}, codec {self.codec:#x}, digest of {len(self.digest)} bytes"
            raise BlobCorrupt(
                "CO-C203", f"No CID of this system: {values}. Only raw and dag-pb with sha2-256 are used."
            )

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        raw = bytes(self)
        return encode_base58(raw) if self.version == 0 else "b" + base64.b32encode(raw).decode().lower().rstrip("=")

    def __bytes__(self) -> bytes:
        head = b"" if self.version == 0 else bytes([1, self.codec])
        return head + _SHA2_256 + self.digest


@lru_cache(maxsize=4096)
def parse_cid(text: str) -> Cid:
    """The CID that a text names: version 0 (Qm..) or version 1 in base32 (b..) or base58 (z..), in canonical spelling.

    Raises BlobCorrupt (CO-C203) for anything else.
    """
    try:
        cid = _decode_binary(_decode(text))
    except ValueError as e:
        raise BlobCorrupt(
            "CO-C203", f"Not a CID of this system: {text[:MAX_TEXT]!r} ({e}). Check the record."
        ) from None
    if text != ("z" + encode_base58(bytes(cid)) if cid.version and text[0] == "z" else str(cid)):
        raise BlobCorrupt("CO-C203", f"Not the canonical spelling of a CID: {text!r}; it should read {cid}.")
    return cid


def compute_raw_cid(data: bytes) -> str:
    """CID of one raw block."""
    return str(Cid(1, RAW, sha256(data).digest()))


def compute_cid(data: bytes) -> str:
    """CID that every store gives to a payload."""
    return write_blocks(data, lambda cid, block: None)


def write_blocks(data: bytes, put: Callable[[str, bytes], object]) -> str:
    """Cut a payload into blocks and hand each to `put(cid, block)`, leaves first and the root last; returns its CID."""
    level = [_write_leaf(data[at : at + CHUNK], put) for at in range(0, max(len(data), 1), CHUNK)]
    while len(level) > 1:
        level = [_write_branch(level[at : at + FANOUT], put) for at in range(0, len(level), FANOUT)]
    return str(level[0].cid)


def read_blocks(cid: str, get_block: Callable[[str], bytes], max_bytes: int) -> bytes:
    """The payload behind a CID, fetched from a source that nobody trusts.

    `get_block` is asked for canonical CIDs only. Raises BlobCorrupt (CO-C202, naming the block) for a block that does
    not match its CID or is no part of a UnixFS file, and for a payload above `max_bytes`, 16384 blocks or 8 levels.
    Also for one in more blocks than so many bytes need: its site could let each of them take its time.
    """
    parts: list[bytes] = []
    root = parse_cid(cid)
    if root.codec == RAW:  # nearly every payload
        part, _ = _open_block(root, get_block(str(root)))
        _check_bounds(root, len(part), max_bytes, 1, 1, 0)
        return part
    most = min(count_blocks(max_bytes), MAX_BLOCKS)
    stack = [(root, 0)]
    size = opened = 0
    while stack:
        here, depth = stack.pop()
        part, links = _open_block(here, get_block(str(here)))
        parts.append(part)
        size += len(part)
        opened += 1
        stack.extend((link, depth + 1) for link in reversed(links))
        _check_bounds(here, size, max_bytes, opened + len(stack), most, depth)
    return b"".join(parts)


def count_blocks(size: int) -> int:
    """The most blocks of a payload of so many bytes, in leaves as small as Kubo cuts them."""
    total = level = max(-(-size // SMALLEST_CHUNK), 1)
    while level > 1:
        level = -(-level // FANOUT)
        total += level
    return total


# Writing


@dataclass(frozen=True)
class _Node:
    """A block written: payload bytes under it, and bytes of all blocks under it (dag-pb's Tsize)."""

    cid: Cid
    size: int
    total: int


def _write_leaf(part: bytes, put: Callable[[str, bytes], object]) -> _Node:
    return _write_node(RAW, part, len(part), 0, put)


def _write_branch(children: list[_Node], put: Callable[[str, bytes], object]) -> _Node:
    size = sum(child.size for child in children)
    unixfs = (
        _encode_uint(1, UNIXFS_FILE)
        + _encode_uint(3, size)
        + b"".join(_encode_uint(4, child.size) for child in children)
    )
    links = (_encode_bytes(1, bytes(c.cid)) + _encode_bytes(2, b"") + _encode_uint(3, c.total) for c in children)
    # dag-pb is the one protobuf whose canonical form puts field 2 before field 1.
    block = b"".join(_encode_bytes(2, link) for link in links) + _encode_bytes(1, unixfs)
    return _write_node(DAG_PB, block, size, sum(child.total for child in children), put)


def _write_node(codec: int, block: bytes, size: int, below: int, put: Callable[[str, bytes], object]) -> _Node:
    cid = Cid(1, codec, sha256(block).digest())
    put(str(cid), block)
    return _Node(cid, size, len(block) + below)


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _encode_uint(field: int, value: int) -> bytes:
    return _encode_varint(field << 3 | VARINT) + _encode_varint(value)


def _encode_bytes(field: int, value: bytes) -> bytes:
    return _encode_varint(field << 3 | BYTES) + _encode_varint(len(value)) + value


# Reading


def _open_block(cid: Cid, block: bytes) -> tuple[bytes, list[Cid]]:
    """Payload bytes in the block itself, and the blocks that follow it."""
    if len(block) > MAX_BLOCK:
        raise _explain_corruption(cid, f"it has {len(block)} bytes, more than the {MAX_BLOCK} that a block may have")
    if sha256(block).digest() != cid.digest:
        raise _explain_corruption(cid, f"the {len(block)} bytes received do not hash to it")
    if cid.codec == RAW:
        return block, []
    try:
        return _parse_file_node(block)
    except ValueError as e:
        raise _explain_misuse(cid, f"it is no node of a UnixFS file ({e})") from None


def _parse_file_node(block: bytes) -> tuple[bytes, list[Cid]]:
    fields = list(_parse_fields(block))
    unixfs = list(_parse_fields(_require_bytes_field(fields, 1)))
    kinds = [value for field, value in unixfs if field == 1]
    if kinds not in ([UNIXFS_RAW], [UNIXFS_FILE]):
        raise ValueError(f"UnixFS type {kinds}")
    data = _require_bytes_field(unixfs, 2) if any(field == 2 for field, _ in unixfs) else b""
    links = [
        _require_bytes_field(list(_parse_fields(_require_bytes(value))), 1) for field, value in fields if field == 2
    ]
    return data, [_decode_binary(link) for link in links]


def _parse_fields(block: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Fields of a protobuf message, numbers or bytes; ValueError for any other wire type."""
    at = 0
    while at < len(block):
        key, at = _read_varint(block, at)
        value, at = _read_varint(block, at)
        if key & 7 == VARINT:
            yield key >> 3, value
        elif key & 7 == BYTES and value <= len(block) - at:
            yield key >> 3, block[at : at + value]
            at += value
        else:
            raise ValueError(f"field {key >> 3} of wire type {key & 7} is cut short or unknown")


def _read_varint(block: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 63, 7):
        if at + shift // 7 >= len(block):
            break
        byte = block[at + shift // 7]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + shift // 7 + 1
    raise ValueError("a number is cut short or too long")


def _require_bytes_field(fields: list[tuple[int, int | bytes]], wanted: int) -> bytes:
    values = [value for field, value in fields if field == wanted]
    if len(values) != 1:
        raise ValueError(f"field {wanted} is there {len(values)} times")
    return _require_bytes(values[0])


def _require_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes belong")
    return value


def _check_bounds(cid: Cid, size: int, max_bytes: int, blocks: int, most: int, depth: int) -> None:
    if size > max_bytes:
        raise _explain_misuse(cid, f"with it the payload exceeds the {max_bytes} bytes that are allowed here")
    if blocks > most:
        raise _explain_misuse(cid, f"with it the payload exceeds the {most} blocks that {max_bytes} bytes need")
    if depth > MAX_DEPTH:
        raise _explain_misuse(cid, f"it lies deeper than {MAX_DEPTH} levels")


def _explain_corruption(cid: Cid, cause: str) -> BlobCorrupt:
    return BlobCorrupt("CO-C202", _describe_block(cid, cause))


def _explain_misuse(cid: Cid, cause: str) -> BlobUnusable:
    return BlobUnusable("CO-C202", _describe_block(cid, cause))


def _describe_block(cid: Cid, cause: str) -> str:
    return f"Block {cid} is not usable: {cause}. Ask the site that recorded it to store it again."


# Text


def _decode_binary(raw: bytes) -> Cid:
    if len(raw) == 34 and raw[:2] == _SHA2_256:
        return Cid(0, DAG_PB, raw[2:])
    if len(raw) == 36 and raw[0] == 1 and raw[1] in (RAW, DAG_PB) and raw[2:4] == _SHA2_256:
        return Cid(1, raw[1], raw[4:])
    raise ValueError("only raw and dag-pb with sha2-256 are used")


def _decode(text: str) -> bytes:
    if len(text) > MAX_TEXT:
        raise ValueError(f"{len(text)} characters")
    if text.startswith("Qm"):
        return decode_base58(text)
    if text.startswith("z"):
        return decode_base58(text[1:])
    if text.startswith("b"):
        return base64.b32decode(text[1:].upper() + "=" * (-len(text[1:]) % 8))
    raise ValueError("it must start with b, z or Qm")


def encode_base58(raw: bytes) -> str:
    """Bytes as libp2p and CIDs of version 0 write them; leading zero bytes are lost."""
    number = int.from_bytes(raw, "big")
    out = ""
    while number:
        number, digit = divmod(number, 58)
        out = BASE58[digit] + out
    return out


def decode_base58(text: str) -> bytes:
    """Bytes of a base58 text, without leading zero bytes."""
    number = 0
    for letter in text:
        number = number * 58 + BASE58.index(letter)
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
