"""What the daemon tells over HTTP, read-only: /health to all; /metrics, /status, /heartbeats to who has the token."""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from coterie_node.errors import ConfigError
from coterie_node.peers.pending_connections import PendingConnections
from coterie_node.site.watch.health import Health

# Requests that are answered at a time; a newer one sends the oldest away.
MAX_REQUESTS = 32
JSON, TEXT = "application/json", "text/plain; version=0.0.4; charset=utf-8"


class HttpApi:
    """A server on one address; `token` opens everything but the health. The callables are asked at each request."""

    def __init__(
        self,
        host: str,
        port: int,
        token: str,
        *,
        health: Callable[[], Health],
        metrics: Callable[[], bytes],
        status: Callable[[], object],
        heartbeats: Callable[[], object] = dict,
    ) -> None:
        def answer(path: str, token_given: str) -> tuple[int, str, bytes]:
            if path == "/health":
                state = health()
                return (200 if state.healthy else 503), JSON, state.to_json()
            if not hmac.compare_digest(token_given.encode(), f"Bearer {token}".encode()):
                return 401, JSON, b'{"error": "a bearer token is needed"}'
            if path == "/metrics":
                return 200, TEXT, metrics()
            if path == "/status":
                return 200, JSON, json.dumps(status()).encode()
            if path == "/heartbeats":
                return 200, JSON, json.dumps(heartbeats()).encode()
            return 404, JSON, b'{"error": "no such page"}'

        try:
            self._server = _Server((host, port), _handler(answer))
        except OSError as error:
            message = f"The API cannot listen on {host}:{port}: {error.strerror or error}"
            raise ConfigError("CO-F323", f"{message}. Change [api] in node.toml; port 0 takes a free one.") from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="api", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    """A thread for each request, and few of them: who connects and says nothing takes no file from the node."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._doorstep = PendingConnections(MAX_REQUESTS, 0.0)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one request."""
        caller = self._doorstep.enter(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._doorstep.leave(caller)


def _handler(answer: Callable[[str, str], tuple[int, str, bytes]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """One request: GET only, a short time-out, nothing of the request in any log."""

        timeout = 10
        server_version, sys_version = "coterie", ""

        def do_GET(self) -> None:
            """Answer a page."""
            status, kind, body = answer(self.path, self.headers.get("Authorization", ""))
            self.send_response(status)
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            # A page of another site cannot read what it made a browser ask for; nothing is kept.
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Not logged: a path may hold what somebody typed by mistake."""

    return Handler
