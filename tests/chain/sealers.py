"""Sealers with keys of their own, who make chains of headers as Geth (Clique) and Besu (QBFT) do."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from eth_keys.main import KeyAPI
from eth_utils.crypto import keccak

from coterie_chain.encoding import Item, encoded, minimal
from coterie_chain.headers import NAMES, Header
from coterie_chain.seals import AUTHORISE, DROP, ISTANBUL, NOBODY, Sealing, sealing_of

KEYS = KeyAPI()
EMPTY = keccak(b"\x80")


@dataclass(frozen=True)
class Sealer:
    """A key that seals."""

    name: str

    @property
    def key(self) -> bytes:
        return sha256(f"sealer {self.name}".encode()).digest()

    @property
    def address(self) -> bytes:
        return bytes(KEYS.PrivateKey(self.key).public_key.to_canonical_address())

    def sign(self, digest: bytes) -> bytes:
        """r, s and the recovery bit, 65 bytes."""
        return bytes(KEYS.PrivateKey(self.key).sign_msg_hash(digest).to_bytes())


def header(number: int, parent: bytes, **fields: bytes) -> Header:
    """A header without a seal."""
    given = {
        "parentHash": parent, "sha3Uncles": EMPTY, "miner": NOBODY, "stateRoot": EMPTY, "transactionsRoot": EMPTY,
        "receiptsRoot": EMPTY, "logsBloom": bytes(256), "difficulty": b"\1", "number": minimal(number),
        "gasLimit": minimal(30_000_000), "gasUsed": b"", "timestamp": minimal(1_800_000_000 + number),
        "extraData": b"", "mixHash": bytes(32), "nonce": DROP, "baseFeePerGas": b"",
    }  # fmt: skip
    given |= fields
    return Header(tuple(given[name] for name in NAMES[: len(given)]))


class CliqueChain:
    """A chain of Clique from its genesis on."""

    def __init__(self, sealers: Iterable[Sealer]) -> None:
        self.allowed = sorted(sealers, key=lambda s: s.address)
        extra = bytes(32) + b"".join(s.address for s in self.allowed) + bytes(65)
        self.headers = [header(0, bytes(32), extraData=extra)]

    def in_turn(self) -> Sealer:
        return self.allowed[len(self.headers) % len(self.allowed)]

    def seal(self, by: Sealer | None = None, vote: tuple[Sealer, bool] | None = None, **fields: bytes) -> Header:
        """Add a block, sealed by a sealer (the one whose turn it is), perhaps with a vote."""
        by, number = by or self.in_turn(), len(self.headers)
        subject, admit = (vote[0].address, vote[1]) if vote else (NOBODY, False)
        turn = by == self.in_turn()
        plain = {
            "miner": subject, "nonce": AUTHORISE if admit else DROP, "difficulty": b"\2" if turn else b"\1",
            "extraData": bytes(32), **fields,
        }  # fmt: skip
        made = header(number, self.headers[-1].digest(), **plain)
        seal = by.sign(made.digest())
        self.headers.append(replaced(made, extraData=made["extraData"] + seal))
        return self.headers[-1]


class QbftChain:
    """A chain of QBFT from its genesis on."""

    def __init__(self, validators: Iterable[Sealer]) -> None:
        self.validators = sorted(validators, key=lambda v: v.address)
        extra = qbft_extra(self.validators, None, 0, [])
        self.headers = [header(0, bytes(32), extraData=extra, mixHash=ISTANBUL)]
        self.sealing: Sealing = sealing_of(self.headers[0])

    def seal(
        self,
        by: Sequence[Sealer] | None = None,
        proposer: Sealer | None = None,
        vote: tuple[Sealer, bool] | None = None,
        round_: int = 0,
    ) -> Header:
        """Add a block with the committed seals of some validators (of all)."""
        proposer = proposer or self.validators[len(self.headers) % len(self.validators)]
        plain = header(
            len(self.headers),
            self.sealing.hash(self.headers[-1]),
            miner=proposer.address,
            mixHash=ISTANBUL,
            extraData=qbft_extra(self.validators, vote, round_, []),
        )
        digest = plain.digest()
        seals = [s.sign(digest) for s in (self.validators if by is None else by)]
        self.headers.append(replaced(plain, extraData=qbft_extra(self.validators, vote, round_, seals)))
        return self.headers[-1]


def qbft_extra(
    validators: Sequence[Sealer], vote: tuple[Sealer, bool] | None, round_: int, seals: Sequence[bytes]
) -> bytes:
    """QBFT's extraData."""
    ballot: list[Item] = [] if vote is None else [vote[0].address, b"\xff" if vote[1] else b""]
    return encoded([bytes(32), [v.address for v in validators], ballot, minimal(round_), list(seals)])


def replaced(of: Header, **fields: bytes) -> Header:
    """A header with other fields."""
    return replace(of, fields=tuple(fields.get(name, value) for name, value in zip(NAMES, of.fields, strict=False)))


def accepted(headers: Sequence[Header]) -> Sealing:
    """A light client that has accepted a chain, each header linked to the one before."""
    client = sealing_of(headers[0])
    for before, after in itertools.pairwise(headers):
        assert after["parentHash"] == client.hash(before)
        client.accept(after)
    return client
