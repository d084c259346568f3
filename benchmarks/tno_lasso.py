"""The paper's own Lasso on the rows of secure_lasso.py: run by `make bench-mpc` with the pinned packages' Python.

    python tno_lasso.py -M3 100 5

Prints one line: wall seconds of sharing and fitting, iterations apart; and how far from scikit-learn it ends.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from mpyc.runtime import mpc
from sklearn.datasets import make_regression
from sklearn.linear_model import Lasso as Plain
from tno.mpc.mpyc.secure_learning import Lasso, SolverTypes

LAMBDA, TOLERANCE = 0.001, 1e-4


async def main(n: int, m: int) -> None:
    x, y = make_regression(n_samples=n, n_features=m, n_informative=max(1, m // 2), noise=25.0, random_state=3)
    y = y / np.std(y)
    number = mpc.SecFxp(64, 32)
    await mpc.start()
    start = time.perf_counter()
    rows = [[number(float(v), integral=False) for v in row] for row in x]
    shared = [mpc.input(row, senders=0) for row in rows]
    outcome = mpc.input([number(float(v), integral=False) for v in y], senders=0)
    weights = await Lasso(solver_type=SolverTypes.GD, alpha=LAMBDA).compute_coef_mpc(
        shared, outcome, tolerance=TOLERANCE, minibatch_size=None
    )
    seconds = time.perf_counter() - start
    used = time.process_time()
    await mpc.shutdown()
    if mpc.pid == 0:
        plain = Plain(alpha=LAMBDA, tol=1e-12, max_iter=10**6).fit(x, y)
        off = float(np.abs(np.array(weights, dtype=float)[1:] - plain.coef_).max())
        print(f"TNO's Lasso, {n} x {m}: {seconds:.1f} s wall, {used:.1f} s CPU a party, coefficients off by {off:.1e}")


if __name__ == "__main__":
    mpc.run(main(int(sys.argv[1]), int(sys.argv[2])))
