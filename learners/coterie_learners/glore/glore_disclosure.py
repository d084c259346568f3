"""What GLORE discloses, under masks and in the clear."""

from __future__ import annotations

from coterie_learners.core.study_disclosure import Disclosure, StepDisclosure
from coterie_learners.study.document import Study

_SUMS = "Sums over its rows: first moments, then score, information, deviance and counts of each round"
_LABELS = (
    "Labels of its rows: 8 keyed bytes for each raw column, equal to an earlier study's if and only if its rows are"
)
_COUNTS = "Counts of its patients and of events by level, and which levels it has"
_AGREEMENT = "Sums for the test whether the sites agree"
_STOP = (
    "The study stops, with the level named, if a level has fewer patients of the pool than the floor, if one or two "
    "sites have it, or if all in it have the outcome."
)
_TABLES = (
    "Readers can solve from the first round the number of rows, the outcome's sum, and every two-way table of binary "
    "covariates, also with a binary outcome.",
    "Where few patterns of covariates occur, two or three rounds give the count of each pattern.",
)


def disclose_rounds(study: Study, masked: bool, opens: bool) -> Disclosure:
    """What rounds of sums disclose; `opens`: the pool's counts of levels come before them."""
    opening = (
        StepDisclosure("labels", "each", _LABELS),
        StepDisclosure("opening", "each", _COUNTS, None, "masked", (_STOP,)),
    )
    steps = (
        *(opening if opens else ()),
        StepDisclosure("stats/*", "each", _SUMS, None, "masked" if masked else "plain", () if masked else _TABLES),
        StepDisclosure("model/*", "server", "The model after each round"),
        StepDisclosure("agreement/*", "each", _AGREEMENT, None, "masked" if masked else "plain"),
        StepDisclosure("end/*", "server", "The model, and the test whether the sites agree"),
    )
    return Disclosure(steps, _list_collusion(study, masked), _list_results(masked, opens))


def _list_collusion(study: Study, masked: bool) -> tuple[str, ...]:
    if not masked:
        return ("No site has to be trusted not to collude: every member already reads each site's sums.",)
    others = len(study.sites) - 1
    return (
        f"All {others} other sites together can compute the sums of the last one. They must not collude.",
        "Sums over all sites and later over all but one at nearly the same coefficients give that one's sums. "
        "A masked study should wait for a silent site or abort.",
    )


def _list_results(masked: bool, opens: bool) -> tuple[str, ...]:
    sums = "the sums over all sites" if masked else "each site's sums"
    pool = (
        "Everybody learns X'X and X'y of the pool: how many patients of all sites together have each level and each "
        "pair of levels, and how many of these have the outcome."
    )
    counts = "Everybody learns from the opening step how many sites have each level, and whether a site's rows changed."
    return (
        f"Everybody learns {sums} of every round, the model after it, the pooled number of rows, the outcome's sum, "
        "and the test whether the sites agree.",
        *((pool,) if masked else ()),
        *((counts,) if opens else ()),
    )
