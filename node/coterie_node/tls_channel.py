"""One party's end of an interactive session over TLS.

One connection for each direction of each pair, so that reading and writing never share one. The parties meet first:
each calls every other until all are connected both ways, says that it is ready, and begins once all have said so. Until
then a party may go and come again. Then frames go to and fro: 8 bytes of length and the data.

A peer that falls silent, breaks off or sends too much ends the session, named; who ends it for that tells the others
whose fault it was, so that they name the same one.
"""

from __future__ import annotations

import queue
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from coterie_learners.errors import ProtocolError, SessionLost
from coterie_node.pairing import Pairing

MAGIC = b"COTALK2\n"
GREETING = len(MAGIC) + 32 + 1
WELCOME = b"\x01"
MAX_FRAME = 1 << 28
# A frame of this length holds no data but the name of the peer for whose fault the sender ends the session.
BLAME = (1 << 64) - 1
# ... and of this one, nothing: the sender is connected with all parties, both ways.
READY = BLAME - 1
# Frames of one peer that may wait to be read; then its connection is not read on.
MAX_WAITING = 4096
# Seconds between two calls to a peer that is not there, and for one to be answered.
PAUSE, CALL_SECONDS = 0.05, 10.0

Address = tuple[str, int]


class Closed(Exception):
    """The other side closed the connection."""


@dataclass(frozen=True)
class Patience:
    """Seconds to wait for a peer's first message, and then for each further one."""

    first: float = 600.0
    message: float = 120.0


@dataclass(frozen=True)
class Ended:
    """A peer's last word: for whose fault it ends the session, empty if it just went away."""

    culprit: str = ""


@dataclass
class Line:
    """What one peer sends: over which connection, whether it is ready, and its frames."""

    connection: ssl.SSLSocket | None = None
    ready: bool = False
    heard: bool = False
    frames: queue.Queue[bytes | Ended] = field(default_factory=lambda: queue.Queue(MAX_WAITING))


class TlsChannel:
    """The channel of party `me` to its peers at `addresses`; `secrets` are those that it shares with each.

    `forget` is told when the session is over.
    """

    def __init__(
        self,
        me: str,
        digest: bytes,
        addresses: Mapping[str, Address],
        secrets: Mapping[str, bytes],
        patience: Patience,
        forget: Callable[[TlsChannel], None],
    ) -> None:
        self.digest = digest
        self._me, self._addresses, self._secrets, self._patience, self._forget = (
            me,
            addresses,
            secrets,
            patience,
            forget,
        )
        self._out: dict[str, ssl.SSLSocket] = {}
        self._lines = {name: Line() for name in addresses}
        self._told: set[str] = set()
        self._doubts: dict[str, str] = {}
        self._begun = False
        self._culprit = ""

    def knows(self, name: str) -> bool:
        """Whether a site is a peer in this session."""
        return name in self._secrets

    def secret(self, name: str) -> bytes:
        """The secret shared with a peer."""
        return self._secrets[name]

    # Meeting

    def meet(self, seconds: float) -> tuple[str, ...]:
        """Call the peers and wait for theirs; who is still absent after `seconds`, with what is known of it."""
        deadline = time.monotonic() + seconds
        while absent := self._absent():
            if time.monotonic() >= deadline:
                return tuple(name + self._doubts.get(name, "") for name in absent)
            for name in absent:
                self._look_for(name)
            time.sleep(PAUSE)
        self._begun = True
        return ()

    def _absent(self) -> list[str]:
        """Peers without a connection each way; if there are none, those who miss somebody themselves."""
        missing = [name for name, line in self._lines.items() if name not in self._out or line.connection is None]
        if missing:
            return missing
        for name in self._lines:
            self._tell_ready(name)
        return [name for name, line in self._lines.items() if not line.ready]

    def _look_for(self, name: str) -> None:
        """Call a peer that is not there, or whose connection has ended since."""
        if name in self._out and _gone(self._out[name], self._patience.message):
            self._hang_up(name)
        if name not in self._out:
            called = self._call(name)
            if called is not None:
                self._out[name] = called

    def _hang_up(self, name: str) -> None:
        self._out.pop(name).close()
        self._told.discard(name)

    def _tell_ready(self, name: str) -> None:
        if name not in self._told:
            try:
                self._out[name].sendall(READY.to_bytes(8, "big"))
            except OSError:
                self._hang_up(name)
            else:
                self._told.add(name)

    def _call(self, name: str) -> ssl.SSLSocket | None:
        """A connection to a peer; None if it is not there, is in another session, or is somebody else."""
        pairing = Pairing(self.secret(name), self.digest, self._me, name)
        self._doubts.pop(name, None)
        try:
            return self._handshake(name, pairing)
        except ssl.SSLEOFError:
            pass  # it answers, but not for this session, or not yet
        except ssl.SSLError as error:
            self._doubts[name] = f" (who answers does not prove to have the key in the Catalog: {error.reason})"
        except (OSError, Closed):
            pass
        return None

    def _handshake(self, name: str, pairing: Pairing) -> ssl.SSLSocket:
        with ExitStack() as held:
            plain = held.enter_context(socket.create_connection(self._addresses[name], timeout=CALL_SECONDS))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.sendall(MAGIC + self.digest + _short(self._me))
            secured = held.enter_context(pairing.client_context().wrap_socket(plain))
            if not pairing.is_peer(secured.getpeercert(binary_form=True), "server") or secured.recv(1) != WELCOME:
                raise Closed
            secured.settimeout(self._patience.message)
            held.pop_all()
        return secured

    def hear(self, name: str, connection: ssl.SSLSocket) -> None:
        """Read what a peer sends until it ends. Before the session begins a newer connection takes its place."""
        line = self._lines[name]
        if line.connection is not None:
            if self._begun:
                connection.close()
                return
            line = self._lines[name] = Line()
        line.connection = connection
        connection.settimeout(None)
        last = self._read(connection, line)
        connection.close()
        if line.ready or self._begun:
            line.frames.put(last)
        else:
            line.connection = None  # it may come again

    def _read(self, connection: ssl.SSLSocket, line: Line) -> Ended:
        with suppress(OSError, Closed):
            while True:
                size = int.from_bytes(exactly(connection, 8), "big")
                if size == READY:
                    line.ready = True
                elif size <= MAX_FRAME:
                    line.frames.put(exactly(connection, size))
                else:
                    break
            if size == BLAME:
                told = exactly(connection, exactly(connection, 1)[0]).decode("ascii", "replace")
                return Ended(told if told in self._secrets else "")
        return Ended()

    # Talking

    def send(self, to: str, data: bytes) -> None:
        """Send bytes to a party; SessionLost names it if it has broken off."""
        if len(data) > MAX_FRAME:
            raise ProtocolError("CO-P663", f"A message of {len(data)} bytes is larger than {MAX_FRAME}.", to)
        try:
            self._out[to].sendall(len(data).to_bytes(8, "big") + data)
        except OSError:
            raise self._broken(to, self._last_word(to)) from None

    def receive(self, sender: str) -> bytes:
        """Next bytes from a party; SessionLost names it when it stays silent or breaks off."""
        line = self._lines[sender]
        seconds = self._patience.message if line.heard else self._patience.first
        try:
            frame = line.frames.get(timeout=seconds)
        except queue.Empty:
            told = f"{sender} sent nothing to {self._me} within {seconds:g} s."
            self._culprit = sender
            raise SessionLost("CO-P601", told, sender) from None
        if isinstance(frame, Ended):
            raise self._broken(sender, frame.culprit)
        line.heard = True
        return frame

    def close(self) -> None:
        """Say that nothing more comes, and for whose fault if there was one; what was sent still arrives."""
        self._forget(self)
        if not self._begun:
            self._shut(line.connection for line in self._lines.values())
        last = b"" if not self._culprit else BLAME.to_bytes(8, "big") + _short(self._culprit)
        for connection in self._out.values():
            with suppress(OSError):
                connection.sendall(last)
                connection.shutdown(socket.SHUT_WR)
            connection.close()

    def abandon(self) -> None:
        """Break the session off from another thread; the one that talks finds it ended, and closes."""
        self._shut(list(self._out.values()))
        for line in self._lines.values():
            with suppress(queue.Full):
                line.frames.put_nowait(Ended(self._me))

    def _shut(self, connections: Iterable[ssl.SSLSocket | None]) -> None:
        for connection in connections:
            if connection is not None:
                with suppress(OSError):
                    # Below TLS: SSLSocket's own would let a send that is under way go on without encryption.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _last_word(self, name: str) -> str:
        """Whose fault a peer that reads no more says it is, if it says so soon."""
        with suppress(queue.Empty):
            while True:
                frame = self._lines[name].frames.get(timeout=1.0)
                if isinstance(frame, Ended):
                    return frame.culprit
        return ""

    def _broken(self, name: str, culprit: str) -> SessionLost:
        if culprit in ("", name, self._me):
            self._culprit = name
            told = f"{name} broke off the session with {self._me}. Its own log says why."
            return SessionLost("CO-P662", told, name)
        self._culprit = culprit
        return SessionLost("CO-P662", f"{name} ended the session because {culprit} broke it off.", culprit)


def exactly(connection: socket.socket, size: int) -> bytes:
    """The next `size` bytes of a connection; Closed if it ends before."""
    parts = bytearray()
    while len(parts) < size:
        piece = connection.recv(min(size - len(parts), 1 << 20))
        if not piece:
            raise Closed
        parts += piece
    return bytes(parts)


def _gone(connection: ssl.SSLSocket, patience: float) -> bool:
    """Whether the other side has closed a connection on which it sends nothing."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except ssl.SSLWantReadError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(patience)


def _short(name: str) -> bytes:
    raw = name.encode()
    return bytes([len(raw)]) + raw
