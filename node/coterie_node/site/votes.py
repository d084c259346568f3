"""This site's votes about members and paused studies: people write them down, and the daemon casts them.

One file for each vote; once it is cast, or the contract has refused it, its name ends in `.cast` or `.refused`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from coterie_chain.keys.private_files import replace_private
from coterie_chain.ledger.protocol import Event, Ledger
from coterie_learners.study.document import Frozen, Text
from coterie_node.errors import ConfigError
from coterie_node.site.cards import SeatCard

Motion = Literal["admit", "recover", "revoke", "resume"]


class Ballot(Frozen):
    """A vote for a motion, with its voter and time; `subject` is a site's name or a study's number."""

    motion: Motion
    subject: Text
    card: SeatCard | None = None
    at: str = Field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S.%fZ"))
    by: Text = Field(default_factory=lambda: os.environ.get("SUDO_USER") or os.environ.get("USER") or "")

    def cast(self, ledger: Ledger) -> None:
        """Tell the ledger; PostRejected if the contract does not take it."""
        if self.motion == "resume":
            ledger.resume(int(self.subject))
        elif self.motion == "revoke":
            ledger.revoke(self.subject)
        elif self.card is not None and self.motion == "admit":
            ledger.admit(self.card.entry)
        elif self.card is not None:
            ledger.recover(self.subject, self.card.entry.address, self.card.entry.sealing)


class BallotBox:
    """The votes of one site, in a folder of mode 0700."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def record(self, ballot: Ballot) -> None:
        """Write a vote down, whole or not at all."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_private(self.root / f"{ballot.at}.json", ballot.model_dump_json(indent=2) + "\n")

    def waiting(self) -> list[Path]:
        """The votes that have not been cast, the oldest first."""
        return sorted(self.root.glob("*.json"))

    def read(self, path: Path) -> Ballot:
        """One of them; ConfigError if it is none."""
        try:
            return Ballot.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            raise ConfigError("CO-F322", f"The vote {path} cannot be read. Vote again.") from None

    def settle(self, path: Path, outcome: Literal["cast", "refused"]) -> None:
        """Put a vote aside for good."""
        os.replace(path, path.with_suffix(f".{outcome}"))


VOTES: dict[str, Motion] = {"AdmissionVoted": "admit", "RecoveryVoted": "recover", "RevocationVoted": "revoke"}
OUTCOMES: dict[str, Motion] = {"SiteAdmitted": "admit", "KeyChanged": "recover", "SiteRevoked": "revoke"}


def open_motions(history: Iterable[object]) -> dict[tuple[Motion, str, str], list[str]]:
    """Who voted for each motion about a member that has not passed: (motion, name, key or "") -> sites."""
    votes: dict[tuple[Motion, str, str], list[str]] = {}
    for entry in history:
        if not isinstance(entry, Event) or entry.name not in VOTES | OUTCOMES:
            continue
        details = dict(entry.details)
        name, key = str(details["name"]), str(details.get("key", ""))
        if entry.name in VOTES:
            votes.setdefault((VOTES[entry.name], name, key), []).append(entry.site)
        else:
            votes = {motion: sites for motion, sites in votes.items() if motion[:2] != (OUTCOMES[entry.name], name)}
    return votes
