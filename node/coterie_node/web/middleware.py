"""What holds for every answer of the page, for all visitors: hosts, headers, sizes.

    request  ->  headers of answers  ->  listed proxies  ->  listed hosts  ->  size of the body  ->  routes

The headers stand outermost, so that errors and refusals have them too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A study's document has 1 MiB at most (MAX_TOML); a form has some bytes around it.
MAX_FORM_BYTES = (1 << 20) + (1 << 16)
# Seconds until a request with its body is here.
BODY_SECONDS = 60.0
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
TOO_LONG = "CO-W105"
PAGE_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
STRICT_TRANSPORT = "max-age=31536000"


class HeaderWriter:
    """Adds the security headers to every answer; one that says nothing of caching is not to be kept."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _complete_headers(message.get("headers", []), scope["scheme"])
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _complete_headers(headers: Sequence[tuple[bytes, bytes]], scheme: str) -> list[tuple[bytes, bytes]]:
    present = {name.lower() for name, _ in headers}
    wanted = {**PAGE_HEADERS, "cache-control": "no-store"}
    wanted |= {"strict-transport-security": STRICT_TRANSPORT} if scheme == "https" else {}
    more = [(name.encode(), value.encode()) for name, value in wanted.items() if name.encode() not in present]
    return [*headers, *more]


class BodyLimit:
    """Refuses a request whose body is longer than `most` bytes, by what it says of itself and by what comes.

    A body that is not whole after so many seconds is refused too: it would keep its place for as long as it likes.
    """

    def __init__(self, app: ASGIApp, most: int = MAX_FORM_BYTES, seconds: float = BODY_SECONDS) -> None:
        self._app, self._most, self._seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
            await _refuse(400, "CO-W104: The request has two lengths, which two programs read in two ways.")(
                scope, receive, send
            )
            return
        if _read_length(scope) > self._most:
            await _refuse(413, _explain_size(self._most))(scope, receive, send)
            return
        size, whole = 0, False
        deadline = asyncio.get_running_loop().time() + self._seconds

        async def receive_some() -> Message:
            nonlocal size, whole
            try:
                # Behind the body the server says that the visitor went, and that takes as long as it takes.
                async with asyncio.timeout_at(None if whole else deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, _explain_time(self._seconds)) from None
            size, whole = size + len(message.get("body", b"")), not message.get("more_body", False)
            if size > self._most:
                raise HTTPException(413, _explain_size(self._most))  # the application makes an answer of it
            return message

        await self._app(scope, receive_some, send)


def _read_length(scope: Scope) -> int:
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    text = lengths[0].decode("latin-1") if lengths else "0"
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else MAX_FORM_BYTES + 1


def _refuse(status: int, text: str) -> PlainTextResponse:
    return PlainTextResponse(f"{text}\n", status, {"connection": "close"})


def _explain_size(most: int) -> str:
    return f"{TOO_LONG}: The request has more than {most} bytes. Send a smaller file."


def _explain_time(seconds: float) -> str:
    return f"{TOO_LONG}: The request was not whole after {seconds:g} seconds. Send it again."


def wrap(app: ASGIApp, hosts: Sequence[str], proxies: Sequence[str]) -> ASGIApp:
    """The application behind all of it. `proxies` are addresses whose forwarded headers count; none by default."""
    inner: ASGIApp = TrustedHostMiddleware(BodyLimit(app), allowed_hosts=list(hosts), www_redirect=False)
    if proxies:
        inner = ProxyHeadersMiddleware(inner, trusted_hosts=list(proxies))  # type: ignore[arg-type, assignment]
    return HeaderWriter(inner)
