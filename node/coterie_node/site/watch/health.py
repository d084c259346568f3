"""How a node is, and why: what /health answers to a supervisor, and what `coterie doctor` reads there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

# A chain whose newest block is older than so many of its periods stands still.
LATE_PERIODS = 3


@dataclass(frozen=True)
class Health:
    """The site and the version of its daemon; `causes` say what is wrong, and are empty where all is well."""

    site: str
    version: str
    causes: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.causes

    def to_json(self) -> bytes:
        """The answer of /health."""
        return json.dumps({"healthy": self.healthy, **asdict(self)}).encode()


def describe_standstill(age: float, period: float) -> str:
    """What is wrong with a chain whose newest block has this age; empty where nothing is, or no period is known."""
    if period <= 0 or age <= LATE_PERIODS * period:
        return ""
    return (
        f"no block for {age:.0f} s, where one comes every {period:g} s: "
        "is this site cut off, or do fewer than a majority of the sealers run?"
    )
