"""VALORIS and VERTIGO-CI as they are published, to compare with and to attack. No learner runs this.

The formulas are those of the public code of VALORIS (OpenLHS/Distrib_analysis at 4dee882, not copied): n x n Gram
matrices, a penalised intercept, the ridge 5e-6 n, a projected Newton method on the dual, and as second message to each
covariate site the vector c_k = K_k (s alpha) / lambda and the matrix M_k = S^-1 + 0.1 z z', where S^-1 = (V^-1 + K / (n
eta))^-1 with V = diag(alpha (1 - alpha)) and z is a unit vector in the kernel of K_k from a seed in the code.
VERTIGO-CI (Kim et al., JAMIA 2021) sends X_k' V^(1/2) of every site to the centre. Plain BLAS; not reproducible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy import special

from coterie_learners.errors import NotConverged
from coterie_learners.numeric.array import Array

RIDGE_PER_ROW, ETA = 5e-6, 1e-7
START, BOX, TAU, NOISE, SEED = 0.1, 1e-14, 1e-8, 0.1, 123
MAX_STEPS = 500


@dataclass(frozen=True)
class Message:
    """The published second message to one covariate site: c (n,) and M (n, n)."""

    c: Array
    m: Array


@dataclass(frozen=True)
class Published:
    """What the response site computes: alpha (n,), the intercept on the standardised scale, and all second messages."""

    alpha: Array
    intercept: float
    messages: Mapping[str, Message]


def solve(grams: Mapping[str, Array], y: Array, ridge_per_row: float = RIDGE_PER_ROW, eta: float = ETA) -> Published:
    """The published solution from the sites' Gram matrices (n, n) of standardised columns and the outcome (n,)."""
    n, s = len(y), 2.0 * y - 1.0
    ridge = n * ridge_per_row
    k = sum(grams.values(), start=np.ones((n, n)))
    factor = pivoted_cholesky(k)
    alpha = solve_dual(factor * s[:, None] / np.sqrt(ridge), n, ridge_per_row)
    v = alpha * (1.0 - alpha)
    weighted = factor * v[:, None]
    inner = n * eta * np.eye(factor.shape[1]) + factor.T @ weighted
    inverse = np.diag(v) - weighted @ np.linalg.solve(inner, weighted.T)
    messages = {
        name: Message(gram @ (s * alpha) / ridge, inverse + NOISE * np.outer(z, z))
        for name, gram in grams.items()
        for z in [project_on_kernel(gram)]
    }
    return Published(alpha, float(np.sum(s * alpha)) / ridge, messages)


def solve_dual(y: Array, n: int, ridge_per_row: float) -> Array:
    """alpha (n,) that minimises |Y' alpha|^2 / 2 + sum alpha log alpha + (1 - alpha) log(1 - alpha) over the box."""
    q = y.shape[1] - 1
    enough = (2.0 if n <= 10_000 else 10.0) * ridge_per_row / np.sqrt((q + 1.0) * (q * (n - 1.0) + n))
    alpha = np.full(n, START)
    gradient = _gradient(y, alpha)
    for _ in range(MAX_STEPS):
        if np.linalg.norm(gradient) < enough:
            return alpha
        step = _step(y, alpha, gradient)
        moved = _shorten_step(y, alpha, gradient, step)
        if moved is None:
            return alpha
        alpha = moved
        gradient = _gradient(y, alpha)
    raise NotConverged("CO-N101", f"The published dual did not converge in {MAX_STEPS} steps.")


def _gradient(y: Array, alpha: Array) -> Array:
    gradient: Array = y @ (y.T @ alpha) + special.logit(alpha)
    return gradient


def _objective(y: Array, alpha: Array) -> float:
    entropy = special.xlogy(alpha, alpha) + special.xlogy(1.0 - alpha, 1.0 - alpha)
    return 0.5 * float(np.sum((y.T @ alpha) ** 2)) + float(np.sum(entropy))


def _step(y: Array, alpha: Array, gradient: Array) -> Array:
    """The Newton step by Woodbury's identity; the gradient itself where the box holds alpha back."""
    d = alpha * (1.0 - alpha)
    weighted = y * d[:, None]
    newton = d * gradient - weighted @ np.linalg.solve(np.eye(y.shape[1]) + y.T @ weighted, weighted.T @ gradient)
    blocked = ((alpha <= BOX) & (gradient > 0)) | ((alpha >= 1.0 - BOX) & (gradient < 0))
    step: Array = np.where(blocked, gradient, newton)
    return step


def _shorten_step(y: Array, alpha: Array, gradient: Array, step: Array) -> Array | None:
    here, share = _objective(y, alpha), 1.0
    while share > TAU * TAU:
        there = np.clip(alpha - share * step, BOX, 1.0 - BOX)
        if here - _objective(y, there) >= TAU * float(gradient @ (alpha - there)) - 1e-13 * abs(here):
            return None if np.array_equal(there, alpha) else there
        share *= 0.5
    return None


def pivoted_cholesky(k: Array, tolerance: float = 1e-12) -> Array:
    """A factor (n, r) of a positive semi-definite matrix (n, n) of low rank."""
    columns: list[Array] = []
    rest, total = np.diag(k).copy(), float(np.trace(k))
    while float(np.sum(rest)) > tolerance * total and len(columns) < len(k):
        pivot = int(np.argmax(rest))
        column = k[:, pivot] - sum((c * c[pivot] for c in columns), start=np.zeros(len(k)))
        columns.append(column / np.sqrt(rest[pivot]))
        rest = np.maximum(rest - columns[-1] ** 2, 0.0)
        rest[pivot] = 0.0
    return np.column_stack(columns)


def project_on_kernel(gram: Array) -> Array:
    """The published noise: a random unit vector, always the same one, projected on the kernel of a Gram matrix."""
    z = np.random.default_rng(SEED).standard_normal(len(gram))
    basis, _ = np.linalg.qr(pivoted_cholesky(gram))
    z /= np.linalg.norm(z)
    projected: Array = z - basis @ (basis.T @ z)
    return projected


def finish_site(z: Array, message: Message, eta: float = ETA) -> tuple[Array, Array]:
    """Coefficients and standard errors (m,) of standardised columns z (n, m) from the published second message."""
    n = len(z)
    beta = scipy.linalg.lstsq(z, message.c)[0]
    variances = 1.0 / (n * eta) - np.einsum("ij,ik,kj->j", z, message.m, z, optimize=True) / (n * eta) ** 2
    return beta, np.sqrt(variances)


def vertigo_ci(z: Array, alpha: Array) -> Array:
    """VERTIGO-CI's message X_k' V^(1/2) (m, n) to the centre, which knows alpha."""
    message: Array = z.T * np.sqrt(alpha * (1.0 - alpha))
    return message
