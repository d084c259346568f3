"""What a node sends notices of: the kinds of events, and one notice, which has no row, sum or count of patients."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class NoticeKind(StrEnum):
    """The kinds; the alerts of docker/prometheus-rules.yaml are about the same things."""

    APPROVAL = "approval-waits"
    RELEASE = "release-waits"
    LATE = "site-late"
    RESULT = "result-final"
    DISPUTE = "dispute"
    STOPPED = "study-stopped"
    DISK = "disk-full"
    CERTIFICATE = "certificate-ends"
    CHAIN = "no-block"
    TEST = "test"


# What can pass and come again; of the others each is sent once for ever.
PASSING = frozenset({NoticeKind.DISK, NoticeKind.CERTIFICATE, NoticeKind.CHAIN})


@dataclass(frozen=True)
class Notice:
    """One event at one site; `key` names it for ever. `study` is its number on the ledger, 0 for the node itself."""

    kind: NoticeKind
    key: str
    text: str
    study: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The JSON of webhooks."""
        return asdict(self)
