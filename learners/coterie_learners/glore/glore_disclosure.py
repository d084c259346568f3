"""What GLORE discloses, under masks and in the clear."""

from __future__ import annotations

from dataclasses import dataclass

from coterie_learners.core.disclosure import list_cell_kinds
from coterie_learners.core.study_disclosure import (
    Disclosure,
    Protection,
    StepDisclosure,
    conclude_disclosure,
    describe_patients,
)
from coterie_learners.study.design import design_of
from coterie_learners.study.document import Study
from coterie_learners.sums.opening.disclosure import (
    disclose_opening,
    list_opening_collusion,
    list_seen_in_opening,
)
from coterie_learners.sums.opening.steps import OpeningMode

_SUMS = "Sums over its rows: first moments, then score, information, deviance and counts of each round"
_AGREEMENT = "Sums for the test whether the sites agree"
_TABLES = (
    "Readers can solve from the first round the number of rows, the outcome's sum, and every two-way table of binary "
    "covariates, also with a binary outcome.",
    "If few patterns of covariates occur, two or three rounds give the count of each pattern.",
)


_PROFILE = (
    "Sums over its rows about its own means: score and information of the common coefficients, deviance and counts of "
    "each round; its own intercept stays with it"
)
_MEAT = "Sums for the test whether the sites agree, and of squared scores for the standard errors"
_PATTERNS = (
    "Squared residuals add equations on the outcomes by pattern of covariates: where few patterns occur, the events in "
    "each follow.",
)
_WEIGHTS = (
    "Weights are part of every sum: where all patients of a level weigh the same, its sum is their number times that.",
)

_COUNTS = ("The sums for the shape of the counts tell in the end how many patients have each count.",)
_POOLED_COUNTS = (
    "Everybody learns how many patients of all sites together have each value of the outcome: the sums for its shape "
    "tell it. The opening step stops the study if fewer patients than the floor have a value, or one or two sites do.",
)


_MASSES = (
    "Everybody learns how many patients, at how many sites, weigh at least 10, 1, 0.1 and so on. The study stops if "
    "one or two sites, or fewer patients than the floor, have nearly all weight.",
)


_SITE_SCORES = (
    "Everybody learns the sum over the sites of products of each one's scores: how far sites pull the coefficients "
    "apart, but not which sites. All but two sites together can compute the scores of these two, but not which score "
    "is whose.",
)


@dataclass(frozen=True)
class Extras:
    """What a study's options add to the sums: squared scores, weights, intercepts that each site keeps, a shape.

    `apart`: the test whether the sites agree is always a round of its own. `by_site`: the squares are of whole sites.
    """

    robust: bool = False
    apart: bool = False
    weights: bool = False
    profiled: bool = False
    shaped: bool = False
    by_site: bool = False


def disclose_rounds(study: Study, masked: bool, opens: OpeningMode, extras: Extras = Extras()) -> Disclosure:
    """What rounds of sums disclose; `opens`: how the pool's levels are judged before them."""
    protection: Protection = "masked" if masked else "plain"
    rebuilds = () if masked else (*_TABLES, *(_WEIGHTS if extras.weights else ()), *(_COUNTS if extras.shaped else ()))
    middle = _PATTERNS if extras.robust and not masked else ()
    design = design_of(study)
    kinds = list_cell_kinds(design)
    sums, test = _PROFILE if extras.profiled else _SUMS, _MEAT if extras.robust else _AGREEMENT
    rounds = sums if extras.apart else f"{sums}. With the last of them: {test[0].lower()}{test[1:]}"
    late = test if extras.apart else f"{test}, if no step before foresaw the last sums"
    steps = (
        *disclose_opening(opens),
        StepDisclosure("stats/*", "each", rounds, None, protection, rebuilds, cells=kinds),
        StepDisclosure("model/*", "server", "The model after each round, and the test at the end"),
        StepDisclosure("agreement/*", "each", late, None, protection, middle, occasional=not extras.apart),
        StepDisclosure(
            "end/*", "server", "The model, and the test whether the sites agree", occasional=not extras.apart
        ),
        conclude_disclosure(),
    )
    collusion = (*_list_collusion(study, masked), *list_opening_collusion(opens, study.sites))
    weighs = bool(extras.weights or design.formula.offset) and opens == "counts"
    pool = (*(_POOLED_COUNTS if masked and extras.shaped else ()), *(_MASSES if weighs else ()))
    pool += _SITE_SCORES if masked and extras.by_site else ()
    return Disclosure(steps, collusion, (*_list_results(masked, opens), *pool, *describe_patients(study)))


def disclose_category(study: Study, opens: bool) -> Disclosure:
    """What rounds of masked sums of a category disclose: equations of each level, and no test at the end."""
    what = "Sums over its rows: first moments, then score, information, deviance and counts of levels of each round"
    steps = (
        *disclose_opening("counts" if opens else "none"),
        StepDisclosure("stats/*", "each", what, None, "masked", cells=list_cell_kinds(design_of(study))),
        StepDisclosure("model/*", "server", "The model after each round"),
        conclude_disclosure(),
    )
    outcome = design_of(study).formula.outcome
    everybody = (
        "Everybody learns the sums over all sites of every round, the model after it, and how many patients of the "
        f"pool have each level of {outcome}, alone and with each level of a covariate.",
        *list_seen_in_opening("counts" if opens else "none"),
        *describe_patients(study),
    )
    return Disclosure(steps, _list_collusion(study, True), everybody)


def _list_collusion(study: Study, masked: bool) -> tuple[str, ...]:
    if not masked:
        return ("No site has to be trusted not to collude: every member already reads each site's sums.",)
    others = len(study.sites) - 1
    together = f"The other {others} sites together can compute the sums of the last one. They must not collude."
    difference = (
        "Sums over all sites and later over all but one at nearly the same coefficients give that one's sums. "
        "A masked study should wait for a silent site or abort."
    )
    if study.ledger.silent_site != "exclude":
        return together, difference
    fewer = (
        "This study does not: it excludes a silent site, and everybody can then compute that site's sums. Once only "
        "three sites are left, two of them together can compute the sums of the third."
    )
    return together, difference, fewer


def _list_results(masked: bool, opens: OpeningMode) -> tuple[str, ...]:
    sums = "the sums over all sites" if masked else "each site's sums"
    pool = (
        "Everybody learns X'X and X'y of the pool: how many patients of all sites together have each level and each "
        "pair of levels, and how many of these have the outcome."
    )
    return (
        f"Everybody learns {sums} of every round, the model after it, the pooled number of rows, the outcome's sum, "
        "and the test whether the sites agree.",
        *((pool,) if masked else ()),
        *list_seen_in_opening(opens),
    )
