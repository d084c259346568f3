"""What a learner says of itself to people who choose, and to pages and checks that list all learners."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coterie_learners.study.document import Study


@dataclass(frozen=True)
class Suitability:
    """Whether a learner fits a study, and why or why not, as the end of a sentence.

    `rank`: among learners that fit, the lowest is the advice. `needs`: what the study would have to add for a learner
    that does not fit it as it is.
    """

    rank: int
    fits: bool
    why: str
    needs: str = ""


def assess_unknown(study: Study, rows: int | None) -> Suitability:
    """What is said of a learner that does not say which studies it is for."""
    return Suitability(9, True, "it is not among those that this advice knows.")


@dataclass(frozen=True)
class Profile:
    """A learner's own words.

    `suits`: how well a study suits it, by the study and the number of rows over all sites (None: unknown).
    `alternatives`: options that may pass the release gate where the study's own do not, in the order to try.
    `examples`: choices of options that disclose different things; docs/disclosure.md describes each.
    `model`: family and link, where no option chooses them. `method`: what a methods section calls it, where that is no
    regression of a family. `equals_pooled`: its fit is the one that Newton's method gives on all rows at once, so that
    a certificate can compare the two.
    """

    suits: Callable[[Study, int | None], Suitability] = assess_unknown
    alternatives: tuple[Mapping[str, str], ...] = ()
    examples: tuple[Mapping[str, object], ...] = ()
    model: tuple[str, str] | None = None
    method: str = ""
    equals_pooled: bool = False
