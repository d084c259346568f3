"""The fit that people read, from the last server post."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from coterie_learners.core import model_warnings
from coterie_learners.core.fit import Fit, joint_tests
from coterie_learners.core.payload import Payload
from coterie_learners.numeric.array import Array
from coterie_learners.sums import soundness
from coterie_learners.sums.agreement import Agreement, as_dict, compare
from coterie_learners.sums.conditioning import EPS, UNITS, Conditioning, condition
from coterie_learners.sums.family import Family, Totals
from coterie_learners.sums.frame import Frame
from coterie_learners.sums.newton import FitRules

# A residual is off by fewer roundings of its mean than these.
_ROUNDING = 64.0
# Squares that are this share of those of the means are nothing: an outcome that varies by 1e-9 of its mean.
_NOTHING = 1e-18


def build_fit(
    learner: str,
    rules: FitRules,
    model: Payload,
    rounds: int,
    method: tuple[str, ...] = (),
    sandwich: Array | None = None,
) -> Fit:
    """The result in the variables' own units.

    `model`: the last server post, with the sums of the test of agreement; `method`: what must be known of the method;
    `sandwich`: a root (p, p) of another covariance in the frame.
    """
    family, frame = rules.model.at_state(model).family, Frame.from_payload(rules.model.layout, model)
    design, n, absorbed = rules.model.layout.design, int(model["n"]), _count_absorbed(rules, model)
    first, freedom = int(rules.model.profiled), n - rules.model.p + rules.model.profiled - absorbed
    dispersion, sampled = estimate_dispersion(rules, model), rules.model.weighting == "sampling"
    estimates, covariance = frame.outside(model["beta"]), _scale_covariance(frame, model, dispersion, sandwich)
    events = None if rules.model.weighs else family.count_events(float(model["outcome"]))
    raw, null = _find_deviances(rules, model)
    totals = Totals(**{name: float(model[name]) for name in rules.model.counts})
    known, scaled = family.dispersion == "known", dispersion / frame.deviance_unit
    # Sampling weights have no scale that a chi-squared could have.
    test = compare(design.names[first:], model, 0.0 if sampled else scaled, 0 if known else freedom)
    quality = condition(frame, rules, model).without(first)
    sentences = _list_warnings(rules, model, events, freedom, test, quality, sandwich is not None)
    fit = Fit(
        learner=learner,
        family=family.name,
        link=family.link,
        terms=design.names[first:],
        estimates=estimates[first:],
        covariance=covariance[first:, first:],
        n=n,
        events=events,
        rounds=rounds,
        converged=True,
        dispersion=dispersion,
        dispersion_known=known,
        deviance=raw,
        null_deviance=null,
        log_likelihood=_find_likelihood(frame, family, totals, raw) if dispersion > 0.0 and not sampled else None,
        ratio=family.ratio,
        absorbed=absorbed,
        shapes=int(family.shaped),
        notes=(*method, *sentences),
        warnings=sentences,
        details=_details_of(rules, model, test, quality, freedom),
    )
    return replace(fit, details={**fit.details, "tests": joint_tests(fit, design.by_term)})


def _find_likelihood(frame: Frame, family: Family, totals: Totals, deviance: float) -> float | None:
    """The log-likelihood in the outcome's own units, in which the deviance is; `totals` are in the frame's."""
    if frame.layout.unit is None:
        return family.log_likelihood(totals, deviance)
    inside = family.log_likelihood(totals, deviance / frame.deviance_unit)
    return None if inside is None else inside - totals.mass * math.log(frame.outcome_scale)


def _count_absorbed(rules: FitRules, model: Payload) -> int:
    """Intercepts that the sites keep."""
    return int(model["sites"]) if rules.model.profiled else 0


def _scale_covariance(frame: Frame, model: Payload, dispersion: float, sandwich: Array | None) -> Array:
    """The covariance (p, p) in the variables' own units: of the model, or of the sandwich."""
    if sandwich is not None:
        return frame.covariance(sandwich)
    return np.asarray((dispersion / frame.deviance_unit) * frame.covariance(np.asarray(model["root"])))


def _list_warnings(
    rules: FitRules,
    model: Payload,
    events: int | None,
    freedom: int,
    test: Agreement,
    quality: Conditioning,
    robust: bool,
) -> tuple[str, ...]:
    """What speaks against the fit, in sentences; of Firth's penalty neither few events nor separation do.

    `robust`: the errors are those of a sandwich, for which more variation than the family's is none too much.
    """
    family, design, n = rules.model.family, rules.model.layout.design, int(model["n"])
    slopes = rules.model.p - design.formula.intercept
    study = design.study
    few, apart = model_warnings.advise_on_few_events(study), model_warnings.advise_on_near_separation(study)
    near = (
        *model_warnings.warn_of_few_events(n, events, slopes, family.has_events, few),
        *soundness.end_of_range_warning(test.at_an_end, family, apart),
    )
    quasi = model_warnings.advise_on_overdispersion(study, family.quasi)
    return (
        *soundness.exact_fit_warning(is_exact(rules, model)),
        *soundness.hidden_spread_warning(design.formula.outcome if is_hidden(rules, model) else ""),
        *(() if rules.model.firth else near),
        *(() if robust else soundness.overdispersion_warning(family, test.pearson, freedom, quasi)),
        *soundness.disagreement_warnings(test),
        *soundness.conditioning_warnings(test.terms, quality),
    )


def estimate_dispersion(rules: FitRules, model: Payload) -> float:
    """The dispersion in the outcome's own units: 1 where it is known, 0 for an exact fit, NaN where sums hide it."""
    family, freedom = rules.model.family, float(model["n"]) - rules.model.p
    if rules.model.profiled:
        freedom += 1.0 - float(model["sites"])
    if family.dispersion == "known":
        return 1.0
    if is_exact(rules, model):
        return 0.0
    if is_hidden(rules, model):
        return math.nan
    left = "pearson" if family.dispersion == "pearson" else "deviance"
    return float(model[left]) / freedom * _find_unit(rules, model)


def _find_deviances(rules: FitRules, model: Payload) -> tuple[float, float | None]:
    """Deviance and null deviance in the outcome's own units; the latter None where it is not known."""
    unit, null = _find_unit(rules, model), model.get("null_deviance")
    return float(model["deviance"]) * unit, None if null is None else float(null) * unit


def _find_unit(rules: FitRules, model: Payload) -> float:
    """What a deviance of 1 is in the outcome's own units; sampling weights count as if their mean were 1."""
    unit = Frame.from_payload(rules.model.layout, model).deviance_unit
    return unit * float(model["n"]) / float(model["weight"]) if rules.model.weighting == "sampling" else unit


def is_exact(rules: FitRules, model: Payload) -> bool:
    """Whether nothing but rounding is left of an outcome whose dispersion is estimated."""
    if rules.model.family.dispersion == "known" or rules.model.linear:
        return bool(model.get("exact", False))
    whole = _measure_whole(rules, model)
    least = max(whole * (_ROUNDING * EPS) ** 2, UNITS * rules.unit)
    return _measure_left(rules, model) <= least <= whole * _NOTHING


def is_hidden(rules: FitRules, model: Payload) -> bool:
    """Whether residuals that need not be nothing are lost below the fixed point of masked sums."""
    if rules.model.family.dispersion == "known" or rules.model.linear:
        return False
    return not is_exact(rules, model) and _measure_left(rules, model) <= UNITS * rules.unit


def _measure_left(rules: FitRules, model: Payload) -> float:
    """The squares of residuals over their variances."""
    return float(model["pearson" if rules.model.family.dispersion == "pearson" else "deviance"])


def _measure_whole(rules: FitRules, model: Payload) -> float:
    """The squares of means over the variances, about: a residual is rounded as the mean of its row is."""
    totals = Totals(**{name: float(model[name]) for name in rules.model.counts})
    mean = np.array([totals.outcome / totals.mass])
    return totals.mass * float((mean * mean / rules.model.family.variance(mean))[0])


def _details_of(
    rules: FitRules, model: Payload, test: Agreement, quality: Conditioning, freedom: int
) -> dict[str, Any]:
    """Agreement of the sites, conditioning and Pearson's chi-squared, as JSON has them."""
    inflation = dict(zip(test.terms, quality.inflation.tolist(), strict=True))
    digits = dict(zip(test.terms, quality.digits.tolist(), strict=True))
    condition_number = {"condition_number": quality.number, "std_error_digits": quality.error_digits}
    out: dict[str, Any] = {
        "agreement": as_dict(test),
        "conditioning": {**condition_number, "digits": digits, "variance_inflation": inflation},
    }
    if "shape" in model:
        theta = math.exp(float(model["shape"]))
        out["theta"] = {"estimate": theta, "std_error": float(model["shape_error"])}
    if rules.model.family.dispersion == "residual":
        return out
    chi2 = test.pearson * _find_unit(rules, model)
    return {**out, "pearson": {"chi2": chi2, "df": freedom, "ratio": chi2 / freedom}}
