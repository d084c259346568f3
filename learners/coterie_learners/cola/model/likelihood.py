"""Generalised linear models on a table of covariate patterns: equal to the fit on the rows that were counted.

The likelihood of a canonical model depends on the rows through the counts u and S = X'y alone; any other needs the
sums s of the outcome per pattern, and a Pearson dispersion or a sandwich the sums q of its squares (Wu et al., npj
Digit Med 2025;8:442, for u, S and s; q, the exposure sums, Firth and the sandwich are ours). Fisher scoring, the
information at the final estimates. Same bits everywhere.

Firth: penalty 1/2 log det I of the logit model (Biometrika 1993;80:27-38). Robust: HC0, White (Econometrica
1980;48:817).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coterie_learners.cola.model.scoring import Evaluate, LikelihoodPoint, Maximum, Steps, maximise
from coterie_learners.cola.model.separability import find_separated_columns
from coterie_learners.errors import Collinear, NotConverged, Separation, StudyError
from coterie_learners.numeric import elementary, linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.pairwise_sum import pairwise_sum, weighted_gram, weighted_sum
from coterie_learners.sums.families.binomial import binary_deviance
from coterie_learners.sums.family import Curve, Family
from coterie_learners.sums.frame import Frame
from coterie_learners.sums.separation import LevelCounts, check_levels, separation

# A pattern whose outcome is predicted this surely may be separated: then the linear programme decides.
SURE = 1e-6


@dataclass(frozen=True)
class Grouped:
    """A pooled table: design x (m, p) in a frame, with names, rows or exposure u (m,), and X'y.

    `cross` is X'y (p,), for a multinomial outcome (k - 1, p) by level after the first. `s` and `q`: sums of the outcome
    and of its square per pattern (with an exposure: of its square over the exposure), where the model needs them.
    `n` rows; `outcome` the sum of y, () or (k - 1,); `squares` the sum of y^2; `saturated` the saturated log-likelihood
    and `constant` that part of any log-likelihood which no coefficient touches. `declared` (m, p) and `declared_cross`
    are design and X'y on the scale of the declared ranges, on which levels are 0 and 1.
    """

    names: tuple[str, ...]
    x: Array
    u: Array
    cross: Array
    n: float
    outcome: Array
    declared: Array
    declared_cross: Array
    frame: Frame
    s: Array | None = None
    q: Array | None = None
    squares: float = 0.0
    saturated: float = 0.0
    constant: float = 0.0
    intercepts: tuple[int, ...] = ()

    @property
    def mean(self) -> float:
        """Outcome per row, or per unit of exposure."""
        return float(self.outcome) / float(pairwise_sum(self.u))


@dataclass(frozen=True)
class Choice:
    """How a table is fitted: the family, Firth's penalty, the sandwich; `tolerance` in standard errors."""

    family: Family
    firth: bool = False
    robust: bool = False
    tolerance: float = 1e-10
    limit: int = 200
    advice: str = "Merge rare levels, or leave the term out."


@dataclass(frozen=True)
class Estimate:
    """Coefficients (p,) in the frame and a root (p, q) of their covariance, with the dispersion and the deviance.

    `exact`: the columns give the outcome without error.
    """

    beta: Array
    root: Array
    dispersion: float
    deviance: float
    likelihood: float
    null_deviance: float | None
    steps: int
    condition_number: float
    exact: bool = False

    @property
    def covariance(self) -> Array:
        """The covariance (p, p) in the frame."""
        return linalg.matmul(self.root, self.root.T)


def estimate(table: Grouped, choice: Choice) -> Estimate:
    """Fit a pooled table; Separation, Collinear, NotConverged or StudyError (too few rows) say why there is no fit."""
    _check_size(table, choice)
    _check_levels(table, choice)
    multinomial = not choice.family.by_rows
    evaluate = _multinomial(table) if multinomial else _evaluate(table, choice)
    rules = Steps(_all_names(table), choice.tolerance, choice.limit, choice.family.limit)
    try:
        optimum = maximise(evaluate, _start(table, choice.family), rules)
    except (NotConverged, Collinear):
        _look_for_separation(table, choice)
        raise
    if _is_saturated(table, choice, optimum.point.beta):
        _look_for_separation(table, choice)
    return _multinomial_estimate(table, optimum) if multinomial else _estimate(table, choice, optimum)


def score_at(table: Grouped, choice: Choice, beta: Array) -> tuple[Array, Array, Array]:
    """Score (p,), expected information (p, p) and means (m,) or (k - 1, m) at coefficients of the table's frame."""
    if not choice.family.by_rows:
        point = _multinomial(table)(beta)
        eta = np.stack([linalg.matvec(table.x, b) for b in beta.reshape(table.cross.shape)])
        return point.score, point.information, _category_shares(eta)[0]
    curve = choice.family.curve(linalg.matvec(table.x, beta))
    return _score(table, choice.family, curve), weighted_gram(table.x, table.u * curve.weight), curve.mean


def _estimate(table: Grouped, choice: Choice, optimum: Maximum) -> Estimate:
    family, beta = choice.family, optimum.point.beta
    curve = family.curve(linalg.matvec(table.x, beta))
    likelihood = _likelihood(table, family, curve, beta)
    deviance = _deviance(table, family, likelihood, beta)
    is_exact = family.dispersion == "residual" and deviance <= optimum.noise
    if family.dispersion == "pearson":
        _check_spread(table, curve)
    dispersion = 0.0 if is_exact else _dispersion(table, family, curve, deviance)
    root = _sandwich(table, curve, optimum.root) if choice.robust else np.sqrt(dispersion) * optimum.root
    null = None if choice.firth else _null_deviance(table, family)
    whole = likelihood + table.constant
    size = optimum.condition_number
    return Estimate(beta, root, dispersion, deviance, whole, null, optimum.steps, size, is_exact)


def _evaluate(table: Grouped, choice: Choice) -> Evaluate:
    family, free = choice.family, max(table.n - table.x.shape[1], 1.0)

    def at(beta: Array) -> LikelihoodPoint:
        curve = family.curve(linalg.matvec(table.x, beta))
        information = weighted_gram(table.x, table.u * curve.weight)
        score = _score(table, family, curve)
        likelihood = _likelihood(table, family, curve, beta)
        deviance = _deviance(table, family, likelihood, beta)
        scale = max(deviance / free, _TINY) if family.dispersion == "residual" else 1.0
        size = table.squares if family.dispersion == "residual" else max(float(table.outcome), table.n)
        point = LikelihoodPoint(beta, score, information, likelihood, scale, size)
        return _firth_point(table, curve, point) if choice.firth else point

    return at


_TINY = 1e-300
_EPS = float(np.finfo(float).eps)
# A sum of squares of fewer roundings than these has no six digits of a standard error.
_FEWEST_UNITS = 1e5


def _score(table: Grouped, family: Family, curve: Curve) -> Array:
    if family.canonical:
        return family.natural * (table.cross - weighted_sum(table.x, table.u * curve.mean))
    assert table.s is not None
    return weighted_sum(table.x, (table.s - table.u * curve.mean) * curve.slope)


def _likelihood(table: Grouped, family: Family, curve: Curve, beta: Array) -> float:
    base = float(pairwise_sum(table.u * curve.down))
    if family.canonical:
        return family.natural * linalg.dot(beta, table.cross) + base
    assert table.s is not None
    return float(pairwise_sum(table.s * curve.up)) + base


def _firth_point(table: Grouped, curve: Curve, point: LikelihoodPoint) -> LikelihoodPoint:
    """Firth's score and penalised log-likelihood: every row gives its leverage times (1/2 - mean)."""
    factor = linalg.cholesky(point.information, table.names)
    reach = pairwise_sum((linalg.matmul(table.x, linalg.inverse(factor)) * table.x).T)
    leverage = table.u * curve.weight * reach
    penalty = float(pairwise_sum(elementary.log_of_array(np.diag(factor))))
    return LikelihoodPoint(
        point.beta,
        point.score + weighted_sum(table.x, leverage * (0.5 - curve.mean)),
        point.information,
        point.likelihood + penalty,
    )


def _deviance(table: Grouped, family: Family, likelihood: float, beta: Array) -> float:
    if family.dispersion == "residual":
        return max(table.squares - 2.0 * likelihood, 0.0)
    return max(2.0 * (table.saturated - table.constant - likelihood), 0.0)


def _dispersion(table: Grouped, family: Family, curve: Curve, deviance: float) -> float:
    free = float(table.n - table.x.shape[1])
    if family.dispersion == "known":
        return 1.0
    if family.dispersion == "residual":
        return max(deviance / free, _TINY)
    return max(float(pairwise_sum(_sum_squared_residuals(table, curve) / curve.variance)) / free, _TINY)


def _check_spread(table: Grouped, curve: Curve) -> None:
    """StudyError where the sums of squares about zero have lost the squares about the means."""
    assert table.s is not None
    squares = table.s if table.q is None else table.q
    whole = squares + 2.0 * np.abs(curve.mean * table.s) + table.u * curve.mean * curve.mean
    left, lost = (float(pairwise_sum(part / curve.variance)) for part in (_sum_squared_residuals(table, curve), whole))
    if left < _FEWEST_UNITS * _EPS * lost:
        about, zero = float(pairwise_sum(_sum_squared_residuals(table, curve))), float(pairwise_sum(squares))
        share = f"by about {np.sqrt(max(about, _EPS * zero) / zero):.1g} of it or less"
        raise StudyError(
            "CO-N208",
            f"The outcome varies so little beside its mean ({share}) that the sums of squares of a table, which are "
            "about zero, cannot tell its dispersion. Choose the learner glore, which sums residuals.",
        )


def _sum_squared_residuals(table: Grouped, curve: Curve) -> Array:
    """Sum over each pattern's rows of (y - mean)^2, with an exposure over the exposure."""
    assert table.s is not None
    # An outcome of 0 and 1 is its own square.
    q = table.s if table.q is None else table.q
    return q - 2.0 * curve.mean * table.s + table.u * curve.mean * curve.mean


def _sandwich(table: Grouped, curve: Curve, root: Array) -> Array:
    """A root of bread meat bread, from one of bread."""
    meat = weighted_gram(table.x, np.maximum(_sum_squared_residuals(table, curve), 0.0) * curve.slope * curve.slope)
    bread = linalg.matmul(root, root.T)
    whole = linalg.matmul(linalg.matmul(bread, meat), bread)
    return linalg.root_of(0.5 * (whole + whole.T))


def _null_deviance(table: Grouped, family: Family) -> float | None:
    """For the model with one intercept; None where that is no submodel."""
    if table.intercepts != (0,):
        return None
    mean, outcome = table.mean, float(table.outcome)
    if family.dispersion == "residual":
        return max(table.squares - outcome * mean, 0.0)
    if not family.closed_null and not family.binary:
        curve = family.curve(np.array([family.start(mean)]))
        likelihood = outcome * float(curve.up[0]) + table.n * float(curve.down[0])
        return 2.0 * (table.saturated - table.constant - likelihood)
    if not family.binary:
        return 2.0 * (table.saturated - table.constant - outcome * linalg.log(mean) + outcome)
    return binary_deviance(table.n, outcome)


# Multinomial: baseline logits, the first level being the baseline (Agresti, Categorical Data Analysis, section 8.1)


def _multinomial(table: Grouped) -> Evaluate:
    levels, p = table.cross.shape

    def at(beta: Array) -> LikelihoodPoint:
        eta = np.stack([linalg.matvec(table.x, b) for b in beta.reshape(levels, p)])
        share, log_total = _category_shares(eta)
        score = table.cross - np.stack([weighted_sum(table.x, table.u * q) for q in share])
        likelihood = linalg.dot(beta, table.cross.ravel()) - float(pairwise_sum(table.u * log_total))
        return LikelihoodPoint(beta, score.ravel(), _information(table, share), likelihood)

    return at


def _category_shares(eta: Array) -> tuple[Array, Array]:
    """Probabilities (k - 1, m) of the levels after the first, and log(1 + sum of e^eta) (m,)."""
    top = np.maximum(np.max(eta, axis=0), 0.0)
    parts = elementary.exp_of_array(eta - top)
    total = elementary.exp_of_array(-top) + pairwise_sum(parts)
    return parts / total, top + elementary.log_of_array(total)


def _information(table: Grouped, share: Array) -> Array:
    levels, p = table.cross.shape
    out = np.zeros((levels, p, levels, p))
    for a in range(levels):
        for b in range(a, levels):
            block = weighted_gram(table.x, table.u * share[a] * (float(a == b) - share[b]))
            out[a, :, b, :] = block
            out[b, :, a, :] = block
    return out.reshape(levels * p, levels * p)


def _multinomial_estimate(table: Grouped, optimum: Maximum) -> Estimate:
    deviance, likelihood = -2.0 * optimum.point.likelihood, optimum.point.likelihood
    null = None
    if table.intercepts == (0,):
        counts = [table.n - float(pairwise_sum(table.outcome)), *table.outcome.tolist()]
        null = -2.0 * sum(c * linalg.log(c / table.n) for c in counts)
    size = optimum.condition_number
    return Estimate(optimum.point.beta, optimum.root, 1.0, deviance, likelihood, null, optimum.steps, size)


# The start, and the case in which there is nothing to fit


def _start(table: Grouped, family: Family) -> Array:
    beta = np.zeros(table.cross.shape)
    if not table.intercepts:
        return beta.ravel()
    if not family.by_rows:
        first = table.n - float(pairwise_sum(table.outcome))
        beta[:, 0] = elementary.log_of_array(table.outcome / first)
    else:
        beta[list(table.intercepts)] = family.start(table.mean)
    return beta.ravel()


def _check_size(table: Grouped, choice: Choice) -> None:
    if table.n <= table.cross.size:
        raise StudyError(
            "CO-N203",
            f"{table.n:.0f} rows at all sites together cannot carry {table.cross.size} coefficients. "
            "Use a shorter formula, or more rows.",
        )
    total = float(np.sum(table.outcome))
    if choice.family.whole and not choice.firth:
        choice.family.check_extremes(table.n, total)
    if not choice.family.by_rows and (np.any(table.outcome == 0.0) or total == table.n):
        raise Separation("CO-N301", "A level of the outcome does not occur at any site. Leave it out of the study.")


def _check_levels(table: Grouped, choice: Choice) -> None:
    """Separation that names every level with one outcome only; they are columns of 0 and 1."""
    layout = table.frame.layout
    at = layout.indicators()
    if choice.firth or not choice.family.by_rows or not choice.family.whole or not at:
        return
    shift = len(table.names) - layout.p  # of site intercepts before the other columns
    places = [j + shift for j in at]
    rows = np.array([float(pairwise_sum(table.u * table.declared[:, j])) for j in places])
    everybody = float(pairwise_sum(table.u))
    counts = LevelCounts(tuple(at), rows, table.declared_cross[places], everybody, float(table.outcome))
    check_levels(layout, choice.family, counts, choice.advice)


def _all_names(table: Grouped) -> Sequence[str]:
    return (
        table.names if table.cross.ndim == 1 else [f"{k + 2}:{n}" for k in range(len(table.cross)) for n in table.names]
    )


def _is_saturated(table: Grouped, choice: Choice, beta: Array) -> bool:
    """Whether some pattern's outcome is all but certain at these coefficients."""
    if choice.firth or not choice.family.separable:
        return False
    if not choice.family.by_rows:
        share, _ = _category_shares(np.stack([linalg.matvec(table.x, b) for b in beta.reshape(table.cross.shape)]))
        return bool(np.any(share < SURE) or np.any(pairwise_sum(share) > 1.0 - SURE))
    curve = choice.family.curve(linalg.matvec(table.x, beta))
    return bool(np.any(curve.variance < SURE))


def _look_for_separation(table: Grouped, choice: Choice) -> None:
    if choice.firth or not choice.family.separable:
        return
    names = find_separated_columns(table.declared, table.u, table.declared_cross, choice.family.binary, table.names)
    if names is not None:
        raise separation(names, choice.advice)
