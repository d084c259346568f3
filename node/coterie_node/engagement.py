"""One study as a site's daemon stands to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from coterie_chain.ledger import Terms
from coterie_node.attendance import Attendance
from coterie_node.log import code_of, sentence_of
from coterie_node.runner import Runner


@dataclass
class Engagement:
    """`number` and `hash` of the study, and what has become of it here.

    `phase`: waiting, working, settling, done, stopped, declined, aborted. `cause` is what it waits for, `fault` what
    keeps it, until `again_at`. `move` is what this site proposes, `snapshot` the commitment with which it joins.
    """

    number: int
    hash: bytes
    phase: str = "waiting"
    name: str = ""
    cause: str = ""
    fault: Exception | None = None
    attendance: Attendance | None = None
    again_at: float = -math.inf
    decided: int = 0
    final_at: int | None = None
    restarts: int = 0
    posted: int = 0
    move: tuple[Terms, bytes] | None = None
    snapshot: bytes | None = None

    @property
    def over(self) -> bool:
        """Whether there is nothing more to do."""
        return self.phase in ("done", "declined", "aborted")

    @property
    def runner(self) -> Runner | None:
        """This site's runner, while it works on the study."""
        attendance = self.attendance  # once: another thread tells the status
        return None if attendance is None else attendance.runner

    def as_dict(self) -> dict[str, object]:
        """What the status tells: never a number of patients."""
        kept, runner = self.fault, self.runner
        fault = None if kept is None else {"code": code_of(kept), "message": sentence_of(kept)}
        position = None if runner is None else runner.position
        told = {"study": self.number, "hash": self.hash.hex(), "name": self.name, "phase": self.phase}
        return told | {"cause": self.cause, "position": position, "fault": fault}
