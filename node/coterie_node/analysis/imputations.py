"""One result from several: the same model fitted on several completions of the data, combined by Rubin's rules.

Rubin, Multiple Imputation for Nonresponse in Surveys, 1987, chapter 3; degrees of freedom after Barnard and Rubin,
Biometrika 1999;86:948-955. As `mice::pool` of R has them: with the mean variance U within and the variance B between m
completions the total is T = U + (1 + 1/m) B.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import t_quantile, two_sided_t
from coterie_node.audit.printed.printed_table import PrintedTable
from coterie_node.errors import ConfigError

# What the completions of one data set have in common.
_COMMON = ("learner", "family", "link", "n")


@dataclass(frozen=True)
class CombinedTerm:
    """A coefficient over all completions: `within` and `between` are variances, `df` the degrees of freedom of t.

    `lost` is the share of the variance that is due to what is missing, `fmi` the fraction of information missing.
    """

    term: str
    estimate: float
    std_error: float
    statistic: float
    df: float
    p: float
    low: float
    high: float
    within: float
    between: float
    lost: float
    fmi: float


def combine_imputations(results: Sequence[Mapping[str, Any]], level: float) -> list[CombinedTerm]:
    """The results of one model on several completions; ConfigError (CO-F386) where they are not that.

    The terms go by their places, as an imputed variable has a column of its own in each completion.
    """
    _check_results(results)
    estimates = np.array([[float(row["estimate"]) for row in result["terms"]] for result in results])
    variances = np.array([np.diag(np.array(result["vcov"], dtype=np.float64)) for result in results])
    names = _name_terms(results)
    complete = _count_freedom(results[0])
    return [_combine(name, estimates[:, j], variances[:, j], complete, level) for j, name in enumerate(names)]


def _combine(name: str, estimates: Array, variances: Array, complete: float, level: float) -> CombinedTerm:
    m, estimate = len(estimates), float(estimates.mean())
    within, between = float(variances.mean()), float(estimates.var(ddof=1))
    extra = (1.0 + 1.0 / m) * between
    # Without any error in the completions nothing can be tested: outcomes that the columns give exactly.
    error, lost = math.sqrt(within + extra), extra / (within + extra) if within + extra > 0.0 else 0.0
    df = _find_freedom(m, lost, complete)
    half, t = t_quantile(0.5 + level / 2, df) * error, estimate / error if error > 0.0 else math.nan
    return CombinedTerm(
        term=name,
        estimate=estimate,
        std_error=error,
        statistic=t,
        df=df,
        p=float(two_sided_t(np.array([t]), df)[0]),
        low=estimate - half,
        high=estimate + half,
        within=within,
        between=between,
        lost=lost,
        fmi=lost + (1.0 - lost) * 2.0 / (df + 3.0),
    )


def _find_freedom(m: int, lost: float, complete: float) -> float:
    """Degrees of freedom after Barnard and Rubin, from those of complete data."""
    # As in mice, a variance without a part between completions is taken for one with hardly any.
    old = (m - 1.0) / max(lost, 1e-4) ** 2
    observed = (complete + 1.0) / (complete + 3.0) * complete * (1.0 - max(lost, 1e-4))
    # Completions without any error of their own say nothing of these: Rubin's degrees of freedom are left.
    return old * observed / (old + observed) if observed > 0.0 else old


def _count_freedom(result: Mapping[str, Any]) -> float:
    df = result.get("df_residual")
    return float(df if df is not None else result["n"] - len(result["terms"]))


def _name_terms(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The terms' names; a term with another name in each completion has those of the first and of the last."""
    pairs = zip(results[0]["terms"], results[-1]["terms"], strict=True)
    names = ((str(first["term"]), str(last["term"])) for first, last in pairs)
    return [first if first == last else f"{first} ... {last}" for first, last in names]


def _check_results(results: Sequence[Mapping[str, Any]]) -> None:
    if len(results) < 2:
        raise ConfigError("CO-F386", "One result has nothing to be combined with. Name two completions or more.")
    for name in (*_COMMON, "terms", "vcov"):
        values = [_size(result.get(name)) if name in ("terms", "vcov") else result.get(name) for result in results]
        if any(value != values[0] for value in values) or not values[0]:
            message = f"The results differ in {name}, or have none: {', '.join(map(str, values[:6]))}"
            remedy = "Combine one model, fitted with standard errors on completions of the same patients"
            raise ConfigError("CO-F386", f"{message}. {remedy}.")


def _size(part: Any) -> int:
    return len(part) if isinstance(part, list) else 0


def print_combinations(terms: Sequence[CombinedTerm], level: float) -> PrintedTable:
    """The combined coefficients as a table."""
    head = ("", "Estimate", "Std.Error", "t", "df", "p", f"{100 * level:g}% CI", "fmi")
    return PrintedTable(head, tuple(map(_print_term, terms)))


def _print_term(t: CombinedTerm) -> tuple[str, ...]:
    limits = f"[{t.low:.4g}, {t.high:.4g}]"
    error, df = f"{t.std_error:.4g}", f"{t.df:.1f}"
    tests = (f"{t.statistic:.3f}", df, f"{t.p:.3g}") if math.isfinite(t.statistic) else ("NA", df, "NA")
    return t.term, f"{t.estimate:.6g}", error, *tests, limits, f"{t.fmi:.3f}"


def combinations_to_json(terms: Sequence[CombinedTerm], count: int, level: float) -> dict[str, Any]:
    """The stable JSON keys."""
    return {"completions": count, "level": level, "terms": [asdict(term) for term in terms]}
