"""What Secure Lasso discloses, joined or by rows, and by what it opens."""

from __future__ import annotations

from coterie_learners.core.study_disclosure import Disclosure, StepDisclosure, conclude_disclosure
from coterie_learners.secure.lasso_plan import LassoPlan
from coterie_learners.secure.secure_join import JoinPlan


def disclose_lasso(plan: LassoPlan) -> Disclosure:
    """What a study discloses."""
    opened = _describe_opened(plan)
    begin = disclose_join(plan.link) if plan.joins else (disclose_terms("A commitment to its rows"),)
    inputs = describe_inputs(plan.link if plan.joins else None)
    fit = StepDisclosure("fit", "each", f"{inputs}, and what is opened is {opened}", talks=True)
    names = ", ".join(plan.computing)
    trust = (f"No two of {names} may collude: together they could read every row that they compute on.",)
    joined = describe_join_trust(plan.link) if plan.joins else ()
    return Disclosure((*begin, fit, conclude_disclosure("each")), (*trust, *joined), (f"Everybody learns {opened}.",))


def disclose_terms(what: str) -> StepDisclosure:
    """The first step: what each site posts there."""
    interval = (
        "If the declared range of a column is more than 64 standard deviations wide to each side, everybody learns an "
        "interval that has all of its values and is at least 32 standard deviations wide to each side. Nobody learns "
        "anything about other columns.",
    )
    return StepDisclosure("terms", "each", f"{what}, and intervals of its columns", None, "blinded", interval)


def disclose_join(link: JoinPlan) -> tuple[StepDisclosure, ...]:
    """The steps of a join."""
    tags = "Keyed tags of identifiers, and"
    sent = "its rows encrypted under its own key" if link.sealed_by_key else "digests of its rows under uniform masks"
    helper, several = link.helper, len(link.owners) > 2 or len(link.passes) > 1
    parts = ", in each pass and for each set of owners" if several else ""
    learns = (
        f"{helper} learns how many rows and columns each owner has, and how many rows match{parts}.",
        f"{helper} sees no identifier and no value.",
        *_describe_deal(link),
    )
    rows = (
        StepDisclosure(
            f"rows/{owner}",
            f"only:{owner}",
            f"{tags} {sent}, in a secret random order",
            (helper,),
            "blinded",
            learns,
        )
        for owner in link.owners
    )
    what = "Places of the matched rows in a list of unknown order, and counts of different spellings"
    counts = (f"The owner learns how many patients match, if they are at least {link.floor}. It does not learn which.",)
    matches = (StepDisclosure(f"match/{o}", f"only:{helper}", what, (o,), rebuilds=counts) for o in link.owners)
    return disclose_terms("A commitment to its rows, and a wrapped part of the owners' key"), *rows, *matches


def describe_inputs(link: JoinPlan | None) -> str:
    """What goes into the interactive step, of joined columns or (without a join) of rows."""
    if link is None or link.sealed_by_key:
        return "shares go in"
    return f"rows under uniform masks go to {link.helper} if enough patients match, shares go in"


def _describe_deal(link: JoinPlan) -> tuple[str, ...]:
    """What a seed shows the helper of each row."""
    if link.deal is None:
        return ()
    which = "fold or the rows held out" if link.deal.count > 1 else "group"
    return (
        f"{link.helper} learns which {which} each row of {link.owners[0]} belongs to: a hash of identifiers and the "
        "study's seed, cut to so few values that no identifier can be tried against it.",
    )


def describe_join_trust(link: JoinPlan) -> tuple[str, ...]:
    """The sites that must not collude because of a join."""
    owners = " or ".join(link.owners)
    risk = (
        "they can test identifiers, but rows stay under their owner's own key even if the two collude"
        if link.sealed_by_key
        else "they can test identifiers, and read the rows of another owner, also those without a match"
    )
    return (f"{link.helper} must not collude with {owners}: {risk}.",)


def _describe_opened(plan: LassoPlan) -> str:
    o = plan.options
    several = f"{len(o.alpha)} penalties" if len(o.alpha) > 1 else "1 penalty"
    shown = several if o.show == "path" or not o.folds else "the best penalty"
    extra = ["the mean absolute errors"] * o.absolute_error + ["the scores of cross-validation"] * (o.folds > 0)
    extra += ["the errors of the rows held out"] * (o.held_out > 0) + ["the number of iterations"]
    return (
        f"the coefficients of {shown}, the number of rows, the outcome's variance, the mean squared errors, "
        f"{', '.join([*extra[:-1], 'and ' + extra[-1]])}"
    )
