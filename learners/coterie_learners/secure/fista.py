"""Elastic nets on shared correlation matrices: accelerated proximal gradient with a secret step, all problems at once.

Objective of each column: u'Ru/2 - b'u + sum_j v_j |u_j| with a unit diagonal in R; FISTA (Beck and Teboulle 2009). Per
iteration: one truncation for the gradient step, one batch of comparisons for both thresholds, one product. The step
1/L is never opened: L^8 >= tr R^8 >= (largest eigenvalue)^8, on a grid of 2^(1/8). What is opened: one bit every
`check_every` iterations, whether all columns have converged; nothing with check_every = 0.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from coterie_learners.errors import NotConverged
from coterie_learners.secure.moments import POINT, symmetric_shares
from coterie_learners.shares.comparison import negative_shares
from coterie_learners.shares.field import Elements, constant_elements
from coterie_learners.shares.shamir3 import ThreePartyShamir

# Binary digits behind the point of the momentum, which is public.
MOMENTUM = 10
# Numbers compared with zero are below 2^WHOLE; solutions are far below it.
WHOLE = 26
# Digits behind the point of what the test for convergence compares; the squared length below which a solution counts
# as zero there; the size of a coefficient's rounding noise.
COARSE, SHORT, NOISE = 16, 2.0**-14, 8.0 * 2.0**-POINT
POWER = 8


@dataclass(frozen=True)
class SharedProblem:
    """Shares with POINT digits: `matrix` (g, m, m), `vector` (g, m), `threshold` (g, m, k) or None for no l1 term."""

    matrix: Elements
    vector: Elements
    threshold: Elements | None
    columns: int


@dataclass(frozen=True)
class Rule:
    """When to stop: after `iterations`, or when no column's gradient step is longer than `tolerance` of its length."""

    iterations: int
    check_every: int
    tolerance: float


@dataclass(frozen=True)
class SharedSolution:
    """Shares of u (g, m, k) with POINT digits and of [u != 0], and how many iterations that took."""

    values: Elements
    active: Elements
    iterations: int


def minimise(trio: ThreePartyShamir, problem: SharedProblem, rule: Rule) -> SharedSolution:
    """Minimise all columns; NotConverged (at every party alike, with nothing else opened) if the iterations run out."""
    groups, m = problem.vector.shape
    step = inverse_bound(trio, problem.matrix)
    keep, pull = _scale(trio, problem, step)
    cut = None if problem.threshold is None else _times(trio, problem.threshold, step[:, None, None])
    now = before = constant_elements(0, (groups, m, problem.columns))
    active = constant_elements(1, now.shape)
    weight = 1.0
    for t in range(1, rule.iterations + 1):
        trio.session.report("the fit on shares", t - 1, rule.iterations)
        following = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * weight * weight))
        momentum, weight = round((weight - 1.0) / following * 2**MOMENTUM), following
        ahead = (now << MOMENTUM) + momentum * (now - before)
        moved = keep @ ahead + (pull << POINT + MOMENTUM)[..., None]
        z = trio.truncate(moved, POINT + MOMENTUM, 2 * POINT + MOMENTUM + WHOLE)
        before, (now, active) = now, (z, active) if cut is None else soft_threshold(trio, z, cut)
        if rule.check_every and t % rule.check_every == 0 and _has_settled(trio, now, ahead, rule.tolerance):
            return SharedSolution(now, active, t)
    if rule.check_every:
        message = (
            f"The fit still moves by more than {rule.tolerance:g} of its length after {rule.iterations} iterations"
        )
        raise NotConverged("CO-N141", f"{message}. Nothing was opened. Raise max_iterations, alpha or tolerance.")
    return SharedSolution(now, active, rule.iterations)


def inverse_bound(trio: ThreePartyShamir, matrix: Elements) -> Elements:
    """Shares (g) of 1/L with POINT digits, L a bound of the largest eigenvalue within 9 % of (tr R^8)^(1/8)."""
    m = matrix.shape[-1]
    grow = math.log2(max(m, 2))
    rows, columns = np.triu_indices(m)
    power = matrix
    for exponent in (2, 4):
        product = (power @ power)[:, rows, columns]
        power = symmetric_shares(trio.truncate(product, POINT, 2 * POINT + math.ceil(exponent * grow) + 3), m)
    trace = (power * power).sum(axis=(1, 2))
    trace = trio.truncate(trace, 2 * POINT - COARSE, 2 * POINT + math.ceil(POWER * grow) + 3)
    exponents = range(1, math.ceil(POWER * grow) + 2)
    limits = np.array([1 << COARSE + e for e in exponents], dtype=object)
    reached = 1 - negative_shares(trio, trace - limits[:, None], COARSE + math.ceil(POWER * grow) + 4)
    steps = [2.0 ** (-(e + 1) / POWER) for e in (0, *exponents)]
    falls = np.array([round((b - a) * 2**POINT) for a, b in itertools.pairwise(steps)], dtype=object)
    return np.asarray((falls @ reached + round(steps[0] * 2**POINT)) % trio.field.p)


def _scale(trio: ThreePartyShamir, problem: SharedProblem, step: Elements) -> tuple[Elements, Elements]:
    """Shares of I - R/L (g, m, m) and of b/L (g, m)."""
    m = problem.vector.shape[1]
    rows, columns = np.triu_indices(m)
    both = np.concatenate([problem.matrix[:, rows, columns], problem.vector], axis=1)
    small = _times(trio, both, step[:, None])
    keep = -symmetric_shares(small[:, : len(rows)], m)
    keep[:, np.arange(m), np.arange(m)] += 1 << POINT
    return np.asarray(keep % trio.field.p), small[:, len(rows) :]


def _times(trio: ThreePartyShamir, values: Elements, factor: Elements) -> Elements:
    """Products with factors below 1, all with POINT digits."""
    return trio.truncate(values * factor, POINT, 2 * POINT + WHOLE)


def soft_threshold(trio: ThreePartyShamir, z: Elements, cut: Elements) -> tuple[Elements, Elements]:
    """Soft thresholding: z - cut where z > cut, z + cut where z < -cut, else exactly 0; and which are not 0."""
    beyond = negative_shares(trio, np.stack(np.broadcast_arrays(cut - z, cut + z)), POINT + WHOLE)
    return trio.reshare(beyond[0] * (z - cut) + beyond[1] * (z + cut)), beyond[0] + beyond[1]


def _has_settled(trio: ThreePartyShamir, now: Elements, ahead: Elements, tolerance: float) -> bool:
    """One public bit: whether each column's step, from the point `ahead`, was at most `tolerance` times its length.

    Not the change since the last iteration: with momentum that also vanishes where a column turns round.
    """
    scale = round(1.0 / tolerance)
    step = (now << MOMENTUM) - ahead
    coarse = trio.truncate(np.stack([step * scale, now << MOMENTUM]), POINT + MOMENTUM - COARSE, 2 * POINT + 34)
    squares = (coarse * coarse).sum(axis=2)
    short = max(SHORT, now.shape[1] * (NOISE / tolerance) ** 2)
    gap = trio.reshare(squares[0] - squares[1] - int(short * 2 ** (2 * COARSE)))
    within = negative_shares(trio, gap, 2 * POINT + 36).ravel()
    while len(within) > 1:
        half = len(within) // 2
        within = np.concatenate([trio.reshare(within[:half] * within[half : 2 * half]), within[2 * half :]])
    return int(trio.open(within, exact=True)[0]) == 1
