"""One site of a logistic fit by Newton's method over Redis: what a fit costs without a ledger, gate, masks or replay.

    redis_newton.py PORT SITE SITES FILE.csv

Every site sends score and information of its own rows to all, adds up what it gets and takes the step itself. It prints
JSON: when the first round began and the last ended (the machine's monotonic clock), seconds of each round, estimates.
It needs numpy, pyarrow and redis, and nothing of Coterie.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import pyarrow.csv as pc
import redis
from numpy.typing import NDArray

Vector = NDArray[np.float64]
# Rows that stay in the processor's cache; the last step in standard errors.
BLOCK, TOLERANCE, MOST_ROUNDS = 2048, 1e-10, 25


def read_rows(path: str) -> tuple[Vector, Vector]:
    """The design (n, p) with an intercept, and the outcome `y` (n,)."""
    table = pc.read_csv(path)
    columns = [table.column(name).to_numpy() for name in table.column_names if name != "y"]
    return np.column_stack([np.ones(table.num_rows), *columns]), table.column("y").to_numpy().astype(np.float64)


def sum_rows(x: Vector, y: Vector, beta: Vector) -> Vector:
    """Information (p, p) and below it the score (p,), as one array."""
    p = len(beta)
    out = np.zeros((p + 1, p))
    for at in range(0, len(y), BLOCK):
        rows = x[at : at + BLOCK]
        mean = 1.0 / (1.0 + np.exp(-(rows @ beta)))
        weighted = np.sqrt(mean * (1.0 - mean))[:, None] * rows
        out[:p] += weighted.T @ weighted
        out[p] += (y[at : at + BLOCK] - mean) @ rows
    return out


def fit(broker: Any, site: int, sites: int, x: Vector, y: Vector) -> tuple[Vector, list[float]]:
    """The estimates, and the seconds of each round."""
    beta, seconds = np.zeros(x.shape[1]), []
    for number in range(MOST_ROUNDS):
        start = time.perf_counter()
        post = sum_rows(x, y, beta).tobytes()
        for other in range(sites):
            broker.rpush(f"{number}/{other}/{site}", post)
        posts = [broker.blpop(f"{number}/{site}/{other}", 60)[1] for other in range(sites)]
        total = np.sum([np.frombuffer(one).reshape(-1, len(beta)) for one in posts], axis=0)
        inverse = np.linalg.inv(total[:-1])
        step = inverse @ total[-1]
        beta = beta + step
        seconds.append(time.perf_counter() - start)
        if np.max(np.abs(step) / np.sqrt(np.diag(inverse))) < TOLERANCE:
            break
    return beta, seconds


def main() -> None:
    """Wait for the others, fit, and print the result."""
    port, site, sites = map(int, sys.argv[1:4])
    x, y = read_rows(sys.argv[4])
    broker = redis.Redis(port=port)
    for other in range(sites):
        broker.rpush(f"ready/{other}", site)
    for _ in range(sites):
        broker.blpop(f"ready/{site}", 600)
    started = time.monotonic()
    estimates, seconds = fit(broker, site, sites, x, y)
    result = {"started": started, "ended": time.monotonic(), "rounds": seconds, "estimates": estimates.tolist()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
