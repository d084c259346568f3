"""What must be known of a fit before its numbers are used, in sentences that are printed with it.

Ten events for each coefficient: Peduzzi et al., J Clin Epidemiol 1996;49:1373-1379.
Nothing here is posted. What a sentence says to set comes from the options of the study's own learner, so that the
learner does not refuse it; they are those of a completed study, which has all that its learner knows.
"""

from __future__ import annotations

from coterie_learners.study.document import Study

ENOUGH = 10

ROBUST = (
    "Standard errors are those of the sandwich (HC0); deviance, likelihood and AIC are the model's, as without it.",
)
FIRTH = (
    "Firth's penalty: estimates are those of the penalised likelihood; deviance, likelihood, AIC and BIC are without "
    "the penalty; p-values and intervals are Wald's, where R's logistf has those of the penalised likelihood ratio.",
)

# Fewer clusters make the sandwich rough: Cameron and Miller, Journal of Human Resources 2015;50:317-372.
FEW_CLUSTERS = 30


def describe_sandwich(kind: str, sampled: bool, groups: int) -> tuple[str, ...]:
    """Which sandwich the standard errors are from, and of how many clusters (`groups`); nothing if from none."""
    if not kind:
        return ()
    clusters = {"patient": "of the rows of each patient together", "site": "of the rows of each site together"}
    few = ", which are few: such errors are rough, and too small more often than too large"
    count = f" ({groups} clusters{few if groups < FEW_CLUSTERS else ''})"
    errors = f"{clusters[kind]}{count}" if kind in clusters else f"of rows ({kind})"
    rest = "there is no AIC of a sample" if sampled else "deviance, likelihood and AIC are the model's, as without it"
    return (f"Standard errors are those of the sandwich {errors}; {rest}.",)


def warn_of_ridge(weight: float) -> tuple[str, ...]:
    """What a ridge does to a table of coefficients; nothing if there is none."""
    if not weight:
        return ()
    message = (
        f"Ridge {weight:g}: estimates are drawn towards zero, of which standard errors, p-values and intervals do not"
    )
    return (f"{message} tell; degrees of freedom, AIC and BIC count every coefficient in full.",)


def warn_of_few_events(n: int, events: int | None, coefficients: int, binary: bool, advice: str) -> tuple[str, ...]:
    """Too few events (rows, where nothing is counted) for the coefficients besides intercepts; nothing if enough.

    `binary`: each patient has the event or does not, so that the rarer of the two counts. `advice`: what to do.
    """
    rows = events is None
    least = n if events is None else min(events, n - events) if binary else events
    if least >= ENOUGH * coefficients:
        return ()
    what = "rows" if rows else "patients with the rarer outcome" if binary else "events"
    message = f"{least} {what} for {coefficients} coefficients, intercepts aside, are fewer than {ENOUGH} for each"
    return (f"{message}: estimates may be far off, and Wald p-values and intervals unreliable. {advice}",)


def advise_on_separation(study: Study) -> str:
    """What to do about an outcome that columns predict without error."""
    return _join(["Merge rare levels", "leave the term out", *_penalties(study)])


def advise_on_few_events(study: Study) -> str:
    """What to do about few events for the coefficients."""
    return _join(["Leave terms out", *_penalties(study)])


def advise_on_near_separation(study: Study) -> str:
    """What to do about fitted means at an end of their range."""
    return _join(["Look for a column that all but decides the outcome", "merge rare levels", *_penalties(study)])


def advise_on_overdispersion(study: Study, quasi: str) -> str:
    """What to do about more variation than a family has that `quasi` has room for."""
    if study.learner.options.get("scheme") == "newton":
        return "Look for a covariate that explains it."
    return f'Set family = "{quasi}".'


def _penalties(study: Study) -> list[str]:
    """The penalties that keep estimates finite, as the study's learner takes them."""
    options = study.learner.options
    out = ["set firth = true"] if _takes_firth(study) else []
    return [*out, "set a ridge"] if "ridge" in options and not options.get("robust") else out


def _takes_firth(study: Study) -> bool:
    options = study.learner.options
    logit = (options.get("family"), options.get("link") or "logit") == ("binomial", "logit")
    return "firth" in options and logit and not options.get("robust") and options.get("scheme") != "newton"


def _join(parts: list[str]) -> str:
    """The parts as one sentence."""
    return f"{', '.join(parts[:-1])}, or {parts[-1]}." if len(parts) > 2 else f"{' or '.join(parts)}."
