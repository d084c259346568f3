"""This site's votes about sealers, as files that the daemon passes to its own chain node until they pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event as Flag
from typing import Annotated

from pydantic import Field, ValidationError

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.keys.private_files import replace_private
from coterie_chain.network.greeting import AdminSocket
from coterie_chain.network.sealer_votes import pursue_vote
from coterie_learners.study.document import Frozen, Name
from coterie_node.errors import ConfigError
from coterie_node.network.founding import FounderCard, check_distinct
from coterie_node.network.membership.known_members import read_cards

FOLDER = "sealer-votes"
_LOOK_SECONDS = 10.0


class SealerVote(Frozen):
    """That a site's sealer makes blocks from now on, or makes none any more."""

    site: Name
    sealer: Annotated[str, Field(pattern="^0x[0-9a-fA-F]{40}$")]
    seals: bool


class SealerVotes:
    """The votes in a site's folder. `notice` gets each vote that has passed."""

    def __init__(self, root: Path, ask: AdminSocket, notice: Callable[[SealerVote], None] = lambda _: None) -> None:
        self._folder, self._ask, self._notice = root / FOLDER, ask, notice

    def run(self, stop: Flag) -> None:
        """Carry the votes to the chain node every few seconds until `stop` is set."""
        while not stop.wait(_LOOK_SECONDS):
            self.step()

    def step(self) -> int:
        """Carry each vote once; how many are left. A chain node that does not answer is another part's alarm."""
        votes = self.read()
        left = 0
        for path, vote in votes.items():
            try:
                passed = pursue_vote(self._ask, vote.sealer, seals=vote.seals)
            except LedgerUnreachable:
                return len(votes)
            if passed:
                path.unlink(missing_ok=True)
                self._notice(vote)
            left += not passed
        return left

    def read(self) -> dict[Path, SealerVote]:
        """The votes that have not passed, by file; another file there is nobody's vote."""
        votes = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                votes[path] = SealerVote.model_validate_json(path.read_bytes())
            except (OSError, ValidationError):
                continue
        return votes


def check_sealer_vote(root: Path, card: FounderCard | None, site: str) -> FounderCard:
    """The card, if this site can vote about its sealer; ConfigError (CO-F305) for another chain than Clique.

    A card that names another site's sealer is refused (CO-F502): the vote would be about that site. So is none, or one
    of another site (CO-F501).
    """
    if card is None or card.site != site:
        message = f"There is no card of {site[:40]!r} here that names its sealer"
        raise ConfigError("CO-F501", f"{message}. Name its founder.json, or the text of its card.")
    check_distinct([*(other for name, other in read_cards(root).items() if name != card.site), card])
    if card.chain != "clique":
        message = f"The chain of {card.site} is {card.chain}, whose validators vote in their own way"
        raise ConfigError("CO-F305", f"{message}. Vote at each chain node, and leave out --and-network.")
    return card


def record_sealer_vote(root: Path, card: FounderCard, *, seals: bool) -> SealerVote:
    """Write down that a card's sealer makes blocks, or none any more; ConfigError as `check_sealer_vote` has it."""
    check_sealer_vote(root, card, card.site)
    vote = SealerVote(site=card.site, sealer=card.sealer, seals=seals)
    folder = root / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    replace_private(folder / f"{card.site}.json", vote.model_dump_json(indent=2) + "\n")
    return vote
