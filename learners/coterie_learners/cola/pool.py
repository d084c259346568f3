"""The sum of the sites' tables as the estimation takes it, and coefficients back in the variables' own units."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coterie_learners.cola.model.likelihood import Grouped
from coterie_learners.cola.plan import TablePlan
from coterie_learners.cola.tables.patterns import Keys
from coterie_learners.core.protocol import Posts
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.pairwise_sum import weighted_sum


def sum_tables(plan: TablePlan, tables: Posts) -> Grouped:
    """The sum of the tables: patterns by number, whichever sites have them."""
    keys = np.unique(np.concatenate([t["keys"] for t in tables.values()]))
    spread = {name: _spread(plan, name, keys, tables) for name in plan.per_pattern}
    single = {name: linalg.total([t[name] for t in tables.values()]) for name in plan.single}
    return group_table(plan, keys, spread, single)


def group_table(plan: TablePlan, keys: Keys, spread: Mapping[str, Array], single: Mapping[str, Array]) -> Grouped:
    """A pooled table by field, as the estimation takes it."""
    x = plan.grid.matrix(plan.design, keys)
    u = spread["exposure"] if plan.tally.exposure else spread["n"]
    n = float(single["rows"]) if plan.tally.exposure else float(np.sum(u.astype(np.int64)))
    s = spread.get("s")
    inside = _cross_of(x, s) if s is not None else scale_cross_products(plan, np.asarray(single["cross"]))
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


def stack_by_site(plan: TablePlan, tables: Posts) -> Grouped:
    """The tables one below the other, with an intercept for each site in place of the common one."""
    parts = [sum_tables(plan, {name: table}) for name, table in tables.items()]
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


def scale_cross_products(plan: TablePlan, cross: Array) -> Array:
    """X'y of the variables' own units on the inside scale."""
    columns = plan.design.columns
    centre, scale = np.array([c.centre for c in columns]), np.array([c.scale for c in columns])
    return np.asarray((cross - cross[..., :1] * centre) / scale)


def back_transform(plan: TablePlan, sites: int = 0) -> Array:
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


def _spread(plan: TablePlan, name: str, keys: Keys, tables: Posts) -> Array:
    """A field's sum over the sites in every pattern of `keys`."""
    shape = (plan.levels, len(keys)) if name == "s" and plan.levels else (len(keys),)
    stacked = np.zeros((len(tables), *shape))
    for row, table in zip(stacked, tables.values(), strict=True):
        row[..., np.searchsorted(keys, table["keys"])] = table[name]
    whole = name == "n" or plan.family.law in ("binomial", "multinomial")
    # Whole numbers add up exactly in any order.
    return np.asarray(stacked.sum(axis=0)) if whole else linalg.total(stacked)


def _cross_of(x: Array, s: Array) -> Array:
    return weighted_sum(x, s) if s.ndim == 1 else np.stack([weighted_sum(x, row) for row in s])
