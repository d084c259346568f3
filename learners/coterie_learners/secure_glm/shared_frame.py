"""The standard scale of shared rows, and inverses of shared matrices on it; nothing is opened but one bit at a time.

Rows stay as they were dealt, in half-widths of their declared ranges. A secret matrix T carries coefficients from
columns with mean zero and variance about one to these: T'AT is then far better conditioned than A. T need not be
exact, since the same shares of T carry coefficients, scores and information.

Inverses by Newton and Schulz (1933): V <- (2 I - V A) V squares I - V A, so it converges if the eigenvalues of V A lie
between 0 and 2. A column that is constant, or a combination of others, leaves I - V A at one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.secure.moments import (
    INPUT,
    MOMENT,
    POINT,
    digits_of,
    inverse_roots,
    symmetric_shares,
)
from coterie_learners.shares.comparison import negative_shares
from coterie_learners.shares.field import Elements, constant_elements
from coterie_learners.shares.shamir3 import ThreePartyShamir

# Binary digits behind the point: of information in half-widths, of information and inverses on the standard scale.
RAW, STANDARD = 60, 36
# Bits before the point: of T, of inverses; of the entries of V A.
CARRIED, INVERTED, _NEAR = 13, 29, 16
# Digits of 1/n, and of the entries of I - V A whose squares are summed; that sum must be below 2^-FIT.
_SHARE, _REST, _FIT = 40, 24, 20


@dataclass(frozen=True)
class SharedFrame:
    """Shares of T (p, p) with POINT digits, and how many binary digits the number of rows has."""

    carry: Elements
    digits: int

    @property
    def p(self) -> int:
        """Number of columns, the intercept among them."""
        return len(self.carry)


def build_frame(trio: ThreePartyShamir, x: Elements, gram: Elements, ridge: Array) -> SharedFrame:
    """The frame of rows x (n, p), whose first column is the intercept, and of their Gram matrix.

    A ridge (p,) on half the squared coefficients counts as variance, so that the trace of T'(X'X / 4 + ridge)T / n is
    at most p / 2.
    """
    n, p = x.shape
    digits = digits_of(n)
    carry = constant_elements(0, (p, p))
    carry[0, 0] = 1 << POINT
    if p > 1:
        totals = x[:, 1:].sum(axis=0) % trio.field.p
        exact = n * np.diagonal(gram)[1:] - totals * totals
        variances = trio.truncate(exact % trio.field.p, 2 * INPUT - MOMENT + 2 * digits, 2 * INPUT + 2 * digits + 3)
        extra = 4.0 * n / 4.0**digits * ridge[1:]
        raised = variances + np.array([round(v * 2**MOMENT) for v in extra.tolist()], dtype=object)
        roots = inverse_roots(trio, raised, float(extra.max()))
        means = trio.truncate(totals * round(2**_SHARE / n), INPUT + _SHARE - POINT, INPUT + _SHARE + 4)
        carry[np.arange(1, p), np.arange(1, p)] = roots
        carry[0, 1:] = trio.truncate(-means * roots % trio.field.p, POINT, 2 * POINT + CARRIED + 2)
    return SharedFrame(carry, digits)


def carry_matrix(trio: ThreePartyShamir, frame: SharedFrame, raw: Elements) -> Elements:
    """T'AT with STANDARD digits of A (p, p) with RAW digits; two rounds."""
    p = frame.p
    half = trio.truncate(raw @ frame.carry % trio.field.p, POINT, RAW + POINT + CARRIED + 8)
    upper = (frame.carry.T @ half)[np.triu_indices(p)] % trio.field.p
    return symmetric_shares(trio.truncate(upper, RAW + POINT - STANDARD, RAW + POINT + 8), p)


def invert_matrix(trio: ThreePartyShamir, matrix: Elements, start: Elements, depth: int) -> Elements:
    """The inverse (p, p) of a matrix, both with STANDARD digits, `depth` steps from `start`; two rounds a step."""
    p, one = len(matrix), 1 << STANDARD
    inverse = start
    for _ in range(depth):
        near = trio.truncate(inverse @ matrix % trio.field.p, STANDARD, 2 * STANDARD + _NEAR)
        step = (2 * one * inverse - near @ inverse)[np.triu_indices(p)] % trio.field.p
        inverse = symmetric_shares(trio.truncate(step, STANDARD, 2 * STANDARD + INVERTED), p)
    return inverse


def start_inverse(frame: SharedFrame) -> Elements:
    """A public start for the inverse of X'X / 4: at most the inverse of its trace."""
    out = constant_elements(0, (frame.p, frame.p))
    out[np.arange(frame.p), np.arange(frame.p)] = (2 << STANDARD) // frame.p
    return out


def is_inverse(trio: ThreePartyShamir, inverse: Elements, matrix: Elements) -> bool:
    """One opened bit: whether the squares of I - V A sum to less than 2^-20."""
    rest = -(inverse @ matrix)
    rest[np.arange(len(rest)), np.arange(len(rest))] += 1 << 2 * STANDARD
    coarse = trio.truncate(rest % trio.field.p, 2 * STANDARD - _REST, 2 * STANDARD + INVERTED + 8)
    total = trio.reshare((coarse * coarse).sum(keepdims=True) % trio.field.p).ravel()
    small = negative_shares(trio, total - (1 << 2 * _REST - _FIT), 2 * (_REST + INVERTED) + 8)
    return int(trio.open(small, exact=True)[0]) == 1
