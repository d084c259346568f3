"""What the routes of the API work with, and how much of it may run at a time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from coterie_node.site.folder import SiteFolder
from coterie_node.web.api.idempotency import IDEMPOTENCY, IdempotencyKeys
from coterie_node.web.api.signatures import NoRegister, RegisterSignatures, Signatures
from coterie_node.web.api.tokens import TOKENS, Refused, TokenFile


class WorkPlaces:
    """So many may be at work at a time, and so many of one token."""

    def __init__(self, most: int, most_of_one: int, what: str) -> None:
        self._most, self._most_of_one, self._what = most, most_of_one, what
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def enter(self, token: str) -> None:
        """Take a place; Refused (CO-H112) if there is none."""
        with self._lock:
            if self._taken.total() >= self._most or self._taken[token] >= self._most_of_one:
                message = f"{self._taken.total()} {self._what} are open, {self._taken[token]} of this token"
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


@dataclass(frozen=True)
class ApiServices:
    """The seams are the site's folder (its ledger and store), the clock and the persons who sign.

    `streams`: open event streams. `audits`: replays and bundles, which take a processor each.
    """

    folder: SiteFolder
    tokens: TokenFile
    keys: IdempotencyKeys
    signatures: Signatures = field(default_factory=NoRegister)
    clock: Callable[[], float] = time.time
    streams: WorkPlaces = field(default_factory=lambda: WorkPlaces(32, 4, "event streams"))
    audits: WorkPlaces = field(default_factory=lambda: WorkPlaces(2, 1, "audits"))
    stream_seconds: float = 600.0
    poll_seconds: float = 1.0


def open_services(folder: SiteFolder, signatures: Signatures | None = None) -> ApiServices:
    """The services of a site's API, in its folder."""
    keys = IdempotencyKeys(folder.root / IDEMPOTENCY)
    return ApiServices(folder, TokenFile(folder.root / TOKENS), keys, signatures or RegisterSignatures(folder))
