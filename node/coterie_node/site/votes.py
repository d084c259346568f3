"""What this site's people say on the ledger beside decisions: they write it down, and the daemon casts it.

Votes about members and paused studies, many refusals at once, statements on ended studies, and votes taken back.

One file for each vote; once it is cast, or the contract has refused it, its name ends in `.cast` or `.refused`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from coterie_chain.keys.private_files import replace_private
from coterie_chain.ledger.protocol import Ledger
from coterie_chain.store.protocol import BlobStore
from coterie_learners.study.document import Frozen, Text
from coterie_node.errors import ConfigError
from coterie_node.persons.acts import SignedAct
from coterie_node.run.reasons import Reason
from coterie_node.site.cards import SeatCard
from coterie_node.site.statements.ended_studies import Attestation, Supersession

Motion = Literal["admit", "recover", "revoke", "resume", "decline", "supersede", "attest", "withdraw", "succeed"]
# Proposals that one transaction declines.
DECLINED_AT_ONCE = 64


class Ballot(Frozen):
    """A vote for a motion, with its voter and time; `subject` is a site's name, a study's number, a motion's
    digest, or the address of the next Catalog.

    `studies` are the proposals to decline, `statement` the text about an ended study. `signature` is that of the person
    who votes for the site.
    """

    motion: Motion
    subject: Text
    card: SeatCard | None = None
    studies: tuple[int, ...] = ()
    statement: Supersession | Attestation | None = None
    at: str = Field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S.%fZ"))
    by: Text = ""
    signature: SignedAct | None = None

    def cast(self, ledger: Ledger, blobs: BlobStore) -> None:
        """Put it on the ledger; PostRejected if the contract does not take it."""
        if self.statement is not None:
            self.statement.cast(ledger, blobs)
        elif self.motion == "decline":
            ledger.decline(self.studies, Reason.DECLINED)
        elif self.motion == "withdraw":
            ledger.withdraw(bytes.fromhex(self.subject))
        elif self.motion == "resume":
            ledger.resume(int(self.subject))
        elif self.motion == "revoke":
            ledger.revoke(self.subject)
        elif self.motion == "succeed":
            ledger.vote_succession(self.subject)
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

    def record_refusals(self, studies: Sequence[int]) -> None:
        """Decline many proposals at once: so many in a transaction as a block can take."""
        for start in range(0, len(studies), DECLINED_AT_ONCE):
            batch = tuple(studies[start : start + DECLINED_AT_ONCE])
            self.record(Ballot(motion="decline", subject=f"{len(batch)} proposals", studies=batch))

    def waiting(self) -> list[Path]:
        """The votes that have not been cast, the oldest first."""
        return sorted(self.root.glob("*.json"))

    def read(self, path: Path) -> Ballot:
        """One of them; ConfigError for another file."""
        try:
            return Ballot.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            raise ConfigError("CO-F322", f"The vote {path} cannot be read. Vote again.") from None

    def settle(self, path: Path, outcome: Literal["cast", "refused"]) -> None:
        """Put a vote aside for good, unless somebody took it away while it was cast."""
        with suppress(FileNotFoundError):
            os.replace(path, path.with_suffix(f".{outcome}"))
