"""The paper's statistics: areas under the curve, signed-rank tests between models, quartiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from coterie_learners.numeric.array import Array

# Scores that agree to this many decimals are ties: rounding must not order rows of the same covariates.
TIE_DECIMALS = 9


@dataclass(frozen=True)
class PairTest:
    """Wilcoxon's signed-rank test, two-sided, of the areas of two models over the trials that both have.

    `difference`: the median of a's area less b's. `p_holm`: adjusted for all pairs (Holm 1979).
    """

    a: str
    b: str
    trials: int
    difference: float
    p_value: float
    p_holm: float


@dataclass(frozen=True)
class Quartiles:
    """Median and the quartiles beside it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """The quartiles of at least one value."""
        low, median, high = np.quantile(np.asarray(values, dtype=np.float64), [0.25, 0.5, 0.75]).tolist()
        return cls(median, low, high)


def compute_auc(scores: Array, outcome: Array) -> float:
    """The area under the ROC curve: the chance that an event scores higher than a non-event, ties counted half.

    NaN where all outcomes are the same. `scores` (n,) are linear predictors or chances, `outcome` (n,) is 0 or 1.
    """
    events = int(np.count_nonzero(outcome == 1))
    others = len(outcome) - events
    if not events or not others:
        return float("nan")
    ranks = stats.rankdata(np.round(scores, TIE_DECIMALS))
    return (float(ranks[outcome == 1].sum()) - events * (events + 1) / 2) / (events * others)


def compare_models(areas: Mapping[str, Sequence[float | None]]) -> tuple[PairTest, ...]:
    """The tests of all pairs of models that share a trial; `areas` by model have one place a trial, None if skipped."""
    drafts: list[tuple[str, str, int, float, float]] = []
    for a, b in combinations(areas, 2):
        pairs = [(p, q) for p, q in zip(areas[a], areas[b], strict=True) if p is not None and q is not None]
        if pairs:
            differences = np.round([p - q for p, q in pairs], 12)
            drafts.append((a, b, len(pairs), float(np.median(differences)), compute_signed_rank_p(differences)))
    adjusted = _adjust([draft[-1] for draft in drafts])
    return tuple(PairTest(*draft, p_holm) for draft, p_holm in zip(drafts, adjusted, strict=True))


def compute_signed_rank_p(differences: Array) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test; 1 where nothing differs."""
    if not np.any(differences):
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def _adjust(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment."""
    out, worst = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[k]))
        out[k] = worst
    return out
