"""Outcomes of ordered levels, as proportional odds; they are fitted row by row under masks (`glore.category_fit`)."""

from __future__ import annotations

from typing import ClassVar

from coterie_learners.sums.families.multinomial import Multinomial


class Ordinal(Multinomial):
    """Levels of a category in their declared order (McCullagh, J R Stat Soc B 1980;42:109-142)."""

    name: ClassVar[str] = "ordinal"
    law: ClassVar[str] = "ordinal"
    tabled: ClassVar[bool] = False
    ordered: ClassVar[bool] = True

    @property
    def ratio(self) -> str:
        """Odds ratios of being above any level."""
        return "OR"
