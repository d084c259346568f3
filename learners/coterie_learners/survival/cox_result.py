"""The result of a Cox study: hazard ratios as `summary(coxph)` has them, and three global tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from coterie_learners.core.fit import Fit
from coterie_learners.core.model_warnings import advise_on_few_events, warn_of_few_events
from coterie_learners.core.payload import Payload
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import chi_squared_above
from coterie_learners.survival.cox_plan import CoxPlan


def build_cox_fit(plan: CoxPlan, model: Payload, rounds: int) -> Fit:
    """The result, from the last server post, in the variables' own units."""
    scale = np.array([column.scale for column in plan.design.columns[1:]])
    information = linalg.symmetric(np.asarray(model["information"]), plan.p)
    inner = linalg.inverse(linalg.cholesky(information, plan.terms))
    beta, n, events = np.asarray(model["beta"]), round(float(model["n"])), round(float(model["events"]))
    tests = _run_global_tests(plan, model, beta, information)
    warnings = warn_of_few_events(n, events, plan.p, False, advise_on_few_events(plan.study))
    return Fit(
        learner="cox",
        family="Cox",
        link=f"log hazard, {plan.options.ties.capitalize()} ties",
        terms=plan.terms,
        estimates=beta / scale,
        covariance=inner / scale[:, None] / scale,
        n=n,
        events=events,
        rounds=rounds,
        converged=True,
        dispersion=1.0,
        dispersion_known=True,
        deviance=None,
        null_deviance=None,
        log_likelihood=float(model["value"]),
        ratio="HR",
        notes=(*_write_tests(plan, tests), *warnings),
        warnings=warnings,
        details={"cox": {"null_log_likelihood": float(model["null_value"]), "tests": tests}},
    )


def _run_global_tests(plan: CoxPlan, model: Payload, beta: Array, information: Array) -> dict[str, Any]:
    """The tests that all coefficients are zero."""
    chi2 = {
        "likelihood_ratio": 2.0 * (float(model["value"]) - float(model["null_value"])),
        "wald": linalg.dot(beta, linalg.matvec(information, beta)),
        "score": float(model["score_chi2"]),
    }
    return {name: {"chi2": value, "df": plan.p, "p": chi_squared_above(value, plan.p)} for name, value in chi2.items()}


def _write_tests(plan: CoxPlan, tests: dict[str, Any]) -> tuple[str, ...]:
    strata = "site" if plan.options.strata is None else f"site and {plan.options.strata}"
    names = {"likelihood_ratio": "Likelihood ratio", "wald": "Wald", "score": "Score (log-rank)"}
    parts = [f"{names[name]} test {t['chi2']:.4f} on {t['df']} df, p = {t['p']:.3g}" for name, t in tests.items()]
    return (f"Baseline hazards by {strata}; ties by {plan.options.ties.capitalize()}.", f"{'; '.join(parts)}.")
