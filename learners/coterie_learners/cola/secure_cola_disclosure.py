"""What secure-COLA-GLM discloses, by scheme."""

from __future__ import annotations

from collections.abc import Callable

from coterie_learners.cola.cola_disclosure import describe_table, list_solvable
from coterie_learners.cola.plan import TablePlan
from coterie_learners.cola.table_disclosure import list_table_kinds
from coterie_learners.core.study_disclosure import Disclosure, StepDisclosure, conclude_disclosure, describe_patients
from coterie_learners.glore.glore_disclosure import disclose_rounds
from coterie_learners.sums.opening.disclosure import (
    disclose_opening,
    list_opening_collusion,
    list_seen_in_opening,
)
from coterie_learners.sums.opening.steps import OpeningMode

_COLLUSION = (
    "All sites but one together learn the last one's table; no scheme prevents that. They must not collude.",
    "A second study of the same sites but one gives the difference. Hold the cohort and the list of sites fixed.",
)
_TEST = StepDisclosure("agreement", "each", "Sums for the test whether the sites agree", None, "masked")
_HONESTY = "Every site counts its own rows honestly and follows the protocol. The result is not differentially private."


def disclose_secure_cola(plan: TablePlan, scheme: str, holder: str, opens: OpeningMode) -> Disclosure:
    """What a study of summed tables discloses; `opens`: how the pool's levels are judged before its sums."""
    sums = _SCHEMES[scheme](plan, scheme, holder)
    collusion = (*sums.collusion, *list_opening_collusion(opens, plan.study.sites))
    everybody = (*sums.everybody, *list_seen_in_opening(opens))
    return Disclosure((*disclose_opening(opens), *sums.steps), collusion, everybody)


def _disclose_masks(plan: TablePlan, scheme: str, holder: str) -> Disclosure:
    table = StepDisclosure("table", "each", describe_table(plan), None, "masked", cells=list_table_kinds(plan.design))
    return Disclosure(
        (table, *_list_ends(plan, "The fit of the summed table")),
        (*_COLLUSION, "There is no key holder and no homomorphic library.", _HONESTY),
        (
            "Everybody with access to the store learns the summed table over all sites, small patterns among them"
            f"{_name_test(plan)}.",
            *describe_patients(plan.study),
        ),
    )


def _disclose_ciphertexts(plan: TablePlan, scheme: str, holder: str) -> Disclosure:
    steps = (
        StepDisclosure("key", f"only:{holder}", "The public key"),
        StepDisclosure("table", "each", f"{describe_table(plan)}, encrypted over its masks ({scheme})", None, "masked"),
        StepDisclosure("sum", "server", "The sum of the ciphertexts"),
        StepDisclosure(
            "opened",
            f"only:{holder}",
            "The decrypted table, summed over all sites",
            rebuilds=(*list_solvable(plan)[:-1], _describe_floor(plan, holder)),
            cells=list_table_kinds(plan.design),
        ),
        *_list_ends(plan, "The fit of what is opened"),
    )
    rounding = "The sums of ckks are rounded to whole numbers before they are opened. " * (scheme == "ckks")
    trust = (
        f"{rounding}{holder} holds the key and learns the summed table. If {holder} decrypts a single upload, or "
        "shares its key, the masks below still hide that site's table.",
        f"Only an inspection at {holder} can tell that it posted what it decrypted (coterie audit recompute).",
    )
    return Disclosure(
        steps,
        (*_COLLUSION, *trust, _HONESTY),
        (
            f"Everybody learns what {holder} posts of the summed table, and its fit{_name_test(plan)}.",
            *describe_patients(plan.study),
        ),
    )


def _name_test(plan: TablePlan) -> str:
    return ", and the test whether the sites agree" if _tests_agreement(plan) else ""


def _list_ends(plan: TablePlan, fit: str) -> tuple[StepDisclosure, ...]:
    """The test of agreement, where the study has it, the fit, and the end."""
    if not _tests_agreement(plan):
        return StepDisclosure("fit", "server", fit), conclude_disclosure()
    return _TEST, StepDisclosure("fit", "server", f"{fit}, and the sums of that test"), conclude_disclosure()


def _tests_agreement(plan: TablePlan) -> bool:
    return plan.study.ledger.silent_site != "exclude"


def _describe_floor(plan: TablePlan, holder: str) -> str:
    """The floor holds for what the holder opens, and for nothing before that."""
    chosen = plan.options.suppress if plan.floor else "none"
    if chosen == "none":
        return f"No pattern of the sum is left out; the release gate of {holder} alone checks the floor."
    return (
        f"A pattern with fewer than {plan.floor} rows over all sites is not opened. {holder} sees these patterns too. "
        "The floor does not apply to one site's rows: a site may have fewer in a pattern that is opened."
    )


def _disclose_newton(plan: TablePlan, scheme: str, holder: str) -> Disclosure:
    rounds = disclose_rounds(plan.study, masked=True, opens="none")
    few = "Nobody sees any table. With few patterns the rounds together may determine the summed table."
    return Disclosure(rounds.steps, (*_COLLUSION, _HONESTY), (*rounds.everybody, few))


_SCHEMES: dict[str, Callable[[TablePlan, str, str], Disclosure]] = {
    "masks": _disclose_masks,
    "bfv": _disclose_ciphertexts,
    "ckks": _disclose_ciphertexts,
    "newton": _disclose_newton,
}
