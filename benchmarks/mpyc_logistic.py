"""The model of Secure GLM in MPyC, with numbers of its own: run by `make bench-mpc` with MPyC's Python.

    python mpyc_logistic.py -M3 200 3

Newton's steps on shared rows: the same pieces of the logistic function, Newton and Schulz's inverse, five steps, and
nothing opened except the result. Prints one line: wall seconds from sharing to opening, and how far it is from float64.
"""

from __future__ import annotations

import itertools
import sys
import time
from typing import Any

import numpy as np
from mpyc.runtime import mpc
from numpy.polynomial import chebyshev

EDGES, DEGREE, STEPS, DEPTH = (0.0, 2.85, 8.45, 20.0), 11, 5, 8
NUMBER = mpc.SecFxp(96, 40)


def draw(n: int, m: int) -> tuple[Any, Any]:
    """Standardised columns with the intercept first, and an outcome."""
    rng = np.random.default_rng(4)
    x = np.column_stack([np.ones(n), rng.normal(size=(n, m))])
    y = rng.random(n) < 1.0 / (1.0 + np.exp(-(x @ rng.normal(0.0, 0.5, m + 1))))
    return x, y.astype(float)


def fit_pieces() -> list[Any]:
    """Coefficients of powers of the piece's variable."""
    places = np.cos(np.pi * (np.arange(256) + 0.5) / 256)
    out = []
    for low, high in itertools.pairwise(EDGES):
        x = (low + high) / 2 + (high - low) / 2 * places
        out.append(chebyshev.cheb2poly(chebyshev.chebfit(places, 1.0 / (1.0 + np.exp(-x)), DEGREE)))
    return [*out, np.array([1.0] + [0.0] * DEGREE)]


def evaluate(eta: Any) -> Any:
    """Probabilities of shared linear predictors, an array of MPyC's."""
    pieces = fit_pieces()
    negative = eta < 0
    size = eta * (1 - 2 * negative)
    beyond = [size >= edge for edge in EDGES[1:]]
    inside = [1 - beyond[0], beyond[0] - beyond[1], beyond[1] - beyond[2], beyond[2]]
    u: Any = 0
    for chosen, low, high in zip(inside, EDGES, EDGES[1:], strict=False):
        u = u + chosen * (size - (low + high) / 2) * (2 / (high - low))
    t: Any = 0
    for power in reversed(range(DEGREE + 1)):
        t = t * u + sum(c * float(p[power]) for c, p in zip(inside, pieces, strict=True))
    return t + negative * (1 - 2 * t)


def invert(matrix: Any, p: int) -> Any:
    """Newton and Schulz's inverse of the information of one row on average."""
    v: Any = NUMBER.array(4.0 * np.eye(p))
    for _ in range(DEPTH):
        v = (2.0 * np.eye(p) - v @ matrix) @ v
    return v


async def main(n: int, m: int) -> None:
    """Share, fit, open, compare."""
    x, y = draw(n, m)
    p = m + 1
    await mpc.start()
    begin = time.perf_counter()
    rows, outcome = (mpc.input(NUMBER.array(values), senders=0) for values in (x, y))
    beta: Any = NUMBER.array(np.zeros(p))
    for _ in range(STEPS):
        mean = evaluate(rows @ beta)
        weight = mean * (1 - mean)
        score = (rows.T @ (outcome - mean)) * (1.0 / n)
        information = (rows.T @ (rows * weight.reshape(n, 1))) * (1.0 / n)
        beta = beta + invert(information, p) @ score
    estimates = np.array(await mpc.output(beta), dtype=float)
    seconds = time.perf_counter() - begin
    used = time.process_time()
    await mpc.shutdown()
    exact = np.zeros(p)
    for _ in range(20):
        q = 1.0 / (1.0 + np.exp(-x @ exact))
        exact += np.linalg.solve(x.T @ (x * (q * (1 - q))[:, None]), x.T @ (y - q))
    if mpc.pid == 0:
        off = np.abs(estimates - exact).max()
        print(f"MPyC, {n} x {m}: {seconds:.1f} s wall, {used:.1f} s CPU a party, {STEPS} steps, off by {off:.1e}")


if __name__ == "__main__":
    mpc.run(main(int(sys.argv[1]), int(sys.argv[2])))
