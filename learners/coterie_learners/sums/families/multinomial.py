"""Outcomes of several levels, as baseline logits; only tables of patterns are fitted with them."""

from __future__ import annotations

from typing import ClassVar

from coterie_learners.sums.families.binomial import Binomial


class Multinomial(Binomial):
    """Levels of a category against its first (Agresti, Categorical Data Analysis, section 8.1)."""

    name: ClassVar[str] = "multinomial"
    law: ClassVar[str] = "multinomial"
    links: ClassVar[tuple[str, ...]] = ("logit",)
    outcomes: ClassVar[tuple[str, ...]] = ("category",)
    by_rows: ClassVar[bool] = False
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

    def check_extremes(self, n: float, outcome: float) -> None:
        """Nothing here: each level is looked at by itself."""
