"""Merkle-Patricia tries: the root of a whole list, and values proved by the nodes on their way to a root."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException
from trie.exceptions import InvalidNode, MissingTrieNode
from trie.hexary import HexaryTrie

from coterie_chain.errors import LedgerMismatch
from coterie_chain.ethereum.rlp_bounds import (
    decode_rlp,
    encode_number,
    encode_rlp,
    require_exact_bytes,
    require_list,
    require_number,
)

EMPTY_ROOT = keccak(encode_rlp(b""))
EMPTY_CODE = keccak(b"")
MAX_NODE_BYTES = 1 << 13
_UNREADABLE_PROOF = (MissingTrieNode, InvalidNode, ValidationError, RLPException, ValueError, TypeError, IndexError)


def compute_root(items: Sequence[bytes]) -> bytes:
    """Root of the trie of a list: a block's transactions or receipts by their number."""
    trie = HexaryTrie({})
    for k, item in enumerate(items):
        trie[encode_rlp(encode_number(k))] = item
    return trie.root_hash


@dataclass(frozen=True)
class Account:
    """An address in the state: the hash of its code, and the root of its storage."""

    code: bytes
    storage: bytes


class ProvedState:
    """The state under one root, as far as the nodes given prove it; LedgerMismatch (CO-C352) beyond."""

    def __init__(self, root: bytes, nodes: Iterable[bytes]) -> None:
        self._nodes = {keccak(node): node for node in nodes} | {EMPTY_ROOT: encode_rlp(b"")}
        self._root = root
        self._accounts: dict[str, Account] = {}
        self._slots: dict[tuple[str, int], int] = {}

    def account(self, address: str) -> Account:
        """An account; one that does not exist has neither code nor storage."""
        if address not in self._accounts:
            self._accounts[address] = self._read_account(address)
        return self._accounts[address]

    def slot(self, address: str, place: int) -> int:
        """One word of an account's storage."""
        if (address, place) not in self._slots:
            self._slots[address, place] = self._read_slot(address, place)
        return self._slots[address, place]

    def _read_account(self, address: str) -> Account:
        what = f"The account {address}"
        raw = self._prove_value(self._root, bytes.fromhex(address.removeprefix("0x")), what)
        if not raw:
            return Account(EMPTY_CODE, EMPTY_ROOT)
        _, _, storage, code = require_list(decode_rlp(raw, what), what, 4, 4)
        return Account(require_exact_bytes(code, what, 32), require_exact_bytes(storage, what, 32))

    def _read_slot(self, address: str, place: int) -> int:
        what = f"Storage slot {place:#x} of {address}"
        raw = self._prove_value(self.account(address).storage, place.to_bytes(32), what)
        return require_number(decode_rlp(raw, what), what) if raw else 0

    def _prove_value(self, root: bytes, key: bytes, what: str) -> bytes:
        try:
            return bytes(HexaryTrie(self._nodes, root).get(keccak(key)))
        except _UNREADABLE_PROOF as error:
            message = f"{what} is not proved at the last block ({type(error).__name__})"
            raise LedgerMismatch("CO-C352", f"{message}. The proof of the state is cut short or altered.") from None
