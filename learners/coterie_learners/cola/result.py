"""The result of a fit of tables, with what else the tables tell: suppression, heterogeneity, discrimination."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from coterie_learners.cola.model import diagnostics
from coterie_learners.cola.model.likelihood import estimate
from coterie_learners.cola.plan import TablePlan
from coterie_learners.cola.pool import back_transform, stack_by_site, sum_tables
from coterie_learners.core import model_warnings
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Posts
from coterie_learners.errors import LearnerError
from coterie_learners.numeric.array import Array

_RATIOS = {"logit": "OR", "log": "IRR", "cloglog": "HR"}
# A site whose own fit takes more steps than this has none: one level of some covariate is without events there.
OWN_FIT_STEPS = 40


def build_table_fit(plan: TablePlan, model: Payload, learner: str, sites: tuple[str, ...]) -> Fit:
    """The result, from the server's post."""
    n, deviance = float(model["n"]), float(model["deviance"])
    family = plan.family
    likelihood: float | None = float(model["likelihood"])
    if family.law == "gaussian":
        likelihood = -0.5 * n * (np.log(2 * np.pi * deviance / n) + 1.0)
    terms = (*(f"site[{s}]" for s in sites), *plan.design.names[1:]) if plan.site_intercepts else plan.terms
    return Fit(
        learner=learner,
        family=family.name,
        link=family.link,
        terms=terms,
        estimates=np.asarray(model["estimates"]),
        covariance=np.asarray(model["covariance"]),
        n=int(n),
        events=_events(plan, model),
        rounds=1,
        converged=True,
        dispersion=float(model["dispersion"]),
        dispersion_known=family.dispersion is None,
        deviance=deviance,
        null_deviance=float(model["null_deviance"]) if "null_deviance" in model else None,
        # A quasi family has no likelihood.
        log_likelihood=None if family.dispersion == "pearson" else likelihood,
        ratio=_RATIOS.get(family.link, ""),
        notes=_cautions(plan, model),
        details={"patterns": plan.grid.size, "steps": int(model["steps"])},
        equations=max(plan.levels, 1),
    )


def _events(plan: TablePlan, model: Payload) -> int | None:
    return int(model["outcome"]) if plan.family.law in ("binomial", "poisson") else None


def _cautions(plan: TablePlan, model: Payload) -> tuple[str, ...]:
    """What must be known of the fit before its numbers are used."""
    slopes = (plan.p - plan.design.formula.intercept) * max(plan.levels, 1)
    small = model_warnings.few_events_warning(plan.family.law, int(model["n"]), _events(plan, model), slopes)
    robust = model_warnings.ROBUST if plan.options.robust else ()
    return (*robust, *(model_warnings.FIRTH if plan.options.firth else small))


def add_diagnostics(plan: TablePlan, fit: Fit, tables: Posts, where: str = "at a site") -> Fit:
    """The result with what else the tables tell: suppression, heterogeneity of the sites, discrimination."""
    details, notes = dict(fit.details), list(fit.notes)
    if plan.floor:
        summary = diagnostics.summarise_suppression(
            {name: t["suppressed"] for name, t in tables.items()}, tables, fit.n
        )
        details["suppression"] = {"floor": plan.floor, "mode": "drop" if plan.drops else "impute", **summary}
        notes += diagnostics.suppression_notes(details["suppression"], where)
    elif not plan.tally.exposure:
        notes += diagnostics.small_cell_notes({name: t["n"] for name, t in tables.items()}, where)
    if not plan.site_intercepts and not plan.options.firth:
        details |= _assess_heterogeneity(plan, tables)
    if plan.cells and plan.family.law == "binomial":
        details |= _assess_predictions(plan, fit, tables)
    notes += diagnostics.notes(details)
    return replace(fit, details=details, notes=tuple(notes))


def _assess_predictions(plan: TablePlan, fit: Fit, tables: Posts) -> dict[str, Any]:
    """Discrimination and calibration of the fit on the rows that it was made of."""
    predictors, rows, events = [], [], []
    for k, table in enumerate(tables.values()):
        raw = plan.grid.raw(plan.design, table["keys"])
        if plan.site_intercepts:
            sites = len(tables)
            predictors.append(fit.estimates[k] + raw[:, 1:] @ fit.estimates[sites:])
        else:
            predictors.append(raw @ fit.estimates)
        rows.append(table["n"].astype(np.float64))
        events.append(table["s"])
    eta = np.concatenate(predictors)
    mean = plan.family.curve(eta).mean
    return diagnostics.assess_predictions(eta, mean, np.concatenate(rows), np.concatenate(events), len(fit.terms))


def _assess_heterogeneity(plan: TablePlan, tables: Posts) -> dict[str, Any]:
    """Whether the sites agree: a test of site intercepts, and Cochran's Q of each coefficient over their own fits."""
    if len(tables) < 2:
        return {}
    own: dict[str, tuple[Array, Array]] = {}
    for name, table in tables.items():
        with suppress(LearnerError):  # a site that cannot carry the model by itself
            own_fit = estimate(sum_tables(plan, {name: table}), replace(plan.choice, limit=OWN_FIT_STEPS))
            carry = back_transform(plan)
            own[name] = carry @ own_fit.beta, np.diag(carry @ own_fit.covariance @ carry.T)
    out = diagnostics.cochran_q(plan.terms, own, tuple(tables))
    if plan.design.formula.intercept and not plan.levels and plan.family.dispersion is None:
        with suppress(LearnerError):
            joint, apart = (estimate(t, plan.choice) for t in (sum_tables(plan, tables), stack_by_site(plan, tables)))
            out["site_intercepts"] = diagnostics.likelihood_ratio(joint.likelihood, apart.likelihood, len(tables) - 1)
    return {"heterogeneity": out}
