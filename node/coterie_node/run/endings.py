"""How a study ended on the ledger, and how one site ends its own part."""

from __future__ import annotations

from dataclasses import dataclass

from coterie_chain.ledger.protocol import Event, Ledger, Silence, State, StudyView
from coterie_node.run.reasons import describe_reason


@dataclass(frozen=True)
class StudyEnd:
    """Who ended a study, the reason's code, and the site whose fault it was; empty if nobody's is on record."""

    site: str
    reason: int
    culprit: str

    def describe(self, what: str) -> str:
        """The same in words; `what` names the study."""
        blame = f" The site at fault is {self.culprit}." if self.culprit and self.culprit != self.site else ""
        return f"{self.site} ended {what}: {describe_reason(self.reason)}.{blame}"


def find_end(ledger: Ledger, study: int) -> StudyEnd | None:
    """How a study ended without a result; None if it has not."""
    names = ("StudyAborted", "StudyDeclined")
    events = [e for e in ledger.history(study) if isinstance(e, Event) and e.name in names]
    if not events:
        return None
    details = dict(events[-1].details)
    return StudyEnd(events[-1].site, int(details["reason"]), str(details.get("culprit") or ""))


def end_part(ledger: Ledger, view: StudyView, site: str, reason: int) -> None:
    """End a study for a site's own reason, or leave it where it goes on without that site; PostRejected if it is over.

    A study that excludes silent sites is not ended by one site: that site leaves by naming itself. The contract ends
    the study if it cannot go on without it.
    """
    leaves = view.terms.silence == Silence.EXCLUDE and view.state != State.PROPOSED
    ledger.abort(view.id, reason, site if leaves else "")
