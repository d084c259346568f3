"""Whether few patients, or one or two sites, have nearly all weight of an arm: its weighted mean would be theirs.

A score near 0 or 1 makes a weight beside which all others vanish. So the sums of weights are judged before any sum of
outcomes is opened.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from coterie_learners.causal.arm_sums import WEIGHT_POWERS
from coterie_learners.causal.balancing_weights import ARMS
from coterie_learners.causal.propensity_plan import PropensityPlan
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Posts
from coterie_learners.errors import ProtocolError, Withheld
from coterie_learners.numeric.array import Array
from coterie_learners.sums.opening.counts import DOMINANCE, SITES

_ROUNDING = 1e-9
ADVICE = 'Set truncate, as in [0.01, 0.99], choose estimand = "overlap", or leave out what determines the treatment.'


def check_weights(sums: Payload) -> None:
    """ProtocolError if no patients could have these weights (2,), by Cauchy's inequality."""
    patients, weight, heavy = (np.asarray(sums[name]) for name in ("patients", "weight", "heavy"))
    if not np.all(weight > 0.0) or np.any(weight**2 > patients * heavy * (1.0 + _ROUNDING)):
        message = f"{patients.min():.0f} patients or more with weights of {weight.min():.6g} and squares of"
        raise ProtocolError("CO-P508", f"{message} {heavy.min():.6g} cannot be.")


def refuse_dominance(plan: PropensityPlan, pooled: Payload, posts: Posts) -> None:
    """Withheld if few patients of the pool, or one or two sites, have nearly all weight of an arm.

    In the clear each site's sums are read, so that each is judged by itself.
    """
    floor = plan.study.disclosure.cell
    if floor <= 1:
        return
    for arm in range(ARMS):
        name = f"{plan.options.treatment} = {arm}"
        for sums in (pooled, *(() if plan.masked else posts.values())):
            if float(sums["patients"][arm]) > 0 and _find_effective(sums, arm) < floor:
                _refuse(name, f"an effective sample size below {floor}")
        if plan.masked:
            _check_sites(name, np.asarray(pooled["masses"])[arm], np.asarray(pooled["mass_sites"])[arm])


def _find_effective(sums: Payload, arm: int) -> float:
    return float(sums["weight"][arm]) ** 2 / max(float(sums["heavy"][arm]), 1e-300)


def _check_sites(name: str, above: Array, sites: Array) -> None:
    """The rule of `sums.opening` on weights: those of at least this are nearly all weight, and at one or two sites."""
    between = np.diff(above, prepend=0.0)
    for k in range(len(WEIGHT_POWERS)):
        most_below = between[k + 1 :] @ WEIGHT_POWERS[k : len(WEIGHT_POWERS) - 1]
        if most_below < DOMINANCE * (between[: k + 1] @ WEIGHT_POWERS[: k + 1]) and 0 < sites[k] < SITES:
            _refuse(name, f"nearly all of its weight at fewer than {SITES} sites")


def _refuse(arm: str, what: str) -> NoReturn:
    raise Withheld("CO-N137", f"The study stops before outcomes are summed: the arm {arm} has {what}. {ADVICE}")
