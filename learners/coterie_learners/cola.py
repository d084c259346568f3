"""COLA-GLM: one round; each site counts its rows per covariate pattern, and the sum of the tables gives the pooled fit.

Wu, Reps, Li, ..., Chen, "COLA-GLM: collaborative one-shot and lossless algorithms of generalized linear models for
decentralized observational healthcare data", npj Digit Med 2025;8:442 (doi:10.1038/s41746-025-01781-1).

What leaves a site, once: the numbers of the patterns that occur there (categories, binary variables, counts, numbers
on a declared grid), with the rows of each (with an offset: their exposure, and the rows of all); X'y; the sum of the
outcome; for a Gaussian outcome the sum of its squares; for counts two sums that only likelihoods need. That suffices
for canonical links. Probit, cloglog, a Pearson dispersion (quasi families), the sandwich (`robust`) and `cells = true`
(for AUC and calibration) need the sum of the outcome in each pattern instead of X'y, which says more, and the last two
of a count or number also the sum of its squares. Every member of the study reads each site's table. A pattern with one
row shows that such a patient exists, and with a binary outcome X'y may show what became of them.

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
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field as Within

from coterie_learners import diagnostics, linalg, suppression, table_disclosure
from coterie_learners.design import Design
from coterie_learners.disclosure import Exposure
from coterie_learners.errors import LearnerError, ProtocolError, StudyError
from coterie_learners.folds import cross
from coterie_learners.grouped import Choice, Estimate, Grouped, estimate
from coterie_learners.inference import Fit
from coterie_learners.learner import Learner, options_of
from coterie_learners.patterns import Grid, Keys
from coterie_learners.payload import Field, Payload, Schema
from coterie_learners.protocol import Posts, Script, Site, each, server
from coterie_learners.rows import Array, Codes
from coterie_learners.study import Column, Frozen, Schedule, Study
from coterie_learners.table_families import TableFamily, table_family
from coterie_learners.tally import Counts, count
from coterie_learners.tally import Plan as TallyPlan

VERSION = "1"
RATIOS = {"logit": "OR", "log": "IRR", "cloglog": "HR"}
# No sums of real rows come near this; beyond it arithmetic would overflow.
HUGE = 1e100
# Sums of fractions may be off by rounding.
ROUNDING = 1e-9
# A site whose own fit takes more steps than this has none: one level of some covariate is without events there.
OWN_FIT_STEPS = 40
# Sums of so many rows are still whole in a float.
MOST_ROWS = 2.0**52


class TableOptions(Frozen):
    """What COLA-GLM and its secure form have in common in the learner section of a study.

    `cells`: share the outcome per pattern also where X'y would do, for AUC and calibration. `suppress`: what becomes of
    patterns with fewer rows than the study's floor. `grids`: allowed values of numeric covariates (a count may have all
    whole numbers of its range). `tolerance` is in standard errors.
    """

    family: Literal["binomial", "poisson", "gaussian", "quasibinomial", "quasipoisson", "multinomial"] = "binomial"
    link: Literal["logit", "probit", "cloglog", "log", "identity"] | None = None
    cells: bool = False
    robust: bool = False
    firth: bool = False
    suppress: Literal["drop", "impute", "none"] = "drop"
    grids: Mapping[Column, tuple[float, ...]] = Within(default_factory=dict)
    max_iterations: Annotated[int, Within(ge=1, le=10_000)] = 500
    tolerance: Annotated[float, Within(gt=0, le=1e-2)] = 1e-10


class ColaOptions(TableOptions):
    """The learner section of a study.

    `site_intercepts`: an intercept for each site (GLM-H) instead of a common one.
    """

    site_intercepts: bool = False


@dataclass(frozen=True)
class Plan:
    """What every site derives from the study alone."""

    study: Study
    design: Design
    options: TableOptions
    family: TableFamily
    grid: Grid

    @classmethod
    def of(cls, study: Study, model: type[TableOptions] = ColaOptions) -> Plan:
        """The plan of a study."""
        options, design = options_of(study, model), Design(study)
        return cls(study, design, options, table_family(options.family, options.link), Grid.of(design, options.grids))

    @property
    def p(self) -> int:
        """Number of columns."""
        return len(self.design.columns)

    @property
    def tally(self) -> TallyPlan:
        """What is counted."""
        return TallyPlan(self.design, self.grid, self.family)

    @property
    def choice(self) -> Choice:
        """How the table is fitted."""
        o = self.options
        return Choice(self.family, o.firth, o.robust, o.tolerance, o.max_iterations)

    @property
    def levels(self) -> int:
        """Levels of a multinomial outcome after the first, 0 for another outcome."""
        return max(self.tally.levels - 1, 0)

    @property
    def cells(self) -> bool:
        """Whether the outcome is summed per pattern."""
        o = self.options
        return not self.family.canonical or self.family.dispersion == "pearson" or o.robust or o.cells

    @property
    def squares(self) -> bool:
        """Whether the outcome's squares are summed per pattern."""
        pearson = self.family.dispersion == "pearson" or self.options.robust
        return pearson and self.family.law != "binomial"

    @property
    def floor(self) -> int:
        """Fewest rows of a pattern that is shared as it is; 0 for any."""
        return 0 if self.options.suppress == "none" else self.study.disclosure.cell

    @property
    def drops(self) -> bool:
        """Whether patterns below the floor are left out, rather than imputed."""
        return self.options.suppress != "impute"

    @property
    def site_intercepts(self) -> bool:
        """Whether each site has its own intercept."""
        return isinstance(self.options, ColaOptions) and self.options.site_intercepts

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """Names of the coefficients with a common intercept; of a multinomial outcome by level."""
        if not self.levels:
            return self.design.names
        return tuple(f"{level}:{name}" for level in self.design.outcome.levels[1:] for name in self.design.names)

    @property
    def fields(self) -> dict[str, Field]:
        """Form of one site's table."""
        rows, single = (None,), {"outcome": Field("<f8", self._shape(()))}
        out = {"keys": Field("<i8", rows), **single}
        out |= (
            {"exposure": Field("<f8", rows), "rows": Field("<i8")} if self.tally.exposure else {"n": Field("<i8", rows)}
        )
        out |= {"s": Field("<f8", self._shape(rows))} if self.cells else {"cross": Field("<f8", self._shape((self.p,)))}
        out |= {"q": Field("<f8", rows)} if self.squares else {}
        out |= {"squares": Field("<f8")} if self.family.law == "gaussian" else {}
        out |= {"saturated": Field("<f8"), "constant": Field("<f8")} if self.family.law == "poisson" else {}
        return out | ({"suppressed": Field("<i8", (2,))} if self.floor else {})

    def _shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (self.levels, *shape) if self.levels else shape

    def check(self, table: Payload) -> None:
        """ProtocolError if no rows could have this table."""
        check_table(self, table)


def cola(site: Site) -> Script:
    """Each site's table once, then the fit by the site whose turn it is."""
    plan = Plan.of(site.study)
    form = Schema(plan.fields, check=plan.check)
    tables = yield from each("table", share, plan, expects=form, reveals=partial(reveals, plan))
    model = yield from server("fit", fit_tables, plan, tables)
    return with_diagnostics(plan, fit_of(plan, model, "cola", tuple(tables)), tables)


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
    return table_disclosure.exposure(plan.design, raw, table, n, 0 if plan.drops else plan.floor)


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
            raise StudyError("CO-S317", f"{told}, and for nothing else; count the rows of this site here.")
        intercept = plan.design.formula.intercept
        if not intercept:
            raise StudyError("CO-S317", "A table of counts and X'y needs a model with an intercept.")
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


def summed(plan: Plan, tables: Posts) -> Grouped:
    """The sum of the tables: patterns by number, whichever sites have them."""
    keys = np.unique(np.concatenate([t["keys"] for t in tables.values()]))
    spread = {name: _spread(plan, name, keys, tables) for name in _per_pattern(plan)}
    single = {name: linalg.total([t[name] for t in tables.values()]) for name in _single(plan)}
    return grouped(plan, keys, spread, single)


def grouped(plan: Plan, keys: Keys, spread: Mapping[str, Array], single: Mapping[str, Array]) -> Grouped:
    """A pooled table by field, as the estimation takes it."""
    x = plan.grid.matrix(plan.design, keys)
    u = spread["exposure"] if plan.tally.exposure else spread["n"]
    n = float(single["rows"]) if plan.tally.exposure else float(np.sum(u.astype(np.int64)))
    s = spread.get("s")
    inside = _cross_of(x, s) if s is not None else inwards(plan, np.asarray(single["cross"]))
    return Grouped(
        names=plan.design.names,
        x=x,
        u=u,
        cross=inside,
        n=n,
        outcome=np.asarray(single["outcome"]),
        s=None if plan.levels else s,
        q=spread.get("q"),
        squares=float(single.get("squares", 0.0)),
        saturated=float(single.get("saturated", 0.0)),
        constant=float(single.get("constant", 0.0)),
        intercepts=(0,) if plan.design.formula.intercept else (),
    )


def by_site(plan: Plan, tables: Posts) -> Grouped:
    """The tables one below the other, with an intercept for each site in place of the common one."""
    parts = [summed(plan, {name: table}) for name, table in tables.items()]
    own = np.repeat(np.eye(len(parts)), [len(part.x) for part in parts], axis=0)

    def below(name: str) -> Array | None:
        fields = [getattr(part, name) for part in parts]
        return None if fields[0] is None else np.concatenate(fields)

    def sums(name: str) -> float:
        return float(linalg.total([getattr(part, name) for part in parts]))

    return Grouped(
        names=(*(f"site[{name}]" for name in tables), *plan.design.names[1:]),
        x=np.concatenate([own, np.concatenate([part.x[:, 1:] for part in parts])], axis=1),
        u=np.concatenate([part.u for part in parts]),
        cross=np.concatenate([[part.cross[0] for part in parts], linalg.total([part.cross[1:] for part in parts])]),
        n=sums("n"),
        outcome=np.asarray(sums("outcome")),
        s=below("s"),
        q=below("q"),
        squares=sums("squares"),
        saturated=sums("saturated"),
        constant=sums("constant"),
        intercepts=tuple(range(len(parts))),
    )


def inwards(plan: Plan, cross: Array) -> Array:
    """X'y of the variables' own units on the inside scale."""
    columns = plan.design.columns
    centre, scale = np.array([c.centre for c in columns]), np.array([c.scale for c in columns])
    return np.asarray((cross - cross[..., :1] * centre) / scale)


def back(plan: Plan, sites: int = 0) -> Array:
    """The matrix that carries coefficients to the variables' own units; with so many site intercepts in front."""
    common = plan.design.back
    if sites:
        out = np.zeros((sites + plan.p - 1, sites + plan.p - 1))
        out[:sites, :sites] = np.eye(sites)
        out[:sites, sites:] = common[0, 1:]
        out[sites:, sites:] = common[1:, 1:]
        return out
    blocks = max(plan.levels, 1)
    out = np.zeros((blocks * plan.p, blocks * plan.p))
    for k in range(blocks):
        out[k * plan.p : (k + 1) * plan.p, k * plan.p : (k + 1) * plan.p] = common
    return out


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


def _per_pattern(plan: Plan) -> list[str]:
    return [name for name in ("n", "exposure", "s", "q") if name in plan.fields]


def _single(plan: Plan) -> list[str]:
    return [n for n in ("cross", "outcome", "rows", "squares", "saturated", "constant") if n in plan.fields]


def _spread(plan: Plan, name: str, keys: Keys, tables: Posts) -> Array:
    """A field's sum over the sites in every pattern of `keys`."""
    shape = (plan.levels, len(keys)) if name == "s" and plan.levels else (len(keys),)
    stacked = np.zeros((len(tables), *shape))
    for row, table in zip(stacked, tables.values(), strict=True):
        row[..., np.searchsorted(keys, table["keys"])] = table[name]
    whole = name == "n" or plan.family.law in ("binomial", "multinomial")
    # Whole numbers add up exactly in any order.
    return np.asarray(stacked.sum(axis=0)) if whole else linalg.total(stacked)


def _cross_of(x: Array, s: Array) -> Array:
    return cross(x, s) if s.ndim == 1 else np.stack([cross(x, row) for row in s])


# The result


def fit_of(plan: Plan, model: Payload, learner: str, sites: tuple[str, ...]) -> Fit:
    """The result, from the server's post."""
    n, deviance = float(model["n"]), float(model["deviance"])
    family = plan.family
    likelihood: float | None = float(model["likelihood"])
    if family.law == "gaussian":
        likelihood = -0.5 * n * (np.log(2 * np.pi * deviance / n) + 1.0)
    terms = (*(f"site[{s}]" for s in sites), *plan.design.names[1:]) if plan.site_intercepts else plan.terms
    return Fit(
        learner=learner,
        family=family.name,
        link=family.link,
        terms=terms,
        estimates=np.asarray(model["estimates"]),
        covariance=np.asarray(model["covariance"]),
        n=int(n),
        events=int(model["outcome"]) if family.law == "binomial" else None,
        rounds=1,
        converged=True,
        dispersion=float(model["dispersion"]),
        dispersion_known=family.dispersion is None,
        deviance=deviance,
        null_deviance=float(model["null_deviance"]) if "null_deviance" in model else None,
        # A quasi family has no likelihood.
        log_likelihood=None if family.dispersion == "pearson" else likelihood,
        ratio=RATIOS.get(family.link, ""),
        details={"patterns": plan.grid.size, "steps": int(model["steps"])},
    )


def with_diagnostics(plan: Plan, fit: Fit, tables: Posts, where: str = "at a site") -> Fit:
    """The result with what else the tables tell: suppression, heterogeneity of the sites, discrimination."""
    details, notes = dict(fit.details), list(fit.notes)
    if plan.floor:
        found = diagnostics.suppressed({name: t["suppressed"] for name, t in tables.items()}, tables, fit.n)
        details["suppression"] = {"floor": plan.floor, "mode": "drop" if plan.drops else "impute", **found}
        notes += diagnostics.suppression_notes(details["suppression"], where)
    elif not plan.tally.exposure:
        notes += diagnostics.small_cell_notes({name: t["n"] for name, t in tables.items()}, where)
    if not plan.site_intercepts and not plan.options.firth:
        details |= heterogeneity(plan, tables)
    if plan.cells and plan.family.law == "binomial":
        details |= predictions(plan, fit, tables)
    return replace(fit, details=details, notes=tuple(notes))


def predictions(plan: Plan, fit: Fit, tables: Posts) -> dict[str, Any]:
    """Discrimination and calibration of the fit on the rows that it was made of."""
    predictors, rows, events = [], [], []
    for k, table in enumerate(tables.values()):
        raw = plan.grid.raw(plan.design, table["keys"])
        if plan.site_intercepts:
            sites = len(tables)
            predictors.append(fit.estimates[k] + raw[:, 1:] @ fit.estimates[sites:])
        else:
            predictors.append(raw @ fit.estimates)
        rows.append(table["n"].astype(np.float64))
        events.append(table["s"])
    eta = np.concatenate(predictors)
    mean = plan.family.curve(eta).mean
    return diagnostics.predictions(eta, mean, np.concatenate(rows), np.concatenate(events), len(fit.terms))


def heterogeneity(plan: Plan, tables: Posts) -> dict[str, Any]:
    """Whether the sites agree: a test of site intercepts, and Cochran's Q of each coefficient over their own fits."""
    if len(tables) < 2:
        return {}
    own: dict[str, tuple[Array, Array]] = {}
    for name, table in tables.items():
        with suppress(LearnerError):  # a site that cannot carry the model by itself
            found = estimate(summed(plan, {name: table}), replace(plan.choice, limit=OWN_FIT_STEPS))
            carry = back(plan)
            own[name] = carry @ found.beta, np.diag(carry @ found.covariance @ carry.T)
    out = diagnostics.cochran(plan.terms, own, tuple(tables))
    if plan.design.formula.intercept and not plan.levels and plan.family.dispersion is None:
        with suppress(LearnerError):
            joint, apart = (estimate(t, plan.choice) for t in (summed(plan, tables), by_site(plan, tables)))
            out["site_intercepts"] = diagnostics.likelihood_ratio(joint.likelihood, apart.likelihood, len(tables) - 1)
    return {"heterogeneity": out}


# What a table may look like, and which studies COLA-GLM can run


def check_table(plan: Plan, table: Payload) -> None:
    """ProtocolError if no rows could have this table."""
    keys = table["keys"]
    if len(keys) and not (np.all(np.diff(keys) > 0) and keys[0] >= 0 and keys[-1] < plan.grid.size):
        raise ProtocolError("CO-P511", "The pattern numbers do not ascend within the study's grid.")
    uneven = [name for name in _per_pattern(plan) if np.shape(table[name])[-1] != len(keys)]
    if uneven:
        raise ProtocolError("CO-P512", f"The table has {len(keys)} patterns, but not as many {', '.join(uneven)}.")
    largest = max(float(np.max(np.abs(np.asarray(v, float)), initial=0.0)) for v in table.values())
    if not largest < HUGE:
        raise ProtocolError("CO-P505", f"A sum of {largest:.3g} cannot come from rows.")
    u = np.asarray(table["exposure" if plan.tally.exposure else "n"], dtype=np.float64)
    least = 0.0 if plan.tally.exposure else 1.0
    rows = int(table.get("rows", 1))
    if np.any(u < least) or (plan.tally.exposure and (np.any(u <= 0) or rows < len(keys))):
        raise ProtocolError("CO-P503", "A pattern that is listed has no rows.")
    if u.sum() > MOST_ROWS or rows > MOST_ROWS:
        raise ProtocolError("CO-P503", f"{max(u.sum(), rows):.3g} cannot be a number of rows.")
    if np.any(np.asarray(table.get("suppressed", 0)) < 0):
        raise ProtocolError("CO-P503", "A negative number of rows was left out.")
    _check_outcomes(plan, table, u)


def _check_outcomes(plan: Plan, table: Payload, u: Array) -> None:
    outcome = np.atleast_1d(table["outcome"])
    law = plan.family.law
    if law != "gaussian" and (np.any(outcome < 0) or np.any(outcome != np.rint(outcome))):
        raise ProtocolError("CO-P504", f"{outcome.min():.6g} events cannot come from rows.")
    if law in ("binomial", "multinomial") and plan.drops and outcome.sum() > u.sum():
        raise ProtocolError("CO-P504", f"{outcome.sum():.6g} events cannot come from {u.sum():.6g} rows.")
    if "s" in table:
        _check_sums(plan, table, u)
    elif law in ("binomial", "multinomial") and plan.drops:
        raw = plan.grid.raw(plan.design, table["keys"])
        low, high = u @ np.minimum(raw, 0.0), u @ np.maximum(raw, 0.0)
        slack = ROUNDING * (1.0 + np.maximum(-low, high))
        if np.any(table["cross"] < low - slack) or np.any(table["cross"] > high + slack):
            raise ProtocolError("CO-P513", "X'y does not fit the patterns and their rows.")


def _check_sums(plan: Plan, table: Payload, u: Array) -> None:
    s = np.atleast_2d(table["s"])
    law = plan.family.law
    if law != "gaussian" and (np.any(s < 0) or np.any(s != np.rint(s))):
        raise ProtocolError("CO-P504", "A pattern has a number of events that rows cannot have.")
    if law in ("binomial", "multinomial") and np.any(s.sum(axis=0) > u):
        raise ProtocolError("CO-P504", "A pattern has more events than rows.")
    if not np.allclose(s.sum(axis=1), np.atleast_1d(table["outcome"]), rtol=ROUNDING, atol=ROUNDING):
        raise ProtocolError("CO-P513", "The patterns' outcomes do not add up to the outcome's sum.")
    if "q" in table and np.any(table["q"] < 0):
        raise ProtocolError("CO-P513", "A sum of squares is negative.")


def check_plan(plan: Plan) -> None:
    """StudyError for a model that no table can give, in any form of COLA-GLM."""
    formula, family, options = plan.design.formula, plan.family, plan.options
    outcome = plan.design.outcome
    if outcome.type not in family.outcomes:
        told = f"A {family.name} model needs an outcome of type {' or '.join(family.outcomes)}"
        raise StudyError("CO-S301", f"{told}; {formula.outcome!r} is declared as {outcome.type}.")
    if family.law == "poisson" and outcome.bounds[0] < 0:
        raise StudyError("CO-S302", f"A count is never negative; the range of {formula.outcome!r} begins below 0.")
    if formula.offset and family.law in ("binomial", "multinomial"):
        raise StudyError("CO-S304", "An offset needs the log or the identity link.")
    if not plan.design.columns:
        raise StudyError("CO-S201", "The formula makes no columns.")
    if options.firth and ((family.name, family.link) != ("binomial", "logit") or options.robust):
        raise StudyError("CO-S314", "firth is for a binomial model with the logit link, without robust.")
    if options.robust and (plan.tally.exposure or plan.levels):
        raise StudyError("CO-S314", "robust needs a model without exposure, of one outcome.")
    _ = plan.grid.size


def check_study(study: Study) -> None:
    """StudyError for a study that COLA-GLM cannot run."""
    plan = Plan.of(study)
    check_plan(plan)
    if plan.site_intercepts and (not plan.design.formula.intercept or plan.levels or len(study.sites) < 2):
        raise StudyError("CO-S315", "site_intercepts needs an intercept, one outcome, and two sites or more.")
    if not plan.drops and (not plan.floor or plan.cells or plan.tally.exposure or plan.levels):
        told = 'suppress = "impute" needs a floor (disclosure.cell), and a model that counts and X\'y suffice for'
        raise StudyError("CO-S316", f'{told} (a canonical link, no offset, no cells). Use suppress = "drop".')


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


COLA = Learner("cola", VERSION, ColaOptions, check_study, schedule, cola, reads="codes", trust=trust)
