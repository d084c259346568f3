"""What the plain sums of a Newton-Raphson round disclose: GLORE's score and information at known coefficients.

The first look is X'X and X'y: every two-way table of the 0/1 columns and with a binary outcome, exactly. Each later
round adds as many linear equations on the counts of patients by
pattern of covariates, with other weights; where few patterns occur they soon determine those counts one by one. A
reader is taken to know which patterns occur at the site.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from coterie_learners.core.disclosure import PATTERNS, Exposure, indicators, two_way
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Site
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.linalg import symmetric
from coterie_learners.study.design import INTERCEPT, Design
from coterie_learners.study.elsewhere import over_blocks
from coterie_learners.study.rows import Block, Rows
from coterie_learners.sums.family import Family
from coterie_learners.sums.rounds import sum_rows

# More patterns than this are not searched; no round of a study that small in rows determines them.
_MAX_PATTERNS = 500
# A fraction of the largest singular value; smaller ones are rounding to the reader who solves the equations.
_DETERMINED = 1e-9


View = Array | None


def expose_sums(
    design: Design, family: Family, path: Sequence[View], site: Site, sums: Payload, profiled: bool = False
) -> Exposure:
    """What readers can solve from a site's plain sums after the views of `path`.

    A view is the coefficients (p,) in the variables' own units at which sums are taken, or None for moments.
    `profiled`: about the site's own means, from which and from the number of rows the counts of levels follow too.
    """
    plain = _without_weights(site.rows, sums) if design.weights or profiled else sums
    cells, kinds = _tables(design, family, plain) if len(path) == 1 and path[0] is None else ({}, {})
    patterns = _find_determined(design, family, path, site.rows)
    if family.shaped and path[-1] is not None:
        by_value = _count_values(design, site.rows)
        cells, kinds = cells | by_value, kinds | dict.fromkeys(by_value, f"values of {design.formula.outcome}")
    return Exposure(
        what=f"Sums of round {len(path)} (score, information, counts)",
        rows=int(np.asarray(plain["n"])),
        events=int(np.asarray(plain["outcome"])) if family.has_events else None,
        parameters=len(design.columns),
        cells=cells | patterns,
        kinds=kinds | dict.fromkeys(patterns, PATTERNS),
        by_columns=True,
    )


def _count_values(design: Design, rows: Rows) -> dict[str, int]:
    """How many have each value of a count: sums of functions of it at several shapes tell in the end."""
    counts: Counter[float] = Counter()
    for part in over_blocks(_count_block_values, rows):
        counts.update(part)
    return {f"{design.formula.outcome}={v:g}": counts[v] for v in sorted(counts)}


def _count_block_values(block: Block) -> dict[float, int]:
    values, counts = np.unique(block.y, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _without_weights(rows: Rows, sums: Payload) -> Payload:
    """The same moments with rows in place of weights: weights of one would make the sums these counts."""
    parts = list(over_blocks(_sum_moments, rows))
    gram = np.asarray(sum(gram for gram, _, _ in parts))
    moments = {
        "information": gram[np.triu_indices(len(gram))],
        "score": np.sum([score for _, score, _ in parts], axis=0),
        "n": np.asarray(float(rows.n)),
        "outcome": np.asarray(sum(outcome for _, _, outcome in parts)),
    }
    return {**sums, **moments}


def _sum_moments(block: Block) -> tuple[Array, Array, float]:
    return block.x.T @ block.x, block.x.T @ block.y, float(block.y.sum())


def expose_meat(design: Design, family: Family, path: Sequence[View], site: Site) -> Exposure:
    """What readers can solve from the middle of a site's sandwich at the last view, after the sums of all views."""
    patterns = _find_determined(design, family, path, site.rows, squares=True)
    return Exposure(
        what="Sum of squared scores, and the test of agreement",
        rows=site.rows.n,
        parameters=0,
        cells=patterns,
        kinds=dict.fromkeys(patterns, PATTERNS),
        by_columns=True,
        numbers=len(design.columns) * (len(design.columns) + 1) // 2,
    )


def list_patterns(design: Design, rows: Rows, numbers: int) -> dict[str, int]:
    """Patients by pattern of covariates, and events among them, if no more patterns occur than numbers are posted.

    As many equations as patterns are taken to determine all of these.
    """
    listed_rows = _patterns(rows, numbers)
    if listed_rows is None:
        return {}
    names = [_name(design, row) for row in listed_rows[0]]
    cells = {name: round(float(n)) for name, n in zip(names, listed_rows[1][:, 0], strict=True)}
    if design.outcome.type == "binary":
        events = zip(names, listed_rows[1][:, 1], strict=True)
        cells |= {f"{name} & {design.formula.outcome}=1": round(float(n)) for name, n in events}
    return cells


def expose_masked_sums(design: Design, family: Family, path: Sequence[View], site: Site, rows: Rows) -> Exposure:
    """What leaves under masks: nothing of this site alone. Its events are counted once, for the floor on them."""
    binary = family.has_events and len(path) == 1
    return Exposure(
        what=f"Masked sums of round {len(path)} (score, information, counts)",
        rows=rows.n,
        events=round(sum(over_blocks(_sum_outcome, rows))) if binary else None,
        parameters=len(design.columns) if len(path) == 1 else 0,
        sums_only=True,
        parties=len(site.parties),
    )


def _sum_outcome(block: Block) -> float:
    return sum_rows(block.y, block)


def _tables(design: Design, family: Family, sums: Payload) -> tuple[dict[str, int], dict[str, str]]:
    at = indicators(design)
    if not at:
        return {}, {}
    gram = symmetric(np.asarray(sums["information"]), len(design.columns))[np.ix_(at, at)]
    events = None
    if family.has_events:
        events = (float(np.asarray(sums["outcome"])), np.asarray(sums["score"])[at])
    return two_way(design, float(np.asarray(sums["n"])), gram, events)


def _find_determined(
    design: Design, family: Family, path: Sequence[View], rows: Rows, squares: bool = False
) -> dict[str, int]:
    """Patients by pattern, and events among them, as far as the equations of all rounds so far determine each.

    If the sum of an outcome that is no event is determined, the number of its patients takes its place.
    `squares`: squared scores at the last view are summed too.
    """
    p = len(design.columns)
    most = min(_MAX_PATTERNS, len(path) * p * (p + 1) // 2)
    listed_patterns = _patterns(rows, most)
    if listed_patterns is None:
        return {}
    patterns, counts = listed_patterns
    x, offset = (patterns[:, :p], patterns[:, p]) if design.formula.offset else (patterns, np.zeros(len(patterns)))
    equations = _equations(design, family, path, x, offset)
    fixed = _find_fixed(_add_squares(design, family, path[-1], x, offset, equations) if squares else equations)
    names = [_name(design, row) for row in patterns]
    cells = {name: int(counts[k, 0]) for k, name in enumerate(names) if fixed[k]}
    outcome, column = design.formula.outcome, int(family.has_events)
    label = f"& {outcome}=1" if family.has_events else f"whose {outcome} is summed"
    return cells | {f"{t} {label}": int(counts[k, column]) for k, t in enumerate(names) if fixed[len(x) + k]}


def _patterns(rows: Rows, most: int) -> tuple[Array, Array] | None:
    """Distinct rows (m, p) of the design and their numbers of patients and of events (m, 2); None if there are more.

    An offset is one more column.
    """
    seen_patterns: dict[bytes, Array] = {}
    for part in over_blocks(partial(_list_block_patterns, most), rows):
        if part is None or len(seen_patterns.keys() | part.keys()) > most:
            return None
        _add_patterns(seen_patterns, part)
    return np.array([np.frombuffer(key) for key in seen_patterns]), np.array(list(seen_patterns.values()))


def _list_block_patterns(most: int, block: Block) -> dict[bytes, Array] | None:
    """The patterns of one block; None if there are more than `most`."""
    # As many rows as there may be patterns, and a row more, are often enough.
    if len(np.unique(block.x[: most + 1], axis=0)) > most:
        return None
    patterns: dict[bytes, Array] = {}
    whole = block.x if block.offset is None else np.column_stack([block.x, block.offset])
    for cut in np.array_split(np.arange(len(block)), max(len(block) // (4 * most + 4), 1)):
        x, group = np.unique(whole[cut], axis=0, return_inverse=True)
        new = np.stack([np.bincount(group.ravel()), np.bincount(group.ravel(), weights=block.y[cut])], axis=1)
        _add_patterns(patterns, {row.tobytes(): count for row, count in zip(x, new, strict=True)})
        if len(patterns) > most:
            return None
    return patterns


def _add_patterns(patterns: dict[bytes, Array], more: Mapping[bytes, Array]) -> None:
    for key, count in more.items():
        patterns[key] = patterns.get(key, np.zeros(2)) + count


@dataclass(frozen=True)
class ModelPath:
    """One of several models on the same rows, and the views of all its sums so far; `squares`: those of scores too."""

    design: Design
    family: Family
    rows: Rows
    path: Sequence[View]
    squares: bool = False

    @property
    def width(self) -> int:
        """Number of columns, an offset among them."""
        return len(self.design.columns) + bool(self.design.formula.offset)


def solve_jointly(models: Sequence[ModelPath]) -> dict[str, int]:
    """Patients by pattern of all models' columns, and events among them, as far as all equations determine each.

    The unknowns are the patients of each pattern, and for each outcome its sum over them (and of its squares).
    """
    most = sum(len(m.path) * len(m.design.columns) * (len(m.design.columns) + 1) // 2 for m in models)
    most = min(_MAX_PATTERNS, most)
    listed_patterns = _patterns(_SideBySide(models), most)
    if listed_patterns is None:
        return {}
    patterns, counts = listed_patterns
    m = len(patterns)
    outcomes = list(dict.fromkeys(model.design.formula.outcome for model in models))
    ends = np.cumsum([model.width for model in models])
    wide = []
    for model, end in zip(models, ends.tolist(), strict=True):
        own = patterns[:, end - model.width : end]
        p = len(model.design.columns)
        x, offset = own[:, :p], own[:, p] if model.design.formula.offset else np.zeros(m)
        equations = _equations(model.design, model.family, model.path, x, offset)
        if model.squares:
            equations = _add_squares(model.design, model.family, model.path[-1], x, offset, equations)
        wide.append(_place(equations, m, outcomes.index(model.design.formula.outcome), len(outcomes)))
    whole = np.unique(np.vstack(wide), axis=0)
    # A triangle spans what the rows span, and is no larger than the number of unknowns.
    fixed = _find_fixed(np.asarray(np.linalg.qr(whole, mode="r")))
    patients = {f"pattern {k + 1} of all models": int(counts[k, 0]) for k in range(m) if fixed[k]}
    return patients | _list_outcomes(models, fixed, counts[:, 0], most)


def _place(equations: Array, m: int, outcome: int, outcomes: int) -> Array:
    """Equations on patients, an outcome and its squares (k, 2 m or 3 m) among those of all outcomes."""
    out = np.zeros((len(equations), (1 + 2 * outcomes) * m))
    out[:, :m] = equations[:, :m]
    at = (1 + outcome) * m
    out[:, at : at + m] = equations[:, m : 2 * m]
    if equations.shape[1] > 2 * m:
        at += outcomes * m
        out[:, at : at + m] = equations[:, 2 * m :]
    return out


def _list_outcomes(models: Sequence[ModelPath], fixed: Sequence[bool], counts: Array, most: int) -> dict[str, int]:
    """Events by pattern where they are solved; of outcomes that have none the patients (m,) whose sum is solved."""
    out: dict[str, int] = {}
    m = len(counts)
    for k, outcome in enumerate(dict.fromkeys(model.design.formula.outcome for model in models)):
        own = [model for model in models if model.design.formula.outcome == outcome]
        solved = [j for j in range(m) if fixed[(1 + k) * m + j]]
        if not any(model.family.has_events for model in own):
            out |= {f"pattern {j + 1} of all models whose {outcome} is summed": int(counts[j]) for j in solved}
            continue
        listed = _patterns(_SideBySide(models, own[0]), most)
        assert listed is not None
        out |= {f"pattern {j + 1} of all models & {outcome}=1": int(listed[1][j, 1]) for j in solved}
    return out


@dataclass(frozen=True)
class _SideBySide:
    """The columns of several models on the same rows as those of one, with the outcome of one of them."""

    models: Sequence[ModelPath]
    outcome: ModelPath | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.models[0].rows.n

    def blocks(self) -> Iterator[Block]:
        """The rows; the models' blocks are cut at the same places."""
        chosen = self.models[0] if self.outcome is None else self.outcome
        place = next(k for k, model in enumerate(self.models) if model is chosen)
        for blocks in zip(*(model.rows.blocks() for model in self.models), strict=True):
            parts = [b.x if b.offset is None else np.column_stack([b.x, b.offset]) for b in blocks]
            yield Block(np.hstack(parts), blocks[place].y)


def _equations(design: Design, family: Family, path: Sequence[View], raw: Array, offset: Array) -> Array:
    """The linear equations (k, 2 m) of all rounds on patients and events by pattern (m, p) in the variables' units."""
    m, p = raw.shape
    x = design.scale(raw)  # the sums' frames are combinations of these columns
    upper = np.triu_indices(p)
    products, nothing = (x[:, upper[0]] * x[:, upper[1]]).T, np.zeros((len(upper[0]), m))
    parts = [np.hstack([np.ones((1, m)), np.zeros((1, m))])]
    if any(beta is None for beta in path):
        parts += [np.hstack([products, nothing]), np.hstack([np.zeros_like(x.T), x.T])]
    for beta in path:
        if beta is None:
            continue
        none, one = (family.parts(raw @ beta + offset, np.full(m, y)) for y in family.probes)
        residual, curvature = _rise(family, none.residual, one.residual), _rise(family, none.curvature, one.curvature)
        parts.append(np.hstack([products * none.weight, nothing]))
        parts.append(np.hstack([x.T * residual[0], x.T * residual[1]]))
        if not family.canonical:
            parts.append(np.hstack([products * curvature[0], products * curvature[1]]))
    return np.vstack(parts)


def _add_squares(design: Design, family: Family, beta: View, raw: Array, offset: Array, equations: Array) -> Array:
    """The equations with those of squared scores: on the sum of squared outcomes too, unless an outcome is its own."""
    if beta is None:
        return equations
    m, p = raw.shape
    x, upper = design.scale(raw), np.triu_indices(p)
    products = (x[:, upper[0]] * x[:, upper[1]]).T
    none, one = (family.parts(raw @ beta + offset, np.full(m, y)) for y in family.probes)
    at_zero, slope = _rise(family, none.residual, one.residual)
    constant, linear, square = at_zero**2, 2.0 * at_zero * slope, slope**2
    if family.binary:
        return np.vstack([equations, np.hstack([products * constant, products * (linear + square)])])
    wide = np.hstack([equations, np.zeros((len(equations), m))])
    return np.vstack([wide, np.hstack([products * constant, products * linear, products * square])])


def _rise(family: Family, first: Array, second: Array) -> tuple[Array, Array]:
    """What a piece of a row is at an outcome of 0 (m,), and what each unit of the outcome adds, from two probes."""
    low, high = family.probes
    slope = second - first if (low, high) == (0.0, 1.0) else (second - first) / (high - low)
    return (first - low * slope if low else first), slope


def _find_fixed(equations: Array) -> Sequence[bool]:
    """Which unknowns have one value in all solutions: those whose unit vector lies in the span of the equations."""
    _, size, basis = np.linalg.svd(equations, full_matrices=False)
    span = basis[size > _DETERMINED * size[0]]
    fixed: list[bool] = (1.0 - np.sum(span * span, axis=0) < _DETERMINED).tolist()
    return fixed


def _name(design: Design, row: Array) -> str:
    names = (*design.names, *((f"offset {design.formula.offset}",) if design.formula.offset else ()))
    values: Mapping[str, float] = dict(zip(names, row.tolist(), strict=True))
    return "pattern " + ", ".join(f"{name}={value:g}" for name, value in values.items() if name != INTERCEPT)
