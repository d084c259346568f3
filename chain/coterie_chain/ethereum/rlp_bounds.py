"""RLP from outside: split and decoded within bounds, and never an exception of another kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import rlp
from coincurve import PublicKey
from eth_utils.crypto import keccak
from rlp.exceptions import RLPException

from coterie_chain.errors import LedgerMismatch

Item: TypeAlias = "bytes | Sequence[Item]"

# Bytes of more items than a reader can use are not worth decoding. A short text cannot hold so many.
MAX_RLP_ITEMS = 1 << 16
MAX_RLP_DEPTH = 16
MAX_SHORT_ITEMS = 1 << 10
_SHORT_TEXT = 1 << 12
# First bytes of RLP: of a string, of a list, and how many bytes each may have before its length has a length.
_STRING, _LIST, _SHORT = 0x80, 0xC0, 55

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def encode_rlp(item: Item) -> bytes:
    """Canonical RLP of nested lists of bytes.

    The library's encoder asks each item for its kind, which takes most of the time of checking a long chain of headers.
    """
    if isinstance(item, bytes):
        return item if len(item) == 1 and item[0] < _STRING else _encode_length(len(item), _STRING) + item
    content = b"".join(map(encode_rlp, item))
    return _encode_length(len(content), _LIST) + content


def _encode_length(length: int, kind: int) -> bytes:
    """What stands before a string or a list."""
    if length <= _SHORT:
        return bytes([kind + length])
    size = encode_number(length)
    return bytes([kind + _SHORT + len(size)]) + size


def decode_rlp(raw: bytes, what: str) -> Item:
    """Nested lists of bytes; LedgerMismatch (CO-C350) for anything that is not canonical RLP.

    Items are counted before one is decoded: 64 MiB of zeros are 67 million of them.
    """
    try:
        if len(raw) > _SHORT_TEXT:
            _check_count(raw, what)
        item: Item = rlp.decode(raw)
    except (RLPException, RecursionError, IndexError, TypeError):
        raise explain_malformed(what, "it is not canonical RLP") from None
    return item


def _check_count(raw: bytes, what: str) -> None:
    """LedgerMismatch for more items, or more levels, than anything that is read here can have."""
    count, at, ends = 0, 0, [len(raw)]
    while at < len(raw):
        _, kind, length, start = rlp.codec.consume_length_prefix(raw[at : at + 9], 0)
        count += 1
        if count > MAX_RLP_ITEMS or len(ends) > MAX_RLP_DEPTH:
            raise explain_malformed(what, "it has too many items")
        at += start
        if kind is list:
            ends.append(at + length)
        else:
            at += length
        while len(ends) > 1 and at >= ends[-1]:
            ends.pop()


def require_list(item: Item, what: str, least: int, most: int) -> Sequence[Item]:
    """A list of `least` to `most` items."""
    if isinstance(item, bytes) or not least <= len(item) <= most:
        raise explain_malformed(what, f"a list of {least} to {most} items belongs here")
    return item


def require_bytes(item: Item, what: str, most: int) -> bytes:
    """A string of at most `most` bytes."""
    if not isinstance(item, bytes) or len(item) > most:
        raise explain_malformed(what, f"a string of at most {most} bytes belongs here")
    return item


def require_exact_bytes(item: Item, what: str, size: int) -> bytes:
    """A string of `size` bytes."""
    content = require_bytes(item, what, size)
    if len(content) != size:
        raise explain_malformed(what, f"{size} bytes belong here, and {len(content)} are there")
    return content


def require_number(item: Item, what: str) -> int:
    """A number of at most 32 bytes without leading zeros."""
    content = require_bytes(item, what, 32)
    if content[:1] == b"\0":
        raise explain_malformed(what, "a number begins with a zero byte")
    return int.from_bytes(content)


def encode_number(value: int) -> bytes:
    """A number as RLP has it."""
    return value.to_bytes((value.bit_length() + 7) // 8)


def split_items(raw: bytes, what: str, largest: int, usual: int = 1) -> Iterator[bytes]:
    """Items that stand one after the other, each as its own bytes; LedgerMismatch for one above `largest` bytes.

    Also for many more items than there would be if each had the `usual` number of bytes or more.
    """
    at, left = 0, MAX_SHORT_ITEMS + len(raw) // usual
    while at < len(raw):
        left -= 1
        if left < 0:
            raise explain_malformed(what, f"it has too many items of fewer than {usual} bytes")
        try:
            _, _, length, start = rlp.codec.consume_length_prefix(raw[at : at + 9], 0)
        except (RLPException, IndexError):
            raise explain_malformed(what, f"no item begins at byte {at}") from None
        end = at + start + length
        if end > len(raw) or end - at > largest:
            raise explain_malformed(what, f"the item at byte {at} has {end - at} bytes")
        yield raw[at:end]
        at = end


def open_list(raw: bytes, what: str) -> bytes:
    """The bytes of a list's items, one after the other; LedgerMismatch if `raw` is not one whole list."""
    try:
        _, kind, length, start = rlp.codec.consume_length_prefix(raw, 0)
    except (RLPException, IndexError):
        raise explain_malformed(what, "no item begins at its first byte") from None
    if kind is not list or start + length != len(raw):
        raise explain_malformed(what, f"a list of {len(raw)} bytes belongs here")
    return raw[start:]


def explain_malformed(what: str, cause: str) -> LedgerMismatch:
    """The fault of evidence that cannot be read."""
    return LedgerMismatch("CO-C350", f"{what} cannot be read: {cause}. Ask for the evidence again.")


def recover_signer(digest: bytes, r: int, s: int, parity: int, what: str) -> bytes:
    """Address (20 bytes) of the key that signed a digest; LedgerMismatch (CO-C351) if none did."""
    try:
        if not (0 < r < CURVE_ORDER and 0 < s < CURVE_ORDER and parity in (0, 1)):
            raise ValueError
        key = PublicKey.from_signature_and_message(r.to_bytes(32) + s.to_bytes(32) + bytes([parity]), digest, None)
    except ValueError:
        raise LedgerMismatch(
            "CO-C351", f"{what} has a signature that no key can have made. Do not rely on the evidence."
        ) from None
    return bytes(keccak(key.format(compressed=False)[1:])[-20:])
