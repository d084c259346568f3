"""What every request of the API passes before a route sees it: unambiguous headers, and a bounded, flat JSON body.

The body is read whole here, so that no route waits for bytes, and none parses what is too large or nested too deep.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from coterie_node.web.api.problems import PROBLEM, encode_problem, make_problem
from coterie_node.web.api.tokens import Refused

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A study's document has 1 MiB at most, with some JSON around it; the page around the API takes a little more.
MAX_REQUEST_BYTES = (1 << 20) + (1 << 15)
MAX_DEPTH = 24
MAX_PATH, MAX_QUERY, MAX_HEAD_BYTES = 300, 2000, 16_384
# Headers that two programs could read differently if they are sent twice.
SINGLE = (
    b"authorization",
    b"content-length",
    b"content-type",
    b"host",
    b"idempotency-key",
    b"last-event-id",
    b"transfer-encoding",
)
# A string that nobody ends is matched to the end of the body, without a second try from within it. Else a body of
# escaped quotes would take time in the square of its length, before any token is looked at.
JSON_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
API_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class Doorway:
    """The outermost part of the API."""

    def __init__(self, app: ASGIApp, most: int = MAX_REQUEST_BYTES) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it with a problem document."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in API_HEADERS if pair[0] not in present)]
            await send(message)

        try:
            check_head(scope)
            body = await _read_body(scope, receive, self._most)
            check_body(scope, body)
        except Refused as refusal:
            await _send_refusal(refusal, send_with_headers)
            return
        await self._app(scope, _replay(body, receive), send_with_headers)


def check_head(scope: Scope) -> None:
    """Refused (CO-H103) for a head that two programs could read in two ways, or that is too long."""
    names = Counter(name.lower() for name, _ in scope["headers"])
    twice = [name.decode("latin-1") for name in SINGLE if names[name] > 1]
    if twice:
        raise Refused("CO-H103", f"The request has {twice[0]} twice. Send it once.", 400)
    if names[b"content-length"] and names[b"transfer-encoding"]:
        raise Refused("CO-H103", "The request has two lengths: Content-Length and Transfer-Encoding. Send one.", 400)
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    path, query = scope.get("raw_path") or scope["path"].encode(), scope.get("query_string", b"")
    if size > MAX_HEAD_BYTES or len(path) > MAX_PATH or len(query) > MAX_QUERY:
        raise Refused("CO-H103", "The address or the headers are too long. Shorten them.", 400)
    if any(ord(letter) < 0x20 or letter == "\\" for letter in scope["path"]) or ".." in scope["path"].split("/"):
        raise Refused("CO-H103", "The address has a character or a part that no address here has. Correct it.", 400)


async def _read_body(scope: Scope, receive: Receive, most: int) -> bytes:
    """The whole body; Refused (CO-H104) if it is too long, by what it says of itself or by what comes."""
    lengths = [value for name, value in scope["headers"] if name.lower() == b"content-length"]
    if lengths and (not lengths[0].isdigit() or len(lengths[0]) > 15 or int(lengths[0]) > most):
        raise Refused("CO-H104", f"The body has more than {most} bytes. Send less.", 413)
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
            raise Refused("CO-H104", f"The body has more than {most} bytes. Send less.", 413)
    return bytes(body)


def check_body(scope: Scope, body: bytes) -> None:
    """Refused for a body that is not declared as JSON (CO-H105), or is nested too deep (CO-H106)."""
    if not body:
        return
    kinds = [value for name, value in scope["headers"] if name.lower() == b"content-type"]
    if not kinds or kinds[0].split(b";")[0].strip().lower() != b"application/json":
        raise Refused("CO-H105", "The body is not declared as application/json. Set Content-Type.", 415)
    if measure_depth(body, MAX_DEPTH) > MAX_DEPTH:
        raise Refused("CO-H106", f"The body is nested deeper than {MAX_DEPTH} levels. Flatten it.", 422)


def measure_depth(body: bytes, enough: int) -> int:
    """How deep arrays and objects are nested in a JSON text; the count ends once it is above `enough`."""
    depth = deepest = 0
    for match in JSON_TOKENS.finditer(body):
        first = match[0][:1]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > enough:
                break
        elif first in b"]}":
            depth -= 1
    return deepest


def _replay(body: bytes, receive: Receive) -> Receive:
    """What the application receives: the body, and then the server's messages about the connection."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


async def _send_refusal(refusal: Refused, send: Send) -> None:
    body = encode_problem(make_problem(refusal.status, refusal.code, refusal.message))
    headers = [(b"content-type", PROBLEM.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close")] if refusal.status == 413 else []
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
