"""One party's end of an interactive session over TLS.

Each pair has one connection for each direction, so that reading and writing never share one. A frame is 8 bytes of
length and the data. The session of one party goes through these states:

    state    what happens                                           next state
    absent   calls every peer, accepts the calls of peers           ready: connected with all, both ways
    ready    has sent READY to all                                  begun: all peers are ready too
    ready    the connection of a peer that is not ready ends        absent: that peer may come again
    begun    frames go both ways                                    over: `close`, or a fault of a peer
    begun    a peer is silent, breaks off or sends too much         over: the error names the peer
    over     the last word is sent, connections end                 -

Invariants. A connection is replaced only before the session has begun; from then on its end ends the session. A party
that ends the session for a peer's fault sends BLAME with the peer's name, so that all parties name the same one.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from coterie_chain.retry import Backoff, RetryPolicy
from coterie_learners.errors import ProtocolError, SessionLost
from coterie_node.peers.address import Address
from coterie_node.peers.inbox import Ended, Inbox
from coterie_node.peers.pairing import Pairing

MAGIC = b"COTALK2\n"
GREETING = len(MAGIC) + 32 + 1
WELCOME = b"\x01"
MAX_FRAME = 1 << 28
# A frame of this length has no data but the name of the peer at fault, for which the sender ends the session.
BLAME = (1 << 64) - 1
# A frame of this length has no data: the sender is connected with all parties, both ways.
READY = BLAME - 1
# Seconds between two looks at the peers that are there; and seconds for a call, or a last word, to arrive.
PAUSE, CALL_SECONDS = 0.05, 10.0
# How a peer that does not answer is called again.
CALL_RETRY = RetryPolicy(first=0.05, longest=5.0)
# Seconds of silence before the kernel probes the other machine, seconds between probes, and the number of probes.
ALIVE_AFTER, ALIVE_EVERY, ALIVE_TIMES = 60, 15, 4
# Seconds for the last word of a peer that reads no more.
LAST_WORD_SECONDS = 1.0
# ... and of a peer that another one accuses: it may be computing.
ACCUSED_SECONDS = 5.0


class ConnectionEnded(Exception):
    """The other side closed the connection."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait for a peer's first message, and then for each further one."""

    first: float = 600.0
    message: float = 120.0


@dataclass
class PeerConnection:
    """What one peer sends: over which connection, whether it is ready, and its frames."""

    connection: ssl.SSLSocket | None = None
    ready: bool = False
    heard: bool = False
    frames: Inbox = field(default_factory=Inbox)


class TlsChannel:
    """The channel of party `me` to its peers at `addresses`; `secrets` are those that it shares with each.

    `forget` is called when the session is over.
    """

    def __init__(
        self,
        me: str,
        digest: bytes,
        addresses: Mapping[str, Address],
        secrets: Mapping[str, bytes],
        timeouts: Timeouts,
        forget: Callable[[TlsChannel], None],
    ) -> None:
        self.digest = digest
        self._me, self._addresses, self._secrets, self._patience, self._forget = (
            me,
            addresses,
            secrets,
            timeouts,
            forget,
        )
        self._out: dict[str, ssl.SSLSocket] = {}
        self._lines = {name: PeerConnection() for name in addresses}
        self._notified: set[str] = set()
        self._doubts: dict[str, str] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._call_at: dict[str, float] = {}
        # Guards which connection of a peer counts. Both the threads that answer calls and the talking one take it.
        self._lock = threading.Lock()
        self._begun = self._over = False
        self._culprit = ""

    def knows(self, name: str) -> bool:
        """Whether a site is a peer in this session."""
        return name in self._secrets

    def secret(self, name: str) -> bytes:
        """The secret shared with a peer."""
        return self._secrets[name]

    # Meeting

    def connect(self, seconds: float) -> tuple[str, ...]:
        """Call the peers and wait for their calls; the peers still absent after `seconds`, with the cause if known."""
        # Absent until nobody is missing, ready until `_begin` sees all ready at one moment, under the lock.
        deadline = time.monotonic() + seconds
        while (missing_parties := self._missing_parties()) or not self._begin():
            if missing_parties and time.monotonic() >= deadline:
                return tuple(name + self._doubts.get(name, "") for name in missing_parties)
            for name in missing_parties:
                self._look_for(name)
            time.sleep(PAUSE)
        return ()

    def _begin(self) -> bool:
        """Whether all are ready at this moment; if so, no connection is replaced any more."""
        with self._lock:
            self._begun = all(line.ready for line in self._lines.values())
            return self._begun

    def _missing_parties(self) -> list[str]:
        """Peers without a connection each way; if there are none, the peers that are not ready themselves."""
        # Two connections for each pair: this party calls on one, the peer on the other.
        missing = [name for name, line in self._lines.items() if name not in self._out or line.connection is None]
        if missing:
            return missing
        for name in self._lines:
            self._tell_ready(name)
        return [name for name, line in self._lines.items() if not line.ready or name not in self._notified]

    def _look_for(self, name: str) -> None:
        """Call a peer that is not there, or whose connection has ended since."""
        if name in self._out and _gone(self._out[name], self._patience.message):
            self._hang_up(name)
        if name not in self._out and time.monotonic() >= self._call_at.get(name, 0.0):
            called = self._call(name)
            if called is not None:
                self._out[name] = called
            # A peer may be away for days, so the pauses grow. Its own call resets them (`_take`).
            backoff = self._backoffs.setdefault(name, Backoff(CALL_RETRY))
            if called is not None:
                backoff.reset()
            self._call_at[name] = time.monotonic() + backoff.next_pause()

    def _hang_up(self, name: str) -> None:
        self._out.pop(name).close()
        self._notified.discard(name)

    def _tell_ready(self, name: str) -> None:
        if name not in self._notified:
            try:
                self._out[name].sendall(READY.to_bytes(8, "big"))
            except OSError:
                self._hang_up(name)
            else:
                self._notified.add(name)

    def _call(self, name: str) -> ssl.SSLSocket | None:
        """A connection to a peer; None if it is not there, is in another session, or is somebody else."""
        pairing = Pairing(self.secret(name), self.digest, self._me, name)
        self._doubts.pop(name, None)
        try:
            return self._handshake(name, pairing)
        except ssl.SSLEOFError:
            pass  # it answers, but not for this session, or not yet: the next call may succeed
        except ssl.SSLError as error:
            self._doubts[name] = f" (the program that answers does not prove the key in the Catalog: {error.reason})"
        except (OSError, ConnectionEnded):
            pass
        return None

    def _handshake(self, name: str, pairing: Pairing) -> ssl.SSLSocket:
        # Before TLS the greeting names session and caller in the clear: the peer needs both to find the secret of the
        # pair.
        with ExitStack() as stack:
            plain = stack.enter_context(socket.create_connection(self._addresses[name], timeout=CALL_SECONDS))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.sendall(MAGIC + self.digest + _short(self._me))
            secured = stack.enter_context(pairing.client_context().wrap_socket(plain))
            if not pairing.is_peer(secured.getpeercert(binary_form=True), "server") or secured.recv(1) != WELCOME:
                raise ConnectionEnded
            secured.settimeout(self._patience.message)
            keep_alive(secured)
            stack.pop_all()
        return secured

    def hear(self, name: str, connection: ssl.SSLSocket) -> None:
        """Read what a peer sends until it ends. Before the session begins a newer connection takes its place."""
        line = self._take(name, connection)
        if line is None:
            connection.close()
            return
        last = self._read(connection, line)
        connection.close()
        line.frames.end(last)
        with self._lock:
            if not (line.ready or self._begun):
                line.connection = None  # not begun: the peer may come again

    def _take(self, name: str, connection: ssl.SSLSocket) -> PeerConnection | None:
        """A peer's line over a new connection, which replaces an older one; None once the session has begun."""
        with self._lock:
            # After the beginning no connection is replaced: a second one would let a caller cut into a session that
            # runs.
            if self._begun or self._over:
                return None
            connection.settimeout(None)
            hang_up(self._lines[name].connection)
            self._call_at.pop(name, None)
            self._backoffs.pop(name, None)
            line = self._lines[name] = PeerConnection(connection)
            return line

    def _read(self, connection: ssl.SSLSocket, line: PeerConnection) -> Ended:
        with suppress(OSError, ConnectionEnded):
            while True:
                size = int.from_bytes(exactly(connection, 8), "big")
                if size == READY:
                    # The peer is connected with all. Until the session begins, only its own new call replaces this.
                    line.ready = True
                elif size > MAX_FRAME or not line.ready or not line.frames.put(exactly(connection, size)):
                    break
            # BLAME is the last frame. It names the site that broke off, as far as the sender knows by itself.
            if size == BLAME:
                detail = exactly(connection, exactly(connection, 1)[0]).decode("ascii", "replace")
                return Ended(detail if detail in self._secrets else "")
        return Ended()

    # Talking

    def send(self, to: str, data: bytes) -> None:
        """Send bytes to a party; SessionLost names it if it has broken off."""
        if len(data) > MAX_FRAME:
            raise ProtocolError(
                "CO-P663",
                f"A message of {len(data)} bytes is larger than {MAX_FRAME}."
                " Propose the study with fewer rows or columns.",
                to,
            )
        try:
            self._out[to].sendall(len(data).to_bytes(8, "big") + data)
        except OSError:
            raise self._broken(to, self._last_word(to)) from None

    def receive(self, sender: str) -> bytes:
        """Next bytes from a party; SessionLost names it when it stays silent or breaks off."""
        line = self._lines[sender]
        seconds = self._patience.message if line.heard else self._patience.first
        frame = line.frames.get(seconds)
        if frame is None:
            detail = (
                f"{sender} sent nothing to {self._me} within {seconds:g} s."
                " Ask that site, then propose the study again."
            )
            self._culprit = sender
            raise SessionLost("CO-P601", detail, sender)
        if isinstance(frame, Ended):
            raise self._broken(sender, frame.culprit)
        line.heard = True
        return frame

    def close(self) -> None:
        """Say that nothing more comes, and for whose fault if there was one; what was sent still arrives."""
        # First no new call is accepted, then the last word goes out, then the reading ends.
        self._forget(self)
        self._say_last_word()
        # A peer can keep its end open. Without this it would keep a thread and its frames here for ever.
        with self._lock:
            self._over = True
            for line in self._lines.values():
                hang_up(line.connection)
                line.frames.shut()

    def abandon(self) -> None:
        """Break the session off from another thread; the one that talks finds it ended, and closes."""
        for connection in list(self._out.values()):
            hang_up(connection)
        for line in list(self._lines.values()):
            line.frames.end(Ended(self._me))

    def _say_last_word(self) -> None:
        """Tell every peer that nothing more comes, and who broke off; once."""
        last = b"" if not self._culprit else BLAME.to_bytes(8, "big") + _short(self._culprit)
        for connection in self._out.values():
            with suppress(OSError):
                connection.settimeout(CALL_SECONDS)
                connection.sendall(last)
                connection.shutdown(socket.SHUT_WR)
            connection.close()
        self._out = {}

    def _last_word(self, name: str, seconds: float = LAST_WORD_SECONDS) -> str:
        """The site at fault that a peer names when it reads no more; empty if it names none in time."""
        ending = self._lines[name].frames.last_word(seconds)
        return "" if ending is None else ending.culprit

    def _broken(self, name: str, culprit: str) -> SessionLost:
        # This party knows by itself that `name` ended its session with it. All else is what others say.
        self._culprit = name
        if culprit in ("", name, self._me):
            detail = f"{name} broke off the session with {self._me}. Its own log says why."
            return SessionLost("CO-P662", detail, name)
        # Said before it asks: the accused may be asking this party at the same moment.
        self._say_last_word()
        blamed = self._weigh(name, culprit)
        if not blamed:
            detail = f"{name} ended the session and names {culprit}, and {culprit} names another. Ask both"
            return SessionLost("CO-P662", f"{detail}, then propose the study again.")
        return SessionLost(
            "CO-P662",
            f"{name} ended the session because {blamed} broke it off. Ask {blamed}, then propose the study again.",
            blamed,
        )

    def _weigh(self, name: str, accused: str) -> str:
        """The parties that broke off, as far as the accused do not name each other; empty if they do.

        A peer that breaks off may accuse an honest one. That one finds its session with the peer ended, and says so.
        """
        asked = {name, self._me}
        while accused not in asked:
            word = self._last_word(accused, ACCUSED_SECONDS)
            if word in ("", accused):
                return accused
            asked.add(accused)
            accused = word
        return ""


def exactly(connection: socket.socket, size: int, deadline: float | None = None) -> bytes:
    """The next `size` bytes of a connection; ConnectionEnded if it ends before, or is late for the deadline."""
    parts = bytearray()
    while len(parts) < size:
        if deadline is not None:
            if (seconds_left := deadline - time.monotonic()) <= 0:
                raise ConnectionEnded
            connection.settimeout(seconds_left)
        piece = connection.recv(min(size - len(parts), 1 << 20))
        if not piece:
            raise ConnectionEnded
        parts += piece
    return bytes(parts)


def hang_up(connection: socket.socket | None) -> None:
    """End a connection while another thread may use it; that thread closes it."""
    if connection is not None:
        with suppress(OSError):
            # Below TLS: SSLSocket's own would let a send that is under way go on without encryption.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


def keep_alive(connection: socket.socket) -> None:
    """Let the kernel detect a machine that is gone: parties may wait in silence for days."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, ALIVE_AFTER)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, ALIVE_EVERY)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, ALIVE_TIMES)


def _gone(connection: ssl.SSLSocket, timeouts: float) -> bool:
    """Whether the other side has closed a connection on which it sends nothing."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except ssl.SSLWantReadError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(timeouts)


def _short(name: str) -> bytes:
    raw = name.encode()
    return bytes([len(raw)]) + raw
