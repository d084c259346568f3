"""The result of a fit of tables, with what else the tables tell: suppression, heterogeneity, discrimination."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from coterie_learners.cola import table_agreement
from coterie_learners.cola.model import diagnostics
from coterie_learners.cola.model.likelihood import estimate
from coterie_learners.cola.plan import TablePlan
from coterie_learners.cola.pool import carry_back, stack_by_site, sum_tables
from coterie_learners.core import model_warnings
from coterie_learners.core.fit import Fit, joint_tests
from coterie_learners.core.masked_sum import MIN_PARTIES
from coterie_learners.core.model_warnings import advise_on_few_events
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Posts
from coterie_learners.errors import LearnerError
from coterie_learners.numeric.array import Array
from coterie_learners.sums import soundness
from coterie_learners.sums.conditioning import EPS
from coterie_learners.sums.family import Totals

# A site whose own fit takes more steps than this has none: one level of some covariate is without events there.
OWN_FIT_STEPS = 40


def build_table_fit(plan: TablePlan, model: Payload, learner: str, sites: tuple[str, ...]) -> Fit:
    """The result, from the server's post."""
    n, deviance = float(model["n"]), float(model["deviance"])
    family = plan.family
    likelihood: float | None = float(model["likelihood"])
    if family.dispersion != "known":
        saturated = 0.0 if family.linear else float(model["likelihood"]) + 0.5 * deviance
        likelihood = family.log_likelihood(Totals(n, 0.0, saturated), deviance)
    notes, warnings = _cautions(plan, model)
    terms = (*(f"site[{s}]" for s in sites), *plan.design.names[1:]) if plan.site_intercepts else plan.terms
    fit = Fit(
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
        dispersion_known=family.dispersion == "known",
        deviance=deviance,
        null_deviance=float(model["null_deviance"]) if "null_deviance" in model else None,
        log_likelihood=likelihood,
        ratio=family.ratio,
        notes=(*notes, *warnings),
        warnings=warnings,
        details={"patterns": plan.grid.size, "steps": int(model["steps"]), "conditioning": conditioning_of(model)},
        equations=max(plan.levels, 1),
    )
    return replace(fit, details={**fit.details, "tests": joint_tests(fit, _columns_by_term(plan))})


def _columns_by_term(plan: TablePlan) -> dict[str, tuple[str, ...]]:
    """The coefficients of each term; of a multinomial outcome those of all its levels."""
    levels = plan.design.outcome.levels[1:] if plan.levels else ()
    return {
        term: tuple(f"{level}:{name}" for level in levels for name in names) if levels else names
        for term, names in plan.design.by_term.items()
    }


def _events(plan: TablePlan, model: Payload) -> int | None:
    return plan.family.count_events(float(np.sum(model["outcome"])))


def conditioning_of(model: Payload) -> dict[str, Any]:
    """The condition number, and the digits of the standard errors that it leaves."""
    number = float(model["condition_number"])
    return {"condition_number": number, "std_error_digits": float(np.clip(-np.log10(EPS * number), 0.0, 15.0))}


def _cautions(plan: TablePlan, model: Payload) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What must be known of the fit before its numbers are used: on the method, and warnings."""
    slopes = (plan.p - plan.design.formula.intercept) * max(plan.levels, 1)
    advice = advise_on_few_events(plan.study)
    small = model_warnings.warn_of_few_events(
        int(model["n"]), _events(plan, model), slopes, plan.family.has_events, advice
    )
    robust = model_warnings.ROBUST if plan.options.robust else ()
    method = (*robust, *(model_warnings.FIRTH if plan.options.firth else ()))
    return method, (*soundness.exact_fit_warning(bool(model["exact"])), *(() if plan.options.firth else small))


def add_diagnostics(plan: TablePlan, fit: Fit, tables: Posts, end: Payload | None = None) -> Fit:
    """The result with what else the tables tell: suppression, heterogeneity of the sites, discrimination.

    `end`: the sums of the test whether the sites agree, where `tables` has only the sum of all tables.
    """
    where = "at a site" if end is None else "over all sites"
    details, notes = dict(fit.details), list(fit.notes)
    if plan.floor:
        found = diagnostics.summarise_suppression({name: t["suppressed"] for name, t in tables.items()}, tables, fit.n)
        details["suppression"] = {"floor": plan.floor, "mode": "drop" if plan.drops else "impute", **found}
        pooled = end is None and len(plan.study.sites) >= MIN_PARTIES and not plan.site_intercepts
        instead = f"merge levels{', or take the learner secure_cola' if pooled else ''}"
        notes += diagnostics.suppression_notes(details["suppression"], where, instead)
    elif not plan.tally.exposure:
        notes += diagnostics.small_cell_notes({name: t["n"] for name, t in tables.items()}, where)
    warnings = fit.warnings
    if not plan.site_intercepts and not plan.options.firth:
        details |= _assess_heterogeneity(plan, tables)
    if end is None:
        test, more = table_agreement.compare_tables(plan, fit, tables)
    else:
        test, more = table_agreement.compare_sums(plan, fit, tables["sum"], end)
    details, warnings, notes = details | test, (*warnings, *more), [*notes, *more]
    if plan.cells and plan.family.binary and plan.family.by_rows:
        details |= _assess_predictions(plan, fit, tables)
    notes += diagnostics.notes(details)
    return replace(fit, details=details, notes=tuple(notes), warnings=warnings)


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
            mine = sum_tables(plan, {name: table})
            found = estimate(mine, replace(plan.choice, limit=OWN_FIT_STEPS))
            carry, origin = carry_back(plan, mine.frame)
            own[name] = carry @ found.beta + origin, np.sum((carry @ found.root) ** 2, axis=1)
    out = diagnostics.cochran_q(plan.terms, own, tuple(tables))
    if plan.design.formula.intercept and not plan.levels and plan.family.dispersion == "known":
        with suppress(LearnerError):
            joint, apart = (estimate(t, plan.choice) for t in (sum_tables(plan, tables), stack_by_site(plan, tables)))
            out["site_intercepts"] = diagnostics.likelihood_ratio(joint.likelihood, apart.likelihood, len(tables) - 1)
    return {"heterogeneity": out}
