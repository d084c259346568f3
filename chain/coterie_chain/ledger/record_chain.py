"""The hash chain over a site's records, computed as Model.sol does, so that anyone can check it."""

from __future__ import annotations

import re
from functools import lru_cache

from eth_hash.auto import keccak

from coterie_chain.ledger.protocol import Post
from coterie_chain.store.cid import DAG_PB, RAW, Cid, parse_cid

# The text for a CID that no store of this system can have: its codec and digest, in hex.
UNUSABLE = "unusable"


@lru_cache(maxsize=4096)
def compute_genesis_head(catalog: str, chain_id: int, site: int) -> bytes:
    """Head of a chain without records: bound to the Catalog's address, the chain and the site."""
    return keccak(b"".join(map(_encode_word, (int(catalog, 16), chain_id, site))))


def flatten_post(post: Post) -> tuple[int, int, int, int, int, bool, bytes, bytes, bytes, bytes]:
    """The post as the contract's struct Post."""
    codec, digest = split_cid(post.cid)
    return (
        post.study,
        post.position,
        post.attempt,
        codec,
        post.size,
        post.converged,
        digest,
        post.sha256,
        post.basis,
        post.verdict,
    )


def format_cid(codec: int, digest: bytes) -> str:
    """The CID with that codec and digest (32 bytes); words that no store reads for a codec that is unknown here."""
    return str(Cid(1, codec, digest)) if codec in (RAW, DAG_PB) else f"{UNUSABLE}-{codec:02x}-{digest.hex()}"


def split_cid(text: str) -> tuple[int, bytes]:
    """Codec and digest of a text that `format_cid` may have written; BlobCorrupt (CO-C203) for any other."""
    kind, _, rest = text.partition("-")
    codec, _, digest = rest.partition("-")
    if kind == UNUSABLE and re.fullmatch("[0-9a-f]{2}-[0-9a-f]{64}", rest):
        return int(codec, 16), bytes.fromhex(digest)
    cid = parse_cid(text)
    return cid.codec, cid.digest


def compute_next_head(head: bytes, seq: int, kind: int, round: int, post: Post) -> bytes:
    """Head after the record `seq` of step `kind` (0xff each, 0xfe server, else a site's id)."""
    values: tuple[int | bytes, ...] = (head, seq, kind, round, *flatten_post(post))
    return keccak(b"".join(map(_encode_word, values)))


def _encode_word(value: int | bytes) -> bytes:
    """A number, an address or 32 bytes as abi.encode writes them: one word each, without a general encoder."""
    return value if isinstance(value, bytes) else value.to_bytes(32)
