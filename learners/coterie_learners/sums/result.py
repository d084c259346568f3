"""The fit that people read, from the last server post."""

from __future__ import annotations

from typing import Any

import numpy as np

from coterie_learners.core import model_warnings
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Payload
from coterie_learners.sums import soundness
from coterie_learners.sums.agreement import Agreement, as_dict, compare
from coterie_learners.sums.conditioning import Conditioning, condition
from coterie_learners.sums.family import Totals
from coterie_learners.sums.frame import Frame
from coterie_learners.sums.newton import Rules


def build_fit(learner: str, rules: Rules, model: Payload, rounds: int, ridge: float = 0.0) -> Fit:
    """The result in the variables' own units. `model`: the last server post, with the sums of the test of agreement."""
    family, frame = rules.model.family, Frame.from_payload(rules.model.layout, model)
    design, n, p = rules.model.layout.design, int(model["n"]), rules.model.p
    deviance, freedom = float(model["deviance"]), n - p
    dispersion = estimate_dispersion(rules, model)
    unscaled = frame.covariance(np.asarray(model["root"]))
    estimates, covariance = frame.outside(model["beta"]), (dispersion / frame.outcome_scale**2) * unscaled
    events = family.count_events(float(model["outcome"]))
    raw = deviance * frame.outcome_scale**2
    totals = Totals(float(n), float(model["outcome"]), float(model["saturated"]))
    known = family.dispersion == "known"
    scaled = dispersion / frame.outcome_scale**2
    test = compare(design.names, model, scaled, 0 if known else freedom)
    quality = condition(frame, rules, model)
    sentences = (
        *soundness.exact_fit_warning(bool(model.get("exact", False))),
        *model_warnings.few_events_warning(n, events, p - design.formula.intercept, family.has_events),
        *soundness.end_of_range_warning(test.at_an_end, family),
        *soundness.overdispersion_warning(family, test.pearson, freedom),
        *soundness.disagreement_warnings(test),
        *soundness.conditioning_warnings(design.names, quality),
    )
    return Fit(
        learner=learner,
        family=family.name,
        link=family.link,
        terms=design.names,
        estimates=estimates,
        covariance=covariance,
        n=n,
        events=events,
        rounds=rounds,
        converged=True,
        dispersion=dispersion,
        dispersion_known=known,
        deviance=raw,
        null_deviance=float(model["null_deviance"]) * frame.outcome_scale**2 if "null_deviance" in model else None,
        log_likelihood=family.log_likelihood(totals, raw),
        ratio=family.ratio,
        notes=(*model_warnings.ridge_warning(ridge), *sentences),
        warnings=sentences,
        details=_details_of(rules, test, quality, freedom),
    )


def estimate_dispersion(rules: Rules, model: Payload) -> float:
    """The dispersion in the outcome's own units: 1 where it is known, 0 for an exact fit."""
    family, freedom = rules.model.family, float(model["n"]) - rules.model.p
    scale = float(model["outcome_scale"]) ** 2
    if family.dispersion == "known":
        return 1.0
    if family.dispersion == "pearson":
        return float(model["pearson"]) / freedom
    return 0.0 if model.get("exact", False) else float(model["deviance"]) / freedom * scale


def _details_of(rules: Rules, test: Agreement, quality: Conditioning, freedom: int) -> dict[str, Any]:
    """Agreement of the sites, conditioning and Pearson's chi-squared, as JSON has them."""
    inflation = dict(zip(test.terms, quality.inflation.tolist(), strict=True))
    digits = dict(zip(test.terms, quality.digits.tolist(), strict=True))
    condition_number = {"condition_number": quality.number, "std_error_digits": quality.error_digits}
    out = {
        "agreement": as_dict(test),
        "conditioning": {**condition_number, "digits": digits, "variance_inflation": inflation},
    }
    if rules.model.family.dispersion == "residual":
        return out
    return {**out, "pearson": {"chi2": test.pearson, "df": freedom, "ratio": test.pearson / freedom}}
