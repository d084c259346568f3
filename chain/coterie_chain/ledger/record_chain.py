"""The hash chain over a site's records, computed as Model.sol does, so that anyone can check it."""

from __future__ import annotations

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from coterie_chain.ledger.protocol import Post
from coterie_chain.store.cid import parse_cid


def compute_genesis_head(catalog: str, chain_id: int, site: int) -> bytes:
    """Head of a chain without records: bound to the Catalog's address, the chain and the site."""
    return keccak(encode(["address", "uint256", "uint8"], [catalog, chain_id, site]))


def flatten_post(post: Post) -> tuple[int, int, int, int, int, bool, bytes, bytes, bytes, bytes]:
    """The post as the contract's struct Post."""
    cid = parse_cid(post.cid)
    return (
        post.study,
        post.position,
        post.attempt,
        cid.codec,
        post.size,
        post.converged,
        cid.digest,
        post.sha256,
        post.basis,
        post.verdict,
    )


def compute_next_head(head: bytes, seq: int, kind: int, round: int, post: Post) -> bytes:
    """Head after the record `seq` of step `kind` (0xff each, 0xfe server, else a site's id)."""
    # All of abi.encode's values fill one word each; joining words takes a tenth of a general encoder's time.
    values: tuple[int | bytes, ...] = (head, seq, kind, round, *flatten_post(post))
    return keccak(b"".join(map(_encode_word, values)))


def _encode_word(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.to_bytes(32)
