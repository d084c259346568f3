"""A development node tells of its blocks; any other server at its address tells nothing, and nobody waits for it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from support.chain.anvil import AnvilClient
from support.chain.bench import AnvilBench, Sites
from support.chain.http_answers import serve_answers
from support.lanes import later

from coterie_chain import head_listener
from coterie_chain.ethereum.reader import Reader
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.head_listener import HeadListener

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
LONG = 20.0


def frame(text: str) -> bytes:
    """A server's message in one frame."""
    size = len(text)
    return (bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")) + text.encode()


TAKEN = frame('{"jsonrpc":"2.0","id":1,"result":"0x1"}')


def shake_hands(connection: socket.socket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(4096)
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", head)
    assert key is not None
    accepted = base64.b64encode(hashlib.sha1(key[1] + GUID.encode()).digest())
    connection.sendall(UPGRADED + b"Sec-WebSocket-Accept: " + accepted + b"\r\n\r\n")


@contextmanager
def serve(*pieces: bytes, answer: Callable[[socket.socket], None] = shake_hands) -> Iterator[str]:
    """A server's address: it answers the first connection, sends these pieces one by one, and ends it."""
    listening = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with suppress(OSError), listening.accept()[0] as connection:
            answer(connection)
            connection.recv(4096)  # what it is asked for
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.01)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.close()
        thread.join(10)


def head_of(number: int) -> bytes:
    return frame(json.dumps({"method": "eth_subscription", "params": {"result": {"number": hex(number), "x": 1}}}))


@pytest.mark.anvil
def test_a_block_of_a_development_node_is_heard_of(anvil: AnvilClient) -> None:
    heads = HeadListener(anvil.url)
    assert heads.open()
    before = int(anvil.rpc("eth_blockNumber"), 16)
    assert heads.listen(0.01) is None
    anvil.rpc("evm_mine")
    assert heads.listen(LONG) == before + 1
    heads.close()
    assert heads.listen(0.01) is None


@pytest.mark.anvil
def test_who_hears_of_blocks_asks_for_their_number_next_to_never(anvil: AnvilClient, monkeypatch: Any) -> None:
    bench, asked = AnvilBench(anvil), Counter[bool]()
    sites = Sites(bench)
    study = sites.start()
    heads = HeadListener(anvil.url)
    with Rpc(anvil.url) as rpc:
        reader = Reader(rpc, bench.network, confirmations=0, poll=0.02, clock="pending", heads=heads)
        reader.view(study)
        post = Rpc._post
        monkeypatch.setattr(Rpc, "_post", lambda self, *rest: [asked.update([self is rpc]), post(self, *rest)][1])
        reader.wait(0.3)
        assert asked[True] <= 5
        reader.wait(0.0)
        sites.post(study, "ana")
        asked.clear()
        reader.wait(LONG)
        view = reader.view(study)
        assert view.open is not None
        assert (view.open.posted, asked[True]) == (("ana",), 1)
    heads.close()
    bench.close()


def test_a_number_that_comes_in_pieces_is_put_together() -> None:
    head = head_of(0x2F)
    at = head.index(b"0x2f") + 3
    with serve(TAKEN, head[:at], head[at:]) as url:
        heads = HeadListener(url)
        assert heads.open()
        assert heads.listen(LONG) == 0x2F
        heads.close()


def refuse(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")


def accept_wrongly(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(UPGRADED + b"Sec-WebSocket-Accept: bm8=\r\n\r\n")


def say_too_much(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 101 " + b"x" * 20_000)


def be_silent(connection: socket.socket) -> None:
    connection.recv(4096)
    time.sleep(0.3)


def refuse_subscription(connection: socket.socket) -> None:
    shake_hands(connection)
    connection.sendall(frame('{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":""}}'))


@pytest.mark.parametrize("answer", [refuse, *later(accept_wrongly, say_too_much, be_silent, refuse_subscription)])
def test_a_server_that_tells_nothing_is_asked_once_in_a_while(
    answer: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_listener, "_PATIENCE", 0.1)
    with serve(answer=answer) as url:
        heads = HeadListener(url)
        assert not heads.open()
        monkeypatch.setattr(socket, "create_connection", pytest.fail)
        assert not heads.open()
        assert heads.listen(0.001) is None


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[" * 60_000, '{"params":{"result":{"number":"0x' + "f" * 5000 + '"}}}', '{"params":7}']
)
def test_a_message_about_no_block_is_passed_over(text: str) -> None:
    with serve(TAKEN, frame(text), head_of(5)) as url:
        heads = HeadListener(url)
        assert heads.open()
        assert heads.listen(LONG) == 5
        heads.close()


def test_a_connection_that_ends_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_listener, "_RETRY_AFTER", 0.0)
    with serve(TAKEN, head_of(1)) as url:
        heads = HeadListener(url)
        assert heads.open()
        assert heads.listen(LONG) == 1
        assert heads.listen(0.2) is None
    assert not heads.open()
    heads.close()


FLOODS = {
    "pings": b"\x89\x01x",
    "parts of a message without end": b"\x00\x00",
    "messages about no block": frame('{"x":1}'),
    "bytes": b"\x82\x01x",
    "one block": head_of(1),
}


@pytest.mark.parametrize("kind", ["pings", *later(*list(FLOODS)[1:])])
def test_a_connection_with_many_frames_and_no_newer_block_is_ended(kind: str) -> None:
    """Each takes the listener's time, most of them where nobody sees them, and nothing bounds how many come."""
    ended = threading.Event()

    def flood(connection: socket.socket) -> None:
        shake_hands(connection)
        connection.recv(4096)  # what it is asked for
        begin = b"\x01\x00" if kind.startswith("parts") else b""
        with suppress(OSError):
            connection.sendall(TAKEN + begin + FLOODS[kind] * 5000)
            while connection.recv(4096):
                pass
        ended.set()

    with serve(answer=flood) as url:
        heads = HeadListener(url)
        assert heads.open()
        silences = 0
        while heads.open() and silences < 50:
            silences += heads.listen(0.2) is None
        assert ended.wait(LONG)
        assert heads.listen(0.001) is None
        assert not heads.open()
        heads.close()


@pytest.mark.long
def test_any_number_of_newer_blocks_is_heard() -> None:
    with serve(TAKEN, *(b"".join(map(head_of, range(at, at + 100))) for at in range(0, 3000, 100))) as url:
        heads = HeadListener(url)
        assert heads.open()
        assert [heads.listen(LONG) for _ in range(3000)] == list(range(3000))
        heads.close()


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:1", "http://u:p@127.0.0.1:1", "http://127.0.0.1:1/?jwt_file=x", "http://127.0.0.1:1"]
)
def test_an_address_with_a_secret_and_one_where_nobody_is_are_not_listened_to(url: str) -> None:
    assert not HeadListener(url).open()


def test_an_http_server_is_no_listener_s_fault() -> None:
    with serve_answers(lambda body: b"{}") as url:
        assert not HeadListener(url).open()
