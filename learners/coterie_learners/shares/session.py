"""One site's part of an interactive step: greeting, messages of known sizes, and what of them goes on the ledger.

Every message's size follows from what all parties agreed on, so a longer or shorter one ends the step and names its
sender. The bytes of each pair and direction are hashed at both ends; at the end the parties compare these digests, and
one digest of all of them is posted with the result.

Theory of operation. A session goes through these states, each of them once:

    state       call             sends                      waits for        error
    opening     open_session     nothing                    nothing          -
    greeting    greet            terms and nonce, to all    all greetings    CO-P641 length, CO-P642 other terms
    computing   send, receive    messages of known sizes    one message      CO-P641 length
    closing     account          a statement, to all        all statements   CO-P644 digests or length differ
    closed      -                nothing                    nothing          -

After an error a session is of no further use; one that begins again has another run number. In greeting and closing a
site sends to all before it waits for anybody, so that two sites never wait for each other. The channel bounds every
wait and names the silent party.

The order in `open_session` matters. The run's number is saved first, then randomness is drawn, then the first byte
leaves. A crash between any two of these costs a number, and never uses a stream twice. The streams of a pair depend on
the nonces of all parties, so they are new if only one of the parties begins again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Channel, ReportingChannel, Site
from coterie_learners.errors import ProtocolError
from coterie_learners.shares.field import Elements, element_array

DIGEST = 32
NONCE = 16


class Keystream:
    """Secret pseudo-random bytes, one after the other: two holders who draw alike get the same ones."""

    def __init__(self, key: bytes) -> None:
        # A key serves one stream, so a constant nonce never repeats under it.
        self._cipher = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        return self._cipher.update(bytes(size))

    def integers(self, count: int, bits: int) -> Elements:
        """The next `count` uniform integers below 2^bits."""
        width = (bits + 7) // 8
        raw, mask, read = self.take(width * count), (1 << bits) - 1, int.from_bytes
        return element_array(
            [read(raw[at : at + width], "little") & mask for at in range(0, len(raw), width)], (count,)
        )

    def words(self, shape: tuple[int, ...], below: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
        """Uniform integers below a small number, up to a bias of `below` / 2^64."""
        raw = np.frombuffer(self.take(8 * int(np.prod(shape))), "<u8")
        return (raw % np.uint64(below)).astype(np.int32).reshape(shape)


@dataclass(frozen=True)
class SessionCost:
    """What goes on the ledger of a session: rounds, bytes that each site sent (in the study's order), one digest."""

    rounds: int
    sent: tuple[int, ...]
    digest: bytes


class Session:
    """Counted and hashed messages between this site and the others."""

    def __init__(self, me: str, channel: Channel, parties: Sequence[str]) -> None:
        self.me, self.parties = me, tuple(parties)
        self.peers = tuple(name for name in parties if name != me)
        self.rounds = 0
        self.sent = 0
        self._channel = channel
        self._out = {name: hashlib.sha256() for name in self.peers}
        self._in = {name: hashlib.sha256() for name in self.peers}

    def send(self, to: str, data: bytes) -> None:
        """Send a message to a party."""
        self.sent += len(data)
        # The length goes into the hash: without it, two messages could be cut elsewhere and give the same digest.
        self._out[to].update(len(data).to_bytes(8, "little") + data)
        self._channel.send(to, data)

    def receive(self, sender: str, size: int) -> bytes:
        """The next message of a party; ProtocolError names it if the message is not `size` bytes long."""
        data = self._channel.receive(sender)
        if len(data) != size:
            message = (
                f"{sender} sent {len(data)} bytes to {self.me} where the protocol has {size}. "
                "Ask that site to check its node and version."
            )
            raise ProtocolError("CO-P641", message, sender)
        self._in[sender].update(len(data).to_bytes(8, "little") + data)
        return data

    def report(self, what: str, done: int, total: int) -> None:
        """Show people at this site how far this party has come, where its channel can."""
        if isinstance(self._channel, ReportingChannel):
            self._channel.report(what, done, total)

    def greet(self, terms: bytes, nonce: bytes) -> dict[str, bytes]:
        """Send all others what this site will compute (32 bytes) and a nonce; returns their nonces, by party."""
        for name in self.peers:
            self.send(name, terms + nonce)
        greetings = {name: self.receive(name, DIGEST + NONCE) for name in self.peers}
        for name, greeting in greetings.items():
            if greeting[:DIGEST] != terms:
                message = f"{name} is about to compute something else than {self.me}"
                raise ProtocolError(
                    "CO-P642",
                    f"{message}: parameters or earlier posts differ. Compare the versions of both nodes.",
                    name,
                )
        return {name: greeting[DIGEST:] for name, greeting in greetings.items()} | {self.me: nonce}

    def account(self) -> SessionCost:
        """Compare what was sent and received with every party; ProtocolError names one whose bytes differ."""
        # A statement holds the digests of all messages before it, so it cannot be one of the messages that are hashed.
        own_statement = self._statement()
        for name in self.peers:
            self._channel.send(name, own_statement)
        statements = {name: self._channel.receive(name) for name in self.peers} | {self.me: own_statement}
        for name, statement in statements.items():
            if len(statement) != len(own_statement) or not self._matches_own(name, statement):
                message = (
                    f"{name} and {self.me} do not agree on the bytes that they exchanged. "
                    "Check both nodes and the network between them."
                )
                raise ProtocolError("CO-P644", message, name)
        ordered = [statements[name] for name in self.parties]
        digest = hashlib.sha256(b"".join(s[16 : 16 + DIGEST * len(self.peers)] for s in ordered)).digest()
        # Only computing parties count rounds; the others stand at 0.
        rounds = max(int.from_bytes(s[:8], "little") for s in ordered)
        return SessionCost(rounds, tuple(int.from_bytes(s[8:16], "little") for s in ordered), digest)

    def _statement(self) -> bytes:
        counts = self.rounds.to_bytes(8, "little") + self.sent.to_bytes(8, "little")
        sent = b"".join(self._out[name].digest() for name in self.peers)
        return counts + sent + b"".join(self._in[name].digest() for name in self.peers)

    def _matches_own(self, name: str, statement: bytes) -> bool:
        if name == self.me:
            return True
        # Layout: rounds and bytes (8 each), digests of what it sent to each peer, digests of what it received. A peer's
        # list of peers lacks that peer and holds this site.
        place = [peer for peer in self.parties if peer != name].index(self.me)
        sent, received = 16 + DIGEST * place, 16 + DIGEST * (len(self.peers) + place)
        theirs = statement[sent : sent + DIGEST], statement[received : received + DIGEST]
        return theirs == (self._in[name].digest(), self._out[name].digest())


def pack_account(account: SessionCost) -> Payload:
    """What of a session goes on the ledger, as arrays."""
    digest = np.frombuffer(account.digest, np.uint8)
    return {"rounds": np.array(account.rounds), "sent": np.array(account.sent, dtype=np.int64), "transcript": digest}


@dataclass(frozen=True)
class Randomness:
    """A site's secret streams of one session: its own, and one with each other party."""

    own: Keystream
    shared: Mapping[str, Keystream]


def open_session(site: Site, channel: Channel, topic: str, terms: bytes) -> tuple[Session, Randomness]:
    """Greet all parties of the step; returns the session and fresh randomness for it.

    Fresh in every run, also when a step begins again after a crash: a mask that served twice would disclose a
    difference. Therefore each run draws from streams of its own number, which is kept before the first byte leaves.
    """
    label = f"runs/{site.session}/{topic}/{site.attempt}"
    run = int.from_bytes(site.vault.get(label, b""), "little") + 1
    site.vault[label] = run.to_bytes(8, "little")
    seed = site.stream(f"{topic}/{run}", 2 * DIGEST)
    session = Session(site.name, channel, site.parties)
    nonces = session.greet(_terms(site, topic, terms), hashlib.sha256(seed[DIGEST:]).digest()[:NONCE])
    salt = b"".join(nonces[name] for name in site.parties)
    shared = {peer: Keystream(_derive(site.mask(peer, topic, DIGEST), salt)) for peer in session.peers}
    return session, Randomness(Keystream(_derive(seed[:DIGEST], salt)), shared)


def _terms(site: Site, topic: str, terms: bytes) -> bytes:
    place = f"{site.session}/{site.study.hash.hex()}/{topic}/{site.attempt}/{','.join(site.parties)}/"
    return hashlib.sha256(place.encode() + terms).digest()


def _derive(key: bytes, salt: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=salt, info=b"coterie/1 session stream").derive(key)
