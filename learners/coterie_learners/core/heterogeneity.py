"""How far the sites of one model agree: each site's own estimate, the fit without it, Cochran's Q and I^2.

It needs only each site's score and information at the pooled estimate, so anybody who reads a plain ledger can do it.
A site's own estimate is one Newton step from the pooled one (exact for the identity link; Bickel 1975 for the rest).
Cochran, "The combination of estimates from different experiments", Biometrics 1954;10:101-129; I^2: Higgins and
Thompson, Stat Med 2002;21:1539-1558. Nothing here is recomputed by others, so plain BLAS is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import chi_squared_tails

# A matrix whose smallest eigenvalue is below this share of its largest carries no estimate of every coefficient.
_SINGULAR = 1e-10


@dataclass(frozen=True)
class Share:
    """One site's part at the pooled estimate: rows, score (p,) and information (p, p), on the inside scale."""

    rows: int
    score: Array
    information: Array


@dataclass(frozen=True)
class Heterogeneity:
    """Agreement of K sites on p coefficients, in the variables' own units; NaN where a site's rows cannot tell.

    `estimates`, `std_errors` (p,): the pooled fit. `own`, `own_errors` (K, p): each site alone. `without` (K, p): the
    fit without that site. `moved` (K, p): how many pooled standard errors the site moves each coefficient.
    `q`, `q_df`, `q_p`, `i2` (p,): Cochran's Q with its degrees of freedom and p-value, and I^2 between 0 and 1.
    `apart`, `apart_df`, `apart_p` (K,): Wald test of the site's own estimate against the fit without it.
    """

    terms: tuple[str, ...]
    sites: tuple[str, ...]
    estimates: Array
    std_errors: Array
    own: Array
    own_errors: Array
    without: Array
    moved: Array
    q: Array
    q_df: Array
    q_p: Array
    i2: Array
    apart: Array
    apart_df: Array
    apart_p: Array


def compare_sites(
    terms: Sequence[str],
    beta: Array,
    shares: Mapping[str, Share],
    *,
    penalty: Array,
    pull: Array,
    back: Array,
    origin: Array,
    dispersion: float = 1.0,
) -> Heterogeneity:
    """Compare the sites at coefficients `beta` (p,), those of the fit or of the last round that there is.

    `beta`, the shares, `penalty` (p, p) and its gradient `pull` (p,) at beta are on the inside scale, which `back`
    (p, p) carries to the variables' own units; `origin` (p,) are the coefficients there of zeros inside.
    """
    whole = sum((s.information for s in shares.values()), np.zeros_like(penalty))
    inverse = np.linalg.inv(whole + penalty)
    score = sum((s.score for s in shares.values()), -pull)
    # at a fit the step is nothing
    pooled = origin + back @ (beta + inverse @ score)
    pooled_errors = _errors(back, dispersion * inverse @ whole @ inverse)
    alone = [_estimate_alone(beta, share, dispersion) for share in shares.values()]
    rest = [_estimate_rest(beta, shares, name, (penalty, pull), dispersion) for name in shares]
    own = np.array([origin + back @ estimate for estimate, _ in alone])
    own_errors = np.array([_errors(back, covariance) for _, covariance in alone])
    without = np.array([origin + back @ estimate for estimate, _ in rest])
    q, q_df = _cochran(own, own_errors)
    apart = np.array([_wald_distance(*a, *r) for a, r in zip(alone, rest, strict=True)])
    df = np.where(np.isnan(apart), 0.0, float(len(beta)))
    return Heterogeneity(
        terms=tuple(terms),
        sites=tuple(shares),
        estimates=pooled,
        std_errors=pooled_errors,
        own=own,
        own_errors=own_errors,
        without=without,
        moved=(pooled - without) / pooled_errors,
        q=q,
        q_df=q_df,
        q_p=chi_squared_tails(q, q_df),
        i2=np.where(q > 0, np.maximum(0.0, (q - q_df) / np.where(q > 0, q, 1.0)), 0.0),
        apart=apart,
        apart_df=df,
        apart_p=chi_squared_tails(apart, df),
    )


def _estimate_alone(beta: Array, share: Share, dispersion: float) -> tuple[Array, Array]:
    """One Newton step from the pooled estimate over one site's rows, and its covariance; NaN if they cannot tell."""
    return _step(beta, share.score, share.information, np.zeros_like(share.information), dispersion)


def _estimate_rest(
    beta: Array, shares: Mapping[str, Share], left_out: str, ridge: tuple[Array, Array], dispersion: float
) -> tuple[Array, Array]:
    others = [share for name, share in shares.items() if name != left_out]
    penalty, pull = ridge
    score = sum((s.score for s in others), -pull)
    return _step(beta, score, sum((s.information for s in others), np.zeros_like(penalty)), penalty, dispersion)


def _step(beta: Array, score: Array, information: Array, penalty: Array, dispersion: float) -> tuple[Array, Array]:
    spectrum = np.linalg.eigvalsh(information + penalty)
    if not spectrum[0] > _SINGULAR * spectrum[-1]:
        return np.full_like(beta, np.nan), np.full_like(information, np.nan)
    inverse = np.linalg.inv(information + penalty)
    return beta + inverse @ score, dispersion * inverse @ information @ inverse


def _errors(back: Array, covariance: Array) -> Array:
    variances: Array = np.einsum("ij,jk,ik->i", back, covariance, back)
    return np.sqrt(variances)


def _cochran(own: Array, errors: Array) -> tuple[Array, Array]:
    """Q (p,) over the sites that can tell, and its degrees of freedom; NaN and 0 if fewer than two can."""
    weight = np.where(np.isnan(own), 0.0, 1.0 / np.square(np.where(np.isnan(own), 1.0, errors)))
    count = (weight > 0).sum(axis=0)
    total = np.where(count > 0, weight.sum(axis=0), 1.0)
    values = np.nan_to_num(own)
    centre = (weight * values).sum(axis=0) / total
    q = (weight * np.square(values - centre)).sum(axis=0)
    return np.where(count > 1, q, np.nan), np.maximum(count - 1, 0).astype(float)


def _wald_distance(first: Array, first_covariance: Array, second: Array, second_covariance: Array) -> float:
    if np.isnan(first).any() or np.isnan(second).any():
        return float("nan")
    gap = first - second
    return float(gap @ np.linalg.solve(first_covariance + second_covariance, gap))
