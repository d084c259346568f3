"""What the opening of masked sums discloses."""

from __future__ import annotations

from collections.abc import Sequence

from coterie_learners.core.study_disclosure import StepDisclosure
from coterie_learners.shares.shamir3 import COMPUTING
from coterie_learners.sums.opening.labels import disclose_labels
from coterie_learners.sums.opening.steps import OpeningMode

_COUNTS = "Counts of its patients and of events by level, and which levels it has"
_STOP = (
    "The study stops and names the level if the pool has fewer patients of it than the floor. It also stops if only "
    "one or two sites have the level, or if all in it have the outcome. The outcome, and its absence, are levels too, "
    "and so is each cell of a product. "
    "Products of levels, levels derived from several columns, and events in a level are opened after the level, "
    "and only if it has passed."
)
_COMMITMENT = "A hash of its counts of patients and of events by level, and of a secret"
_BITS = (
    "whether each level has fewer patients of the pool than the floor, is at one or two sites, or has the outcome in "
    "all of its patients, and whether there are more rows than columns"
)
_NO_COUNTS = (
    "Nobody sees a count: the bits alone are opened, also where the study stops. Bits do not judge weights, so such a "
    "study has neither weights nor an offset."
)
_SEEN_IN_COUNTS = (
    "Everybody learns from the opening step how many sites have each level, and whether a site's rows changed."
)
_SEEN_IN_BITS = "Everybody learns from the opening step whether a site's rows changed, and of each level those bits."


def disclose_opening(mode: OpeningMode) -> tuple[StepDisclosure, ...]:
    """The labels of rows, and the masked counts of levels, or a commitment to them and the bits; nothing without."""
    if mode == "none":
        return ()
    labels = disclose_labels()
    if mode == "counts":
        return labels, StepDisclosure("opening*", "each", _COUNTS, None, "masked", (_STOP,))
    commitment = StepDisclosure("opening", "each", _COMMITMENT, None, "blinded")
    return labels, commitment, StepDisclosure("bits", "each", _BITS, rebuilds=(_NO_COUNTS, _STOP), talks=True)


def list_seen_in_opening(mode: OpeningMode) -> tuple[str, ...]:
    """What everybody learns from the opening."""
    return {"counts": (_SEEN_IN_COUNTS,), "bits": (_SEEN_IN_BITS,), "none": ()}[mode]


def list_opening_collusion(mode: OpeningMode, sites: Sequence[str]) -> tuple[str, ...]:
    """The sites that must not collude in the opening."""
    if mode != "bits":
        return ()
    names = f"{', '.join(sites[: COMPUTING - 1])} and {sites[COMPUTING - 1]}"
    return (
        f"{names} compare the counts on shares. No two of them must collude: they would read the counts of all sites "
        "together.",
    )
