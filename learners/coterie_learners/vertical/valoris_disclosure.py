"""What VALORIS discloses, by mode and with or without standard errors."""

from __future__ import annotations

from collections.abc import Mapping

from coterie_learners.core.study_disclosure import Disclosure, StepDisclosure
from coterie_learners.study.document import Study
from coterie_learners.vertical.alignment_disclosure import (
    ALIGNMENT_COLLUSION,
    describe_rebuilding,
    disclose_alignment,
)


def disclose_valoris(
    study: Study, response: str, answers: Mapping[str, tuple[str, ...]], aggregated: bool, standard_errors: bool
) -> Disclosure:
    """What a study discloses; `answers` are the answers' names with their readers."""
    covariate_sites = tuple(name for name in study.sites if name != response)
    factors = (
        _disclose_sum(study, response, covariate_sites)
        if aggregated
        else tuple(_disclose_factor(study, response, name) for name in covariate_sites)
    )
    covariance = " with their covariance" if standard_errors else ""
    own = "Coefficients of all covariate sites" if aggregated else "Coefficients"
    safe = "No reader can solve for an outcome: the site checks that before anything is returned."
    replies = tuple(
        StepDisclosure(f"answer/{name}", f"only:{response}", f"{own}{covariance}", readers, rebuilds=(safe,))
        for name, readers in answers.items()
    )
    return Disclosure(
        (*disclose_alignment(study), *factors, *replies),
        (_describe_collusion(response, covariate_sites, aggregated), ALIGNMENT_COLLUSION),
        (
            f"The outcome never leaves {response}.",
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


def _describe_collusion(response: str, covariate_sites: tuple[str, ...], aggregated: bool) -> str:
    if not aggregated:
        return f"{response} reads each covariate site's factor alone. No covariate site reads another one's."
    names = " or ".join(covariate_sites)
    return f"{response} must not collude with {names}: the two can undo the rotation of the sum."
