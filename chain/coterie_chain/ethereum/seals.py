"""A light client that finds the sealers of a chain from its headers alone, for Clique and QBFT.

The first header names the first signers; every later change of them must follow from votes in the headers. So a reader
who trusts the first header's hash, and that most signers are not in league, trusts the last header.

Clique is EIP-225 (as Geth 1.13 applies it): one signature in each header, by a signer that has not signed one of the
last floor(N/2) blocks; votes by beneficiary and nonce. An epoch's header is known by its list of signers, which must be
the one that the votes led to. QBFT is Besu's (EEA, version 1): the committed seals of at least two thirds of the
validators in each header, and a list of validators in each, which may change only by the votes of more than half.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from coterie_chain.errors import LedgerMismatch
from coterie_chain.ethereum.headers import Header
from coterie_chain.ethereum.rlp_bounds import (
    Item,
    decode_rlp,
    encode_number,
    encode_rlp,
    explain_malformed,
    recover_signer,
    require_bytes,
    require_exact_bytes,
    require_list,
    require_number,
)

_VANITY, SEAL, _ADDRESS = 32, 65, 20
AUTHORISE, DROP = b"\xff" * 8, b"\0" * 8
IN_TURN, OUT_OF_TURN = 2, 1
ISTANBUL = bytes.fromhex("63746963616c2062797a616e74696e65206661756c7420746f6c6572616e6365")
_ZERO_ADDRESS = b"\0" * _ADDRESS
MAX_SIGNERS = 1 << 10


class Sealing(Protocol):
    """How a chain's blocks are sealed, and the signers as of the last header accepted."""

    kind: str
    sealed: int

    @property
    def signers(self) -> tuple[str, ...]:
        """Addresses that may seal the next block."""

    def hash(self, header: Header) -> bytes:
        """The block's hash as the next header names it."""

    def accept(self, header: Header) -> None:
        """Check the next header's seal and follow its vote; LedgerMismatch (CO-C353) names block and signer."""


def detect_sealing(first: Header) -> Sealing:
    """The kind of chain that a first header, trusted by its hash, begins."""
    extra = first["extraData"]
    if first["mixHash"] == ISTANBUL:
        return Qbft(_Extra.decode(first))
    if len(extra) > _VANITY + SEAL and (len(extra) - _VANITY - SEAL) % _ADDRESS == 0:
        return Clique(set(_split_addresses(extra[_VANITY:-SEAL])))
    return NoSealing()


class NoSealing:
    """A chain whose headers carry no signatures: a development chain, or one whose consensus is not known here."""

    kind = "none"
    sealed = 0

    @property
    def signers(self) -> tuple[str, ...]:
        """Nobody."""
        return ()

    def hash(self, header: Header) -> bytes:
        """The plain hash."""
        return header.digest()

    def accept(self, header: Header) -> None:
        """Nothing there is to check."""


@dataclass
class Clique:
    """Proof of authority by EIP-225; the state that Geth calls a snapshot."""

    allowed: set[bytes]
    kind: str = "clique"
    sealed: int = 0
    # voter, signer that the vote is about, and whether it admits; oldest first
    votes: list[tuple[bytes, bytes, bool]] = field(default_factory=list)
    recent: deque[tuple[int, bytes]] = field(default_factory=deque)

    @property
    def signers(self) -> tuple[str, ...]:
        """Addresses that may seal the next block."""
        return _format_addresses(self.allowed)

    def hash(self, header: Header) -> bytes:
        """The plain hash, seal included."""
        return header.digest()

    def accept(self, header: Header) -> None:
        """Check the seal, then follow the vote."""
        extra = header["extraData"]
        if len(extra) < _VANITY + SEAL or header["mixHash"] != bytes(32):
            _refuse(header, "it has not the form of Clique")
        signed_by = _recover_sealer(header, extra)
        self._check_signer(header, signed_by)
        self._check_epoch(header, extra[_VANITY:-SEAL])
        self._count_vote(header, signed_by)
        self.sealed += 1

    def _check_signer(self, header: Header, by: bytes) -> None:
        limit = len(self.allowed) // 2 + 1
        while self.recent and self.recent[0][0] + limit <= header.number:
            self.recent.popleft()
        if by not in self.allowed:
            _refuse(header, f"0x{by.hex()} sealed it, and is not one of the {len(self.allowed)} signers")
        if by in {address for _, address in self.recent}:
            _refuse(header, f"0x{by.hex()} sealed it, and one of the {limit - 1} blocks before it")
        turn = sorted(self.allowed)[header.number % len(self.allowed)] == by
        if header.difficulty != (IN_TURN if turn else OUT_OF_TURN):
            _refuse(header, f"its difficulty is {header.difficulty}, which is not that of its signer's turn")
        self.recent.append((header.number, by))

    def _check_epoch(self, header: Header, listed_signers: bytes) -> None:
        if not listed_signers:
            return
        if listed_signers != b"".join(sorted(self.allowed)) or header["miner"] != _ZERO_ADDRESS:
            _refuse(header, "it begins an epoch with other signers than the votes led to")
        self.votes.clear()

    def _count_vote(self, header: Header, by: bytes) -> None:
        subject, nonce = header["miner"], header["nonce"]
        if nonce not in (AUTHORISE, DROP):
            _refuse(header, "its nonce is no vote")
        self.votes = [vote for vote in self.votes if vote[:2] != (by, subject)]
        admit = nonce == AUTHORISE
        if admit == (subject in self.allowed):
            return
        self.votes.append((by, subject, admit))
        if 2 * sum(vote[1:] == (subject, admit) for vote in self.votes) <= len(self.allowed):
            return
        self._change(header, subject, admit)

    def _change(self, header: Header, subject: bytes, admit: bool) -> None:
        if admit:
            self.allowed.add(subject)
        elif len(self.allowed) == 1:
            _refuse(header, "it drops the last signer")
        else:
            self.allowed.remove(subject)
            self.votes = [vote for vote in self.votes if vote[0] != subject]
        self.votes = [vote for vote in self.votes if vote[1] != subject]


@dataclass
class Qbft:
    """Byzantine fault tolerant consensus as Besu seals it."""

    last: _Extra
    kind: str = "qbft"
    sealed: int = 0
    # each validator's last vote on somebody: True to add
    votes: dict[tuple[bytes, bytes], bool] = field(default_factory=dict)

    @property
    def signers(self) -> tuple[str, ...]:
        """Validators of the last block."""
        return _format_addresses(self.last.validators)

    def hash(self, header: Header) -> bytes:
        """The hash without what differs between honest copies: the seals, and the round in which they were given."""
        if header.number == 0:
            return header.digest()
        return header.digest(_Extra.decode(header).encode(0))

    def accept(self, header: Header) -> None:
        """Check that a quorum committed to the block and that only votes changed the validators."""
        extra = _Extra.decode(header)
        self._check_change(header, set(extra.validators))
        digest = header.digest(extra.encode(extra.round))
        what = f"Block {header.number}"
        seal_signers = {recover_signer(digest, *_split_signature(seal), what) for seal in extra.seals}
        strangers = seal_signers - set(extra.validators)
        if strangers:
            stranger, count = _format_addresses(strangers)[0], len(extra.validators)
            _refuse(header, f"{stranger} sealed it, and is not one of the {count} validators")
        quorum = -(-2 * len(extra.validators) // 3)
        if len(seal_signers) < quorum:
            _refuse(header, f"{len(seal_signers)} of {len(extra.validators)} validators sealed it, and {quorum} must")
        if header["miner"] not in extra.validators:
            _refuse(header, "its proposer is no validator")
        if extra.vote is not None:
            self.votes[header["miner"], extra.vote[0]] = extra.vote[1]
        self.last = extra
        self.sealed += 1

    def _check_change(self, header: Header, now: set[bytes]) -> None:
        before = set(self.last.validators)
        for subject in before ^ now:
            admit = subject in now
            voters = {by for (by, on), add in self.votes.items() if (on, add) == (subject, admit) and by in before}
            if 2 * len(voters) <= len(before):
                verb = "adds" if admit else "drops"
                _refuse(header, f"it {verb} 0x{subject.hex()} by {len(voters)} votes of {len(before)} validators")
            self.votes = {key: add for key, add in self.votes.items() if key[1] != subject and key[0] in now}


@dataclass(frozen=True)
class _Extra:
    """What QBFT keeps in extraData."""

    vanity: bytes
    validators: tuple[bytes, ...]
    vote: tuple[bytes, bool] | None
    ballot: Item
    round: int
    seals: tuple[bytes, ...]

    @classmethod
    def decode(cls, header: Header) -> _Extra:
        what = f"The extraData of block {header.number}"
        vanity, validators, ballot, round_, seals = require_list(decode_rlp(header["extraData"], what), what, 5, 5)
        if isinstance(ballot, bytes):
            raise explain_malformed(what, "it is not QBFT's; IBFT is not supported")
        return cls(
            require_bytes(vanity, what, _VANITY),
            tuple(require_exact_bytes(v, what, _ADDRESS) for v in require_list(validators, what, 1, MAX_SIGNERS)),
            _decode_ballot(ballot, what),
            ballot,
            require_number(round_, what),
            tuple(require_exact_bytes(seal, what, SEAL) for seal in require_list(seals, what, 0, MAX_SIGNERS)),
        )

    def encode(self, round_: int) -> bytes:
        """The same without seals, for a round."""
        return encode_rlp([self.vanity, list(self.validators), self.ballot, encode_number(round_), []])


def _decode_ballot(ballot: Sequence[Item], what: str) -> tuple[bytes, bool] | None:
    if not ballot:
        return None
    subject, kind = require_list(ballot, what, 2, 2)
    if kind not in (b"\xff", b"", b"\0"):
        raise explain_malformed(what, "its vote neither adds nor drops")
    return require_exact_bytes(subject, what, _ADDRESS), kind == b"\xff"


def _recover_sealer(header: Header, extra: bytes) -> bytes:
    return recover_signer(header.digest(extra[:-SEAL]), *_split_signature(extra[-SEAL:]), f"Block {header.number}")


def _split_signature(seal: bytes) -> tuple[int, int, int]:
    return int.from_bytes(seal[:32]), int.from_bytes(seal[32:64]), seal[64]


def _split_addresses(run: bytes) -> list[bytes]:
    return [run[at : at + _ADDRESS] for at in range(0, len(run), _ADDRESS)]


def _format_addresses(addresses: Iterable[bytes]) -> tuple[str, ...]:
    return tuple("0x" + address.hex() for address in sorted(addresses))


def _refuse(header: Header, cause: str) -> NoReturn:
    raise LedgerMismatch(
        "CO-C353", f"Block {header.number} is not sealed as its chain asks: {cause}. The chain of headers is forged."
    )
