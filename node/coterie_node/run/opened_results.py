"""What this site has opened with the others in interactive steps, in its durable private memory until it is recorded.

The others leave a session that has ended, so nobody could compute its result a second time for a site that crashed
before its record was on the ledger. Nor should anybody: what is opened once is enough.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass

from coterie_chain.ledger.protocol import OpenStep
from coterie_learners.core.payload import Payload, Stamp, decode, encode
from coterie_learners.core.protocol import Site


@dataclass(frozen=True)
class OpenedResults:
    """The results that one site has opened in one run of a study."""

    site: Site

    def load(self, step: OpenStep) -> Payload | None:
        """The result of this very step, if it was opened before."""
        vault: MutableMapping[str, bytes] = self.site.vault
        raw = vault.get(self._label(step))
        return None if raw is None else decode(raw)[1]

    def save(self, step: OpenStep, payload: Payload) -> None:
        """Keep a result, durably; StoreFault if that is not possible now."""
        stamp = Stamp(self.site.study.hash.hex(), "", self.site.name, step.attempt)
        self.site.vault[self._label(step)] = encode(stamp, payload)

    def _label(self, step: OpenStep) -> str:
        run = f"{self.site.session}/{self.site.study.hash.hex()}"
        return f"opened/{run}/{step.position}/{step.attempt}/{step.basis.hex()}"
