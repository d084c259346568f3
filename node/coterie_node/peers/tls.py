"""The transport of interactive steps between sites: the network's twin of `interactive_session.MemoryTransport`.

A node listens at one address for the sessions of all its studies. A connection begins with a plain
greeting: session and name, so that the other side knows which peer to expect. Then TLS follows, with the pair's
certificates (pairing.py). Then the called side sends one byte: welcome. A stranger gets a closed connection only.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack, suppress

from coterie_node.errors import ConfigError
from coterie_node.peers.address import Address
from coterie_node.peers.pairing import Pairing
from coterie_node.peers.pending_connections import PendingConnection, PendingConnections
from coterie_node.peers.transport import (
    GREETING,
    MAGIC,
    PAUSE,
    WELCOME,
    ConnectionEnded,
    Timeouts,
    TlsChannel,
    exactly,
    keep_alive,
)

# Strangers may have so many connections, each for so many seconds.
MAX_CALLS, GREET_SECONDS = 64, 10.0
USUAL = Timeouts()


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
        timeouts: Timeouts = USUAL,
    ) -> None:
        self.me, self.addresses, self.secret, self.scope, self.timeouts = me, dict(addresses), secret, scope, timeouts
        self._open: dict[bytes, TlsChannel] = {}
        self._doorstep = PendingConnections(MAX_CALLS, GREET_SECONDS)
        self._closed = False
        self._listener = _listen(me, self.addresses[me])
        self.addresses[me] = self._listener.getsockname()[:2]
        threading.Thread(target=self._accept, daemon=True).start()

    def channel(self, me: str, session: Hashable, parties: Sequence[str]) -> TlsChannel:
        """This site's end of a session; ConfigError (CO-F342) if this node has no address of a party."""
        unknown = [name for name in parties if name not in self.addresses]
        if unknown:
            message = f"{me} has no address of {', '.join(unknown)} for interactive steps"
            raise ConfigError("CO-F342", f"{message}. Add it to [talk] in node.toml, or to talk.json.")
        digest = hashlib.sha256(f"{self.scope}/{session!r}".encode()).digest()
        opened = TlsChannel(
            me,
            digest,
            {name: self.addresses[name] for name in parties if name != me},
            # Read here, in the runner's thread, because the threads that answer calls must not read the ledger.
            {name: self.secret(name) for name in parties if name != me},
            self.timeouts,
            self.forget,
        )
        self._open[digest] = opened
        return opened

    def forget(self, channel: TlsChannel) -> None:
        """A session is over."""
        if self._open.get(channel.digest) is channel:
            del self._open[channel.digest]

    def close(self) -> None:
        """End everything."""
        self._closed = True
        # Without this shutdown the thread that waits for calls would keep the listener open, and so the port.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for channel in list(self._open.values()):
            channel.abandon()
            channel.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                # The caller is gone, or too many files are open. Both pass, and peers call again.
                time.sleep(PAUSE)
                continue
            threading.Thread(target=self._answer, args=(self._doorstep.enter(connection),), daemon=True).start()

    def _answer(self, caller: PendingConnection) -> None:
        """Let a peer into its session; close on anybody else."""
        try:
            channel, name, secured = self._welcome(caller)
        except (OSError, ConnectionEnded):
            return
        finally:
            self._doorstep.leave(caller)
        channel.hear(name, secured)

    def _welcome(self, caller: PendingConnection) -> tuple[TlsChannel, str, ssl.SSLSocket]:
        """The caller and the session of a call; ConnectionEnded unless it is a peer with the right key."""
        # Each check comes before the next cost: greeting, session, name, handshake, certificate, and only then welcome.
        # Whatever fails closes the connection, and its caller learns nothing of the sessions that are here.
        with ExitStack() as stack:
            plain = stack.enter_context(caller.connection)
            greeting = exactly(plain, GREETING, caller.deadline)
            name = exactly(plain, greeting[-1], caller.deadline).decode("ascii", "replace")
            channel = self._open.get(greeting[len(MAGIC) : -1])
            if greeting[: len(MAGIC)] != MAGIC or channel is None or not channel.knows(name):
                raise ConnectionEnded
            pairing = Pairing(channel.secret(name), channel.digest, name, self.me)
            secured = pairing.server_context().wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            caller.connection = stack.enter_context(secured)
            secured.settimeout(caller.seconds_left)
            secured.do_handshake()
            if not pairing.is_peer(secured.getpeercert(binary_form=True), "client"):
                raise ConnectionEnded
            keep_alive(secured)
            secured.sendall(WELCOME)
            stack.pop_all()
        return channel, name, secured


def _listen(me: str, address: Address) -> socket.socket:
    try:
        return socket.create_server(address, backlog=MAX_CALLS)
    except OSError as error:
        host, port = address
        message = f"{me} cannot listen at {host}:{port} for its peers: {error.strerror}"
        raise ConfigError("CO-F341", f"{message}. Name another one in [talk] of node.toml (or in talk.json).") from None
