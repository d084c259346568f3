"""What pooled tables tell about a fit besides its coefficients. Read by people; nothing here is posted.

Area under the curve as Mann and Whitney count it, ties half; Brier score; observed against expected events in tenths of
predicted risk, with Hosmer and Lemeshow's statistic (Commun Stat 1980;A9:1043-1069). Cochran's Q with I squared
(Higgins and Thompson, Stat Med 2002;21:1539-1558).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coterie_learners.core.payload import Payload
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import chi_squared_above

GROUPS = 10
SMALL_CELL = 5
# Above this share of rows left out, a coarser coding is the better choice.
NOTABLE_SHARE = 0.05
_NOTABLE_P = 0.05


def assess_predictions(eta: Array, mean: Array, u: Array, s: Array, parameters: int) -> dict[str, Any]:
    """Discrimination and calibration from rows u, events s and predictions per pattern (m,)."""
    error = float(np.sum(s * (1.0 - mean) ** 2 + (u - s) * mean**2) / u.sum())
    table = calibration(eta, mean, u, s)
    chi2 = sum((g["events"] - g["expected"]) ** 2 / (g["expected"] * (1 - g["expected"] / g["rows"])) for g in table)
    freedom = max(len(table) - 2, 1)
    fit = {"chi2": float(chi2), "df": freedom, "p": chi_squared_above(chi2, freedom)}
    return {"auc": auc(eta, u, s), "brier": error, "calibration": table, "hosmer_lemeshow": fit}


def auc(eta: Array, u: Array, s: Array) -> float:
    """Probability that a row with the event has the higher linear predictor than one without, ties half."""
    # Patterns that differ by rounding only are tied.
    _, places = np.unique(np.round(eta, 10), return_inverse=True)
    events, others = np.bincount(places, s), np.bincount(places, u - s)
    below = np.cumsum(others) - others
    return float(np.sum(events * (below + 0.5 * others)) / (events.sum() * others.sum()))


def calibration(eta: Array, mean: Array, u: Array, s: Array) -> list[dict[str, float]]:
    """Rows, events and expected events by tenths of predicted risk; a pattern is never cut in two."""
    # Rows with one prediction stay together, at whichever sites they are; unique sorts them by it.
    _, places = np.unique(np.round(eta, 10), return_inverse=True)
    columns = {"rows": u, "events": s, "expected": u * mean}
    by_prediction = {name: np.bincount(places, values) for name, values in columns.items()}
    middle = np.cumsum(by_prediction["rows"]) - 0.5 * by_prediction["rows"]
    group = np.minimum((middle * GROUPS / u.sum()).astype(int), GROUPS - 1)
    sums = {name: np.bincount(group, values, minlength=GROUPS).tolist() for name, values in by_prediction.items()}
    return [dict(zip(sums, row, strict=True)) for row in zip(*sums.values(), strict=True) if row[0] > 0]


def cochran_q(terms: tuple[str, ...], own: Mapping[str, tuple[Array, Array]], sites: tuple[str, ...]) -> dict[str, Any]:
    """Q and I squared of every term over the sites that carry the model alone: (estimates, variances) by site."""
    lines = []
    if len(own) > 1:
        estimates, variances = (np.stack([pair[k] for pair in own.values()]) for k in (0, 1))
        weights = 1.0 / variances
        centre = (weights * estimates).sum(axis=0) / weights.sum(axis=0)
        q, freedom = (weights * (estimates - centre) ** 2).sum(axis=0), len(own) - 1
        for term, value in zip(terms, q.tolist(), strict=True):
            share = max(0.0, 1.0 - freedom / value) if value > 0 else 0.0
            lines.append({"term": term, "q": value, "df": freedom, "p": chi_squared_above(value, freedom), "i2": share})
    return {"terms": lines, "sites_without_own_fit": [name for name in sites if name not in own]}


def likelihood_ratio(joint: float, apart: float, freedom: int) -> dict[str, float]:
    """Test of the larger model against the smaller one."""
    chi2 = max(2.0 * (apart - joint), 0.0)
    return {"chi2": chi2, "df": freedom, "p": chi_squared_above(chi2, freedom)}


def summarise_suppression(left_out: Mapping[str, Any], tables: Mapping[str, Payload], n: int) -> dict[str, Any]:
    """At most so many patterns and rows were not shared, by site and in all; `n` rows were, or were imputed."""
    sites = {name: {"cells_at_most": int(v[0]), "rows_at_most": int(v[1])} for name, v in left_out.items()}
    cells, rows = (sum(site[key] for site in sites.values()) for key in ("cells_at_most", "rows_at_most"))
    shared = sum(len(table["keys"]) for table in tables.values())
    return {"sites": sites, "cells_at_most": cells, "cells_shared": shared, "rows_at_most": rows, "rows_shared": n}


def suppression_notes(summary: Mapping[str, Any], where: str, instead: str) -> list[str]:
    """What suppression did, in sentences; `where` rows of a pattern were counted together; what to do `instead`."""
    cells, rows = summary["cells_at_most"], summary["rows_at_most"]
    if not cells:
        return [f"No pattern had fewer than {summary['floor']} rows {where}; nothing was left out."]
    imputes = summary["mode"] == "impute"
    of_cells = summary["cells_shared"] if imputes else summary["cells_shared"] + cells
    of_rows = summary["rows_shared"] if imputes else summary["rows_shared"] + rows
    share = rows / max(of_rows, 1)
    what = (
        f"counted as {(summary['floor'] + 1) // 2} rows each (X'y was not changed: the fit is biased)"
        if imputes
        else "left out"
    )
    sentence = (
        f"Patterns with fewer than {summary['floor']} rows {where} were {what}: at most {cells} of {of_cells} "
        f"({cells / of_cells:.1%}), with at most {rows} of {of_rows} rows ({share:.1%})."
    )
    if share <= NOTABLE_SHARE:
        return [sentence]
    return [sentence, f"That is more than {NOTABLE_SHARE:.0%} of the rows: {instead}."]


def small_cell_notes(rows: Mapping[str, Any], where: str) -> list[str]:
    """A reminder that small cells were shared, since the study has no floor."""
    small = sum(int(np.count_nonzero(n < SMALL_CELL)) for n in rows.values())
    total = sum(len(n) for n in rows.values())
    if not small:
        return []
    return [f"{small} of {total} shared patterns have fewer than {SMALL_CELL} rows {where}; the study has no floor."]


def notes(details: Mapping[str, Any]) -> list[str]:
    """Heterogeneity and discrimination, in sentences."""
    sentences = []
    test = details.get("heterogeneity", {}).get("site_intercepts")
    if test is not None:
        differ = (
            "The sites' baselines differ" if test["p"] < _NOTABLE_P else "The sites' baselines do not differ notably"
        )
        sentences.append(f"{differ}: chi-squared {test['chi2']:.2f} on {test['df']} df, p = {test['p']:.2g}.")
    sentences += _describe_heterogeneity(details.get("heterogeneity", {}).get("terms", []))
    if "auc" in details:
        sentences.append(f"AUC {details['auc']:.4f}, Brier score {details['brier']:.4f}, on the rows of the fit.")
        sentences.append(_describe_calibration(details["calibration"], details["hosmer_lemeshow"]))
    return sentences


def _describe_heterogeneity(terms: Sequence[Mapping[str, Any]]) -> list[str]:
    """The terms on which the sites' own fits differ: those that differ notably, or the one that differs most."""
    if not terms:
        return []
    notable = [term for term in terms if term["p"] < _NOTABLE_P] or [min(terms, key=lambda term: float(term["p"]))]
    parts = [f"{t['term']} (Q {t['q']:.2f} on {t['df']} df, p = {t['p']:.2g}, I2 {t['i2']:.0%})" for t in notable]
    return [f"Heterogeneity of the sites' own fits (Cochran), {'largest' if len(parts) == 1 else 'by term'}: "
            f"{', '.join(parts)}."]  # fmt: skip


def _describe_calibration(groups: Sequence[Mapping[str, float]], test: Mapping[str, float]) -> str:
    ratios = ", ".join(f"{g['events'] / max(g['expected'], 1e-300):.2f}" for g in groups)
    return (
        f"Calibration: Hosmer-Lemeshow chi-squared {test['chi2']:.2f} on {test['df']} df, p = {test['p']:.2g}; "
        f"observed over expected events by tenth of predicted risk: {ratios}."
    )
