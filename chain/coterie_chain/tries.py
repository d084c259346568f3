"""Merkle-Patricia tries: the root of a whole list, and values proved by the nodes on their way to a root."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException
from trie.exceptions import InvalidNode, MissingTrieNode
from trie.hexary import HexaryTrie

from coterie_chain.encoding import decoded, encoded, exactly, listed, minimal, number
from coterie_chain.errors import LedgerMismatch

EMPTY_ROOT = keccak(encoded(b""))
EMPTY_CODE = keccak(b"")
LARGEST_NODE = 1 << 13
UNREADABLE = (MissingTrieNode, InvalidNode, ValidationError, RLPException, ValueError, TypeError, IndexError)


def root_of(items: Sequence[bytes]) -> bytes:
    """Root of the trie of a list: a block's transactions or receipts by their number."""
    trie = HexaryTrie({})
    for k, item in enumerate(items):
        trie[encoded(minimal(k))] = item
    return trie.root_hash


@dataclass(frozen=True)
class Account:
    """What the state holds of an address: hash of its code, root of its storage."""

    code: bytes
    storage: bytes


class ProvedState:
    """The state under one root, as far as the nodes given prove it; LedgerMismatch (CO-C352) beyond."""

    def __init__(self, root: bytes, nodes: Iterable[bytes]) -> None:
        self._nodes = {keccak(node): node for node in nodes} | {EMPTY_ROOT: encoded(b"")}
        self._root = root
        self._accounts: dict[str, Account] = {}
        self._slots: dict[tuple[str, int], int] = {}

    def account(self, address: str) -> Account:
        """An account; one that does not exist has neither code nor storage."""
        if address not in self._accounts:
            self._accounts[address] = self._account(address)
        return self._accounts[address]

    def slot(self, address: str, place: int) -> int:
        """One word of an account's storage."""
        if (address, place) not in self._slots:
            self._slots[address, place] = self._slot(address, place)
        return self._slots[address, place]

    def _account(self, address: str) -> Account:
        what = f"The account {address}"
        raw = self._value(self._root, bytes.fromhex(address.removeprefix("0x")), what)
        if not raw:
            return Account(EMPTY_CODE, EMPTY_ROOT)
        _, _, storage, code = listed(decoded(raw, what), what, 4, 4)
        return Account(exactly(code, what, 32), exactly(storage, what, 32))

    def _slot(self, address: str, place: int) -> int:
        what = f"Storage slot {place:#x} of {address}"
        raw = self._value(self.account(address).storage, place.to_bytes(32), what)
        return number(decoded(raw, what), what) if raw else 0

    def _value(self, root: bytes, key: bytes, what: str) -> bytes:
        try:
            return bytes(HexaryTrie(self._nodes, root).get(keccak(key)))
        except UNREADABLE as error:
            told = f"{what} is not proved at the last block ({type(error).__name__})"
            raise LedgerMismatch("CO-C352", f"{told}. The proof of the state is cut short or altered.") from None
