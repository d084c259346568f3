"""The votes that a study's sites have cast and that have not passed, and how a site takes its own back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coterie_chain.ledger.protocol import Event, Ledger, Record

_WORDS = {
    "AdmissionVoted": "to admit",
    "RevocationVoted": "to revoke",
    "RecoveryVoted": "to recover",
    "SuccessionVoted": "for the next Catalog",
    "ExclusionVoted": "to exclude",
    "UnavailabilityVoted": "that a post cannot be used, of",
    "ResumeVoted": "to resume",
    "AbortVoted": "to abort",
    "SupersessionVoted": "to supersede",
}
# The field in which a vote's entry names the site that it is about.
_SUBJECTS = ("name", "silent", "culprit")


@dataclass(frozen=True)
class OpenVote:
    """A motion that has not passed: its digest, what it is in words, its subject, and the sites whose votes count.

    `key` is the address that a vote about a member gives it, or that of the next Catalog.
    """

    motion: bytes
    what: str
    subject: str
    key: str
    voters: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The same in words."""
        return f"{self.what}{f' {self.subject}' if self.subject else ''}: {', '.join(self.voters)}"


def _read_address(name: str, details: Mapping[str, str | int]) -> str:
    """The address that a vote is for: a member's new one, or the next Catalog's."""
    return str(details.get("successor" if name == "SuccessionVoted" else "key", ""))


def list_open_votes(ledger: Ledger, entries: Iterable[Record | Event]) -> list[OpenVote]:
    """The motions among entries of the ledger for which votes count now; a motion that passed has none."""
    motions: dict[bytes, tuple[str, str, str]] = {}
    for entry in entries:
        if not isinstance(entry, Event) or entry.name not in _WORDS:
            continue
        details = dict(entry.details)
        subject = next((str(details[name]) for name in _SUBJECTS if details.get(name)), "")
        motion = bytes.fromhex(str(details["motion"]).removeprefix("0x"))
        motions[motion] = _WORDS[entry.name], subject, _read_address(entry.name, details)
    votes = [OpenVote(motion, *words, ledger.list_voters(motion)) for motion, words in motions.items()]
    return [vote for vote in votes if vote.voters]
