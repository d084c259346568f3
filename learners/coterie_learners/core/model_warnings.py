"""What must be known of a fit before its numbers are used, in sentences that are printed with it.

Ten events for each coefficient: Peduzzi et al., J Clin Epidemiol 1996;49:1373-1379. Nothing here is posted.
"""

from __future__ import annotations

ENOUGH = 10

ROBUST = (
    "Standard errors are those of the sandwich (HC0); deviance, likelihood and AIC are the model's, as without it.",
)
FIRTH = (
    "Firth's penalty: estimates are those of the penalised likelihood; deviance, likelihood, AIC and BIC are without "
    "the penalty; p-values and intervals are Wald's, where R's logistf has those of the penalised likelihood ratio.",
)


def describe_sandwich(kind: str, sampled: bool) -> tuple[str, ...]:
    """Which sandwich the standard errors are from; nothing if from none."""
    if not kind:
        return ()
    errors = "of the rows of each patient together" if kind == "patient" else f"of rows ({kind})"
    rest = "there is no AIC of a sample" if sampled else "deviance, likelihood and AIC are the model's, as without it"
    return (f"Standard errors are those of the sandwich {errors}; {rest}.",)


def ridge_warning(weight: float) -> tuple[str, ...]:
    """What a ridge does to a table of coefficients; nothing if there is none."""
    if not weight:
        return ()
    message = (
        f"Ridge {weight:g}: estimates are drawn towards zero, of which standard errors, p-values and intervals do not"
    )
    return (f"{message} tell; degrees of freedom, AIC and BIC count every coefficient in full.",)


def few_events_warning(n: int, events: int | None, coefficients: int, binary: bool) -> tuple[str, ...]:
    """Too few events (rows, where nothing is counted) for the coefficients besides intercepts; nothing if enough.

    `binary`: each patient has the event or does not, so that the rarer of the two counts.
    """
    rows = events is None
    least = n if events is None else min(events, n - events) if binary else events
    if least >= ENOUGH * coefficients:
        return ()
    what = "rows" if rows else "patients with the rarer outcome" if binary else "events"
    firth = ", or use Firth's penalty (firth = true)" if binary else ""
    message = f"{least} {what} for {coefficients} coefficients, intercepts aside, are fewer than {ENOUGH} for each"
    return (
        f"{message}: estimates may be far off, and Wald p-values and intervals unreliable. Leave terms out{firth}.",
    )
