"""Channels between sites over TLS: the network's twin of `talk.Hub`.

One connection for each direction of each pair, so that reading and writing never share one. A connection begins with a
plain greeting (session and name, for the other side to know whom to expect), then TLS with the pair's certificates
(pairing.py), then one byte from the side that was called: welcome. Frames are 8 bytes of length and the data.

Strangers who call get nothing but a closed connection. A peer that does not come, falls silent, breaks off, or has
another key ends the session, named; who ends it for that tells the others whose fault it was, so that they name the
same one.
"""

from __future__ import annotations

import hashlib
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from coterie_learners.errors import ProtocolError
from coterie_node.errors import ConfigError
from coterie_node.pairing import Pairing

MAGIC = b"COTALK1\n"
GREETING = len(MAGIC) + 32 + 1
WELCOME = b"\x01"
MAX_FRAME = 1 << 28
# A frame of this length holds no data but the name of the peer for whose fault the sender ends the session.
BLAME = (1 << 64) - 1
# Frames of one peer that may wait to be read; then its connection is not read on.
MAX_WAITING = 4096
# Strangers may hold so many connections, each for so many seconds.
MAX_CALLS, GREET_SECONDS = 64, 10.0
PAUSE = 0.05

Address = tuple[str, int]


@dataclass(frozen=True)
class Patience:
    """Seconds to wait for a peer to come to a session, and then for each of its messages."""

    arrive: float = 600.0
    message: float = 120.0


class TlsExchange:
    """One site's end of all its sessions: listens at its own address, and calls its peers at theirs.

    `secret` gives the secret (32 bytes) shared with a peer; it is asked when a session begins. `scope` names the
    ledger, so that no session of another one is taken for ours. ConfigError (CO-F341) if the own address cannot be
    used.
    """

    def __init__(
        self,
        me: str,
        addresses: Mapping[str, Address],
        secret: Callable[[str], bytes],
        scope: str,
        patience: Patience = Patience(),
    ) -> None:
        self.me, self.addresses, self.secret, self.scope, self.patience = me, dict(addresses), secret, scope, patience
        self._open: dict[bytes, TlsChannel] = {}
        self._calls = threading.Semaphore(MAX_CALLS)
        self._listener = _listen(me, self.addresses[me])
        self.addresses[me] = self._listener.getsockname()[:2]
        threading.Thread(target=self._accept, daemon=True).start()

    def channel(self, me: str, session: Hashable) -> TlsChannel:
        """This site's end of a session."""
        digest = hashlib.sha256(f"{self.scope}/{session!r}".encode()).digest()
        opened = TlsChannel(self, digest)
        self._open[digest] = opened
        return opened

    def forget(self, digest: bytes) -> None:
        """A session is over."""
        self._open.pop(digest, None)

    def close(self) -> None:
        """End everything."""
        self._listener.close()
        for channel in list(self._open.values()):
            channel.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            if not self._calls.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        """Find out who calls for which session; close on anybody who is not a peer with the right key."""
        try:
            connection.settimeout(GREET_SECONDS)
            greeting = _exactly(connection, GREETING)
            name = _exactly(connection, greeting[-1]).decode("ascii", "replace")
            channel = self._open.get(greeting[len(MAGIC) : -1])
            if greeting[: len(MAGIC)] != MAGIC or channel is None or not channel.knows(name):
                connection.close()
                return
            pairing = Pairing(channel.secret(name), channel.digest, name, self.me)
            secured = pairing.server_context().wrap_socket(connection, server_side=True)
            if not pairing.is_peer(secured.getpeercert(binary_form=True), "client"):
                secured.close()
                return
            secured.sendall(WELCOME)
            channel.hear(name, secured)
        except (OSError, _Closed):
            connection.close()
        finally:
            self._calls.release()


@dataclass(frozen=True)
class Ended:
    """A peer's last word: for whose fault it ends the session, empty if it just went away."""

    culprit: str = ""


class TlsChannel:
    """One party's end of a session over TLS."""

    def __init__(self, exchange: TlsExchange, digest: bytes) -> None:
        self.digest = digest
        self._exchange = exchange
        self._out: dict[str, ssl.SSLSocket] = {}
        self._in: dict[str, ssl.SSLSocket] = {}
        self._heard: set[str] = set()
        self._culprit = ""
        peers = [name for name in exchange.addresses if name != exchange.me]
        # Asked for here, in the runner's thread: the threads that answer calls leave the ledger alone.
        self._secrets = {name: exchange.secret(name) for name in peers}
        self._frames: dict[str, queue.Queue[bytes | Ended]] = {name: queue.Queue(MAX_WAITING) for name in peers}

    def knows(self, name: str) -> bool:
        """Whether a site is a peer with an address here."""
        return name in self._secrets

    def secret(self, name: str) -> bytes:
        """The secret shared with a peer; ProtocolError if this node has no address of it."""
        if name not in self._secrets:
            told = f"{self._exchange.me} has no address of {name} for interactive steps"
            raise ProtocolError("CO-P664", f"{told}. Add it to [talk] in node.toml, or to talk.json.", name)
        return self._secrets[name]

    def send(self, to: str, data: bytes) -> None:
        """Send bytes to a party; ProtocolError names it if it does not come, is somebody else, or breaks off."""
        if len(data) > MAX_FRAME:
            raise ProtocolError("CO-P663", f"A message of {len(data)} bytes is larger than {MAX_FRAME}.", to)
        try:
            if to not in self._out:
                self._out[to] = self._call(to)
            self._out[to].sendall(len(data).to_bytes(8, "big") + data)
        except OSError:
            raise self._broken(to, self._last_word(to)) from None
        except ProtocolError as error:
            self._culprit = error.site
            raise

    def receive(self, sender: str) -> bytes:
        """Next bytes from a party; ProtocolError names it when it stays silent or breaks off."""
        self.secret(sender)
        patience = self._exchange.patience
        seconds = patience.message if sender in self._heard else patience.arrive
        try:
            frame = self._frames[sender].get(timeout=seconds)
        except queue.Empty:
            told = f"{sender} sent nothing to {self._exchange.me} within {seconds:g} s."
            self._culprit = sender
            raise ProtocolError("CO-P601", told, sender) from None
        if isinstance(frame, Ended):
            raise self._broken(sender, frame.culprit)
        self._heard.add(sender)
        return frame

    def close(self) -> None:
        """Say that nothing more comes, and for whose fault if there was one; what was sent still arrives."""
        self._exchange.forget(self.digest)
        last = b"" if not self._culprit else BLAME.to_bytes(8, "big") + _short(self._culprit)
        for connection in self._out.values():
            with suppress(OSError):
                connection.sendall(last)
                connection.shutdown(socket.SHUT_WR)
            connection.close()

    def hear(self, name: str, connection: ssl.SSLSocket) -> None:
        """Read frames of a peer until it ends; a second connection in its name is refused."""
        if name in self._in:
            connection.close()
            return
        self._in[name] = connection
        connection.settimeout(None)
        frames, last = self._frames[name], Ended()
        try:
            while (size := int.from_bytes(_exactly(connection, 8), "big")) <= MAX_FRAME:
                frames.put(_exactly(connection, size))
            if size == BLAME:
                told = _exactly(connection, _exactly(connection, 1)[0]).decode("ascii", "replace")
                last = Ended(told if told in self._exchange.addresses else "")
        except (OSError, _Closed):
            pass
        connection.close()
        frames.put(last)

    def _call(self, name: str) -> ssl.SSLSocket:
        """Call a peer until it is there, as long as it may take to arrive."""
        exchange = self._exchange
        pairing = Pairing(self.secret(name), self.digest, exchange.me, name)
        context, deadline = pairing.client_context(), time.monotonic() + exchange.patience.arrive
        while time.monotonic() < deadline:
            try:
                return self._handshake(name, pairing, context)
            except ssl.SSLEOFError:
                pass  # it answers, but not yet for this session
            except ssl.SSLError as error:
                told = f"{name} does not prove to {exchange.me} that it has the key which the Catalog lists for it"
                raise ProtocolError("CO-P661", f"{told} ({error.reason}).", name) from None
            except (OSError, _Closed):
                pass  # it is not there yet
            time.sleep(PAUSE)
        told = f"{name} did not come to the session of {exchange.me} within {exchange.patience.arrive:g} s."
        raise ProtocolError("CO-P601", told, name)

    def _handshake(self, name: str, pairing: Pairing, context: ssl.SSLContext) -> ssl.SSLSocket:
        exchange = self._exchange
        plain = socket.create_connection(exchange.addresses[name], timeout=exchange.patience.message)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.sendall(MAGIC + self.digest + _short(exchange.me))
            secured = context.wrap_socket(plain)
            if not pairing.is_peer(secured.getpeercert(binary_form=True), "server") or secured.recv(1) != WELCOME:
                raise _Closed
        except BaseException:
            plain.close()
            raise
        return secured

    def _last_word(self, name: str) -> str:
        """Whose fault a peer that reads no more says it is, if it says so soon."""
        with suppress(queue.Empty):
            while True:
                frame = self._frames[name].get(timeout=1.0)
                if isinstance(frame, Ended):
                    return frame.culprit
        return ""

    def _broken(self, name: str, culprit: str) -> ProtocolError:
        if culprit in ("", name, self._exchange.me):
            self._culprit = name
            told = f"{name} broke off the session with {self._exchange.me}. Its own log says why."
            return ProtocolError("CO-P662", told, name)
        self._culprit = culprit
        return ProtocolError("CO-P662", f"{name} ended the session because {culprit} broke it off.", culprit)


class _Closed(Exception):
    """The other side closed the connection."""


def address_of(text: str) -> Address:
    """Host and port of "host:port" or "[host]:port"; ValueError if it is neither."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{text!r} is not host:port")
    return host.strip("[]"), int(port)


def _short(name: str) -> bytes:
    raw = name.encode()
    return bytes([len(raw)]) + raw


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        piece = connection.recv(min(size - len(parts), 1 << 20))
        if not piece:
            raise _Closed
        parts += piece
    return bytes(parts)


def _listen(me: str, address: Address) -> socket.socket:
    try:
        return socket.create_server(address, backlog=MAX_CALLS)
    except OSError as error:
        host, port = address
        told = f"{me} cannot listen at {host}:{port} for its peers: {error.strerror}"
        raise ConfigError("CO-F341", f"{told}. Name another address in talk.json.") from None
