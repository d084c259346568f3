"""Synthetic data of a study's shape: its sites, variables, ranges and levels, and an outcome that depends on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coterie_learners.core.registry import learner_of
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import IN_EVALUATION, IdentifierKind, Study, Variable
from coterie_learners.study.rows import ArrayCodes, ArrayRows, Block, Data, OwnColumns
from coterie_learners.study.time_columns import list_time_columns
from coterie_learners.sums.families import choose_family
from coterie_learners.sums.family import Family

EFFECT = 0.4
# The share of rows that a condition of the evaluation chooses.
EVALUATED = 0.3
# Real columns fill little of the ranges that people declare for them, lie away from the middle, and are correlated.
CONCENTRATED, AWAY, CORRELATION = 1 / 200, 0.2, 0.5


@dataclass(frozen=True)
class SyntheticRows:
    """Data of every site that holds any, as the study's learner reads them, and all rows of the whole design."""

    sites: Mapping[str, Data]
    rows: Sequence[Block]


def simulate_cohort(
    study: Study, n: int | Mapping[str, int], rng: np.random.Generator, events: float | None = None
) -> SyntheticRows:
    """`n` rows for each site, of the study's variables; of the same patients where columns are split.

    `n` may differ by site (where columns are split, the first site's counts). `events`: how often the outcome occurs
    per row, on average; by default as it falls.
    """
    design = Design(study)
    sizes = dict.fromkeys(study.sites, n) if isinstance(n, int) else n
    beta = rng.normal(0.0, EFFECT, len(design.columns))
    if study.columns:
        n = sizes[study.sites[0]]
        codes = _codes(design, beta, n, rng, events)
        return SyntheticRows({name: _part(study, name, codes, n) for name in study.owners}, [design.block(codes)])
    drawn = {name: _codes(design, beta, sizes[name], rng, events) for name in study.owners}
    blocks = {name: design.block(codes) for name, codes in drawn.items()}
    if learner_of(study).reads != "rows":
        return SyntheticRows({name: ArrayCodes(codes) for name, codes in drawn.items()}, list(blocks.values()))
    return SyntheticRows({name: ArrayRows.of(b) for name, b in blocks.items()}, list(blocks.values()))


def draw(design: Design, beta: Array, n: int, rng: np.random.Generator) -> Block:
    """`n` rows of a study's variables, with an outcome that depends on them by `beta` (p,) on standardised columns."""
    return design.block(_codes(design, beta, n, rng))


def _codes(
    design: Design, beta: Array, n: int, rng: np.random.Generator, events: float | None = None
) -> dict[str, Array]:
    grids = design.study.learner.options.get("grids", {})
    variables = design.study.variables
    shared = rng.normal(size=n)
    codes = {name: _values(variables[name], grids.get(name, ()), shared, rng) for name in design.inputs}
    codes |= _draw_times(design.study, n, rng)
    if design.study.evaluate.where:
        codes[IN_EVALUATION] = (rng.random(n) < EVALUATED).astype(np.float64)
    block = design.block(codes)
    eta = _standardise(block.x) @ beta
    if block.offset is not None and design.formula.outcome in codes:
        eta = eta + (block.offset - block.offset.mean())
    if events is not None:
        eta = eta + _family_of(design.study).shift_to(eta, events)
    drawn = {**codes, design.formula.outcome: _outcome(design.study, design.outcome, eta, rng)}
    return {name: np.asarray(values) for name, values in design.derive(drawn).items()}


def _draw_times(study: Study, n: int, rng: np.random.Generator) -> dict[str, Array]:
    """Times over all of their range, and entries before them, where the study names a time to an event."""
    options = study.learner.options
    if not list_time_columns(study):
        return {}
    low, high = study.variables[options["time"]].bounds
    times = {options["time"]: low + (high - low) * (1.0 - rng.random(n))}
    if options.get("entry"):
        times[options["entry"]] = times[options["time"]] * 0.5 * rng.random(n)
    return times


def _family_of(study: Study) -> Family:
    first = next(iter(study.by_model.values()), study).learner.options
    return choose_family(first.get("family", "binomial"), first.get("link"))


def _standardise(x: Array) -> Array:
    """Columns (n, p) in units of their spread about their means, so that effects do not depend on ranges."""
    spread = x.std(axis=0)
    return np.asarray(np.where(spread > 0.0, (x - x.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0), x))


def _part(study: Study, site: str, codes: Mapping[str, Array], n: int) -> OwnColumns:
    design = Design(study, site)
    forms = study.identifying.values()
    people = tuple(tuple(_draw_identifier(kind, k) for kind in forms) for k in range(n))
    outcome, offset = (
        codes[name] if name is not None and name in study.columns[site] else None
        for name in (design.formula.outcome, design.formula.offset)
    )
    return OwnColumns(people, design.names, design.matrix(codes, n), outcome, offset)


def _draw_identifier(kind: IdentifierKind, k: int) -> str:
    """The k-th person's value of an identifying column."""
    if kind.startswith("date"):
        return f"{1900 + k // 336 % 100}-{k // 28 % 12 + 1:02d}-{k % 28 + 1:02d}"
    return str(k) if kind in ("number", "check-digit") else f"synthetic {k}"


def _values(variable: Variable, grid: Sequence[float], shared: Array, rng: np.random.Generator) -> Array:
    """Values (n,): measurements fill a small part of their range, away from its middle, and go together by `shared`."""
    (low, high), n = variable.bounds, len(shared)
    if grid:
        return rng.choice(np.array(grid, dtype=np.float64), n)
    if variable.type == "category":
        return rng.integers(0, len(variable.levels), n).astype(np.float64)
    if variable.type == "binary":
        return (rng.random(n) < 0.5).astype(np.float64)
    size = math.sqrt(1.0 - CORRELATION) * rng.normal(size=n) + math.sqrt(CORRELATION) * shared
    narrow = max((high - low) * CONCENTRATED, 1.5 if variable.type == "count" else 0.0)
    drawn = np.clip(low + AWAY * (high - low) + narrow * size, low, high)
    return np.round(drawn) if variable.type == "count" else drawn


def _outcome(study: Study, variable: Variable, eta: Array, rng: np.random.Generator) -> Array:
    family = _family_of(study)
    if not family.by_rows or variable.type == "category":  # a level for each part of what a logistic outcome may be
        cuts = np.arange(1, len(variable.levels)) / len(variable.levels)
        return np.digitize(eta + rng.logistic(size=len(eta)), np.log(cuts / (1.0 - cuts))).astype(np.float64)
    outcome = family.draw(eta, variable.bounds, rng)
    return np.round(outcome) if variable.type == "count" else outcome
