"""The one HTTP client: it keeps a connection, bounds size and time, and follows nobody."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.lanes import later

from coterie_chain.http_client import WIRE_FAULTS, EndlessAnswer, HttpClient, Waits

WAITS = Waits(connect=2.0, silence=2.0, answer=2.0)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "/echo")
        else:
            self.send_response(200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.path == "/idle"

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.connections = 0

    def process_request(self, request: object, client_address: object) -> None:
        self.connections += 1
        super().process_request(request, client_address)  # type: ignore[arg-type]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield served
        served.shutdown()
        thread.join()


@pytest.fixture
def client(server: Server) -> Iterator[HttpClient]:
    with HttpClient(f"http://127.0.0.1:{server.server_port}", WAITS) as opened:
        yield opened


@pytest.mark.parametrize("path", ["/echo", "/chunked"])
def test_a_connection_is_kept_for_the_next_request(server: Server, client: HttpClient, path: str) -> None:
    assert [client.post(path, bytes([k]) * 200_000, limit=1 << 20).body[-1] for k in range(5)] == list(range(5))
    assert server.connections == 1


def test_a_request_is_sent_again_where_the_server_closed_an_idle_connection(server: Server, client: HttpClient) -> None:
    assert [client.post("/idle", b"x", limit=9).body for _ in range(3)] == [b"x"] * 3
    assert server.connections == 3


def test_threads_do_not_wait_for_each_other_s_answers(server: Server, client: HttpClient) -> None:
    waits = Waits(connect=2.0, silence=0.5, answer=0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent, HttpClient(_address(silent), waits) as stuck:
        waiting = threading.Thread(target=_await_silence, args=(stuck,))
        waiting.start()
        assert client.post("/echo", b"x", limit=9).body == b"x"
        waiting.join()


def test_an_answer_is_cut_one_byte_above_its_limit(client: HttpClient) -> None:
    assert client.post("/echo", bytes(1000), limit=100).body == bytes(101)
    assert client.post("/echo", b"next", limit=100).body == b"next"


def test_a_redirect_is_an_answer_and_is_not_followed(client: HttpClient) -> None:
    assert client.post("/away", b"secret", limit=100).status == 302


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", http.client.IncompleteRead),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf", http.client.IncompleteRead),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", http.client.HTTPException),
        (
            b"HTTP/1.1 100 Continue\r\n\r\n" * 11 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            http.client.HTTPException,
        ),
        (b"SSH-2.0\r\n", http.client.BadStatusLine),
        (b"", http.client.RemoteDisconnected),
    ],
)
def test_a_connection_that_breaks_off_is_a_fault_and_no_answer(raw: bytes, fault: type[Exception]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, HttpClient(_address(server), WAITS) as client:
        thread = threading.Thread(target=_answer_raw, args=(server, raw))
        thread.start()
        with pytest.raises(fault) as caught:
            client.post("/", b"x", limit=100)
        thread.join()
    assert isinstance(caught.value, WIRE_FAULTS)


def test_nobody_at_the_address_is_a_fault_of_the_wire() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = _address(server)
    with pytest.raises(WIRE_FAULTS):
        HttpClient(address, WAITS).get("/", limit=9)


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "begin",
    [
        HEAD + b"Content-Length: 9999\r\n\r\n",
        *later(b"HTTP/1.1 2", HEAD + b"X-Slow: ", HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;"),
    ],
    ids=["body", "status", "header", "chunk"],
)
def test_an_answer_that_comes_byte_by_byte_ends_with_its_time(begin: bytes) -> None:
    """No silence is long, and no line ends: without a deadline the wait would be as long as the server likes."""
    stopped = threading.Event()

    def drip(server: socket.socket) -> None:
        line, _ = server.accept()
        with closing(line), suppress(OSError):
            line.sendall(begin)
            while not stopped.wait(0.01):
                line.sendall(b"1")

    waits = Waits(connect=10.0, silence=10.0, answer=0.3)
    with socket.create_server(("127.0.0.1", 0)) as server, HttpClient(_address(server), waits) as client:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        with pytest.raises(EndlessAnswer, match=r"after 0\.3 s"):
            client.post("/", b"x", limit=1 << 20)
        stopped.set()
        thread.join()


def _await_silence(client: HttpClient) -> None:
    with suppress(TimeoutError):
        client.get("/", limit=9)


def _answer_raw(server: socket.socket, raw: bytes) -> None:
    connection, _ = server.accept()
    with closing(connection):
        request = b""
        while not request.endswith(b"\r\n\r\nx"):  # closing on unread bytes would reset the connection
            request += connection.recv(1 << 16)
        connection.sendall(raw)


def _address(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}"
