"""What the opening step of masked sums discloses."""

from __future__ import annotations

from coterie_learners.core.study_disclosure import StepDisclosure

_LABELS = (
    "Labels of its rows: 8 keyed bytes for each raw column, equal to an earlier study's if and only if its rows are"
)
_COUNTS = "Counts of its patients and of events by level, and which levels it has"
_STOP = (
    "The study stops and names the level if the pool has fewer patients of it than the floor. It also stops if only "
    "one or two sites have the level, or if all in it have the outcome."
)
DISCLOSED_COUNTS = (
    "Everybody learns from the opening step how many sites have each level, and whether a site's rows changed."
)


def disclose_opening() -> tuple[StepDisclosure, ...]:
    """The labels of rows, and the masked counts of levels."""
    return (
        StepDisclosure("labels", "each", _LABELS, None, "blinded"),
        StepDisclosure("opening", "each", _COUNTS, None, "masked", (_STOP,)),
    )
