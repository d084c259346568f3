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
leaves it to the release gate. The gate holds what X'y says of the outcome to the same floor: it keeps back a table
from which fewer events, or others, can be solved. What was left out is posted as numbers rounded up to the next
multiple of the floor, so that no single pattern follows from them.

Beyond the paper: patterns by declared number, never by position; all links; offset; dispersion; Firth; sandwich;
multinomial outcomes; an intercept for each site; standard errors from the information at the final estimates;
separation decided by a linear programme; heterogeneity, AUC and calibration from the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from coterie_learners import linalg, suppression, table_disclosure
from coterie_learners.disclosure import Exposure
from coterie_learners.errors import StudyError
from coterie_learners.grouped import Estimate, Grouped, estimate
from coterie_learners.learner import Learner
from coterie_learners.patterns import Grid, Keys
from coterie_learners.payload import Field, Payload
from coterie_learners.protocol import Posts, Script, Site, each, server
from coterie_learners.rows import Array, Codes
from coterie_learners.study import Schedule, Study
from coterie_learners.table_checks import form_of
from coterie_learners.table_plan import Plan, TableOptions, check_plan
from coterie_learners.table_pool import back, by_site, summed
from coterie_learners.table_result import fit_of, with_diagnostics
from coterie_learners.tally import Counts, count

VERSION = "1"


def cola(site: Site) -> Script:
    """Each site's table once, then the fit by the site whose turn it is."""
    plan = plan_of(site.study)
    tables = yield from each("table", share, plan, expects=form_of(plan), reveals=partial(reveals, plan))
    model = yield from server("fit", fit_tables, plan, tables)
    return with_diagnostics(plan, fit_of(plan, model, "cola", tuple(tables)), tables)


def plan_of(study: Study) -> Plan:
    """The plan of a study."""
    return Plan.of(study, TableOptions)


# At a site


def share(site: Site, plan: Plan) -> Payload:
    """What one site posts: its table, without what lies below the floor."""
    held: Any = site.codes
    if isinstance(held, TableOnly):
        return held.table(plan)
    return table_of(plan, count(plan.tally, held))


def reveals(plan: Plan, site: Site, table: Payload) -> Exposure:
    """What readers can solve from a posted table."""
    raw = plan.grid.raw(plan.design, table["keys"])
    n = int(table["rows"] if "rows" in table else table["n"].sum())
    return table_disclosure.exposure(plan.design, raw, table, n, 0 if plan.drops else plan.floor, plan.floor)


@dataclass(frozen=True)
class TableOnly:
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

    def table(self, plan: Plan) -> Payload:
        """The table as COLA-GLM posts it; StudyError if the study needs more than counts and X'y."""
        if set(plan.fields) - {"suppressed"} != {"keys", "n", "cross", "outcome"} or plan.levels:
            told = "A table of counts and X'y suffices for a binomial model with the logit link"
            raise StudyError("CO-S327", f"{told}, and for nothing else; count the rows of this site here.")
        intercept = plan.design.formula.intercept
        if not intercept:
            raise StudyError("CO-S327", "A table of counts and X'y needs a model with an intercept.")
        values = {"keys": self.keys, "n": self.counts, "cross": self.cross, "outcome": self.cross[0]}
        return payload_of({**values, "suppressed": np.zeros(2)}, plan.fields)


def table_of(plan: Plan, counts: Counts) -> Payload:
    """A site's counts as it posts them, without what lies below the floor."""
    floor, kept = plan.floor, counts
    if floor:
        kept = suppression.dropped(counts, floor) if plan.drops else suppression.imputed(counts, floor)
    table = statistics(plan, kept if plan.drops else counts)
    if not plan.drops:
        table["n"] = kept.sums["n"]
    if floor:
        table["suppressed"] = suppression.rounded(counts, floor)
    return payload_of(table, plan.fields)


def statistics(plan: Plan, counts: Counts) -> dict[str, Any]:
    """Everything that a table may say, from counted rows."""
    sums = counts.sums
    s = np.stack([sums[f"s{k + 1}"] for k in range(plan.levels)]) if plan.levels else sums["s"]
    raw = plan.grid.raw(plan.design, counts.keys)
    out = {"keys": counts.keys, "n": sums["n"], "s": s, "cross": s @ raw, "outcome": s.sum(axis=-1)}
    out |= {name: sums[name] for name in ("q", "exposure") if name in sums}
    out |= {name: sums[name].sum() for name in ("saturated", "constant") if name in sums}
    return out | {"rows": sums["n"].sum(), "squares": sums.get("q", sums["n"]).sum()}


def payload_of(values: Mapping[str, Any], fields: Mapping[str, Field]) -> Payload:
    """The fields of a table in the types in which they are posted."""
    return {name: np.asarray(values[name], dtype=np.dtype(field.dtype)) for name, field in fields.items()}


# From the tables of all sites


def fit_tables(plan: Plan, tables: Posts) -> Payload:
    """The fit of the sum of the tables."""
    together = by_site(plan, tables) if plan.site_intercepts else summed(plan, tables)
    return model_of(plan, together, estimate(together, plan.choice))


def model_of(plan: Plan, table: Grouped, found: Estimate) -> Payload:
    """What the server posts: the fit in the variables' own units, and what the result table needs."""
    carry = back(plan, len(table.intercepts) if plan.site_intercepts else 0)
    covariance = linalg.matmul(linalg.matmul(carry, found.covariance), carry.T)
    model = {
        "estimates": linalg.matvec(carry, found.beta),
        "covariance": 0.5 * (covariance + covariance.T),
        "n": table.n,
        "outcome": table.outcome,
        "dispersion": found.dispersion,
        "deviance": found.deviance,
        "likelihood": found.likelihood,
        "steps": found.steps,
        "converged": True,
    }
    known = {} if found.null_deviance is None else {"null_deviance": found.null_deviance}
    return {name: np.asarray(value) for name, value in (model | known).items()}


def check_study(study: Study) -> None:
    """StudyError for a study that COLA-GLM cannot run."""
    plan = plan_of(study)
    check_plan(plan)
    if plan.site_intercepts and (not plan.design.formula.intercept or plan.levels or len(study.sites) < 2):
        raise StudyError("CO-S325", "site_intercepts needs an intercept, one outcome, and two sites or more.")
    if plan.options.suppress == "none" and plan.tally.exposure and plan.study.disclosure.cell:
        told = "With an offset a table has no counts of rows that the gate could hold against the floor"
        raise StudyError("CO-S326", f'{told}. Use suppress = "drop".')
    if not plan.drops and (not plan.floor or plan.cells or plan.tally.exposure or plan.levels):
        told = 'suppress = "impute" needs a floor (disclosure.cell), and a model that counts and X\'y suffice for'
        raise StudyError("CO-S326", f'{told} (a canonical link, no offset, no cells). Use suppress = "drop".')


def schedule(study: Study) -> Schedule:
    """Each site's table, then the fit."""
    return Schedule(opening=("each", "server"))


TRUST = (
    "Every member of the study, and whoever reads its store, reads each site's table: the patterns that occur there "
    "with their rows, and the sums of the outcome. Patterns below the floor are not in it. No key holder, no masks; "
    "secure_cola shows sums over the sites only."
)


def trust(study: Study) -> str:
    """Who learns what."""
    return TRUST


COLA = Learner("cola", VERSION, TableOptions, check_study, schedule, cola, reads="codes", trust=trust)
