"""A ledger that cannot be written: every move is refused as the contract refuses a stranger."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NoReturn

from coterie_chain.errors import PostRejected
from coterie_chain.ledger.protocol import ZERO, Post, SiteEntry, Terms


class ReadOnly:
    """The moves of a Ledger, refused; reads are of a history that stands still."""

    me: str | None = None

    def read_at_one_block(self) -> AbstractContextManager[None]:
        """What is only read does not change meanwhile."""
        return nullcontext()

    def propose(self, terms: Terms, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0) -> int:
        """Refused."""
        self._refuse()

    def join(self, study: int, hash: bytes, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0) -> None:
        """Refused."""
        self._refuse()

    def decline(self, studies: Sequence[int], reason: int) -> None:
        """Refused."""
        self._refuse()

    def record(self, post: Post) -> None:
        """Refused."""
        raise PostRejected("NotOwner")

    def skip(self, study: int) -> None:
        """Refused."""
        self._refuse()

    def exclude(self, study: int, site: str) -> None:
        """Refused."""
        self._refuse()

    def report_unavailable(self, study: int, position: int, attempt: int, site: str, reason: int) -> None:
        """Refused."""
        self._refuse()

    def dispute(self, study: int, position: int, posted: bytes, recomputed: bytes) -> None:
        """Refused."""
        self._refuse()

    def pause(self, study: int, reason: int) -> None:
        """Refused."""
        self._refuse()

    def resume(self, study: int) -> None:
        """Refused."""
        self._refuse()

    def abort(self, study: int, reason: int, culprit: str = "") -> None:
        """Refused."""
        self._refuse()

    def supersede(self, study: int, successor: int, reason: bytes) -> None:
        """Refused."""
        self._refuse()

    def attest(self, study: int, snapshot: bytes, verdict: int) -> None:
        """Refused."""
        self._refuse()

    def withdraw(self, motion: bytes) -> None:
        """Refused."""
        self._refuse()

    def admit(self, entry: SiteEntry) -> None:
        """Refused."""
        self._refuse()

    def revoke(self, site: str) -> None:
        """Refused."""
        self._refuse()

    def recover(self, site: str, address: str, sealing: bytes) -> None:
        """Refused."""
        self._refuse()

    def offer(self, address: str, sealing: bytes) -> None:
        """Refused."""
        self._refuse()

    def accept(self, site: str) -> None:
        """Refused."""
        self._refuse()

    def vote_succession(self, catalog: str) -> None:
        """Refused."""
        self._refuse()

    def wait(self, seconds: float) -> None:
        """Nothing will change."""

    def _refuse(self) -> NoReturn:
        raise PostRejected("NotSite")
