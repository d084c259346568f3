"""Rows for logistic regression on shares, and that fit by three parties in threads of one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit
from support.learners.parties import RecordedWire, run_parties

from coterie_learners.numeric.array import Array
from coterie_learners.secure.moments import INPUT
from coterie_learners.secure_glm.shared_newton import FIELD_BITS, GlmOutcome, GlmTarget, SharedRows, fit_shared_glm
from coterie_learners.shares.field import Elements, element_array
from coterie_learners.shares.shamir3 import ThreePartyShamir


@dataclass(frozen=True)
class GlmRows:
    """Columns x (n, m) in [-1, 1] without the intercept, outcome y (n,) and offset (n,) or None."""

    x: Array
    y: Array
    offset: Array | None = None

    @property
    def design(self) -> Array:
        """The columns with the intercept first."""
        return np.column_stack([np.ones(len(self.x)), self.x])


def draw_rows(n: int, m: int, seed: int = 1, *, rare: float = 0.0, rho: float = 0.0, effect: float = 0.5) -> GlmRows:
    """Columns of unit ranges with correlation rho, the second half binary, and an outcome as rare as asked for."""
    rng = np.random.default_rng(seed)
    mixed = np.sqrt(rho) * rng.normal(size=(n, 1)) + np.sqrt(1.0 - rho) * rng.normal(size=(n, m))
    x = np.clip(mixed / 5.0, -1.0, 1.0)
    x[:, m - m // 2 :] = mixed[:, m - m // 2 :] > 0.3
    weights = rng.normal(size=m) * effect * np.where(np.arange(m) < m - m // 2, 5.0, 1.0) / np.sqrt(m)
    eta = x @ weights
    eta += np.log(rare / (1.0 - rare)) - eta.mean() - 0.5 * eta.var() if rare else -eta.mean()
    return GlmRows(x, (rng.random(n) < expit(eta)).astype(float))


def fit_on_shares(
    rows: GlmRows,
    wire: RecordedWire | None = None,
    seed: int = 0,
    ridge: float = 0.0,
    make: Callable[..., ThreePartyShamir] = ThreePartyShamir,
    tamper: Mapping[str, Callable[[str, bytes], bytes]] | None = None,
    **target: Any,
) -> GlmOutcome:
    """The fit, each half of the rows dealt by one of the first two parties; NotConverged and Collinear pass through."""
    p = rows.x.shape[1] + 1
    cut = len(rows.y) // 2
    penalty = np.array([0.0] + [ridge] * (p - 1))
    plain: dict[str, Any] = {"iterations": 16, "check_every": 1} | target
    goal = GlmTarget(penalty, np.eye(p)[0], **plain)

    def program(trio: ThreePartyShamir) -> GlmOutcome:
        columns = [rows.x, *([] if rows.offset is None else [rows.offset])]
        values = np.column_stack([trio.field.encode(np.column_stack(columns), INPUT), encode_outcome(rows.y)])
        halves = [
            trio.deal(k, values[part] if trio.me == k else None, values[part].shape)
            for k, part in enumerate((slice(0, cut), slice(cut, None)))
        ]
        shares = np.concatenate(halves)
        ones = np.full((len(shares), 1), 1 << INPUT, dtype=object)
        x = np.concatenate([ones, shares[:, : p - 1]], axis=1)
        offset = None if rows.offset is None else shares[:, p - 1]
        return fit_shared_glm(trio, SharedRows(x, shares[:, -1], offset), goal)

    return run_parties(program, FIELD_BITS, seed=seed, wire=wire, make=make, tamper=tamper)[0]


def encode_outcome(y: Array) -> Elements:
    """An outcome of 0 and 1 without binary digits (n, 1)."""
    return element_array([int(v) for v in y.tolist()], (len(y), 1))
