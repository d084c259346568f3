"""Elementary functions of whole arrays that give the same bits on every machine, for what a server posts.

Only + - * /, square root, rounding and scaling by powers of two, all of them correctly rounded wherever numpy runs;
the coefficients are fixed. Relative errors are a few units in the last place (compared with mpmath in
tests/learners/numeric/test_elementary.py). The scaled complementary error function uses W. J. Cody's rational
Chebyshev approximations (Math. Comp. 1969;23:631-637, doi:10.1090/S0025-5718-1969-0247736-4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.numeric.linalg import EXP_TERMS, LN2_HIGH, LN2_LOW

LOG2_E = 1.4426950408889634
SQRT_HALF = 0.7071067811865476
INVERSE_SQRT_PI = 0.5641895835477563
SQRT_2_OVER_PI = 0.7978845608028654
# exp is 0 below and infinite above; nothing is asked of it there.
LEAST, MOST = -745.2, 709.78
EXPM1_TERMS = tuple(1.0 / math.factorial(k) for k in range(17, 1, -1))
ATANH_TERMS = tuple(1.0 / n for n in range(23, 1, -2))
ATAN_TERMS = tuple((-1.0) ** (n // 2) / n for n in range(45, 1, -2))
# The tangent of an eighth of half a circle; so many steps of Newton's method find a tangent up to 1.
EIGHTH, TANGENT_STEPS = 0.41421356237309503, 8

# erf on [0, 0.46875]; erfcx on [0.46875, 4]; erfcx beyond 4 in 1 / x^2. Highest power first.
ERF_TOP = (
    1.85777706184603153e-1,
    3.16112374387056560e0,
    1.13864154151050156e2,
    3.77485237685302021e2,
    3.20937758913846947e3,
)
ERF_BOTTOM = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
MIDDLE_TOP = (
    2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1, 2.98635138197400131e2,
    8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3,
)  # fmt: skip
MIDDLE_BOTTOM = (
    1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
    3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
)  # fmt: skip
FAR_TOP = (
    1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
    1.60837851487422766e-2, 6.58749161529837803e-4,
)  # fmt: skip
FAR_BOTTOM = (
    1.0, 2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1, 6.05183413124413191e-2,
    2.33520497626869185e-3,
)  # fmt: skip


def exp_of_array(x: Array) -> Array:
    """e^x by range reduction and a fixed polynomial."""
    bounded = np.clip(x, LEAST, MOST)
    k = np.rint(bounded * LOG2_E)
    r = (bounded - k * LN2_HIGH) - k * LN2_LOW
    return np.asarray(np.ldexp(1.0 + (r + r * r * _polynomial(EXP_TERMS, r)), k.astype(np.int32)))


def log_of_array(x: Array) -> Array:
    """Natural logarithm of x > 0 by frexp and the series of atanh."""
    mantissa, k = np.frexp(x)
    small = mantissa < SQRT_HALF
    mantissa, k = np.where(small, 2.0 * mantissa, mantissa), k - small
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    series = _polynomial((*ATANH_TERMS, 0.0), square)
    return np.asarray(k * LN2_HIGH + (2.0 * s + (2.0 * s * series + k * LN2_LOW)))


def log1p(x: Array) -> Array:
    """log(1 + x) for x > -1: the rounding of 1 + x is made good (Higham 2002, problem 1.5)."""
    u = 1.0 + x
    step = u - 1.0
    exact = step == 0.0
    return np.asarray(np.where(exact, x, log_of_array(u) * (x / np.where(exact, 1.0, step))))


def expm1(x: Array) -> Array:
    """e^x - 1, by its series near zero."""
    near = np.clip(x, -0.5, 0.5)
    series = near + near * near * _polynomial(EXPM1_TERMS, near)
    return np.asarray(np.where(np.abs(x) <= 0.5, series, exp_of_array(x) - 1.0))


def erfcx(x: Array) -> Array:
    """exp(x^2) erfc(x) for x >= 0."""
    near, far = np.minimum(x, 0.46875), np.maximum(x, 4.0)
    middle = np.clip(x, 0.46875, 4.0)
    square = near * near
    erf = near * (_polynomial(ERF_TOP, square) / _polynomial(ERF_BOTTOM, square))
    inverse = 1.0 / (far * far)
    tail = inverse * (_polynomial(FAR_TOP, inverse) / _polynomial(FAR_BOTTOM, inverse))
    return np.asarray(
        np.where(
            x <= 0.46875,
            exp_of_array(square) * (1.0 - erf),
            np.where(
                x <= 4.0,
                _polynomial(MIDDLE_TOP, middle) / _polynomial(MIDDLE_BOTTOM, middle),
                (INVERSE_SQRT_PI - tail) / far,
            ),
        )
    )


def arctan(x: Array) -> Array:
    """The angle in radians whose tangent is x, by its series about 0 or 1."""
    size = np.abs(x)
    steep = size > 1.0
    flat = np.where(steep, 1.0 / np.maximum(size, 1.0), size)
    turned = flat > EIGHTH
    small = np.where(turned, (flat - 1.0) / (flat + 1.0), flat)
    angle = small + small * _polynomial((*ATAN_TERMS, 0.0), small * small)
    angle = np.where(turned, 0.25 * math.pi + angle, angle)
    return np.asarray(np.copysign(np.where(steep, 0.5 * math.pi - angle, angle), x))


def tan(angle: float) -> float:
    """The tangent of an angle from 0 to a quarter of pi, by Newton's method on `arctan`, which never oversteps."""
    x = angle
    for _ in range(TANGENT_STEPS):
        x += (angle - float(arctan(np.array([x]))[0])) * (1.0 + x * x)
    return x


@dataclass(frozen=True)
class Normal:
    """The normal distribution at z (m,): probabilities below and above, density over each, and their logarithms."""

    below: Array
    above: Array
    rate_below: Array
    rate_above: Array
    log_below: Array
    log_above: Array


def evaluate_normal(z: Array) -> Normal:
    """Everything about the normal distribution that a probit model needs, to full relative precision in both tails."""
    scaled = erfcx(np.abs(z) * SQRT_HALF)
    gauss = _gauss(z)
    tail = 0.5 * scaled * gauss
    bulk = 1.0 - tail
    tail_rate, bulk_rate = SQRT_2_OVER_PI / scaled, SQRT_2_OVER_PI * gauss / (2.0 - scaled * gauss)
    log_tail, log_bulk = log_of_array(0.5 * scaled) - 0.5 * z * z, log1p(-tail)
    left = z < 0
    pairs = ((tail, bulk), (tail_rate, bulk_rate), (log_tail, log_bulk))
    (below, above), (rate_below, rate_above), (log_below, log_above) = (
        (np.where(left, t, b), np.where(left, b, t)) for t, b in pairs
    )
    return Normal(below, above, rate_below, rate_above, log_below, log_above)


def softplus(x: Array) -> Array:
    """log(1 + e^x)."""
    return np.asarray(np.maximum(x, 0.0) + log1p(exp_of_array(-np.abs(x))))


def _gauss(z: Array) -> Array:
    """exp(-z^2 / 2), the square being split so that its rounding does not grow with it."""
    z = np.minimum(np.abs(z), 40.0)
    coarse = np.rint(z * 16.0) / 16.0
    return np.asarray(exp_of_array(-0.5 * coarse * coarse) * exp_of_array(-0.5 * (z - coarse) * (z + coarse)))


def _polynomial(coefficients: Sequence[float], x: Array) -> Array:
    """Horner's rule, highest power first."""
    out = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        out = out * x + c
    return out
