"""Whether a swarm is private, asked of ports that greet as daemons do."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from coterie_chain.network.swarm_probe import is_private_swarm

Greeter = Callable[[bytes], str]


@pytest.fixture
def greeter() -> Iterator[Greeter]:
    """Servers on loopback that say a few bytes to whoever connects, and then wait."""
    sockets: list[socket.socket] = []

    def serve(server: socket.socket, greeting: bytes) -> None:
        connection, _ = server.accept()
        sockets.append(connection)
        connection.sendall(greeting)

    def start(greeting: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)
        threading.Thread(target=serve, args=(server, greeting), daemon=True).start()
        return f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}/p2p/12D3KooWPeer"

    yield start
    for connection_or_server in sockets:
        connection_or_server.close()


def test_a_nonce_is_private_and_a_greeting_is_not(greeter: Greeter) -> None:
    assert is_private_swarm([greeter(os.urandom(24))]) is True
    assert is_private_swarm([greeter(b"\x13/multistream/1.0.0\n\x13/no")]) is False


def test_fewer_bytes_than_a_nonce_are_no_proof(greeter: Greeter) -> None:
    assert is_private_swarm([greeter(os.urandom(9))], seconds=0.3) is False


def test_addresses_that_are_no_tcp_or_do_not_answer_are_passed_over(greeter: Greeter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    dead = ["/ip4/127.0.0.1/udp/4001/quic-v1", f"/ip4/127.0.0.1/tcp/{closed}", "/ip4/127.0.0.1/tcp/99999", "nonsense"]
    assert is_private_swarm(dead) is None
    assert is_private_swarm([*dead, greeter(os.urandom(24))]) is True
