"""Made-up data of a study's shape: its sites, variables, ranges and levels, and an outcome that depends on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from coterie_learners.core.registry import learner_of
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study, Variable
from coterie_learners.study.rows import ArrayCodes, ArrayRows, Block, Data, OwnColumns

EFFECT = 0.4


@dataclass(frozen=True)
class SyntheticRows:
    """Data of every site that holds any, as the study's learner reads them, and all rows of the whole design."""

    sites: Mapping[str, Data]
    rows: Sequence[Block]


def simulate_cohort(study: Study, n: int, rng: np.random.Generator) -> SyntheticRows:
    """`n` rows for each site, of the study's variables; of the same patients where columns are split."""
    design = Design(study)
    beta = rng.normal(0.0, EFFECT, len(design.columns))
    if study.columns:
        codes = _codes(design, beta, n, rng)
        holders = [name for name in study.sites if study.columns[name]]
        return SyntheticRows({name: _part(study, name, codes, n) for name in holders}, [design.block(codes)])
    drawn = {name: _codes(design, beta, n, rng) for name in study.sites}
    blocks = {name: design.block(codes) for name, codes in drawn.items()}
    if learner_of(study).reads == "codes":
        return SyntheticRows({name: ArrayCodes(codes) for name, codes in drawn.items()}, list(blocks.values()))
    return SyntheticRows({name: ArrayRows(b.x, b.y, b.offset) for name, b in blocks.items()}, list(blocks.values()))


def draw(design: Design, beta: Array, n: int, rng: np.random.Generator) -> Block:
    """`n` rows of a study's variables, with an outcome that depends on them by `beta` (p,) on the inside scale."""
    return design.block(_codes(design, beta, n, rng))


def _codes(design: Design, beta: Array, n: int, rng: np.random.Generator) -> dict[str, Array]:
    grids = design.study.learner.options.get("grids", {})
    variables = design.study.variables
    codes = {name: _values(variables[name], grids.get(name, ()), n, rng) for name in design.variables}
    block = design.block(codes)
    eta = block.x @ beta + (0.0 if block.offset is None else block.offset)
    return {**codes, design.formula.outcome: _outcome(design.study, design.outcome, eta, rng)}


def _part(study: Study, site: str, codes: Mapping[str, Array], n: int) -> OwnColumns:
    design = Design(study, site)
    people = tuple((f"made-up {k}",) * len(study.identifier) for k in range(n))
    outcome, offset = (
        codes[name] if name is not None and name in study.columns[site] else None
        for name in (design.formula.outcome, design.formula.offset)
    )
    return OwnColumns(people, design.names, design.matrix(codes, n), outcome, offset)


def _values(variable: Variable, grid: Sequence[float], n: int, rng: np.random.Generator) -> Array:
    low, high = variable.bounds
    if grid:
        return rng.choice(np.array(grid, dtype=np.float64), n)
    if variable.type == "category":
        return rng.integers(0, len(variable.levels), n).astype(np.float64)
    if variable.type == "binary":
        return (rng.random(n) < 0.5).astype(np.float64)
    drawn = np.clip(rng.normal((low + high) / 2.0, (high - low) / 6.0, n), low, high)
    return np.round(drawn) if variable.type == "count" else drawn


def _outcome(study: Study, variable: Variable, eta: Array, rng: np.random.Generator) -> Array:
    low, high = variable.bounds
    family = study.learner.options.get("family", "binomial")
    if family == "binomial":
        return (rng.random(len(eta)) < special.expit(eta)).astype(np.float64)
    if family == "poisson":
        return np.clip(rng.poisson(np.exp(np.minimum(eta, 10.0))), low, high).astype(np.float64)
    drawn = np.clip((low + high) / 2.0 + (high - low) / 8.0 * (eta + rng.normal(size=len(eta))), low, high)
    return np.round(drawn) if variable.type == "count" else drawn
