"""Whether a masked sum may be made once more over fewer sites: what it would show beside the attempts before.

A study that excludes a site repeats the open step without it, under other masks. The second sum is what the study needs
of the sites that are left. It must not be half of a difference:

- A sum over all sites exists, and most sites vote one of its posts unusable though it can be read. The second sum would
  show everybody what that site holds. A site that has read all posts does not post again, unless it voted so itself
  before the post came.
- One site is silent and so knows the sum of all others, for it can make its own share. Then another one that has posted
  is silent in the repeated step. A third sum would show the first site what that other one holds. Nobody posts again.

A site that leaves by its own choice, or whose post nobody can use, does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from coterie_chain.errors import ChainError
from coterie_chain.ledger.protocol import Event, OpenStep, Record
from coterie_learners.core.masked_sum import MIN_PARTIES
from coterie_learners.core.protocol import Site, Step
from coterie_node.errors import ReleaseRefused


@dataclass
class Attempt:
    """One attempt of a step: its parties, who posted, whose post was voted unusable, and who left the study by choice.

    `votes` holds each vote, carried or not, as the pair of its site and the site that it names.
    """

    parties: frozenset[str]
    posted: set[str] = field(default_factory=set)
    unusable: set[str] = field(default_factory=set)
    departed: set[str] = field(default_factory=set)
    votes: set[tuple[str, str]] = field(default_factory=set)

    @property
    def missing(self) -> set[str]:
        """Whose share is missing or cannot be used."""
        return set(self.parties - self.posted) | self.unusable


def is_masked(step: Step) -> bool:
    """Whether the posts of a step hide in a sum over the sites."""
    return step.who == "each" and step.expects is not None and "masked" in step.expects.fields


def list_attempts(history: Iterable[Record | Event], sites: Sequence[str], position: int) -> dict[int, Attempt]:
    """The attempts of a step in which somebody posted, by number, from all entries of a study."""
    active, attempts = set(sites), dict[int, Attempt]()
    for entry in history:
        if isinstance(entry, Record):
            if entry.post.position == position:
                attempt = attempts.setdefault(entry.post.attempt, Attempt(frozenset(active)))
                attempt.posted.add(entry.site)
            continue
        details = dict(entry.details)
        at = attempts.get(int(details["attempt"])) if details.get("position") == position else None
        if entry.name == "UnavailabilityVoted" and at is not None:
            at.votes.add((entry.site, str(details["culprit"])))
        elif entry.name == "SiteExcluded":
            site = str(details["silent"])
            active.discard(site)
            # A site that has posted is not silent: most sites voted that its post is unusable.
            if at is not None and site in at.posted:
                at.unusable.add(site)
        elif entry.name == "SiteLeft":
            active.discard(entry.site)
            for attempt in attempts.values():
                attempt.departed.add(entry.site)
    return attempts


@dataclass(frozen=True)
class RepeatedSums:
    """One site's memory of the masked sums that it has read, in its durable private memory."""

    site: Site

    def note(self, step: Step, attempt: int) -> None:
        """Note that all posts of an attempt can be used here."""
        with suppress(ChainError):  # then a crash costs the memory, and nothing else
            self.site.vault[self._label(step)] = str(attempt).encode()

    def check(self, step: Step, open_: OpenStep, attempts: dict[int, Attempt]) -> None:
        """ReleaseRefused if this site's post would show what one other site holds.

        Among fewer parties than a masked sum may have, nothing is posted anyway.
        """
        if len(open_.parties) < MIN_PARTIES:
            return
        for number, attempt in attempts.items():
            if number >= open_.attempt:
                continue
            absent = attempt.parties - set(open_.parties) - attempt.departed
            own_votes = {culprit for voter, culprit in attempt.votes if voter == self.site.name}
            accused, lost = (absent & attempt.unusable) - own_votes, absent - attempt.missing
            if accused and self.site.vault.get(self._label(step)) == str(number).encode():
                raise self._refuse(
                    step,
                    accused,
                    f"Most sites voted that its post is unusable, but {self.site.name} used it",
                    "everybody",
                )
            if len(attempt.missing) == 1 and len(lost) == 1:
                (reader,) = attempt.missing
                raise self._refuse(step, lost, f"It posted while {reader} was silent, and is silent now", reader)

    def _refuse(self, step: Step, sites: Iterable[str], cause: str, reader: str) -> ReleaseRefused:
        names = " and ".join(sorted(sites))
        message = f"{self.site.name} does not post {step.topic!r} again without {names}"
        effect = f"The two sums together would show {reader} what {names} holds"
        return ReleaseRefused("CO-R310", f"{message}. {cause}. {effect}. Propose the study again with sites that stay.")

    def _label(self, step: Step) -> str:
        return f"sums/{self.site.session}/{self.site.study.hash.hex()}/{step.topic}"
