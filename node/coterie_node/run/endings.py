"""How a study ended on the ledger, what went wrong on its way, and how one site ends its own part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coterie_chain.ledger.protocol import Event, Ledger, OpenStep, Record, Silence, State, StudyView, Terms
from coterie_node.run.reasons import describe_reason


@dataclass(frozen=True)
class StudyEnd:
    """The site that ended a study, the reason's code, and the site at fault; empty if nobody's is on record.

    `blamed`: the site that the one that ended the study had voted against, where no other site could confirm it.
    """

    site: str
    reason: int
    culprit: str
    blamed: str = ""

    def describe(self, what: str) -> str:
        """The same in words; `what` names the study."""
        blame = f" The site at fault is {self.culprit}." if self.culprit and self.culprit != self.site else ""
        if self.blamed:
            blame = f" By its word, which no other site has confirmed, the site at fault is {self.blamed}."
        return f"{self.site} ended {what}: {describe_reason(self.reason)}.{blame}"


def is_closing(terms: Terms, open_: OpenStep) -> bool:
    """Whether a study may be completed without another post of every site in its loop.

    It has no such step there, or stands where its loop has a step of another kind.
    """
    after = open_.position - len(terms.opening)
    return "each" not in terms.loop or (after >= 0 and open_.kind != terms.loop[after % len(terms.loop)])


def find_end(ledger: Ledger, study: int) -> StudyEnd | None:
    """How a study ended without a result; None if it has not."""
    events = [entry for entry in ledger.history(study) if isinstance(entry, Event)]
    ends = [event for event in events if event.name in ("StudyAborted", "StudyDeclined")]
    if not ends:
        return None
    details, site = dict(ends[-1].details), ends[-1].site
    reason, culprit = int(details["reason"]), str(details.get("culprit") or "")
    votes = [dict(event.details) for event in events if (event.name, event.site) == ("AbortVoted", site)]
    blamed = [str(vote["culprit"]) for vote in votes if vote["reason"] == reason]
    return StudyEnd(site, reason, culprit, blamed[-1] if blamed and not culprit else "")


@dataclass(frozen=True)
class Loss:
    """A step that began again: the site at fault (or that left), the step, and why in words."""

    site: str
    position: int
    sentence: str


def list_losses(entries: Iterable[Record | Event]) -> tuple[Loss, ...]:
    """The exclusions, leavings, repeated steps and skipped servers of one study, in their order."""
    losses: list[Loss] = []
    vote: Event | None = None
    for entry in entries:
        if isinstance(entry, Record):
            continue
        if entry.name in _LOST:
            losses.append(_read_loss(entry, _find_cause(entry, vote)))
        vote = entry if entry.name == "UnavailabilityVoted" else None
    return tuple(losses)


def describe_dispute(event: Event) -> str:
    """Which post a site disputes."""
    details = dict(event.details)
    return f"the post of {details['poster']} at step {details['position']}"


def _find_cause(event: Event, vote: Event | None) -> str:
    """Why a step began again: what the vote says that led to it, or silence."""
    if event.name == "SiteLeft":
        return describe_reason(int(dict(event.details)["reason"]))
    if vote is not None and vote.tx == event.tx:
        return describe_reason(int(dict(vote.details)["reason"]))
    return "it was silent past the deadline"


def _read_loss(event: Event, cause: str) -> Loss:
    details = dict(event.details)
    site, words = _LOST[event.name]
    name, position = str(details.get(site, event.site)), int(details["position"])
    return Loss(name, position, f"{words.format(site=name, position=position)}: {cause}")


# The field in which an event names the site, and the sentence about it.
_LOST = {
    "SiteExcluded": ("silent", "{site} was excluded at step {position}"),
    "SiteLeft": ("", "{site} left at step {position}"),
    "StepReopened": ("culprit", "the post of {site} at step {position} could not be used"),
    "ServerSkipped": ("server", "{site} was skipped as server at step {position}"),
}


def end_part(ledger: Ledger, view: StudyView, site: str, reason: int) -> None:
    """End a study for a site's own reason, or leave it where it goes on without that site; PostRejected if it is over.

    A proposal is declined, by its proposer too.
    A study that excludes silent sites is not ended by one site: that site leaves by naming itself. The contract ends
    the study if it cannot go on without it.
    """
    if view.state == State.PROPOSED:
        ledger.decline([view.id], reason)
        return
    leaves = view.terms.silence == Silence.EXCLUDE
    ledger.abort(view.id, reason, site if leaves else "")
