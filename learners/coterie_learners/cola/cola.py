"""COLA-GLM: one round; each site counts its rows per covariate pattern, and the sum of the tables gives the pooled fit.

Wu, Reps, Li, ..., Chen, "COLA-GLM: collaborative one-shot and lossless algorithms of generalized linear models for
decentralized observational healthcare data", npj Digit Med 2025;8:442 (doi:10.1038/s41746-025-01781-1).

What leaves a site, once: the numbers of the patterns that occur there (categories, binary variables, counts, numbers
on a declared grid), with the rows of each (with an offset: their exposure, and the rows of all); X'y; the sum of the
outcome; for a Gaussian outcome the sum of its squares; for counts two sums that only likelihoods need. That suffices
for canonical links. Probit, cloglog, a Pearson dispersion (quasi families), the sandwich (`robust`) and `cells = true`
(for AUC and calibration) need the sum of the outcome in each pattern instead of X'y, which says more; dispersion and
sandwich of a count or number also need the sum of its squares there. Every member of the study reads each site's
table. A pattern with one row shows that such a patient exists, and with a binary outcome X'y may show what became of
them.

A pattern with fewer rows than the study's floor (`[disclosure] cell`; 5 unless it says otherwise) is not shared.
`suppress = "drop"` leaves its rows out of all sums, which selects on the covariates alone and so stays consistent;
`"impute"` (the paper's) counts it as half the floor, rounded up, and leaves X'y as it is, which is biased; `"none"`
leaves it to the release gate. The gate applies the same floor to the outcome: it refuses a table from whose X'y smaller
counts of events, or of others, can be solved. What was left out is posted as numbers rounded up to the next multiple of
the floor, so that no single pattern follows from them.

Beyond the paper: patterns by declared number, never by position; all links; offset; dispersion; Firth; sandwich;
multinomial outcomes; an intercept for each site; standard errors from the information at the final estimates;
separation decided by a linear programme; heterogeneity, AUC and calibration from the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from coterie_learners.cola import table_disclosure
from coterie_learners.cola.checks import form_of
from coterie_learners.cola.cola_disclosure import disclose_cola
from coterie_learners.cola.model.likelihood import Estimate, Grouped, estimate
from coterie_learners.cola.plan import TableOptions, TablePlan, check_plan
from coterie_learners.cola.pool import carry_back, stack_by_site, sum_tables
from coterie_learners.cola.result import add_diagnostics, build_table_fit
from coterie_learners.cola.suitability import assess_cola
from coterie_learners.cola.tables import small_cells
from coterie_learners.cola.tables.pattern_counts import Counts, count_patterns
from coterie_learners.cola.tables.patterns import Grid, Keys
from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.masked_sum import MIN_PARTIES
from coterie_learners.core.payload import Field, Payload
from coterie_learners.core.profile import Profile
from coterie_learners.core.protocol import Posts, Script, Site, conclude, each, server
from coterie_learners.core.registry import Learner
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.errors import StudyError
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Schedule, Study
from coterie_learners.study.rows import Codes
from coterie_learners.sums import exact

_VERSION = "2"


def cola(site: Site) -> Script:
    """Each site's table once, then the fit by the site whose turn it is."""
    plan = plan_table(site.study)
    tables = yield from each("table", _share, plan, expects=form_of(plan), reveals=partial(expose_posted_table, plan))
    model = yield from server("fit", fit_tables, plan, tables)
    fit = add_diagnostics(plan, build_table_fit(plan, model, "cola", tuple(tables)), tables)
    yield from conclude()
    return fit


def plan_table(study: Study) -> TablePlan:
    """The plan of a study."""
    return TablePlan.of(study, TableOptions)


# At a site


def _share(site: Site, plan: TablePlan) -> Payload:
    """What one site posts: its table, without what lies below the floor."""
    own_rows: Any = site.codes
    if isinstance(own_rows, CountedTable):
        return own_rows.table(plan)
    return build_table(plan, count_patterns(plan.tally, own_rows))


def expose_posted_table(plan: TablePlan, site: Site, table: Payload) -> Exposure:
    """What readers can solve from a posted table."""
    raw = plan.grid.raw(plan.design, table["keys"])
    n = int(table["rows"] if "rows" in table else table["n"].sum())
    exposure = table_disclosure.expose_table(plan.design, raw, table, n, 0 if plan.drops else plan.floor, plan.floor)
    return replace(exposure, instead=_find_remedy(plan))


def _find_remedy(plan: TablePlan) -> str:
    """What this study can set, or which learner it can take, so that small counts are not shown."""
    options = plan.options
    if plan.study.learner.name == "secure_cola":
        plain = not (options.firth or options.robust or options.cells or plan.levels)
        return 'set scheme = "newton"' if plain and plan.family.dispersion != "pearson" else ""
    enough = len(plan.study.sites) >= MIN_PARTIES and not plan.site_intercepts
    return "take the learner secure_cola" if enough else ""


@dataclass(frozen=True)
class CountedTable:
    """A site whose rows were counted elsewhere, such as by the R package pda: counts and X'y, nothing else."""

    grid: Grid
    keys: Keys
    counts: Keys
    cross: Array

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.counts.sum())

    def codes(self) -> Iterator[Codes]:
        """The covariates' values of the rows that were counted; of the outcome nothing is known."""
        yield {name: np.repeat(values, self.counts) for name, values in self.grid.codes(self.keys).items()}

    def table(self, plan: TablePlan) -> Payload:
        """The table as COLA-GLM posts it; StudyError if the study needs more than counts and X'y."""
        if set(plan.fields) - {"suppressed"} != {"keys", "n", "cross", "outcome"} or plan.levels:
            message = "A table of counts and X'y suffices for a binomial model with the logit link"
            raise StudyError("CO-S327", f"{message}, and for nothing else; count the rows of this site here.")
        intercept = plan.design.formula.intercept
        if not intercept:
            raise StudyError("CO-S327", "A table of counts and X'y needs a model with an intercept.")
        values = {"keys": self.keys, "n": self.counts, "cross": self.cross, "outcome": self.cross[0]}
        return pack_table({**values, "suppressed": np.zeros(2)}, plan.fields)


def build_table(plan: TablePlan, counts: Counts) -> Payload:
    """A site's counts as it posts them, without what lies below the floor."""
    floor, shared = plan.floor, counts
    if floor:
        shared = (
            small_cells.drop_small_cells(counts, floor) if plan.drops else small_cells.impute_small_cells(counts, floor)
        )
    table = table_statistics(plan, shared if plan.drops else counts)
    if not plan.drops:
        table["n"] = shared.sums["n"]
    if floor:
        table["suppressed"] = small_cells.round_small_cells(counts, floor)
    return pack_table(table, plan.fields)


def table_statistics(plan: TablePlan, counts: Counts) -> dict[str, Any]:
    """Everything that a table may say, from counted rows."""
    sums, single = counts.sums, ("saturated", "constant")
    raw = plan.grid.raw(plan.design, counts.keys)
    out: dict[str, Any] = {"keys": counts.keys, "rows": sums["n"].sum()}
    out |= {name: values for name, values in sums.items() if name not in single}
    out |= {name: sums[name].sum() for name in single if name in sums}
    if plan.family.pairs:
        return out | _measure(raw, sums)
    s = np.stack([sums[f"s{k + 1}"] for k in range(plan.levels)]) if plan.levels else sums["s"]
    return out | {"s": s, "cross": s @ raw, "outcome": s.sum(axis=-1)}


def _measure(raw: Array, sums: Mapping[str, Array]) -> dict[str, Any]:
    """X'y, the sum of a measured outcome and of its squares, as pairs."""
    cross, cross_low = exact.split(exact.sum_weighted(raw, sums["s"], sums["s_low"]))
    single = {"outcome": "s", "squares": "q"}
    high = {name: sums[source].sum() for name, source in single.items()}
    low = {f"{name}_low": sums[f"{source}_low"].sum() for name, source in single.items()}
    return {"cross": cross, "cross_low": cross_low, **high, **low}


def pack_table(values: Mapping[str, Any], fields: Mapping[str, Field]) -> Payload:
    """The fields of a table in the types in which they are posted."""
    return {name: np.asarray(values[name], dtype=np.dtype(field.dtype)) for name, field in fields.items()}


# From the tables of all sites


def fit_tables(plan: TablePlan, tables: Posts) -> Payload:
    """The fit of the sum of the tables."""
    pooled_table = stack_by_site(plan, tables) if plan.site_intercepts else sum_tables(plan, tables)
    return pack_model(plan, pooled_table, estimate(pooled_table, plan.choice))


def pack_model(plan: TablePlan, table: Grouped, estimated: Estimate) -> Payload:
    """What the server posts: the fit in the variables' own units, and what the result table needs."""
    carry, origin = carry_back(plan, table.frame, len(table.intercepts) if plan.site_intercepts else 0)
    root, unit = linalg.matmul(carry, estimated.root), table.frame.outcome_scale**2
    covariance = linalg.matmul(root, root.T)
    model = {
        "estimates": linalg.matvec(carry, estimated.beta) + origin,
        "covariance": 0.5 * (covariance + covariance.T),
        "n": table.n,
        "outcome": table.outcome,
        "dispersion": estimated.dispersion * unit,
        "deviance": estimated.deviance * unit,
        "likelihood": estimated.likelihood,
        "steps": estimated.steps,
        "condition_number": estimated.condition_number,
        "exact": estimated.exact,
        "converged": True,
    }
    null_deviance_field = {} if estimated.null_deviance is None else {"null_deviance": estimated.null_deviance * unit}
    return {name: np.asarray(value) for name, value in (model | null_deviance_field).items()}


def _check_study(study: Study) -> None:
    """StudyError for a study that COLA-GLM cannot run."""
    plan = plan_table(study)
    check_plan(plan)
    if plan.site_intercepts and (not plan.design.formula.intercept or plan.levels or len(study.sites) < 2):
        raise StudyError("CO-S325", "site_intercepts needs an intercept, one outcome, and two sites or more.")
    if plan.options.suppress == "none" and plan.tally.exposure and plan.study.disclosure.cell:
        message = "With an offset a table has no counts of rows that the gate could compare with the floor"
        raise StudyError("CO-S326", f'{message}. Use suppress = "drop".')
    if not plan.drops and (not plan.floor or plan.cells or plan.tally.exposure or plan.levels):
        message = 'suppress = "impute" needs a floor (disclosure.cell), and a model that counts and X\'y suffice for'
        raise StudyError("CO-S326", f'{message} (a canonical link, no offset, no cells). Use suppress = "drop".')


def _schedule(study: Study) -> Schedule:
    """Each site's table, then the fit."""
    return Schedule(opening=("each", "server"), closing=("server",))


def _discloses(study: Study) -> Disclosure:
    """What a study discloses."""
    return disclose_cola(plan_table(study))


def _read_choice(study: Study) -> tuple[str | None, bool]:
    """The link, and that tables are in the clear."""
    return plan_table(study).options.link, False


def _evaluate(learner: Learner) -> Learner:
    """The learner with an evaluation on held-out rows after its fit."""
    from coterie_learners.evaluate.held_out import evaluate_after  # only such studies need what it imports

    return evaluate_after(_read_choice)(learner)


COLA = Learner(
    "cola",
    _VERSION,
    TableOptions,
    _check_study,
    _schedule,
    cola,
    _discloses,
    reads="codes",
    by_blocks=lambda _: True,
    evaluate=_evaluate,
    profile=Profile(assess_cola, examples=({"cells": False}, {"cells": True}), equals_pooled=True),
)
