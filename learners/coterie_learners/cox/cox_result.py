"""The result of a Cox study: hazard ratios as `summary(coxph)` has them, tests, and what the closing sums say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from coterie_learners.core.fit import Fit, coefficient_table
from coterie_learners.core.model_warnings import FIRTH, advise_on_few_events, warn_of_few_events, warn_of_ridge
from coterie_learners.core.payload import Payload
from coterie_learners.cox.baseline import describe_baseline
from coterie_learners.cox.cox_plan import CoxPlan
from coterie_learners.cox.proportionality import assess_proportionality
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import chi_squared_above
from coterie_learners.numeric.elementary import exp_of_array


def build_cox_fit(plan: CoxPlan, end: Payload) -> Fit:
    """The result, from the last model with the sums at the end, in the variables' own units."""
    information = linalg.symmetric(np.asarray(end["information"]), plan.p)
    inner = linalg.inverse(linalg.cholesky(information, plan.terms))
    covariance = _make_sandwich(plan, inner, end) if plan.options.robust else inner
    beta, n, events = np.asarray(end["beta"]), round(float(end["n"])), round(float(end["events"]))
    few = warn_of_few_events(n, events, plan.p, False, advise_on_few_events(plan.study))
    warnings = (*few, *warn_of_ridge(plan.options.ridge), *(FIRTH if plan.options.firth else ()))
    details = _describe(plan, end, beta, inner, covariance)
    fit = Fit(
        learner="cox",
        family="Cox",
        link=f"log hazard, {plan.options.ties.capitalize()} ties",
        terms=plan.terms,
        estimates=beta / plan.scale,
        covariance=covariance / plan.scale[:, None] / plan.scale,
        n=n,
        events=events,
        rounds=int(end["rounds"]),
        converged=True,
        dispersion=1.0,
        dispersion_known=True,
        deviance=None,
        null_deviance=None,
        log_likelihood=None if plan.options.firth else float(end["value"]),
        ratio="HR",
        informative=events,
        notes=(*_write_notes(plan, details), *warnings),
        warnings=warnings,
        details={"cox": details},
    )
    details["hazard_ratios"] = _list_ratios(plan, fit, inner)
    return fit


def _make_sandwich(plan: CoxPlan, inner: Array, end: Payload) -> Array:
    meat = linalg.symmetric(np.asarray(end["meat"]), plan.p)
    whole = linalg.matmul(linalg.matmul(inner, meat), inner)
    return np.asarray(0.5 * (whole + whole.T))


def _describe(plan: CoxPlan, end: Payload, beta: Array, inner: Array, covariance: Array) -> dict[str, Any]:
    out: dict[str, Any] = {"null_log_likelihood": float(end["null_value"])}
    if plan.options.cause:
        out["cause"] = plan.options.cause
    if plan.options.firth:
        out["penalised_log_likelihood"] = float(end["penalised"])
    out["tests"] = {} if plan.options.ridge else _run_global_tests(plan, end, beta, covariance)
    if "pairs" in end:
        concordant, discordant, tied = np.asarray(end["pairs"]).tolist()
        total = concordant + discordant + tied
        counts = {"concordant": concordant, "discordant": discordant, "tied": tied}
        out["concordance"] = counts | {"c": (concordant + 0.5 * tied) / total if total else float("nan")}
    if plan.transform != "none":
        out["proportionality"] = assess_proportionality(plan, end)
    if plan.options.baseline == "common":
        out["baseline"] = describe_baseline(plan, end, end["cells"])
    return out


def _run_global_tests(plan: CoxPlan, end: Payload, beta: Array, covariance: Array) -> dict[str, Any]:
    """The tests that all coefficients are zero; Wald's with the reported errors, and no score test with a penalty."""
    solved = linalg.solve(linalg.cholesky(covariance, plan.terms), beta)
    chi2 = {
        "likelihood_ratio": 2.0 * (float(end["penalised"]) - float(end["null_value"])),
        "wald": linalg.dot(beta, solved),
    }
    if not plan.options.firth:
        chi2["score"] = float(end["score_chi2"])
    return {name: {"chi2": value, "df": plan.p, "p": chi_squared_above(value, plan.p)} for name, value in chi2.items()}


def _list_ratios(plan: CoxPlan, fit: Fit, inner: Array) -> list[dict[str, Any]]:
    """The columns that `summary(coxph)` prints, by term."""
    model = np.sqrt(np.diag(inner)) / plan.scale
    out = []
    for row, error in zip(coefficient_table(fit), model.tolist(), strict=True):
        ends = exp_of_array(np.array([row.estimate, -row.estimate, row.ci_low, row.ci_high])).tolist()
        robust = {"robust se": row.std_error} if plan.options.robust else {}
        ratio = {"exp(coef)": ends[0], "se(coef)": error, **robust, "z": row.z, "Pr(>|z|)": row.p_value}
        limits = {"exp(-coef)": ends[1], "lower .95": ends[2], "upper .95": ends[3]}
        out.append({"term": row.term, "coef": row.estimate, **ratio, **limits})
    return out


def _write_notes(plan: CoxPlan, details: dict[str, Any]) -> Iterator[str]:
    ties = "exact ties (discrete times)" if plan.exact else f"ties by {plan.options.ties.capitalize()}"
    yield f"{_name_baseline(plan, details)}; {ties}."
    if plan.options.cause:
        yield f"Hazards of {plan.event_name} alone: patients with another cause are censored then."
    if plan.options.robust:
        of = "of the rows of each patient together" if plan.options.robust == "patient" else "of rows"
        yield f"Standard errors are those of the sandwich {of}; the score and likelihood ratio tests are the model's."
    names = {"likelihood_ratio": "Likelihood ratio", "wald": "Wald", "score": "Score (log-rank)"}
    parts = [f"{names[k]} test {t['chi2']:.4f} on {t['df']} df, p = {t['p']:.3g}" for k, t in details["tests"].items()]
    if parts:
        yield f"{'; '.join(parts)}."
    if "concordance" in details:
        yield f"Concordance {details['concordance']['c']:.4f}, of pairs of patients of one site and stratum."
    if "proportionality" in details:
        yield from _write_proportionality(details["proportionality"])


def _name_baseline(plan: CoxPlan, details: dict[str, Any]) -> str:
    by = [] if plan.options.strata is None else [plan.options.strata]
    if plan.options.baseline == "site":
        return f"Baseline hazards by {' and '.join(['site', *by])}"
    grid, unit = details["baseline"]["grid"], details["baseline"]["unit"] or "time units"
    wider = f" instead of {grid['declared_width']:g}" if grid["width"] > grid["declared_width"] else ""
    whose = f"One baseline hazard for all sites by {by[0]}" if by else "One baseline hazard for all sites"
    return f"{whose}, on steps of {grid['width']:g} {unit}{wider} up to {grid['horizon']:g}"


def _write_proportionality(test: dict[str, Any]) -> Iterator[str]:
    yield f"Test of proportional hazards (score test, time by {test['transform']}):"
    yield f"{'':<24s} {'chisq':>9s} {'df':>3s} {'p':>9s}"
    for row in test["terms"]:
        yield f"{row['term']:<24s} {row['chi2']:9.4f} {row['df']:3d} {row['p']:9.3g}"
