"""The logistic link on shares: probabilities, weights and the deviance of hidden linear predictors, by pieces.

Polynomials on three pieces of |x| <= 20, chosen by comparisons of which nobody learns an answer; beyond 20 the
probability is constant. One piece's variable u runs from -1 to 1. A polynomial of degree 11 is taken in three blocks of
four coefficients (Paterson and Stockmeyer 1973), with the powers u^2, u^3, u^4 and u^8 only.

Error budget: polynomials 6e-9; the constant 2.1e-9; 36 binary digits, of which each truncation loses two units, 2e-9
in all. Together below 2e-8, for probabilities and for weights p (1 - p), at every |x| < 2048. Pieces are fitted by
least squares in Chebyshev's points, over 1/32 more than each piece: borders are compared with 6 digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.polynomial import chebyshev

from coterie_learners.numeric.array import Array
from coterie_learners.shares.comparison import negative_shares
from coterie_learners.shares.field import Elements
from coterie_learners.shares.shamir3 import ThreePartyShamir

# The ends of the pieces of |x|.
EDGES = (2.85, 8.45, 20.0)
_DEGREE = 11
# Binary digits behind the point: of probabilities and weights; of linear predictors compared with borders.
RESPONSE, _BORDER = 36, 6
# Linear predictors are below 2^PREDICTOR; masks of values by row are 2^ROW_MASK times as large as these.
PREDICTOR, ROW_MASK = 11, 64
# A block of the polynomial's coefficients; its largest sum is below 2^_SPREAD.
_BLOCK, _SPREAD = 4, 8
_BITS = 2 * RESPONSE + _SPREAD + 1


@dataclass(frozen=True)
class SharedResponse:
    """Shares (n,) with RESPONSE digits of probabilities and weights p (1 - p).

    `deviance` (1,): half the deviance, shares of degree two with 2 RESPONSE digits, where it was asked for.
    """

    mean: Elements
    weight: Elements
    deviance: Elements | None


@dataclass(frozen=True)
class _Pieces:
    """What the rows of one evaluation have in common: |x|, [x < 0], and each row's piece with its variable's powers."""

    size: Elements
    negative: Elements
    beyond: Elements
    powers: tuple[Elements, Elements, Elements, Elements]


def evaluate_link(trio: ThreePartyShamir, eta: Elements, digits: int, outcome: Elements | None) -> SharedResponse:
    """Probabilities and weights of linear predictors (n,), which have `digits` digits and at most degree two.

    With `outcome` (n,), shares of 0 and 1, also half the deviance.
    """
    x = trio.truncate(eta, digits - RESPONSE, digits + PREDICTOR + 1, ROW_MASK)
    pieces = _split_pieces(trio, x)
    upper = _evaluate_polynomial(trio, pieces, fit_pieces(_sigmoid, 1.0))
    t = trio.truncate(upper, RESPONSE, _BITS, ROW_MASK)
    # p is t, or 1 - t below zero; the weight is the same on both sides.
    both = np.stack([(pieces.negative * ((1 << RESPONSE) - 2 * t) + t) << RESPONSE, t * ((1 << RESPONSE) - t)])
    mean, weight = trio.truncate(both % trio.field.p, RESPONSE, _BITS, ROW_MASK)
    return SharedResponse(mean, weight, None if outcome is None else _sum_deviance(trio, pieces, x, outcome))


def _split_pieces(trio: ThreePartyShamir, x: Elements) -> _Pieces:
    """Compare x with zero and |x| with the borders; four rounds each."""
    bits = _BORDER + PREDICTOR + 2
    coarse = trio.truncate(x, RESPONSE - _BORDER, RESPONSE + PREDICTOR + 1, ROW_MASK)
    negative = negative_shares(trio, coarse, bits, ROW_MASK)
    size, border = trio.reshare(np.stack([x, coarse]) * (1 - 2 * negative) % trio.field.p)
    limits = np.array([round(edge * 2**_BORDER) for edge in EDGES], dtype=object)[:, None]
    beyond = (1 - negative_shares(trio, border - limits, bits, ROW_MASK)) % trio.field.p
    middle, half = _centres()
    inside = _choose(beyond, np.column_stack([1.0 / half, middle / half]))
    u = trio.truncate(size * inside[0] - (inside[1] << RESPONSE), RESPONSE, _BITS, ROW_MASK)
    return _Pieces(size, negative, beyond, _powers(trio, u))


def _powers(trio: ThreePartyShamir, u: Elements) -> tuple[Elements, Elements, Elements, Elements]:
    """u, u^2, u^3, u^4 in two rounds."""
    square = trio.truncate(u * u, RESPONSE, _BITS, ROW_MASK)
    third, fourth = trio.truncate(np.stack([square * u, square * square]), RESPONSE, _BITS, ROW_MASK)
    return u, square, third, fourth


def _choose(beyond: Elements, table: Array) -> Elements:
    """Shares (k, n) with RESPONSE digits: the row of a public table (pieces, k) of each value's piece; 0 beyond."""
    whole = np.array([[round(v * 2**RESPONSE) for v in row] for row in table.tolist()], dtype=object)
    falls = np.concatenate([whole[1:] - whole[:-1], -whole[-1:]])
    return np.asarray(falls.T @ beyond + whole[0][:, None])


def _evaluate_polynomial(trio: ThreePartyShamir, pieces: _Pieces, table: Array) -> Elements:
    """Shares of degree two with 2 RESPONSE digits of the pieces' polynomials; the table's last row is for `beyond`.

    a0..a3 + u^4 (a4..a7) + u^8 (a8..a11), the blocks on powers up to u^3.
    """
    u, square, third, fourth = pieces.powers
    last = table[-1]
    chosen = (
        _choose(pieces.beyond, table[:-1] - last)
        + np.array([round(v * 2**RESPONSE) for v in last], dtype=object)[:, None]
    )
    blocks = chosen.reshape(-1, _BLOCK, chosen.shape[1]) % trio.field.p
    sums = [(b[0] << RESPONSE) + b[1] * u + b[2] * square + b[3] * third for b in blocks]
    middle, high, eighth = trio.truncate(np.stack([sums[1], sums[2], fourth * fourth]), RESPONSE, _BITS, ROW_MASK)
    return np.asarray((sums[0] + fourth * middle + eighth * high) % trio.field.p)


def _sum_deviance(trio: ThreePartyShamir, pieces: _Pieces, x: Elements, outcome: Elements) -> Elements:
    """Sum of log(1 + e^x) - y x, where log(1 + e^x) = log(1 + e^-|x|) + (|x| + x) / 2."""
    curved = _evaluate_polynomial(trio, pieces, fit_pieces(_softplus, 0.0))
    linear = ((pieces.size + x) << RESPONSE - 1) - ((outcome * x) << RESPONSE)
    return np.asarray((curved + linear).sum(keepdims=True) % trio.field.p)


def _sigmoid(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def _softplus(x: Array) -> Array:
    return np.asarray(np.log1p(np.exp(-x)))


def _centres() -> tuple[Array, Array]:
    """Middles and half-widths of the pieces, each of which is fitted a border's error beyond its ends."""
    low, high, margin = np.array((0.0, *EDGES[:-1])), np.array(EDGES), 2.0 ** (1 - _BORDER)
    return (low + high) / 2, (high - low) / 2 + margin


@cache
def fit_pieces(function: Callable[[Array], Array], limit: float) -> Array:
    """Coefficients (pieces + 1, _DEGREE + 1) of powers of u on each piece, and of the constant beyond the last."""
    places = np.cos(np.pi * (np.arange(256) + 0.5) / 256)
    rows = [
        chebyshev.cheb2poly(chebyshev.chebfit(places, function(middle + half * places), _DEGREE))
        for middle, half in zip(*_centres(), strict=True)
    ]
    return np.array([*rows, [limit] + [0.0] * _DEGREE])
