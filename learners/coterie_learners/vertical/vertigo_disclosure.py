"""What VERTIGO discloses, by what its sites exchange."""

from __future__ import annotations

from coterie_learners.core.study_disclosure import Disclosure, StepDisclosure, conclude_disclosure
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.vertical.alignment_disclosure import (
    ALIGNMENT_COLLUSION,
    describe_rebuilding,
    disclose_alignment,
)

_EXCHANGED = {
    "thin": "Its standardised columns up to one rotation (a factor)",
    "gram": "The Gram matrix of its standardised columns, one number for each two patients",
}


def disclose_vertigo(study: Study, outcome_site: str, exchange: str) -> Disclosure:
    """What a study discloses."""
    members = study.sites
    offset = " and its offset" if Design(study).formula.offset else ""
    what = f"{_EXCHANGED[exchange]}, and the means of its rotated columns ({outcome_site}: also the outcome{offset})"
    rebuilds = (
        f"Every member reads the outcome{offset} of each common patient, from {outcome_site}.",
        *describe_rebuilding(study, members),
    )
    steps = (
        StepDisclosure("factor", "each", what, members, rebuilds=rebuilds),
        StepDisclosure("start", "server", "The model before the first step", members),
        StepDisclosure("step/*", "server", "The model after each step", members),
        StepDisclosure("part", "each", "Coefficients of its own columns with their covariance"),
        StepDisclosure("model", "server", "The result"),
        conclude_disclosure(),
    )
    return Disclosure(
        (*disclose_alignment(study), *steps),
        ("No site has to be trusted not to collude: every member already reads all factors.", ALIGNMENT_COLLUSION),
        ("Every member learns all factors and the outcome. Everybody else learns the result only.",),
    )
