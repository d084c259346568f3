"""An intercept for each site that never leaves it: each site fits its own intercept and posts the sums for the slopes.

Profile likelihood (Barndorff-Nielsen and Cox, Inference and Asymptotics, 1994, section 3.4). At slopes b a site finds
the intercept a(b) that maximises its own likelihood. It posts the score of b there, and the Schur complement
I_bb - I_ba I_ab / I_aa of its information. Both are sums over rows of columns about their weighted means: neither the
intercept, nor the number of rows, nor that of events stands in them. The slopes, their covariance and the deviance are
those of the model with a dummy for each site.

A site where nobody has the outcome, or everybody has it, tells nothing of slopes: it posts zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coterie_learners.core.payload import Payload
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.linalg import symmetric
from coterie_learners.study.rows import Block, Rows, join_blocks
from coterie_learners.sums import agreement
from coterie_learners.sums.family import Parts
from coterie_learners.sums.frame import Frame
from coterie_learners.sums.rounds import Model, sum_rows

STEPS = 200
HALVINGS = 40
# An intercept whose next step is shorter than this share of its standard error is found.
AT_REST = 1e-9


@dataclass(frozen=True)
class SiteFit:
    """A site's rows at slopes with its own intercept: pieces of rows, and weights (m,).

    `informative`: whether the rows say anything of slopes. `x` (m, q): the columns without the intercept.
    """

    block: Block
    x: Array
    parts: Parts
    own: Array
    informative: bool

    def about(self, weights: Array) -> Array:
        """The columns (m, q) about their means by these weights (m,)."""
        total = float(weights.sum())
        return np.asarray(self.x - (weights @ self.x) / total) if total > 0.0 else self.x


def find_profile(model: Model, rows: Rows, frame: Frame, beta: Array) -> SiteFit:
    """The rows at slopes beta[1:] with the intercept that fits them best."""
    block = model.weigh(frame.block(join_blocks(rows)))
    own = np.ones(len(block)) if block.weight is None else block.weight
    x = block.x[:, 1:]
    slopes = x @ beta[1:] if block.offset is None else x @ beta[1:] + block.offset
    outcome, weight = float(own @ block.y), float(own.sum())
    if model.family.whole and _is_one_sided(model, weight, outcome):
        nothing = np.zeros_like(slopes)
        return SiteFit(block, x, Parts(nothing, nothing, nothing, nothing, block.y), own, False)
    return SiteFit(block, x, _fit_intercept(model, block, own, slopes, outcome / weight), own, True)


def _is_one_sided(model: Model, weight: float, outcome: float) -> bool:
    least, most = model.family.find_one_sided(np.array([weight]), np.array([outcome]))
    return bool(least[0] or most[0])


def _fit_intercept(model: Model, block: Block, own: Array, slopes: Array, mean: float) -> Parts:
    """Newton's method with step halving on the one number that this site keeps."""
    family = model.family
    place = 0.0 if model.linear else family.start(mean)
    at = place - float(own @ slopes) / float(own.sum())
    parts = family.parts(at + slopes, block.y)
    for _ in range(STEPS):
        score, curvature = float(own @ parts.residual), float(own @ parts.curvature)
        weight = float(own @ parts.weight)
        size = curvature if curvature > 0.0 else weight
        step = score / size
        if abs(step) * np.sqrt(weight) <= AT_REST:
            break
        at, parts = _take_step(model, block, own, slopes, (at, step), parts)
    return parts


def _take_step(
    model: Model, block: Block, own: Array, slopes: Array, move: tuple[float, float], before: Parts
) -> tuple[float, Parts]:
    at, step = move
    worst = float(own @ before.deviance)
    for _ in range(HALVINGS):
        parts = model.family.parts(at + step + slopes, block.y)
        if float(own @ parts.deviance) <= worst * (1.0 + 1e-12) + 1e-12:
            break
        step *= 0.5
    return at + step, parts


def sum_moments(model: Model, rows: Rows, frame: Frame) -> dict[str, Array]:
    """A look about this site's own means: X'X, X'y and y'y of columns and outcome without their means."""
    block = model.weigh(frame.block(join_blocks(rows)))
    own = np.ones(len(block)) if block.weight is None else block.weight
    x = block.x[:, 1:] - (own @ block.x[:, 1:]) / own.sum()
    y = block.y - float(own @ block.y) / own.sum()
    out = {
        "score": np.concatenate([[0.0], x.T @ (own * y)]),
        "information": _border(model, (x.T * own) @ x),
        "deviance": float(own @ (y * y)) if model.linear else 0.0,
        "outcome": 0.0 if model.linear else float(own @ block.y),
        **model.count(block),
    }
    if "offset" in model.shapes("look"):
        out["offset"] = 0.0 if block.offset is None else float(own @ block.offset)
    return _in_shape(model.shapes("look"), out)


def sum_round(model: Model, rows: Rows, frame: Frame, beta: Array) -> dict[str, Array]:
    """What this site posts of a round: score and Schur complement of slopes, and deviance with its own intercept."""
    at = find_profile(model, rows, frame, beta)
    block, parts, own = at.block, at.parts, at.own
    curvature = own * parts.curvature
    about = at.about(curvature)
    expected = at.about(own * parts.weight)
    saturated = sum_rows(model.family.compute_saturated(block.y), block)
    if model.weighs and block.prior is not None:
        saturated += float(model.family.weight_terms(block.prior).sum())
    out = {
        "score": np.concatenate([[0.0], about.T @ (own * parts.residual)]),
        "information": _border(model, (expected.T * (own * parts.weight)) @ expected),
        "curvature": _border(model, (about.T * curvature) @ about),
        "deviance": sum_rows(parts.deviance, block),
        "outcome": sum_rows(block.y, block),
        "saturated": saturated,
        **model.count(block),
    }
    shapes = model.shapes("round")
    return _in_shape(shapes, out)


def measure_part(model: Model, rows: Rows, frame: Frame, end: Payload) -> dict[str, Array]:
    """This site's part of the test whether the sites agree on the slopes (`sums.agreement`)."""
    at = find_profile(model, rows, frame, end["beta"])
    weight = at.own * at.parts.weight
    about = at.about(weight)
    score, schur = about.T @ (at.own * at.parts.residual), (about.T * weight) @ about
    part = agreement.part_of(score, schur, symmetric(end["information"], model.p)[1:, 1:])
    if not at.informative:
        return agreement.pack_part(part, 0.0, False)
    residuals = (at.block.y - at.parts.mean) ** 2 / model.family.variance(at.parts.mean)
    return agreement.pack_part(part, float(at.own @ residuals), model.family.at_an_end(at.parts.mean))


def leverages(at: SiteFit, inverse: Array) -> Array:
    """Leverages (m,) with this site's intercept. `inverse` (q, q): of the pooled Schur complement."""
    weight = at.own * at.parts.weight
    about, total = at.about(weight), float(weight.sum())
    return np.asarray(weight * (np.sum((about @ inverse) * about, axis=1) + (1.0 / total if total > 0.0 else 0.0)))


def _border(model: Model, schur: Array) -> Array:
    """The upper triangle of a matrix (p, p) in which the intercept's place holds one, and goes with nothing."""
    whole = np.zeros((model.p, model.p))
    whole[0, 0], whole[1:, 1:] = 1.0, schur
    return np.asarray(whole[np.triu_indices(model.p)])


def _in_shape(shapes: dict[str, tuple[int, ...]], sums: dict[str, Array | float]) -> dict[str, Array]:
    return {name: np.asarray(sums[name], dtype=np.float64).reshape(shape) for name, shape in shapes.items()}
