"""Size and power of the test whether the sites agree: what share of sound studies it warns of, and of turned labels.

Size: three sites of 300 rows, one logistic model everywhere, at the 5 % level. Power: three sites of 200 rows with a
prevalence of 30 % and an effect of 0.05 a year of age; at one site the labels are turned. Seeds are fixed.
`python benchmarks/agreement.py [DRAWS]`
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from coterie_learners.sums import agreement

Array = NDArray[np.float64]
SEED = 20_261
LEVEL = 0.05
TERMS = ("(Intercept)", "age")


def fit(x: Array, y: Array) -> Array:
    """Logistic regression by Newton's method."""
    beta = np.zeros(x.shape[1])
    for _ in range(25):
        mean = 1.0 / (1.0 + np.exp(-(x @ beta)))
        step = np.linalg.solve((x.T * (mean * (1.0 - mean))) @ x, x.T @ (y - mean))
        beta = beta + step
        if np.max(np.abs(step)) < 1e-10:
            break
    return beta


def p_value(x: Array, y: Array, sites: int) -> float:
    """The score test of rows dealt to so many sites in order."""
    mean = 1.0 / (1.0 + np.exp(-(x @ fit(x, y))))
    weight = mean * (1.0 - mean)
    whole = (x.T * weight) @ x
    parts = [
        agreement.part_of(x[k].T @ (y[k] - mean[k]), (x[k].T * weight[k]) @ x[k], whole)
        for k in np.array_split(np.arange(len(y)), sites)
    ]
    sums = {name: np.sum([np.asarray(part[name]) for part in parts], axis=0) for name in parts[0]}
    return agreement.compare(TERMS, {**sums, "pearson": 0.0, "at_an_end": 0.0}, 1.0, 0).p


def draw(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Rows with a prevalence of about 30 % and 0.05 a year of age."""
    age = rng.normal(0.0, 12.0, n)
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(0.95 - 0.05 * age))).astype(np.float64)
    return np.column_stack([np.ones(n), age]), y


def main(draws: int) -> None:
    """Print size and power."""
    rng = np.random.default_rng(SEED)
    size = np.mean([p_value(*draw(rng, 900), 3) < LEVEL for _ in range(draws)])
    found = 0
    for _ in range(draws // 10):
        x, y = draw(rng, 600)
        y[400:] = 1.0 - y[400:]
        found += p_value(x, y, 3) < LEVEL
    power = found / (draws // 10)
    print(f"size at {LEVEL:.0%}: {size:.2%} of {draws} draws; power: {power:.2%} of {draws // 10} draws")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
