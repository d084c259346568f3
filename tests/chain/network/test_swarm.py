"""The wait for the stores of a development network: it names who is missing, and a silence ends nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from coterie_chain.errors import StoreFault
from coterie_chain.http_client import HttpClient, Waits
from coterie_chain.network.swarm import await_peers

NAMES = {"peer-of-south": "south", "peer-of-west": "west"}
BODY = b'{"Peers": [{"Peer": "peer-of-south"}, {"Peer": "peer-of-west"}]}'


class BusyKubo(BaseHTTPRequestHandler):
    """A daemon that hangs up at its first questions, and says then that both peers are there."""

    silences = 2

    def do_POST(self) -> None:
        """One answer, or none."""
        if type(self).silences > 0:
            type(self).silences -= 1
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpClient]:
    """A connection to that daemon."""
    monkeypatch.setattr(BusyKubo, "silences", 2)
    with HTTPServer(("127.0.0.1", 0), BusyKubo) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with HttpClient(f"http://127.0.0.1:{server.server_port}", Waits(5.0, 5.0, 5.0)) as connected:
            yield connected
        server.shutdown()


def test_a_store_that_does_not_answer_for_a_moment_is_asked_again(client: HttpClient) -> None:
    await_peers("north", client, NAMES, 60.0)


def test_a_store_that_never_answers_is_named_with_whom_it_lacks(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BusyKubo, "silences", 10**9)
    with pytest.raises(StoreFault, match="store of north does not reach south, west within 0 s, and did not") as late:
        await_peers("north", client, NAMES, 0.0)
    assert late.value.code == "CO-C336"
