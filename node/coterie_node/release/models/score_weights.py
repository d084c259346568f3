"""Few patients that two ways to weigh rows by one score set apart: other scores at which the weights end.

Of two studies with the same score, treatment and estimand the sums by arm differ by the patients whose score lies
beyond an end of one of the two alone: of one patient by that patient's outcome and covariates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from coterie_learners.causal.balancing_weights import Estimand, weigh_scores
from coterie_learners.core.disclosure import ScoreWeights
from coterie_node.privacy.entries import ReleaseHead
from coterie_node.privacy.objections import Objection
from coterie_node.release.derivations.known_columns import SummedColumn, judge_combinations
from coterie_node.release.derivations.known_derivations import Sizes


def log_weights(weighed: ScoreWeights) -> dict[str, Any]:
    """What the log keeps of it: nothing of any row."""
    return {"treatment": weighed.treatment, "estimand": weighed.estimand, "truncate": list(weighed.truncate)}


def judge_score_weights(
    weighed: ScoreWeights, treated: NDArray[Any], head: ReleaseHead, same: Sequence[ReleaseHead], sizes: Sizes
) -> Iterator[Objection]:
    """Objections to weights that, with those of former studies on these rows, are 0 for all but few patients.

    `treated` (n,): 1 of who has the treatment. A study whose score has other terms weighs everybody otherwise.
    """
    plain = [
        other.weighed
        for other in same
        if set(other.terms) == set(head.terms) and other.weighed.get("treatment") == weighed.treatment
    ]
    ways = [(str(way["estimand"]), tuple(way["truncate"])) for way in plain]
    own = (weighed.estimand, weighed.truncate)
    if not any(way != own for way in ways):
        return
    columns = [SummedColumn(weighed.treatment, treated, True)]
    for way in dict.fromkeys((own, *ways)):
        weights = weigh_scores(weighed.score, cast(Estimand, way[0]), way[1]).values
        for arm in range(2):
            name = f"weights for {way[0]}, truncate = {list(way[1])}"
            column = np.where(treated == arm, weights[arm], 0.0)
            columns.append(SummedColumn(name, column, False, way != own, is_raw=False))
    yield from judge_combinations(columns, sizes)
