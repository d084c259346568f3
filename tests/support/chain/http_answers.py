"""An HTTP server on loopback that answers every POST with bytes that a test chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serve_answers(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """The server's URL; `answer` makes of a request's body what comes back."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else the client's late acknowledgement delays each answer by 40 ms

        def do_POST(self) -> None:
            content = answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            with suppress(ConnectionError):
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
