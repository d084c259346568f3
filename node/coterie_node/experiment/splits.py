"""One trial's permutation: which rows are scored, and which site fits which of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie_node.data.draft.site_look import name_site
from coterie_node.errors import ConfigError
from coterie_node.experiment.cohort import Cohort, RowNumbers
from coterie_node.experiment.plan import ExperimentPlan


@dataclass(frozen=True)
class TrialSplit:
    """Row numbers: those that are scored, those of each site, and all that are fitted (the sites' in turn)."""

    test: RowNumbers
    sites: Mapping[str, RowNumbers]

    @property
    def train(self) -> RowNumbers:
        """All rows that are fitted."""
        return np.concatenate(list(self.sites.values()))


def split_trial(plan: ExperimentPlan, cohort: Cohort, number: int) -> TrialSplit:
    """The permutation of one trial, by the plan's seed and the trial's number alone.

    Rows are permuted and put in order of their stratum (outcome, then `stratify`). The test rows are taken at even
    distances from this list, so that each stratum gives its share; the sites take the rest in turn.
    """
    rng = np.random.default_rng([plan.seed, number])
    order = rng.permutation(cohort.n)
    order = order[np.argsort(_number_strata(plan, cohort)[order], kind="stable")]
    edges = np.floor(np.arange(cohort.n + 1) * plan.test_share + rng.random())
    is_test = np.diff(edges) > 0
    if not is_test.any():
        message = f"test_share = {plan.test_share:g} of {cohort.n} rows leaves none to score"
        raise ConfigError("CO-F361", f"{message}. Raise it.")
    return TrialSplit(order[is_test], _share_rows(plan, cohort, order[~is_test]))


def _number_strata(plan: ExperimentPlan, cohort: Cohort) -> NDArray[np.intp]:
    names = dict.fromkeys((plan.outcome, *plan.rows.stratify))
    columns = np.column_stack([np.asarray(cohort.codes[name], dtype=np.float64) for name in names])
    return np.unique(columns, axis=0, return_inverse=True)[1].ravel()


def _share_rows(plan: ExperimentPlan, cohort: Cohort, order: RowNumbers) -> dict[str, RowNumbers]:
    """The rows of each site: in turn, or by file, or by a column's levels."""
    if isinstance(plan.data, Mapping):
        names, place = list(plan.data), cohort.files[order]
    elif plan.rows.by:
        names = [name_site(level) for level in plan.variables[plan.rows.by].levels]
        place = np.asarray(cohort.codes[plan.rows.by][order], dtype=np.int64)
    else:
        names = [f"site-{k + 1}" for k in range(plan.rows.sites)]
        place = np.arange(len(order)) % plan.rows.sites
    shares = {name: order[place == k] for k, name in enumerate(names)}
    if len(shares) != len(names) or any(len(rows) == 0 for rows in shares.values()):
        empty = [name for name, rows in shares.items() if len(rows) == 0]
        raise ConfigError(
            "CO-F361",
            f"Sites without rows, or of one name: {empty or names}. Correct the split of rows, or test_share.",
        )
    return shares
