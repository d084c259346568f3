"""The model that a study fitted, in the words of a methods section: from the fit, or else from the study alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coterie_learners.core.fit import Fit
from coterie_learners.core.registry import find_learner, list_learners
from coterie_learners.study.document import Study
from coterie_learners.sums.families import all_families, choose_family

_FAMILY_WORDS = {"inverse_gaussian": "inverse Gaussian", "negative_binomial": "negative binomial"}

_ESTIMAND_WORDS = {
    "ATE": "in all patients (ATE)",
    "ATT": "in the treated (ATT)",
    "overlap": "in patients who might have either treatment (overlap weights)",
}


def describe_model(study: Study, fit: Fit | None) -> str:
    """Kind of regression with its link, its penalty and its learner."""
    options, learner = study.learner.options, study.learner.name
    method = find_learner(learner).profile.method if learner in list_learners() else ""
    if options.get("effect") == "hazard_ratio":
        method = "Cox model weighted by propensity scores, stratified by site, with robust standard errors,"
    if method:
        words = f"{_describe_estimand(options)}{_describe_hazards(options)}{_describe_causes(study)}"
        return f"{method}{words} by {learner.upper()}"
    family, link = _find_model(learner) or _find_choice(learner, options)
    if fit is not None:
        family, link = fit.family, fit.link
    name = _FAMILY_WORDS.get(family, family)
    model = f"{name} regression ({link} link)" if name and link else f"{name} regression".lstrip()
    penalty = f"{_describe_penalty(options)}{_describe_errors(options)}{_describe_more(options)}"
    if "alpha" in options:
        return f"{_name_lasso(options)} ({model}{penalty}) by {learner.upper()}"
    return f"{model}{penalty} by {learner.upper()}"


def _describe_estimand(options: Mapping[str, Any]) -> str:
    """The treatment, and the patients that its effect is of; nothing of a method without a treatment."""
    if "treatment" not in options or "estimand" not in options:
        return ""
    return f" for the effect of {options['treatment']} {_ESTIMAND_WORDS.get(options['estimand'], '')},"


def _find_link(options: Mapping[str, Any]) -> str:
    """The link that a study names, or the first one of its family."""
    link, family = options.get("link"), str(options.get("family", ""))
    return choose_family(family, None).link if link is None and family in all_families() else str(link or "")


def _describe_causes(study: Study) -> str:
    """The competing causes of curves; nothing of an event without causes, and of a model of one cause."""
    options = study.learner.options
    event = study.variables.get(str(options.get("event", "")))
    if event is None or not event.levels or options.get("cause"):
        return ""
    causes = " and ".join(event.levels[1:])
    return f" and cumulative incidence of {causes} (Aalen-Johansen) with Gray's tests,"


def _find_model(learner: str) -> tuple[str, str] | None:
    """Family and link of a learner that has no choice; None also where the learner is not installed here."""
    return find_learner(learner).profile.model if learner in list_learners() else None


def _find_choice(learner: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """Family and link that the options choose, or the learner's own family with its first link."""
    if "family" not in options and learner in list_learners():
        field = find_learner(learner).options.model_fields.get("family")
        if field is not None and field.default in all_families():
            family = choose_family(field.default, options.get("link"))
            return family.name, family.link
    return str(options.get("family", "")), _find_link(options)


def _describe_hazards(options: Mapping[str, Any]) -> str:
    """What a Cox model has beside its covariates; nothing for a learner without hazards."""
    if "baseline" not in options:
        return ""
    strata = f" and {options['strata']}" if options.get("strata") else ""
    grid = options.get("time_grid") or {}
    if options["baseline"] == "site":
        hazard = f", stratified by site{strata}"
    else:
        unit = f" {grid['unit']}" if grid.get("unit") else ""
        by = f" for each level of {options['strata']}" if options.get("strata") else ""
        hazard = f", one baseline hazard{by} on a grid of {grid['width']:g}{unit}"
    cause = f" of {options['event']}[{options['cause']}] (cause-specific hazards)" if options.get("cause") else ""
    kind = str(options.get("ties", "efron"))
    ties = ", exact ties" if kind == "exact" else f", {kind.capitalize()} ties"
    return f"{cause}{hazard}{ties}{_describe_penalty(options)}{_describe_errors(options)}"


def _describe_errors(options: Mapping[str, Any]) -> str:
    """Intercepts of sites, weights and sandwich errors."""
    own = ", an intercept for each site" if options.get("site_intercepts") else ""
    weights, kind, robust = options.get("weights", ""), options.get("weight_kind", "prior"), options.get("robust")
    weighed = f", {kind} weights {weights}" if weights else ""
    if not robust and not (weights and kind == "sampling"):
        return f"{own}{weighed}"
    of = f"clustered by {robust}" if robust in ("patient", "site") else robust if isinstance(robust, str) else "HC0"
    return f"{own}{weighed}, sandwich standard errors ({of})"


def _describe_more(options: Mapping[str, Any]) -> str:
    """Intervals of the profile likelihood, and standardised means."""
    intervals = ", profile-likelihood intervals" if options.get("intervals") == "profile" else ""
    over = f", standardised over {options['standardise']}" if options.get("standardise") else ""
    return f"{intervals}{over}"


def describe_patients(fit: Fit | None) -> str:
    """How many patients, and how many with the outcome, as far as the record says."""
    if fit is None:
        return " on patients whose number, and that of their events, only the sites know"
    return f" on {fit.n:,} patients" + ("" if fit.events is None else f" ({fit.events:,} events)")


def _name_lasso(options: Mapping[str, Any]) -> str:
    ratio = float(options.get("l1_ratio", 1.0))
    return {1.0: "Lasso", 0.0: "ridge regression"}.get(ratio, f"elastic net (L1 share {ratio:g})")


def _describe_penalty(options: Mapping[str, Any]) -> str:
    alphas = options.get("alpha", ())
    if alphas:
        folds = int(options.get("folds", 0))
        how = f", chosen by cross-validation in {folds} folds" if folds > 1 and len(alphas) > 1 else ""
        return f", penalty {', '.join(f'{float(alpha):g}' for alpha in alphas)}{how}"
    if options.get("firth"):
        return ", Firth's penalty"
    ridge = float(options.get("ridge", 0.0) or 0.0)
    return f", ridge penalty {ridge:g}" if ridge else ""
