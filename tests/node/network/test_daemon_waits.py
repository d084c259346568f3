"""The wait for a daemon: its fault names the site, what the daemon said, and how long it had no processor."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from coterie_chain.errors import StoreFault
from coterie_chain.network.programs.ports import find_free_port
from coterie_chain.network.programs.service import Service
from coterie_node.network.local_nodes import await_health

WITHIN = 0.3
SLEEPS = "import time; time.sleep(600)"


class Unwell(BaseHTTPRequestHandler):
    """A daemon that says it is not well."""

    def do_GET(self) -> None:
        """Status 503, and why."""
        body = b"no block for 20 s"
        self.send_response(503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Service]:
    """A process of the site `west` that runs and listens nowhere."""
    service = Service("node", tmp_path / "west" / "node", lambda: Path(sys.executable), ("-c", SLEEPS))
    service.start()
    yield service
    service.stop()


def test_a_daemon_that_says_nothing_is_named_with_the_time_it_could_not_run(daemon: Service) -> None:
    with pytest.raises(StoreFault, match=r"The daemon of west does not answer after \d+ s\. It runs, and had") as late:
        await_health(daemon, f"http://127.0.0.1:{find_free_port()}", WITHIN)
    assert late.value.code == "CO-C336"


def test_a_daemon_that_is_not_well_is_quoted(daemon: Service) -> None:
    with HTTPServer(("127.0.0.1", 0), Unwell) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(StoreFault, match=r"west is not well after \d+ s: no block for 20 s\. It runs"):
            await_health(daemon, f"http://127.0.0.1:{server.server_port}", WITHIN)
        server.shutdown()


def test_a_daemon_that_ended_is_not_waited_for(daemon: Service) -> None:
    daemon.kill()
    with pytest.raises(StoreFault, match="node did not become ready"):
        await_health(daemon, f"http://127.0.0.1:{find_free_port()}", 600.0)
