"""Sealers with keys of their own, who make chains of headers as Geth (Clique) and Besu (QBFT) do."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from eth_keys.main import KeyAPI
from eth_utils.crypto import keccak

from coterie_chain.ethereum.headers import HEADER_FIELDS, Header
from coterie_chain.ethereum.rlp_bounds import Item, encode_number, encode_rlp
from coterie_chain.ethereum.seals import _ZERO_ADDRESS, AUTHORISE, DROP, ISTANBUL, Sealing, detect_sealing

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


def build_header(number: int, parent: bytes, **fields: bytes) -> Header:
    """A header without a seal."""
    values = {
        "parentHash": parent,
        "sha3Uncles": EMPTY,
        "miner": _ZERO_ADDRESS,
        "stateRoot": EMPTY,
        "transactionsRoot": EMPTY,
        "receiptsRoot": EMPTY,
        "logsBloom": bytes(256),
        "difficulty": b"\1",
        "number": encode_number(number),
        "gasLimit": encode_number(30_000_000),
        "gasUsed": b"",
        "timestamp": encode_number(1_800_000_000 + number),
        "extraData": b"",
        "mixHash": bytes(32),
        "nonce": DROP,
        "baseFeePerGas": b"",
    }
    values |= fields
    return Header(tuple(values[name] for name in HEADER_FIELDS[: len(values)]))


class CliqueSimulator:
    """A chain of Clique from its genesis on."""

    def __init__(self, sealers: Iterable[Sealer]) -> None:
        self.allowed = sorted(sealers, key=lambda s: s.address)
        extra = bytes(32) + b"".join(s.address for s in self.allowed) + bytes(65)
        self.headers = [build_header(0, bytes(32), extraData=extra)]

    def choose_sealer(self) -> Sealer:
        return self.allowed[len(self.headers) % len(self.allowed)]

    def seal(self, by: Sealer | None = None, vote: tuple[Sealer, bool] | None = None, **fields: bytes) -> Header:
        """Add a block, sealed by a sealer (the one whose turn it is), perhaps with a vote."""
        by, number = by or self.choose_sealer(), len(self.headers)
        subject, admit = (vote[0].address, vote[1]) if vote else (_ZERO_ADDRESS, False)
        turn = by == self.choose_sealer()
        plain = {
            "miner": subject, "nonce": AUTHORISE if admit else DROP, "difficulty": b"\2" if turn else b"\1",
            "extraData": bytes(32), **fields,
        }  # fmt: skip
        draft = build_header(number, self.headers[-1].digest(), **plain)
        seal = by.sign(draft.digest())
        self.headers.append(replace_fields(draft, extraData=draft["extraData"] + seal))
        return self.headers[-1]


class QbftSimulator:
    """A chain of QBFT from its genesis on."""

    def __init__(self, validators: Iterable[Sealer]) -> None:
        self.validators = sorted(validators, key=lambda v: v.address)
        extra = encode_qbft_extra(self.validators, None, 0, [])
        self.headers = [build_header(0, bytes(32), extraData=extra, mixHash=ISTANBUL)]
        self.sealing: Sealing = detect_sealing(self.headers[0])

    def seal(
        self,
        by: Sequence[Sealer] | None = None,
        proposer: Sealer | None = None,
        vote: tuple[Sealer, bool] | None = None,
        round_: int = 0,
    ) -> Header:
        """Add a block with the committed seals of some validators (of all)."""
        proposer = proposer or self.validators[len(self.headers) % len(self.validators)]
        plain = build_header(
            len(self.headers),
            self.sealing.hash(self.headers[-1]),
            miner=proposer.address,
            mixHash=ISTANBUL,
            extraData=encode_qbft_extra(self.validators, vote, round_, []),
        )
        digest = plain.digest()
        seals = [s.sign(digest) for s in (self.validators if by is None else by)]
        self.headers.append(replace_fields(plain, extraData=encode_qbft_extra(self.validators, vote, round_, seals)))
        return self.headers[-1]


def encode_qbft_extra(
    validators: Sequence[Sealer], vote: tuple[Sealer, bool] | None, round_: int, seals: Sequence[bytes]
) -> bytes:
    """QBFT's extraData."""
    ballot: list[Item] = [] if vote is None else [vote[0].address, b"\xff" if vote[1] else b""]
    return encode_rlp([bytes(32), [v.address for v in validators], ballot, encode_number(round_), list(seals)])


def replace_fields(of: Header, **fields: bytes) -> Header:
    """A header with other fields."""
    return replace(
        of, fields=tuple(fields.get(name, value) for name, value in zip(HEADER_FIELDS, of.fields, strict=False))
    )


def accept_headers(headers: Sequence[Header]) -> Sealing:
    """A light client that has accepted a chain, each header linked to the one before."""
    client = detect_sealing(headers[0])
    for before, after in itertools.pairwise(headers):
        assert after["parentHash"] == client.hash(before)
        client.accept(after)
    return client
