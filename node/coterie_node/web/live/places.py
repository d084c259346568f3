"""How much may be at work at a time, in all and of one visitor; a stream has a place for as long as it lasts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

from coterie_node.web.api.tokens import Refused

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class WorkPlaces:
    """So many may be at work at a time, and so many of one token or account."""

    def __init__(self, most: int, most_of_one: int, what: str) -> None:
        self._most, self._most_of_one, self._what = most, most_of_one, what
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def enter(self, token: str) -> None:
        """Take a place; Refused (CO-H112) if there is none."""
        with self._lock:
            if self._taken.total() >= self._most or self._taken[token] >= self._most_of_one:
                message = f"{self._taken.total()} {self._what} are open, {self._taken[token]} of yours"
                raise Refused("CO-H112", f"{message}. Close one, or try again later.", 429)
            self._taken[token] += 1

    def leave(self, token: str) -> None:
        """Give the place back."""
        with self._lock:
            self._taken[token] -= 1
            self._taken += Counter()  # drops those at zero

    @contextmanager
    def place(self, token: str) -> Iterator[None]:
        """A place for a while."""
        self.enter(token)
        try:
            yield
        finally:
            self.leave(token)

    @property
    def count(self) -> int:
        """How many are at work."""
        return self._taken.total()


class PlacedStream(StreamingResponse):
    """Server-sent events with a place, which is free again at the end, also if the visitor goes before the first."""

    def __init__(self, events: AsyncIterator[str], places: WorkPlaces, holder: str) -> None:
        """Take the place; Refused (CO-H112) if there is none."""
        places.enter(holder)
        super().__init__(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._places, self._holder = places, holder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.leave(self._holder)
