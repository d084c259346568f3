"""Where a site talks to its peers in interactive steps: the network's twin of `talk.Hub`.

A node listens at one address for the sessions of all its studies. A connection begins with a plain greeting (session
and name, for the other side to know whom to expect), then TLS with the pair's certificates (pairing.py), then one byte
from the side that was called: welcome. Strangers who call get nothing but a closed connection.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack

from coterie_node.errors import ConfigError
from coterie_node.pairing import Pairing
from coterie_node.tls_channel import GREETING, MAGIC, WELCOME, Address, Closed, Patience, TlsChannel, exactly

# Strangers may hold so many connections, each for so many seconds.
MAX_CALLS, GREET_SECONDS = 64, 10.0
USUAL = Patience()


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
        patience: Patience = USUAL,
    ) -> None:
        self.me, self.addresses, self.secret, self.scope, self.patience = me, dict(addresses), secret, scope, patience
        self._open: dict[bytes, TlsChannel] = {}
        self._calls = threading.Semaphore(MAX_CALLS)
        self._listener = _listen(me, self.addresses[me])
        self.addresses[me] = self._listener.getsockname()[:2]
        threading.Thread(target=self._accept, daemon=True).start()

    def channel(self, me: str, session: Hashable, parties: Sequence[str]) -> TlsChannel:
        """This site's end of a session; ConfigError (CO-F342) if this node has no address of a party."""
        unknown = [name for name in parties if name not in self.addresses]
        if unknown:
            told = f"{me} has no address of {', '.join(unknown)} for interactive steps"
            raise ConfigError("CO-F342", f"{told}. Add it to [talk] in node.toml, or to talk.json.")
        digest = hashlib.sha256(f"{self.scope}/{session!r}".encode()).digest()
        opened = TlsChannel(
            me,
            digest,
            {name: self.addresses[name] for name in parties if name != me},
            # Asked for here, in the runner's thread: the threads that answer calls leave the ledger alone.
            {name: self.secret(name) for name in parties if name != me},
            self.patience,
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
        """Let a peer into its session; close on anybody else."""
        try:
            channel, name, secured = self._welcome(connection)
        except (OSError, Closed):
            return
        finally:
            self._calls.release()
        channel.hear(name, secured)

    def _welcome(self, connection: socket.socket) -> tuple[TlsChannel, str, ssl.SSLSocket]:
        """Who calls for which session; Closed for anybody who is not a peer with the right key."""
        with ExitStack() as held:
            held.enter_context(connection).settimeout(GREET_SECONDS)
            greeting = exactly(connection, GREETING)
            name = exactly(connection, greeting[-1]).decode("ascii", "replace")
            channel = self._open.get(greeting[len(MAGIC) : -1])
            if greeting[: len(MAGIC)] != MAGIC or channel is None or not channel.knows(name):
                raise Closed
            pairing = Pairing(channel.secret(name), channel.digest, name, self.me)
            secured = held.enter_context(pairing.server_context().wrap_socket(connection, server_side=True))
            if not pairing.is_peer(secured.getpeercert(binary_form=True), "client"):
                raise Closed
            secured.sendall(WELCOME)
            held.pop_all()
        return channel, name, secured


def address_of(text: str) -> Address:
    """Host and port of "host:port" or "[host]:port"; ValueError if it is neither."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{text!r} is not host:port")
    return host.strip("[]"), int(port)


def _listen(me: str, address: Address) -> socket.socket:
    try:
        return socket.create_server(address, backlog=MAX_CALLS)
    except OSError as error:
        host, port = address
        told = f"{me} cannot listen at {host}:{port} for its peers: {error.strerror}"
        raise ConfigError("CO-F341", f"{told}. Name another one in [talk] of node.toml (or in talk.json).") from None
