"""The node's log: one JSON object a line, of fields that are named here, so that no payload's value gets in.

Messages about rows and verdicts of the gate may quote values and small counts: of those only the code is written. The
whole sentence is for the site's own people, who ask for it by `coterie study status` (and `doctor`, of a proposal).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO

from coterie_node.errors import CoterieError, NodeError

FIELDS = frozenset(
    [
        *("study", "name", "hash", "site", "position", "topic", "round", "kind", "state", "code", "message", "cause"),
        *("waits_for", "seconds", "number", "learner", "decision", "version", "head", "address", "port", "restarts"),
        *("culprit", "reason", "same_document", "records"),
    ]
)
# Codes (after "CO-") whose sentences are about rows, sums or the gate.
QUIET = ("D", "N", "R3")


class EventLog:
    """Writes events to a stream; `clock` gives the time that is written."""

    def __init__(
        self, stream: IO[str] | None = None, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._stream, self._clock = stream or sys.stderr, clock

    def tell(self, event: str, level: str = "info", **fields: object) -> None:
        """Write one event; ValueError for a field that is not foreseen."""
        unknown = set(fields) - FIELDS
        if unknown:
            raise ValueError(f"no such field of the log: {', '.join(sorted(unknown))}")
        line = {"time": self._clock().isoformat(timespec="milliseconds"), "level": level, "event": event, **fields}
        # A full disk, or a reader that is gone, must not end the work that the log reports.
        with suppress(OSError):
            print(json.dumps(line, default=str), file=self._stream, flush=True)

    def fault(self, event: str, error: Exception, **fields: object) -> None:
        """Write an error by its code, with its sentence where that cannot hold a patient's value."""
        fields_of_fault: dict[str, object] = {"code": code_of(error), "message": error_sentence(error), **fields}
        self.tell(event, "warning", **fields_of_fault)


def code_of(error: Exception) -> str:
    """The stable code of an error."""
    return error.code if isinstance(error, (*CoterieError, NodeError)) else type(error).__name__


def error_sentence(error: Exception) -> str:
    """What the log may say of an error."""
    if is_quiet(code_of(error)):
        return "The sentence is for this site's people only: ask `coterie study status`."
    return str(getattr(error, "message", error))


def is_quiet(code: str) -> bool:
    """Whether the sentences of a code may quote rows, sums or small counts."""
    return code.removeprefix("CO-").startswith(QUIET)
