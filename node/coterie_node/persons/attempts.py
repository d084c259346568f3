"""Attempts of everybody to sign in: so many in a minute, because each one costs memory and time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from coterie_node.errors import ConfigError

# Attempts of everybody in so many seconds.
MOST_ATTEMPTS, ATTEMPT_SECONDS = 60, 60


class AttemptLimit:
    """Counts attempts; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._attempts: deque[float] = deque(maxlen=MOST_ATTEMPTS)
        self._lock = threading.Lock()

    def count(self) -> None:
        """Count an attempt; ConfigError (CO-F438) if there are too many."""
        now = self._clock()
        with self._lock:
            full = len(self._attempts) == MOST_ATTEMPTS and now - self._attempts[0] < ATTEMPT_SECONDS
            if not full:
                self._attempts.append(now)
        if full:
            raise ConfigError("CO-F438", "Too many people try to sign in. Wait a minute, then sign in again.")
