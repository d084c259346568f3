"""One study as a site's daemon stands to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from coterie_chain.ledger.protocol import Terms
from coterie_node.run.runner import Runner
from coterie_node.run.supervisor import Supervisor
from coterie_node.site.watch.log import code_of, error_sentence


@dataclass
class StudyTask:
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
    supervisor: Supervisor | None = None
    again_at: float = -math.inf
    decisions_seen: int = 0
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
        supervisor = self.supervisor  # once: another thread tells the status
        return None if supervisor is None else supervisor.runner

    def as_dict(self) -> dict[str, object]:
        """What the status tells: never a number of patients."""
        error, runner = self.fault, self.runner
        fault = None if error is None else {"code": code_of(error), "message": error_sentence(error)}
        position = None if runner is None else runner.position
        status = {"study": self.number, "hash": self.hash.hex(), "name": self.name, "phase": self.phase}
        return status | {"cause": self.cause, "position": position, "fault": fault}
