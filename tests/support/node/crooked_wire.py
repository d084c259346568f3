"""A way to a server that stops, or breaks, after so many bytes of what the server sends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

Crookedness = Literal["hangs", "drops", "garbles"]


@dataclass
class CrookedWire:
    """Passes on what client and server say, until the server has said `allowance` bytes on one connection."""

    port: int
    kind: Crookedness
    allowance: int
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    ends: list[socket.socket] = field(default_factory=list)

    @property
    def address(self) -> int:
        """The port to connect to."""
        port: int = self.listener.getsockname()[1]
        return port

    def serve(self) -> None:
        """Take connections until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.port))
                self.ends += [client, server]
                threading.Thread(target=self._pass, args=(client, server, None), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, self.allowance), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, allowance: int | None) -> None:
        sent = 0
        with suppress(OSError):
            while data := source.recv(4096):
                sent += len(data)
                if allowance is None or sent <= allowance:
                    target.sendall(data)
                elif self.kind == "drops":
                    target.shutdown(socket.SHUT_RDWR)
                elif self.kind == "garbles":
                    target.sendall(bytes(255 - byte for byte in data))


@contextmanager
def bend_wire(port: int, kind: Crookedness, allowance: int) -> Iterator[int]:
    """The port of a crooked way to the server at `port`."""
    wire = CrookedWire(port, kind, allowance)
    threading.Thread(target=wire.serve, daemon=True).start()
    try:
        yield wire.address
    finally:
        wire.listener.close()
        _end(wire.ends)


@contextmanager
def speak(greeting: bytes) -> Iterator[int]:
    """The port of a server that says these bytes to whoever comes, and then nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                ends.append(listener.accept()[0])
                ends[-1].sendall(greeting)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # a thread that waits for a client goes on
        listener.close()
        thread.join()
        _end(ends)


def _end(ends: list[socket.socket]) -> None:
    """Close connections, those too for which a thread waits."""
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
