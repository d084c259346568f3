"""The result of a study of a treatment's effect, from the last server post."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from coterie_learners.causal.propensity_plan import Effect, PropensityPlan, list_effect_terms
from coterie_learners.causal.stacked_sandwich import (
    ArmContrast,
    MeansCovariance,
    contrast_means,
    has_contrast,
    stack_sandwich,
)
from coterie_learners.core.fit import LEVEL, Fit
from coterie_learners.core.payload import Payload
from coterie_learners.errors import Separation
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import normal_quantile

# Standardised mean differences above this are called imbalance (Austin, Stat Med 2009;28:3083-3107).
IMBALANCE = 0.1
# What rounding leaves of a value in a range, and how many times that a standard error should be.
_RESOLUTION, _ENOUGH = 2.0**-50, 100.0
_LINKS: dict[Effect, str] = {"difference": "identity", "ratio": "log", "odds_ratio": "logit"}
_FAMILIES = {"number": "gaussian", "binary": "binomial", "count": "poisson"}
_RATIOS: dict[tuple[Effect, str], str] = {
    ("ratio", "binary"): "RR",
    ("ratio", "count"): "IRR",
    ("odds_ratio", "binary"): "OR",
}
_POPULATIONS = {
    "ATE": "in all patients (ATE)",
    "ATT": "in the treated (ATT)",
    "overlap": "in the patients who might have either treatment (overlap weights)",
}


def build_effect_fit(plan: PropensityPlan, effect: Payload, rounds: int) -> Fit:
    """The effect in the outcome's own unit, and the facts about the weights."""
    means, covariance = _unscale_means(plan, effect)
    kind, outcome = plan.options.effect, plan.design.outcome.type
    if not has_contrast(means, kind):
        message = f"The weighted means are {means[0]:.4g} and {means[1]:.4g}, and these have no {kind}"
        raise Separation("CO-N301", f'{message}. Wait for events, or set effect = "difference".')
    main = contrast_means(means, covariance, kind)
    details = _describe_effect(plan, effect, means, covariance)
    warnings = (*list_imbalances(details), *_warn_of_range(plan, np.diag(covariance.stacked)))
    return Fit(
        learner="propensity",
        family=_FAMILIES[outcome],
        link=_LINKS[kind],
        terms=list_effect_terms(plan),
        estimates=np.array([main.base, main.estimate]),
        covariance=main.covariance,
        n=int(effect["n"]),
        events=int(effect["events"].sum()) if outcome == "binary" else None,
        rounds=rounds,
        converged=True,
        dispersion=1.0,
        dispersion_known=True,
        deviance=None,
        null_deviance=None,
        log_likelihood=None,
        ratio=_RATIOS.get((kind, outcome), ""),
        notes=(*_write_notes(plan, details), *warnings),
        warnings=warnings,
        details={"causal": details},
    )


def _unscale_means(plan: PropensityPlan, effect: Payload) -> tuple[Array, MeansCovariance]:
    centre, scale = plan.outcome_place
    return centre + scale * np.asarray(effect["means"]), stack_sandwich(effect).scale(
        scale * float(effect.get("unit", 1.0))
    )


def _describe_effect(
    plan: PropensityPlan, effect: Payload, means: Array, covariance: MeansCovariance
) -> dict[str, Any]:
    o = plan.options
    kinds = [k for (k, kind) in _RATIOS if kind == plan.design.outcome.type and has_contrast(means, k)]
    effects: list[Effect] = ["difference", *kinds]
    errors = np.sqrt(np.diag(covariance.stacked))
    pairs = enumerate(zip(means, errors, strict=True))
    return {
        "treatment": o.treatment,
        "estimand": o.estimand,
        "means": [limit_estimate(f"{o.treatment} = {arm}", *pair) for arm, pair in pairs],
        "effects": [_describe_contrast(k, contrast_means(means, covariance, k)) for k in effects],
        "weights": describe_weights(plan, effect),
        "balance": describe_balance(plan, effect),
        "scores": describe_scores(effect),
        "level": LEVEL,
    }


def limit_estimate(name: str, value: float, error: float) -> dict[str, Any]:
    """An estimate with its standard error and its limits, by name."""
    half = normal_quantile(0.5 + LEVEL / 2) * error
    return {"name": name, "value": float(value), "std_error": float(error), "low": value - half, "high": value + half}


def _describe_contrast(kind: Effect, contrast: ArmContrast) -> dict[str, Any]:
    """A contrast with its limits; a ratio by itself, and its error on the log scale."""
    out = limit_estimate(kind, contrast.estimate, math.sqrt(contrast.covariance[1, 1]))
    if kind != "difference":
        out |= {name: math.exp(out[name]) for name in ("value", "low", "high")}
    return out | {"std_error_known_scores": math.sqrt(contrast.known_variance)}


def describe_weights(plan: PropensityPlan, effect: Payload) -> dict[str, Any]:
    """Patients, mean weight and effective sample size (Kish 1965) of each arm."""
    patients, weight, heavy = (np.asarray(effect[name]) for name in ("patients", "weight", "heavy"))
    share = patients / patients.sum() if plan.options.stabilised else np.ones(len(patients))
    return {
        "patients": [int(n) for n in patients],
        "mean": (share * weight / patients).tolist(),
        "effective": (weight**2 / heavy).tolist(),
    }


def describe_balance(plan: PropensityPlan, effect: Payload) -> list[dict[str, Any]]:
    """Standardised mean differences, treated minus others, before and after weighting, over the spread before."""
    n, weight = np.asarray(effect["patients"])[:, None], np.asarray(effect["weight"])[:, None]
    before, after = effect["plain"] / n, effect["weighted"] / weight
    variances = np.maximum(effect["plain_squares"] - n * before**2, 0.0) / np.maximum(n - 1.0, 1.0)
    spread = np.sqrt(variances[1] if plan.options.estimand == "ATT" else variances.mean(axis=0))
    safe = np.where(spread > 0.0, spread, np.nan)
    names = [plan.scores.names[j] for j in plan.balanced]
    differences = zip(names, (before[1] - before[0]) / safe, (after[1] - after[0]) / safe, strict=True)
    return [{"term": name, "before": float(b), "after": float(a)} for name, b, a in differences]


def describe_scores(effect: Payload) -> dict[str, Any] | None:
    """Patients by bin of the score and arm; None where the floor allows no bins."""
    if "scores" not in effect:
        return None
    counts = np.asarray(effect["scores"])
    ends = [k / counts.shape[1] for k in range(counts.shape[1] + 1)]
    return {"ends": ends, "counts": [[int(n) for n in arm] for arm in counts]}


# In words


def list_imbalances(details: Mapping[str, Any]) -> Iterator[str]:
    """A warning of the covariate that weighting balances least, if that is too little."""
    worst = max(details["balance"], key=lambda line: _size(line["after"]))
    if _size(worst["after"]) > IMBALANCE:
        yield (
            f"After weighting the arms still differ in {worst['term']} by {worst['after']:.2f} standard deviations "
            f"(above {IMBALANCE:g}). Give the score more terms of it, or choose overlap weights."
        )


def _warn_of_range(plan: PropensityPlan, variances: Array) -> Iterator[str]:
    """A warning of means that are lost in the width of the outcome's declared range."""
    centre, scale = plan.outcome_place
    least = (abs(centre) + scale) * _RESOLUTION
    if np.min(variances) < (_ENOUGH * least) ** 2:
        yield (
            f"Sums over the declared range of {plan.design.formula.outcome} tell its means to {least:.2g} only, which "
            "is much beside their standard errors. Declare a narrower range."
        )


def _size(value: float) -> float:
    return abs(value) if math.isfinite(value) else 0.0


def _write_notes(plan: PropensityPlan, details: Mapping[str, Any]) -> Iterator[str]:
    percent = f"{100 * LEVEL:g} %"
    yield from write_population(plan)
    yield "Standard errors are of the stacked estimating equations: the scores are known to be estimated."
    means = (f"{m['name']}: {m['value']:.6g} [{m['low']:.4g}, {m['high']:.4g}]" for m in details["means"])
    yield f"Weighted means ({percent} limits): {'; '.join(means)}."
    for line in details["effects"]:
        name = line["name"].replace("_", " ")
        yield f"{name.capitalize()}: {line['value']:.6g} [{line['low']:.4g}, {line['high']:.4g}]."
    yield from write_weighting(plan, details)


def write_population(plan: PropensityPlan) -> Iterator[str]:
    """The kind of patients that the effect is about, and the scores beyond which weights no longer grow."""
    o = plan.options
    yield f"Effect of {o.treatment} {_POPULATIONS[o.estimand]}, weighted by propensity scores of {plan.p} coefficients."
    if o.truncate:
        yield f"Scores below {o.truncate[0]:g} or above {o.truncate[1]:g} are taken to be these."


def write_weighting(plan: PropensityPlan, details: Mapping[str, Any]) -> Iterator[str]:
    """Effective sample sizes, balance of covariates, and scores by arm."""
    o, weights = plan.options, details["weights"]
    sizes = " and ".join(
        f"{size:.0f} of {n}" for size, n in zip(weights["effective"], weights["patients"], strict=True)
    )
    kind = "stabilised " if o.stabilised else ""
    average = " and ".join(f"{mean:.3f}" for mean in weights["mean"])
    yield f"Effective sample size without and with {o.treatment}: {sizes}; mean {kind}weights {average}."
    yield _write_balance(details)
    yield _write_scores(o.treatment, details["scores"], plan.study.disclosure.cell)


def _write_balance(details: Mapping[str, Any]) -> str:
    largest = {when: max(_size(line[when]) for line in details["balance"]) for when in ("before", "after")}
    before, after = (f"{largest[when]:.3f}" for when in ("before", "after"))
    count = len(details["balance"])
    return f"Largest standardised mean difference of {count} covariates: {before} before, {after} after weighting."


def _write_scores(treatment: str, scores: Mapping[str, Any] | None, floor: int) -> str:
    if scores is None:
        return f"Scores by arm are not counted: at a site a bin would have 1 to {floor - 1} patients."
    bins = zip(scores["ends"], scores["ends"][1:], *scores["counts"], strict=False)
    parts = (f"{low:g} to {high:g}: {a} and {b}" for low, high, a, b in bins)
    return f"Patients by score, without and with {treatment}: {'; '.join(parts)}."
