"""What one peer has sent and this site has not read yet, in order; a peer that sends more than its limit waits."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

# Bytes that may wait, unless it is one frame alone; each frame counts for a little more than its data.
MAX_WAITING_BYTES, OVERHEAD = 1 << 29, 64


@dataclass(frozen=True)
class Ended:
    """A peer's last word: the site at fault for which it ends the session; empty if it only went away."""

    culprit: str = ""


class Inbox:
    """Frames of one peer, and then its last word; one thread puts, another gets."""

    def __init__(self, room: int = MAX_WAITING_BYTES) -> None:
        # Invariant: `_held` counts the bytes of `_frames` with overhead. Nothing follows the last word, but all frames
        # before it are still read. After `shut` nobody reads, and `put` refuses.
        self._room = room
        self._frames: deque[bytes] = deque()
        self._held = 0
        self._last: Ended | None = None
        self._shut = False
        self._news = threading.Condition()

    def put(self, frame: bytes) -> bool:
        """Add a frame as soon as there is room for it; False if nobody reads any more."""
        size = len(frame) + OVERHEAD
        with self._news:
            # One frame alone may be larger than the room: else it could never pass.
            self._news.wait_for(lambda: self._shut or not self._held or self._held + size <= self._room)
            if self._shut:
                return False
            self._frames.append(frame)
            self._held += size
            self._news.notify_all()
        return True

    def end(self, last: Ended) -> None:
        """No frame follows; the first last word counts."""
        with self._news:
            self._last = self._last or last
            self._news.notify_all()

    def get(self, seconds: float) -> bytes | Ended | None:
        """The next frame, the last word after all frames, or None if nothing comes for so long."""
        with self._news:
            self._news.wait_for(lambda: self._frames or self._last, timeout=seconds)
            if not self._frames:
                return self._last
            frame = self._frames.popleft()
            self._held -= len(frame) + OVERHEAD
            self._news.notify_all()
        return frame

    def last_word(self, seconds: float) -> Ended | None:
        """The last word if it comes within `seconds`, whatever frames come before it: those are dropped."""
        deadline = time.monotonic() + seconds
        while (seconds_left := deadline - time.monotonic()) > 0:
            received = self.get(seconds_left)
            if isinstance(received, Ended):
                return received
        return None

    def shut(self) -> None:
        """Nobody reads any more: drop what is here, and release a thread that waits for room."""
        with self._news:
            self._shut = True
            self._frames.clear()
            self._held = 0
            self._news.notify_all()
