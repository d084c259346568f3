"""One look for changes for all who follow a part: a hundred viewers cost the process what one does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# Seconds between two looks for a change, and until all who wait are called without one.
TICK_SECONDS, CALL_ALL_SECONDS = 0.2, 1.0


class ChangeWatch:
    """Looks at a version while anybody waits. The waits of one event loop share one task."""

    def __init__(self, read: Callable[[], tuple[int, ...]]) -> None:
        self._read = read
        self._called: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None

    async def wait(self, seen: tuple[int, ...]) -> float:
        """Wait until the version is another one than was seen, a second at most; returns the seconds."""
        if self._read() != seen:
            return 0.0
        loop = asyncio.get_running_loop()
        begun = loop.time()
        if self._called is None or self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._called = asyncio.Event()
            self._task = loop.create_task(self._look(self._called, seen))
        await self._called.wait()
        return loop.time() - begun

    async def _look(self, called: asyncio.Event, seen: tuple[int, ...]) -> None:
        """Call all who wait after a change, or after a second."""
        seconds = 0.0
        try:
            while seconds < CALL_ALL_SECONDS and self._read() == seen:
                await asyncio.sleep(TICK_SECONDS)
                seconds += TICK_SECONDS
        finally:
            called.set()
