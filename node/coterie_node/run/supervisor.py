"""One site's part in one study: it takes turns, retries after faults with growing pauses, and says what it waits for.

The same loop body serves a demo's process, the daemon and the fault simulation. The caller gives the clock. Its states:

    state    event                          next
    taking   a turn goes well               taking; the pauses are short again
    taking   a transient fault              pausing until `resume_at`; each pause is longer than the last
    pausing  `resume_at` is reached         taking; the same runner goes on, because it keeps its state on the ledger
    any      a fault beyond the limit       the error ends this site's part
    any      an error that is no fault      the error ends this site's part
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from coterie_chain.errors import ChainError
from coterie_chain.retry import Backoff, RetryPolicy
from coterie_node.run.runner import Runner

# How long faults of the network are tried again where nobody says otherwise.
PATIENCE = RetryPolicy()


class Supervisor:
    """`start` makes the site's runner, as after a restart; `clock` is in seconds and never goes back.

    `fault` is what keeps the site from its next turn, `resume_at` when it tries again.
    """

    def __init__(
        self,
        start: Callable[[], Runner],
        clock: Callable[[], float] = time.monotonic,
        policy: RetryPolicy = PATIENCE,
    ) -> None:
        self.runner: Runner | None = None
        self.fault: ChainError | None = None
        self.resume_at = -math.inf
        self._start, self._clock, self._policy = start, clock, policy
        self._well = clock()
        self._backoff = Backoff(policy)

    @property
    def done(self) -> bool:
        """Whether the protocol has ended here."""
        return self.runner is not None and self.runner.done

    @property
    def talking(self) -> bool:
        """Whether this site is in the middle of an interactive step."""
        return self.runner is not None and self.runner.talking

    def close(self) -> None:
        """Leave whatever this site is in the middle of with others."""
        if self.runner is not None:
            self.runner.close()

    def tick(self) -> bool:
        """Take the next turn; False if there is nothing to do before `resume_at` or before the ledger changes.

        Raises what ends this site's part: errors that no waiting removes, and faults that outlast the limit.
        """
        # Pausing: the runner is left alone until `resume_at`.
        if self._clock() < self.resume_at:
            return False
        try:
            if self.runner is None:
                self.runner = self._start()
            moved = self.runner.turn()
        # Faults of the network alone are retried. Any other error ends this site's part, and the caller records why.
        except ChainError as error:
            self._schedule_retry(error)
            return False
        # Taking: one good turn ends the row of faults, also if it moved nothing.
        self.fault, self._well = None, self._clock()
        self._backoff.reset()
        return moved

    def pause(self, wait: Callable[[float], None], seconds: float) -> None:
        """Wait for news of the ledger, or out the pause after a fault; a fault meanwhile is retried as any other."""
        if self.fault is not None:
            time.sleep(max(self.resume_at - self._clock(), 0.0))
            return
        try:
            wait(seconds)
        except ChainError as error:
            self._schedule_retry(error)

    def _schedule_retry(self, error: ChainError) -> None:
        now = self._clock()
        # The limit counts from the last good turn, not from the first fault: a fault that comes and goes never ends the
        # part.
        if not self._policy.is_transient(error) or now - self._well > self._policy.limit:
            raise error
        self.fault, self.resume_at = error, now + self._backoff.next_pause()
