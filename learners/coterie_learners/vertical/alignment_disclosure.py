"""What the search for common patients and a factor of columns disclose."""

from __future__ import annotations

from collections.abc import Sequence

from coterie_learners.core.study_disclosure import StepDisclosure, announce_disclosure
from coterie_learners.study.design import INTERCEPT, Design
from coterie_learners.study.document import Study

ALIGNMENT_COLLUSION = (
    "All sites but one together cannot test identifiers. A site can list patients that it does not have. It then "
    "learns which of them are at the other sites."
)


def disclose_alignment(study: Study) -> tuple[StepDisclosure, ...]:
    """What the steps of the alignment disclose."""
    learns = "Each site learns which of its own patients every other site has, and how many others are there."
    points = StepDisclosure(
        "align/points",
        "each",
        "Patients' identifiers under a secret exponent, also of those who lack a value",
        study.sites,
        "blinded",
    )
    raised = StepDisclosure(
        "align/raise/*", "each", "Another site's list, under one more exponent", study.sites, "blinded", (learns,)
    )
    lacking = (
        "Each of the two sites learns which common patients lack a value at the other one."
        if len(study.sites) == 2
        else "Each site learns which common patients lack a value somewhere, but not at which site."
    )
    counts = (
        "Each site learns how many common patients are spelled differently, and how many rows of each site lack an "
        "identifier or repeat one.",
        f"{lacking} It learns how many do at each site, unless that is from 1 to below disclosure.cell.",
    )
    what = (
        "Keyed hashes of common patients' spellings, a masked word for each of them that says who is no complete case, "
        "and counts of rows that did not link"
    )
    report = StepDisclosure("align/report", "each", what, study.sites, "plain", counts)
    return announce_disclosure(), points, raised, report


def describe_rebuilding(study: Study, owners: Sequence[str]) -> tuple[str, ...]:
    """What readers can rebuild from a factor of these sites' columns, in sentences."""
    named = {owner: [name for name in Design(study, owner).names if name != INTERCEPT] for owner in owners}
    columns = "; ".join(f"{', '.join(names)} of {owner}" for owner, names in named.items() if names)
    known = sum(len(names) for names in named.values())
    return (
        f"Readers can rebuild binary columns row by row, and columns on a grid by lattice reduction ({columns}).",
        f"A reader who already knows {known} of the rows can compute all rows.",
        f'The study says disclosure.rebuild = "{study.disclosure.rebuild}".',
    )
