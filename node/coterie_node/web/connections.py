"""Connections with a deadline: a client that sends no whole request in time gives its place to others.

The server answers so many connections at a time. Without a deadline for the head of a request, some hundred silent
sockets would keep everybody else out, and nobody would have to sign in for that.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol


class PromptProtocol(H11Protocol):
    """HTTP/1.1 with a deadline for the head of each request, from the connection or from its first byte on."""

    head_seconds: ClassVar[float] = 20.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """The deadline of the first request begins."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """A byte of a request does not move its deadline; a whole head ends it."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        if self._is_answering():
            self._stop()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.head_seconds, self._drop)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _drop(self) -> None:
        self._deadline = None
        if not self._is_answering():
            self.transport.abort()
