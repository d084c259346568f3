"""Marginal standardisation: the mean that a fitted model gives if everybody had one level of a variable.

Lane and Nelder, Biometrics 1982;38:613-621. With mu(x) the model's mean, the standardised mean of level a is the
average of mu(x_i with a) over all rows; differences between levels are average marginal effects. Their errors follow by
the delta method from the covariance of the coefficients, the rows' covariates taken as they are: each needs the average
derivative of mu by the coefficients. So one round of sums after the fit has all that is needed: k means and k p
derivatives.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie_learners.core.disclosure import PATTERNS, Exposure
from coterie_learners.core.fit import LEVEL, Fit
from coterie_learners.core.masked_sum import SiteSums, size_of
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Posts, Site, Step, each, server
from coterie_learners.core.study_disclosure import Disclosure, Protection, StepDisclosure
from coterie_learners.errors import ProtocolError, StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import normal_quantile, t_quantile
from coterie_learners.study.design import Column, Design, Factor
from coterie_learners.study.elsewhere import over_blocks
from coterie_learners.study.rows import Block
from coterie_learners.sums.opening.counts import describe_pool
from coterie_learners.sums.sums_disclosure import list_patterns

if TYPE_CHECKING:
    from coterie_learners.glore.glore import GlorePlan

_WHAT = "Sums over its rows of the model's means, and of their derivatives, with everybody at each level of {name}"
_SOLVABLE = ("If no more patterns of covariates occur than numbers are posted, readers can solve each's patients.",)
# Sums of means of all sites may differ from what rows have by so much of themselves.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class LevelColumns:
    """How the columns of a design come out where everybody has one level of a variable.

    `parts`: by column of the variable, the column of the rest of its product (None: 1) and the variable's factor.
    """

    name: str
    levels: tuple[str, ...]
    parts: tuple[tuple[int, int | None, Factor], ...]

    @classmethod
    def of(cls, design: Design, name: str) -> LevelColumns:
        """The columns of a binary or category variable; StudyError where the rest of a product is no column."""
        variable = design.study.variables.get(name)
        if variable is None or variable.type not in ("binary", "category") or name not in design.by_term:
            message = f"`standardise` names {name!r}, which is no binary or category term of the formula by itself"
            raise StudyError("CO-S355", f"{message}. Name a treatment or a group of the formula.")
        places = {frozenset(c.factors): j for j, c in enumerate(design.columns)}
        parts = tuple(_find_rest(design, places, name, j, c) for j, c in enumerate(design.columns) if _holds(c, name))
        return cls(name, variable.levels or ("0", "1"), parts)

    def set_level(self, block: Block, k: int) -> Block:
        """Rows in the variables' own units with everybody at level k."""
        x = np.array(block.x, order="F")
        for j, rest, factor in self.parts:
            value = float(k) if factor.level is None else float(factor.level == k)
            x[:, j] = value if rest is None else value * block.x[:, rest]
        return replace(block, x=x)


def _holds(column: Column, name: str) -> bool:
    return any(factor.variable == name for factor in column.factors)


def _find_rest(
    design: Design, places: dict[frozenset[Factor], int], name: str, j: int, column: Column
) -> tuple[int, int | None, Factor]:
    (own,) = (factor for factor in column.factors if factor.variable == name)
    rest = frozenset(factor for factor in column.factors if factor.variable != name)
    if rest and rest not in places:
        message = f"The formula has {column.name} without the rest of that product as a term"
        raise StudyError("CO-S355", f"{message}, so that it cannot be standardised over {name}. Add the term.")
    return j, places[rest] if rest else None, own


def standardise_means(plan: GlorePlan, rounds: int, model: Payload, last: bool) -> Generator[Step, Posts, Payload]:
    """The pooled sums of means and derivatives at the fit. `last`: whether their post ends the study."""
    columns = LevelColumns.of(plan.design, plan.options.standardise)
    sums = SiteSums(shape_means(plan, columns), plan.masked)
    judge = partial(expose_means, plan, rounds, sums)
    posts = yield from each("standardised", share_means, plan, columns, sums, model, expects=sums.form, reveals=judge)
    return (yield from server("standardised_means", pool_means, plan, sums, model, last, posts))


def shape_means(plan: GlorePlan, columns: LevelColumns) -> dict[str, tuple[int, ...]]:
    """Shapes of a site's sums."""
    k = len(columns.levels)
    return {"means": (k,), "slopes": (k, plan.p), "mass": ()}


def share_means(site: Site, plan: GlorePlan, columns: LevelColumns, sums: SiteSums, model: Payload) -> Payload:
    """This site's sums of means (k,) and of their derivatives by the frame's coefficients (k, p), and its weight."""
    out = {name: np.zeros(shape) for name, shape in shape_means(plan, columns).items()}
    frame, family = plan.frame(model), plan.model.at_state(model).family

    def sum_block(block: Block) -> dict[str, Any]:
        part = {name: np.zeros(shape) for name, shape in shape_means(plan, columns).items()}
        for k in range(len(columns.levels)):
            here = plan.model.weigh(frame.block(columns.set_level(block, k)))
            own = np.ones(len(here)) if here.weight is None else here.weight
            eta = here.x @ model["beta"]
            low, high = family.probes
            first, second = (family.parts(eta, np.full(len(here), y)) for y in (low, high))
            rise = (second.residual - first.residual) / (high - low) * family.variance(first.mean)
            part["means"][k] = first.mean @ own
            part["slopes"][k] = here.x.T @ (rise * own)
        return part | {"mass": own.sum()}

    for part in over_blocks(sum_block, plan.rows_of(site)):
        out = {name: out[name] + part[name] for name in out}
    return sums.post(site, "standardised", out)


def expose_means(plan: GlorePlan, rounds: int, sums: SiteSums, site: Site, payload: Payload) -> Exposure:
    """What readers can solve from one site's sums, after those of so many rounds."""
    rows = plan.rows_of(site)
    exposure = Exposure(what="Sums of standardised means", rows=rows.n, parties=len(site.parties))
    if plan.masked:
        return describe_pool(replace(exposure, sums_only=True), plan.pooled)
    own = size_of(sums.shapes)
    patterns = list_patterns(plan.design, rows, rounds * size_of(plan.model.shapes("first")) + own)
    return replace(exposure, cells=patterns, kinds=dict.fromkeys(patterns, PATTERNS), by_columns=True, numbers=own)


def pool_means(plan: GlorePlan, sums: SiteSums, model: Payload, last: bool, posts: Posts) -> Payload:
    """What the server posts: the sums over all sites; ProtocolError if they are of other rows than the fit's."""
    pooled, mass = sums.add(posts), float(model["weight" if plan.model.weighs else "n"])
    if abs(float(pooled["mass"]) - mass) > _ROUNDING * mass:
        message = f"The standardised means weigh {float(pooled['mass']):.8g}, and the fit {mass:.8g}"
        raise ProtocolError("CO-P508", f"{message}: they are not of the same rows.")
    return {**pooled, "converged": np.bool_(last)}


def add_means(plan: GlorePlan, fit: Fit, model: Payload, pooled: Payload, sandwich: Array | None) -> Fit:
    """The fit with the standardised means and their differences. `sandwich`: a root of another covariance."""
    columns, frame = LevelColumns.of(plan.design, plan.options.standardise), plan.frame(model)
    root = np.asarray(model["root"]) * np.sqrt(fit.dispersion / frame.deviance_unit) if sandwich is None else sandwich
    mass = float(pooled["mass"])
    means = frame.outcome_centre + frame.outcome_scale * np.asarray(pooled["means"]) / mass
    leads = frame.outcome_scale * np.asarray(pooled["slopes"]) @ root / mass
    freedom = None if fit.dispersion_known else fit.df_residual
    quantile = normal_quantile(0.5 + LEVEL / 2) if freedom is None else t_quantile(0.5 + LEVEL / 2, freedom)
    lines = list(_list_lines(columns, means, leads, quantile))
    details = {"variable": columns.name, "level": LEVEL, "lines": lines}
    notes = tuple(f"{_write_line(columns.name, line)} [{line['low']:.4g}, {line['high']:.4g}]." for line in lines)
    return replace(fit, notes=(*fit.notes, *notes), details={**fit.details, "standardised": details})


def _list_lines(columns: LevelColumns, means: Array, leads: Array, quantile: float) -> Iterator[dict[str, Any]]:
    """The mean of each level, then the difference of each from the first."""
    whole = [("mean", level, means[k], leads[k]) for k, level in enumerate(columns.levels)]
    apart = [("difference", level, m - means[0], lead - leads[0]) for _, level, m, lead in whole[1:]]
    for kind, level, value, lead in (*whole, *apart):
        error = float(np.sqrt(lead @ lead))
        ends = {"low": float(value) - quantile * error, "high": float(value) + quantile * error}
        yield {"kind": kind, "at": level, "value": float(value), "std_error": error, **ends}


def _write_line(name: str, line: dict[str, Any]) -> str:
    what = "Standardised mean" if line["kind"] == "mean" else "Difference of standardised means"
    return f"{what}, {name} = {line['at']}: {line['value']:.6g}"


# Which studies can have them


def check_standardised(plan: GlorePlan) -> None:
    """StudyError for a study whose fit cannot be standardised here."""
    LevelColumns.of(plan.design, plan.options.standardise)
    if plan.design.formula.offset or plan.options.site_intercepts or plan.options.ridge:
        message = "Standardised means are of a model without offset, ridge and site_intercepts"
        raise StudyError("CO-S355", f"{message}. Leave out standardise, or these.")
    if plan.study.ledger.silent_site == "exclude":
        message = "The fit of all sites and means of fewer would not belong together"
        raise StudyError("CO-S306", f'{message}. Set silent_site = "wait" or "abort".')


def disclose_means(disclosure: Disclosure, masked: bool, name: str) -> Disclosure:
    """What the rounds disclose, with those of the means before the conclusion."""
    *steps, end = disclosure.steps
    protection: Protection = "masked" if masked else "plain"
    rebuilds = () if masked else _SOLVABLE
    what = _WHAT.format(name=name)
    means = StepDisclosure("standardised", "each", what, None, protection, rebuilds, cells=(PATTERNS,))
    after = StepDisclosure("standardised_means", "server", "These sums over all sites")
    return replace(disclosure, steps=(*steps, means, after, end))
