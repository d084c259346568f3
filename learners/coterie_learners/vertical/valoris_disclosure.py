"""What VALORIS discloses, by mode and with or without standard errors."""

from __future__ import annotations

from collections.abc import Mapping

from coterie_learners.core.study_disclosure import Disclosure, StepDisclosure, conclude_disclosure
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.sums.family import Family
from coterie_learners.vertical.alignment_disclosure import (
    ALIGNMENT_COLLUSION,
    describe_rebuilding,
    disclose_alignment,
)


def disclose_valoris(
    study: Study,
    response: str,
    answers: Mapping[str, tuple[str, ...]],
    aggregated: bool,
    standard_errors: bool,
    family: Family,
) -> Disclosure:
    """What a study discloses; `answers` are the answers' names with their readers."""
    covariate_sites = tuple(name for name in study.sites if name != response)
    factors = (
        _disclose_sum(study, response, covariate_sites)
        if aggregated
        else tuple(_disclose_factor(study, response, name) for name in covariate_sites)
    )
    freedom = "" if family.dispersion == "known" else " and its degrees of freedom"
    covariance = f" with their covariance{freedom}" if standard_errors else ""
    own = "Coefficients of all covariate sites" if aggregated else "Coefficients"
    replies = tuple(
        StepDisclosure(
            f"answer/{name}",
            f"only:{response}",
            f"{own}{covariance}",
            readers,
            rebuilds=_limit(response, family, standard_errors),
        )
        for name, readers in answers.items()
    )
    return Disclosure(
        (*disclose_alignment(study), *factors, *replies, conclude_disclosure("each")),
        (*_describe_collusion(response, covariate_sites, aggregated), ALIGNMENT_COLLUSION),
        (
            f"The outcome{' and its offset' if Design(study).formula.offset else ''} never leaves {response}.",
            "Every site learns the number of common patients. Each covariate site learns its own coefficients"
            + (", and those of the other covariate sites." if aggregated else " only."),
        ),
    )


def _disclose_factor(study: Study, response: str, name: str) -> StepDisclosure:
    what = "Its standardised columns up to one rotation (a factor), and the means of these"
    rebuilds = describe_rebuilding(study, (name,))
    return StepDisclosure(f"factor/{name}", f"only:{name}", what, (response,), rebuilds=rebuilds)


def _disclose_sum(study: Study, response: str, covariate_sites: tuple[str, ...]) -> tuple[StepDisclosure, ...]:
    first, *others = covariate_sites
    what, rebuilds = "Its part of a rotated sum of columns", describe_rebuilding(study, covariate_sites)
    seed = StepDisclosure("seed", f"only:{first}", "A random number for the rotation", tuple(others), "blinded")
    parts = (
        StepDisclosure(f"factor/{name}", f"only:{name}", what, (response,), "masked", rebuilds)
        for name in covariate_sites
    )
    return seed, *parts


def _limit(response: str, family: Family, standard_errors: bool) -> tuple[str, ...]:
    """What the check of an answer shows, and what it does not."""
    values = "both values of the outcome" if family.binary else "other values of the outcome"
    linear = (
        "The covariance of a linear model tells its reader the correlations of its columns with a single column of all "
        "other sites, and with several columns these up to one rotation.",
    )
    return (
        f"{response} checks first, for each patient, that the coefficients fit {values}.",
        *(linear if family.linear and standard_errors else ()),
        "The check does not bound how well a reader can guess an outcome, and it assumes that the other sites have "
        "enough columns.",
    )


def _describe_collusion(response: str, covariate_sites: tuple[str, ...], aggregated: bool) -> tuple[str, ...]:
    if aggregated:
        names = " or ".join(covariate_sites)
        return (f"{response} must not collude with {names}: the two can undo the rotation of the sum.",)
    alone = f"{response} reads the factor of each covariate site. No covariate site reads the factor of another one."
    if len(covariate_sites) < 2:
        return (alone,)
    return (
        alone,
        f"{' and '.join(covariate_sites)} must not collude: {response} checks each answer for its reader alone. "
        "Nothing checks which outcomes they can solve when they combine their columns and answers.",
    )
