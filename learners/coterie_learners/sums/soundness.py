"""Whether a fit is sound, in sentences: do the sites agree, is the outcome nearly separated, can the digits be trusted.

Nothing here is posted.
"""

from __future__ import annotations

from collections.abc import Sequence

from coterie_learners.sums.agreement import NOTABLE_P, Agreement
from coterie_learners.sums.conditioning import Conditioning
from coterie_learners.sums.family import Family

# Pearson's chi-squared over its degrees of freedom above this is more than the family's variance can explain.
OVERDISPERSED = 1.5
# Sites that agree better than in one of so many studies may hold the same rows.
TOO_ALIKE = 1e-4
# With fewer sites of equal weight than this behind a fit, one site decides it.
FEW_SITES = 1.2
ENOUGH_DIGITS = 6.0
# A variance that the other terms inflate by more than this.
INFLATED = 100.0


def exact_fit_warning(is_exact: bool) -> tuple[str, ...]:
    """An outcome without chance; nothing if there is any."""
    if not is_exact:
        return ()
    return (
        "The columns give the outcome without error: an essentially perfect fit. The coefficients hold, but nothing "
        "can be said of chance; look for a column that is the outcome in other words.",
    )


def hidden_spread_warning(outcome: str) -> tuple[str, ...]:
    """Residuals of an outcome that masked sums do not show; nothing if there is none."""
    if not outcome:
        return ()
    return (
        f"The squares of the residuals of {outcome} are smaller than the last digit of masked sums (5e-20), so that no "
        f"standard error is known. Declare {outcome} in a unit in which its values are nearer to 1.",
    )


def end_of_range_warning(sites: int, family: Family, advice: str) -> tuple[str, ...]:
    """Fitted means that are an end of their range to a float, as R warns of them; nothing if there are none."""
    if not sites:
        return ()
    return (
        f"Fitted {family.extreme_means} occurred, at {sites} of the sites: the outcome is nearly separated, so that "
        f"some coefficients are very large and their Wald tests mean little. {advice}",
    )


def overdispersion_warning(family: Family, pearson: float, freedom: int, advice: str) -> tuple[str, ...]:
    """More variation than the family has; nothing if there is not, or where the dispersion is estimated anyway."""
    if not family.quasi or pearson <= OVERDISPERSED * freedom:
        return ()
    return (
        f"Overdispersion: Pearson's chi-squared is {pearson:.1f} on {freedom} df ({pearson / freedom:.2f} times as "
        f"large), so that standard errors are too small. {advice}",
    )


def disagreement_warnings(test: Agreement) -> tuple[str, ...]:
    """Warnings if sites differ more or less than chance allows, or if one site carries all; nothing otherwise."""
    texts = []
    chi2 = f"chi-squared {test.chi2:.2f} on {test.df} df"
    if test.df and test.p < NOTABLE_P:
        texts.append(
            f"The sites do not agree on one model ({chi2}, p = {test.p:.2g}), least of all on {test.differing}. Check "
            "coding, units and labels at every site. If all are right, report the disagreement with the result."
        )
    if test.df and test.below < TOO_ALIKE:
        texts.append(
            f"The sites agree better than chance allows ({chi2}, p of agreeing so well = {test.below:.1g}): the same "
            "rows may be at several sites. Compare their files."
        )
    if test.df and test.effective < FEW_SITES:
        texts.append("One site carries nearly all of the information; the others hardly move the fit.")
    return tuple(texts)


def conditioning_warnings(terms: Sequence[str], quality: Conditioning) -> tuple[str, ...]:
    """Digits that rounding has taken, and variances that other terms inflate; nothing if all is well."""
    texts = []
    if quality.error_digits < ENOUGH_DIGITS <= quality.digits_of_columns:
        texts.append(
            "The sums are so small beside the last digit of masked sums (5e-20) that only about "
            f"{quality.error_digits:.0f} digits of the standard errors are sure. Declare outcome, offset and weights "
            "in units in which they are nearer to 1."
        )
    elif quality.error_digits < ENOUGH_DIGITS:
        texts.append(
            f"The columns are nearly collinear (condition number {quality.number:.1e}): only about "
            f"{quality.error_digits:.0f} digits of the standard errors are sure. Leave a term out."
        )
    inflated = [t for t, v in zip(terms, quality.inflation.tolist(), strict=True) if v > INFLATED and "^" not in t]
    if inflated:
        texts.append(
            f"Other terms inflate the variance of {', '.join(inflated[:5])} more than {INFLATED:.0f} times "
            "(variance inflation): the data can hardly separate their coefficients."
        )
    return tuple(texts)
