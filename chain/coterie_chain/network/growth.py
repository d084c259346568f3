"""Watch whether a new chain grows, and start one of its nodes again while it does not.

A Clique chain can stand still although all its sealers run. Each has sealed a block of its own, it missed the blocks of
the others while it was busy, and it may not seal the next one ("signed recently"). Only a new greeting tells a node how
far its peers are, and a node greets when it starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# A node that has greeted its peers fetches their blocks within 10 s (Geth: forceSyncCycle).
PATIENCE_SECONDS = 20.0


@dataclass
class GrowthWatch:
    """Looks at the newest block of each node; `sites` are started again in turn, from the last."""

    sites: Sequence[str]
    patience: float = PATIENCE_SECONDS
    _heads: Mapping[str, int] = field(default_factory=dict, init=False)
    _since: float = field(default=0.0, init=False)
    _restarts: int = field(default=0, init=False)

    def choose_restart(self, heads: Mapping[str, int], now: float) -> str | None:
        """The site whose node is started again: the heads have not moved for `patience` seconds. None: wait on."""
        if heads != self._heads or not self._since:
            self._heads, self._since = dict(heads), now
            return None
        if now - self._since < self.patience:
            return None
        self._since = now
        self._restarts += 1
        return self.sites[-1 - (self._restarts - 1) % len(self.sites)]
