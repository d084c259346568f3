"""The result of a study of a treatment's hazard ratio, from the last server post."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from coterie_learners.causal.propensity_plan import PropensityPlan, list_effect_terms
from coterie_learners.causal.propensity_result import (
    describe_balance,
    describe_scores,
    describe_weights,
    limit_estimate,
    list_imbalances,
    write_population,
    write_weighting,
)
from coterie_learners.core.fit import LEVEL, Fit
from coterie_learners.core.payload import Payload
from coterie_learners.cox.cox_plan import CoxPlan


def build_hazard_fit(plan: PropensityPlan, cox: CoxPlan, end: Payload, rounds: int) -> Fit:
    """The logarithm of the hazard ratio with its robust error, and all that is to be known of the weights."""
    information, squares = float(end["information"][0]), float(end["squared_scores"][0])
    estimate, error = float(end["best"][0] / cox.scale[0]), math.sqrt(squares) / information / float(cox.scale[0])
    details = _describe_hazard(plan, end, estimate, error)
    warnings = tuple(list_imbalances(details))
    return Fit(
        learner="propensity",
        family="Cox",
        link=f"log hazard, {plan.options.ties.capitalize()} ties",
        terms=list_effect_terms(plan),
        estimates=np.array([estimate]),
        covariance=np.array([[error * error]]),
        n=round(float(end["n"])),
        events=round(float(end["events"])),
        rounds=rounds,
        converged=True,
        dispersion=1.0,
        dispersion_known=True,
        deviance=None,
        null_deviance=None,
        log_likelihood=None,
        ratio="HR",
        notes=(*_write_notes(plan, details), *warnings),
        warnings=warnings,
        details={"causal": details},
    )


def _describe_hazard(plan: PropensityPlan, end: Payload, estimate: float, error: float) -> dict[str, Any]:
    ratio = limit_estimate("hazard_ratio", estimate, error)
    ratio |= {name: math.exp(ratio[name]) for name in ("value", "low", "high")}
    return {
        "treatment": plan.options.treatment,
        "estimand": plan.options.estimand,
        "means": [],
        "effects": [ratio | {"std_error_known_scores": error}],
        "weights": describe_weights(plan, end),
        "balance": describe_balance(plan, end),
        "scores": describe_scores(end),
        "level": LEVEL,
    }


def _write_notes(plan: PropensityPlan, details: Mapping[str, Any]) -> Iterator[str]:
    o = plan.options
    yield from write_population(plan)
    weights = "stabilised" if o.stabilised else "not stabilised"
    yield f"Baseline hazards by site; ties by {o.ties.capitalize()}; weights {weights}."
    yield (
        "Standard errors are robust (Lin and Wei) and take the scores for known, as R's coxph does with weights: as a "
        "rule they are then too large rather than too small."
    )
    yield from write_weighting(plan, details)
