"""Sessions of the page, on the server's side; a browser has a random name of 256 bits and nothing else.

    anonymous --sign in--> signed in (another name, another token) --sign out, idle, too old--> gone

A session begins anonymous, because the form of the login needs a CSRF token too. Signing in never keeps a session's
name. Sessions live in memory: after a restart of the page everybody signs in again.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from coterie_node.persons.roles import Person

# Visitors who only look at the login form; the oldest give way.
MOST_SESSIONS, DROPPED_AT_ONCE = 4096, 512


@dataclass(frozen=True)
class PageSession:
    """One visitor: the session's name, its CSRF token, when it began and was last used, and who signed in.

    `message` is shown once, on the next page.
    """

    name: str
    token: str
    begun: float
    used: float
    person: Person | None = None
    message: str = ""


class PageSessions(Protocol):
    """The storage of sessions."""

    def begin(self, person: Person | None = None) -> PageSession:
        """A new session under a new name."""

    def find(self, name: str, use: bool = True) -> PageSession | None:
        """The session of this name, which counts as used now if `use`; None if there is none or its time is over."""

    def peek(self, name: str) -> bool:
        """Whether a session of this name has not ended; asking is no use of it."""

    def update(self, session: PageSession) -> None:
        """Keep a session's new state, if it has not ended."""

    def end(self, name: str) -> None:
        """End a session."""


class MemorySessions:
    """Sessions in memory: `idle` seconds without a request end one, and so do `longest` seconds in all."""

    def __init__(self, idle: float, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle, self._longest, self._clock = idle, longest, clock
        self._sessions: dict[str, PageSession] = {}
        self._lock = threading.Lock()

    def begin(self, person: Person | None = None) -> PageSession:
        """A new session under a new name."""
        now = self._clock()
        session = PageSession(secrets.token_urlsafe(32), secrets.token_urlsafe(32), now, now, person)
        with self._lock:
            self._make_room()
            self._sessions[session.name] = session
        return session

    def find(self, name: str, use: bool = True) -> PageSession | None:
        """The session of this name, which counts as used now if `use`; None if there is none or its time is over."""
        with self._lock:
            session = self._find_alive(name)
            if session is not None and use:
                self._sessions[name] = session = replace(session, used=self._clock())
            return session

    def peek(self, name: str) -> bool:
        """Whether a session of this name has not ended; asking is no use of it."""
        with self._lock:
            return self._find_alive(name) is not None

    def _find_alive(self, name: str) -> PageSession | None:
        session, now = self._sessions.get(name), self._clock()
        if session is None:
            return None
        if now - session.used > self._idle or now - session.begun > self._longest:
            del self._sessions[name]
            return None
        return session

    def update(self, session: PageSession) -> None:
        """Keep a session's new state, if it has not ended."""
        with self._lock:
            if session.name in self._sessions:
                self._sessions[session.name] = session

    def end(self, name: str) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(name, None)

    def _make_room(self) -> None:
        """Drop sessions whose time is over; if there are too many still, some of the oldest, anonymous ones first.

        Some at a time, so that a flood of visitors does not make each visit a search through all sessions.
        """
        if len(self._sessions) < MOST_SESSIONS:
            return
        now = self._clock()
        self._sessions = {name: s for name, s in self._sessions.items() if now - s.used <= self._idle}
        if len(self._sessions) >= MOST_SESSIONS:
            oldest = sorted(self._sessions.values(), key=lambda s: (s.person is not None, s.used))
            anonymous = sum(session.person is None for session in oldest)
            for session in oldest[: max(1, min(anonymous, DROPPED_AT_ONCE))]:
                del self._sessions[session.name]
