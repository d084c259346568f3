"""A whole regularised regression on shares: problems from sums, coefficients, cross-validation, quality of fit.

Works on what three computing parties share of the rows' sums; opens the coefficients, their intercept, and the figures
of quality, each truncated to what it says, so that no exact linear combination of patients' sums is ever seen.
Everything is on the inside scale, where columns lie in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.secure.fista import Rule, SharedProblem, SharedSolution, minimise
from coterie_learners.secure.masked_rows import count_block_rows, cut_blocks
from coterie_learners.secure.moments import (
    INPUT,
    MOMENT,
    POINT,
    THRESHOLD,
    SharedSums,
    concatenate_sums,
    correlations,
    covariances,
    diagonal,
    inverse_roots,
)
from coterie_learners.shares.comparison import negative_shares
from coterie_learners.shares.field import Elements, constant_elements, element_array
from coterie_learners.shares.shamir3 import ThreePartyShamir

# Digits of public coefficients where they are multiplied with shares: with the outcome's rows, with moments.
ROUGH, FINE = 16, 20
SHARE = 24
# Units of an opened coefficient that truncations alone may make: a constant column has so many instead of none.
ROUNDING = 64


@dataclass(frozen=True)
class Target:
    """What to minimise, for each penalty: the squared error / (2 n) + l1 + l2 terms, as scikit-learn has it.

    `scales` (m) and `outcome_scale`: how many units one inside unit is. `cohort`: penalise coefficients of columns (and
    of an outcome) divided by their standard deviation in the cohort; else coefficients in the variables' own units.
    """

    penalties: tuple[float, ...]
    l1_ratio: float
    cohort: bool
    scales: Array
    outcome_scale: float
    rule: Rule
    folds: int
    held_out: bool
    path: bool

    @cached_property
    def l1(self) -> tuple[float, ...]:
        """The penalties of absolute values."""
        return tuple(a * self.l1_ratio for a in self.penalties)

    @cached_property
    def l2(self) -> tuple[float, ...]:
        """The different penalties of squares: a single 0, or one for each penalty."""
        return tuple(a * (1.0 - self.l1_ratio) for a in self.penalties) if self.l1_ratio < 1.0 else (0.0,)

    @property
    def ridge(self) -> float:
        """The largest multiple of its range that a penalty of squares adds to a variance."""
        return 0.0 if self.cohort else max(self.l2) / float(np.min(self.scales)) ** 2


@dataclass(frozen=True)
class OpenedLasso:
    """What is opened. Coefficients (s, m + 1), intercept first, for the shown penalties; figures per shown penalty.

    `errors` are mean squared errors, `variance` the outcome's (denominator n), of the rows fitted and held out;
    `scores` (k) the mean squared errors of cross-validation.
    """

    shown: tuple[int, ...]
    coefficients: Array
    errors: Array
    variance: float
    held_out: tuple[Array, float] | None
    absolute: tuple[Array, ...]
    scores: Array | None
    iterations: int


def fit(trio: ThreePartyShamir, sums: SharedSums, rows: Sequence[bytes], target: Target) -> OpenedLasso:
    """Fit all penalties on the groups of rows and open the result.

    The groups are the folds (or one group), then the group held out if there is one. `rows`: shares of the rows fitted
    and held out as residues in C order, if mean absolute errors are wanted and the parties hold shares of rows.
    """
    training = list(range(max(target.folds, 1)))
    whole = sums.over(training)
    without = [sums.over([g for g in training if g != fold]) for fold in training] if target.folds else []
    sets = concatenate_sums([whole, *without])
    moments = covariances(trio, sets, whole.digits)
    coefficients, iterations = _coefficients(trio, moments, sets, whole.digits, target)
    scores = _scores(trio, sums, sets, coefficients, target.folds) if target.folds else None
    shown = tuple(range(len(target.penalties)))
    if scores is not None and not target.path:
        shown = (int(np.argmin(scores)),)
    opened = open_coefficients(trio, whole, coefficients[0][:, list(shown)])
    share = (whole.counts[0] / 2**whole.digits) ** 2
    errors, variance = _quality(trio, moments[:1], opened[:, 1:]) / share, _variance(trio, moments[:1]) / share
    held_out = _assess_held_out(trio, sums.over([len(training)]), opened) if target.held_out else None
    absolute = tuple(_mean_absolute_errors(trio, z, opened) for z in rows)
    return OpenedLasso(shown, opened, errors, variance, held_out, absolute, scores, iterations)


# Coefficients


def _coefficients(
    trio: ThreePartyShamir, moments: Elements, sets: SharedSums, digits: int, target: Target
) -> tuple[Elements, int]:
    """Shares (sets, m, penalties) of the coefficients, and the iterations it took."""
    roots = _roots(trio, moments, sets, digits, target)
    groups, count, c = roots.shape
    m = c - 1
    matrices = np.broadcast_to(moments, (groups, *moments.shape)).reshape(-1, c, c)
    flat = roots.reshape(-1, c)
    matrix = correlations(trio, matrices, flat)
    columns = len(target.penalties) // groups
    threshold = _thresholds(trio, flat, sets, digits, target)
    solution = minimise(trio, SharedProblem(matrix[:, :m, :m], matrix[:, :m, m], threshold, columns), target.rule)
    scaled = _rescale(trio, solution, matrices[:, m, m], flat, sparse=threshold is not None)
    apart = scaled.reshape(groups, count, m, columns).transpose(1, 2, 0, 3)
    return apart.reshape(count, m, groups * columns), solution.iterations


def _roots(trio: ThreePartyShamir, moments: Elements, sets: SharedSums, digits: int, target: Target) -> Elements:
    """Shares (l2, sets, c) of the factors that give each problem's matrix a unit diagonal; the outcome's is the last.

    A penalty of squares is part of the matrix: own units add it to the variances, cohort units scale by 1 / (1 + l2).
    """
    variances = diagonal(moments)
    shape = (len(target.l2), *variances.shape)
    if not target.cohort:
        raised = np.broadcast_to(variances, shape).copy()
        for g, penalty in enumerate(target.l2):
            for k, count in enumerate(sets.counts):
                extra = penalty / target.scales**2 * (count / 2**digits) ** 2
                raised[g, k, :-1] += [int(v) for v in np.rint(np.ldexp(extra, MOMENT)).tolist()]
        return inverse_roots(trio, raised, target.ridge)
    roots = np.broadcast_to(inverse_roots(trio, variances), shape).copy()
    if max(target.l2) == 0.0:
        return roots
    shrink = np.array([round(2**POINT / np.sqrt(1.0 + p)) for p in target.l2], dtype=object)[:, None, None]
    roots[..., :-1] = trio.truncate(roots[..., :-1] * shrink, POINT, 2 * POINT + 16)
    return roots


def _thresholds(
    trio: ThreePartyShamir, roots: Elements, sets: SharedSums, digits: int, target: Target
) -> Elements | None:
    """Shares (problems, m, columns) of the l1 penalty of each coefficient on the problems' own scale.

    A penalty of 1 on the inside scale makes all coefficients zero, so a larger one has the same result.
    """
    if max(target.l1) == 0.0:
        return None
    groups, count, m = len(target.l2), len(sets.counts), roots.shape[1] - 1
    l1 = np.array(target.l1).reshape(groups, 1, 1, -1)
    if target.cohort:
        shrink = np.sqrt(1.0 + np.array(target.l2)).reshape(groups, 1, 1, 1)
        values = np.broadcast_to(np.minimum(l1, 1.0) / shrink, (groups, count, m, l1.shape[-1]))
        return trio.field.encode(values, POINT).reshape(groups * count, m, -1)
    share = np.array([(n / 2**digits) ** 2 for n in sets.counts]).reshape(1, count, 1, 1)
    inside = np.minimum(l1 / (target.outcome_scale * target.scales[:, None]), 1.0) * share
    both = trio.truncate(roots[:, :m] * roots[:, m:], POINT, 2 * POINT + 28)
    whole = trio.field.encode(inside, THRESHOLD).reshape(groups * count, m, -1)
    return trio.truncate(both[..., None] * whole, THRESHOLD, POINT + THRESHOLD + 28)


def _rescale(
    trio: ThreePartyShamir, solution: SharedSolution, spread: Elements, roots: Elements, *, sparse: bool
) -> Elements:
    """Shares (problems, m, columns) of coefficients on the inside scale; what is zero stays exactly zero."""
    deviation = trio.truncate(spread * roots[:, -1], MOMENT, MOMENT + POINT + 4)
    factor = trio.truncate(roots[:, :-1] * deviation[:, None], POINT, 2 * POINT + 16)
    scaled = trio.truncate(solution.values * factor[..., None], POINT, 2 * POINT + 41)
    return trio.reshare(scaled * solution.active if sparse else scaled)


def open_coefficients(trio: ThreePartyShamir, whole: SharedSums, shares: Elements) -> Array:
    """Coefficients with their intercepts (k, m + 1) from shares (m, k); of the means only the intercept is seen."""
    opened = trio.field.to_signed(trio.open(shares, exact=True))
    signed = element_array([0 if abs(v) <= ROUNDING else v for v in opened.ravel().tolist()], opened.shape)
    totals = whole.totals[0]
    exact = (totals[-1] << POINT) - totals[:-1] @ signed
    digits = whole.digits
    rounded = trio.open(trio.truncate(exact, INPUT + digits, INPUT + POINT + digits + 14))
    intercepts = trio.field.decode(rounded, POINT - digits) / whole.counts[0]
    return np.column_stack([intercepts, trio.field.decode(signed, POINT).T])


# Cross-validation


def _scores(trio: ThreePartyShamir, sums: SharedSums, sets: SharedSums, coefficients: Elements, folds: int) -> Array:
    """Mean over the folds of the mean squared error of the model fitted without the fold, for each penalty (k)."""
    digits = max(sums.counts[:folds]).bit_length()
    c = sums.totals.shape[1]
    moments = trio.truncate(sums.gram[:folds], 2 * INPUT - POINT + digits, 2 * INPUT + digits + 3)
    weights = -coefficients[1:]
    centre = _means(trio, sets)[1:]
    inner = (weights * centre[:, :-1, None]).sum(axis=1)
    intercept = trio.truncate(inner, POINT, 2 * POINT + 30) + centre[:, -1:]
    residual = np.concatenate(
        [weights, constant_elements(1 << POINT, (folds, 1, weights.shape[2])), -intercept[:, None]], axis=1
    )
    half = trio.truncate(moments @ residual, POINT, 2 * POINT + 30)
    error = trio.truncate((half * residual).sum(axis=1), POINT, 2 * POINT + 30)
    parts = np.array([round(2 ** (SHARE + digits) / n / folds) for n in sums.counts[:folds]], dtype=object)
    assert half.shape[1] == c + 1
    return trio.field.decode(trio.open(trio.truncate(parts @ error, SHARE, POINT + SHARE + 30)), POINT)


def _means(trio: ThreePartyShamir, sets: SharedSums) -> Elements:
    """Shares (sets, c) of the columns' means with POINT digits."""
    parts = np.array([round(2**THRESHOLD / n) for n in sets.counts], dtype=object)[:, None]
    return trio.truncate(sets.totals * parts, INPUT + THRESHOLD - POINT, INPUT + THRESHOLD + 4)


# Quality


def _quality(trio: ThreePartyShamir, moments: Elements, coefficients: Array) -> Array:
    """Squared errors (k) of public coefficients (k, c - 1), as the moments (1, c, c) with MOMENT digits count them."""
    residual = trio.field.encode(np.column_stack([-coefficients, np.ones(len(coefficients))]), FINE)
    signed = trio.field.to_signed(residual)
    forms = ((signed @ moments[0]) * signed).sum(axis=1)
    return trio.field.decode(trio.open(trio.truncate(forms, 2 * FINE, MOMENT + 2 * FINE + 18)), MOMENT)


def _variance(trio: ThreePartyShamir, moments: Elements) -> float:
    return float(trio.field.decode(trio.open(moments[0, -1:, -1]), MOMENT)[0])


def _assess_held_out(trio: ThreePartyShamir, group: SharedSums, coefficients: Array) -> tuple[Array, float]:
    """Mean squared errors and the outcome's variance on rows that were not fitted."""
    digits, n, c = group.digits, group.counts[0], group.totals.shape[1]
    raw = trio.truncate(group.gram, 2 * INPUT - MOMENT + digits, 2 * INPUT + digits + 3)
    # The column of ones, which carries the intercept, goes first so that the outcome is the last.
    order = [c, *range(c)]
    errors = _quality(trio, raw[:, order][:, :, order], coefficients) * 2**digits / n
    spread = _variance(trio, covariances(trio, group, digits)) / (n / 2**digits) ** 2
    return errors, spread


def _mean_absolute_errors(trio: ThreePartyShamir, packed: bytes, coefficients: Array) -> Array:
    """Mean absolute errors (k) on shares of rows (n, c): each residual's sign is compared, their sum opened."""
    columns, width = coefficients.shape[1], trio.field.width
    whole = trio.field.to_signed(trio.field.encode(coefficients, ROUGH))
    n, sizes = len(packed) // (columns * width), constant_elements(0, (len(coefficients),))
    for first, end in cut_blocks(n, count_block_rows(columns)):
        raw = packed[first * columns * width : end * columns * width]
        rows = trio.field.integers(raw, width, (end - first, columns))
        sizes = sizes + _add_sizes(trio, rows, whole)
    total = trio.truncate(sizes, 4, ROUGH + 48)
    return np.asarray(trio.field.decode(trio.open(total), ROUGH - 4) / n)


def _add_sizes(trio: ThreePartyShamir, rows: Elements, whole: Elements) -> Elements:
    """Shares of degree two of the sums (k) of the residuals' sizes over rows (n, c)."""
    fitted = rows[:, :-1] @ whole[:, 1:].T + (whole[:, 0] << INPUT)
    residual = trio.truncate((rows[:, -1:] << ROUGH) - fitted, INPUT, INPUT + ROUGH + 20)
    sizes = residual * (1 - 2 * negative_shares(trio, residual, ROUGH + 22))
    return np.asarray(sizes.sum(axis=0))
