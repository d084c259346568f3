"""A look-alike of the Kubo RPC: the request formats of Kubo 0.43, its refusals, and lies on request.

It shares no code with coterie_chain: CIDs are made and links are found in its own way, so that a mistake of ours shows.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

CODECS = {"raw": 0x55, "dag-pb": 0x70}
LINK = re.compile(rb"\x0a\x24\x01([\x55\x70])\x12\x20(.{32})", re.DOTALL)
Answer = tuple[int, bytes]
Query = dict[str, str]


def format_cid(codec: int, digest: bytes) -> str:
    return "b" + base64.b32encode(bytes([1, codec, 0x12, 0x20]) + digest).decode().lower().rstrip("=")


@dataclass
class KuboServer:
    """The daemon's state. `lie(command, query)` may answer instead of it; None lets the truth pass."""

    token: str | None = None
    blocks: dict[str, bytes] = field(default_factory=dict)
    pins: set[str] = field(default_factory=set)
    requests: list[tuple[str, Query]] = field(default_factory=list)
    lie: Callable[[str, Query], Answer | None] = lambda command, query: None
    url: str = ""

    def answer(self, command: str, query: Query, body: bytes | None) -> Answer:
        self.requests.append((command, query))
        verb = {
            "version": self.version,
            "block/put": lambda q: self.block_put(q, body),
            "block/get": self.block_get,
            "block/stat": self.block_stat,
            "pin/add": self.pin_add,
            "pin/rm": self.pin_rm,
            "repo/gc": self.repo_gc,
        }.get(command)
        if verb is None:
            return 404, b"404 page not found"
        return self.lie(command, query) or verb(query)

    def version(self, query: Query) -> Answer:
        return answer_ok(
            {"Version": "0.43.1", "Commit": "", "Repo": "18", "System": "amd64/linux", "Golang": "go1.26.4"}
        )

    def block_put(self, query: Query, block: bytes | None) -> Answer:
        if block is None:
            return answer_error("file argument 'data' is required")
        if query["mhtype"] != "sha2-256" or query["cid-codec"] not in CODECS:
            return answer_error("unrecognized multihash function or codec")
        if len(block) > 1 << 20:
            return answer_error("produced block is over 1MiB: big blocks can't be exchanged with other peers.")
        name = format_cid(CODECS[query["cid-codec"]], hashlib.sha256(block).digest())
        self.blocks[name] = block
        if query["pin"] == "true":
            self.pins.add(name)
        return answer_ok({"Key": name, "Size": len(block)})

    def block_get(self, query: Query) -> Answer:
        name = query["arg"]
        return (200, self.blocks[name]) if name in self.blocks else self.report_absent(query)

    def block_stat(self, query: Query) -> Answer:
        name = query["arg"]
        return (
            answer_ok({"Key": name, "Size": len(self.blocks[name])})
            if name in self.blocks
            else self.report_absent(query)
        )

    def pin_add(self, query: Query) -> Answer:
        todo = [query["arg"]]
        while todo:
            name = todo.pop()
            if name not in self.blocks:
                return self.report_absent(query)
            todo += self.list_links(name)
        self.pins.add(query["arg"])
        return answer_ok({"Pins": [query["arg"]]})

    def repo_gc(self, query: Query) -> Answer:
        kept, todo = set[str](), list(self.pins)
        while todo:
            name = todo.pop()
            kept.add(name)
            todo += self.list_links(name)
        self.blocks = {name: block for name, block in self.blocks.items() if name in kept}
        return 200, b""

    def list_links(self, name: str) -> list[str]:
        """What a block of a tree names; a block of raw bytes names nothing."""
        if name.startswith("bafkr"):
            return []
        return [format_cid(codec[0], digest) for codec, digest in LINK.findall(self.blocks[name])]

    def pin_rm(self, query: Query) -> Answer:
        if query["arg"] not in self.pins:
            return answer_error("not pinned or pinned indirectly")
        self.pins.discard(query["arg"])
        return answer_ok({"Pins": [query["arg"]]})

    def report_absent(self, query: Query) -> Answer:
        if query.get("offline") == "true":
            return answer_error(f"block was not found locally (offline): ipld: could not find {query['arg']}")
        # Without a time-out the real daemon searches its swarm for ever; a minute is long enough for a test to fail.
        time.sleep(float(query.get("timeout", "60000ms").removesuffix("ms")) / 1000)
        return answer_error("context deadline exceeded")


def answer_ok(value: object) -> Answer:
    return 200, json.dumps(value).encode() + b"\n"


def answer_error(message: str) -> Answer:
    return 500, json.dumps({"Message": message, "Code": 0, "Type": "error"}).encode() + b"\n"


class Handler(BaseHTTPRequestHandler):
    kubo: KuboServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        # A client that had enough hangs up; it may.
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(405, b"405 - Method Not Allowed")

    def do_POST(self) -> None:
        body = self.body()
        if self.kubo.token is not None and self.headers.get("Authorization") != f"Bearer {self.kubo.token}":
            self.reply(403, b"403 - Forbidden")
            return
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        block = self.file(body) if "multipart/form-data" in self.headers.get("Content-Type", "") else None
        self.reply(*self.kubo.answer(url.path.removeprefix("/api/v0/"), query, block))

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def file(self, body: bytes) -> bytes:
        kind = self.headers["Content-Type"].encode()
        message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind + b"\r\n\r\n")
        boundary = message.get_boundary()
        assert boundary is not None
        # By hand: the e-mail parser would change line ends inside a binary part.
        mark = b"--" + boundary.encode()
        parts = (b"\r\n" + body).split(b"\r\n" + mark)
        assert parts[-1].startswith(b"--")
        (part,) = parts[1:-1]
        head, _, content = part.partition(b"\r\n\r\n")
        assert b"filename=" in head
        return content

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Server", "kubo/0.43.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve_kubo(kubo: KuboServer) -> Iterator[KuboServer]:
    """The daemon on a port of its own, `kubo.url`."""
    handler = type("BoundHandler", (Handler,), {"kubo": kubo})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        kubo.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield kubo
        finally:
            server.shutdown()
            thread.join()
