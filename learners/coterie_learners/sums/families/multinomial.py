"""Outcomes of several levels, as baseline logits: of tables of patterns, or of rows under masks."""

from __future__ import annotations

from typing import ClassVar

from coterie_learners.numeric.array import Array
from coterie_learners.sums.families.binomial import Binomial


class Multinomial(Binomial):
    """Levels of a category against its first (Agresti, Categorical Data Analysis, section 8.1)."""

    name: ClassVar[str] = "multinomial"
    law: ClassVar[str] = "multinomial"
    links: ClassVar[tuple[str, ...]] = ("logit",)
    outcomes: ClassVar[tuple[str, ...]] = ("category",)
    by_rows: ClassVar[bool] = False
    # No level is the event, and each has an equation of its own: what a binary outcome has does not carry over.
    has_events: ClassVar[bool] = False
    firth_links: ClassVar[tuple[str, ...]] = ()
    certified: ClassVar[bool] = False
    offsets: ClassVar[bool] = False
    measures: ClassVar[tuple[str, ...]] = ()

    @property
    def ratio(self) -> str:
        """Relative-risk ratios: of a level's probability over that of the first."""
        return "RRR"

    def count_events(self, outcome: float) -> int | None:
        """None: no level is the event."""
        return None

    def rarer(self, n: int, outcome: int) -> tuple[int, str]:
        """Rows, of which no level is the event."""
        return n, "rows"

    def shift_to(self, eta: Array, mean: float) -> float:
        """0: no level is the event."""
        return 0.0

    def check_extremes(self, n: float, outcome: float) -> None:
        """Nothing here: each level is looked at by itself."""
