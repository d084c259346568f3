"""Whether the maximum of the likelihood lies at infinity, decided by a linear programme on the table alone.

Albert and Anderson (Biometrika 1984;71:1-10) for rows; in terms of the sufficient statistics (Barndorff-Nielsen 1978,
section 9.3): the maximum is finite exactly when X'y lies inside the set that X't fills while the cells t run over all
outcomes which the counts allow (0 to u for a binary outcome, from 0 for a count, shares of u for levels). How far
inside is the largest slack s with s <= t <= u - s; where it is nothing, the multipliers of X't = X'y are the
direction in which the likelihood never falls (Konis 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coterie_learners.numeric.array import Array

# Slack, in rows, that the solver's own tolerance (1e-7) cannot make.
INSIDE = 1e-5
NOTABLE = 1e-6
OPTIMAL, INFEASIBLE = 0, 2


def find_separated_columns(x: Array, u: Array, cross: Array, bounded: bool, names: Sequence[str]) -> list[str] | None:
    """Names of the columns whose coefficients run away, or None if the maximum is finite.

    `x` (m, p), `u` (m,), `cross` X'y (p,), or (k - 1, p) for the levels of a multinomial outcome; `bounded`: a pattern
    has no more events than rows.
    """
    targets = np.atleast_2d(cross)
    done = _levels(x, u, targets) if cross.ndim > 1 else _cells(x, u, targets[0], bounded)
    if done.status == INFEASIBLE:
        return list(names)  # no outcome at all has this X'y: sums and counts contradict each other
    if done.status != OPTIMAL or -done.fun > INSIDE:
        return None
    direction = np.abs(np.asarray(done.eqlin.marginals)[: targets.size].reshape(targets.shape))
    weight = direction.max(axis=0) * np.max(np.abs(x), axis=0)
    return [name for name, w in zip(names, weight.tolist(), strict=True) if w > NOTABLE * weight.max()]


def _cells(x: Array, u: Array, target: Array, bounded: bool) -> Any:
    """Largest s with X't = target and s <= t (<= u - s)."""
    from scipy import sparse  # slow to import, and most studies do not come here

    m = len(x)
    # With t = s + r: r >= 0 and, where bounded, r + 2 s <= u.
    slack = x.sum(axis=0)
    equal = np.vstack([x, slack]).T
    upper = sparse.hstack([sparse.identity(m), sparse.csr_matrix(np.full((m, 1), 2.0))]) if bounded else None
    return _solve_programme(upper, u, equal, target)


def _levels(x: Array, u: Array, targets: Array) -> Any:
    """Largest s with X't_k = target_k, the t_k and the rest of u being at least s in every cell."""
    from scipy import sparse

    m, k = len(x), len(targets)
    cells: Any = sparse.block_diag([x.T] * k)
    slack = np.tile(x.sum(axis=0), k)[:, None]
    equal = sparse.hstack([cells, sparse.csr_matrix(slack)])
    upper = sparse.hstack([sparse.hstack([sparse.identity(m)] * k), sparse.csr_matrix(np.full((m, 1), k + 1.0))])
    return _solve_programme(upper, u, equal, targets.ravel())


def _solve_programme(upper: Any, u: Array, equal: Any, target: Array) -> Any:
    """The largest last variable, at most 1, with equal t = target and upper t <= u, nothing being negative."""
    from scipy import optimize

    goal = np.zeros(equal.shape[1])
    goal[-1] = -1.0
    bounds = [(0.0, None)] * (len(goal) - 1) + [(0.0, 1.0)]
    return optimize.linprog(
        goal, A_ub=upper, b_ub=None if upper is None else u, A_eq=equal, b_eq=target, bounds=bounds, method="highs"
    )
