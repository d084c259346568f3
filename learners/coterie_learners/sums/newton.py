"""What a server makes of the pooled sums: the next frame, the start, and Newton-Raphson steps until they rest.

Every number here has the same bits on every machine. A fit rests when its next step would be shorter than `tolerance`
standard errors, or than what rounding alone makes of a step: the sums cannot tell such steps from nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie_learners.core.payload import Payload
from coterie_learners.errors import Collinear, NotConverged, ProtocolError, StudyError, pluralise
from coterie_learners.numeric import elementary, linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.pairwise_sum import pairwise_sum
from coterie_learners.sums.family import Totals
from coterie_learners.sums.frame import Frame, Moments, column_spreads, draw_frame, move_moments
from coterie_learners.sums.penalty import Penalty
from coterie_learners.sums.rounds import HUGE, Kind, Model
from coterie_learners.sums.separation import LevelCounts, check_levels, check_steps

MAX_HALVINGS = 10
MAX_LOOKS = 4
# An objective that grew by less than this share of itself grew by rounding.
WORSE = 1e-10
_EPS = float(np.finfo(float).eps)
# Rounding of a step is bounded by this many times what the magnitudes in a row would make of one unit.
_ROUNDING = 8.0
# An objective that is not known yet.
UNKNOWN = 1e300
# A deviance of so many units of the fixed point is nothing.
_EXACT = 64.0
# A step that should be no longer than this many times where a fit rests announces the last sums.
_NEAR_REST = 10.0

# A shape beyond e^18 makes a negative binomial count a Poisson one; it rests at so small a gain of the likelihood.
LARGEST_SHAPE, SHAPE_RESTS = 18.0, 1e-20
# The deviance of the model with an intercept alone is right to this share of itself.
NULL_RESTS = 1e-13


@dataclass(frozen=True)
class FitRules:
    """How a study's fit goes: model, penalty, tolerance in standard errors, and the unit of the sums' fixed point.

    `unit` is 0 where sums are floats. `advice` ends the sentence on separation.
    """

    model: Model
    penalty: Penalty
    tolerance: float
    unit: float = 0.0
    advice: str = "Merge rare levels, leave the term out, or set a ridge."


@dataclass(frozen=True)
class Point:
    """Coefficients (p,) with the pooled score (p,), expected and observed information (p, p) and deviance there."""

    beta: Array
    score: Array
    information: Array
    curvature: Array
    deviance: float


def begin(rules: FitRules) -> Payload:
    """What every site starts from, before anything is posted: a look in the frame of the declared ranges."""
    frame = Frame.from_ranges(rules.model.layout)
    state = {"beta": np.zeros(rules.model.p), "null": 0.0, "looks": 0, "known": 0}
    return _has_settled({**frame.payload(), **state, "rests": False})


def kind_of(last: Payload) -> Kind:
    """What the sites sum after this post."""
    known = int(last["known"])
    return "look" if known == 0 else "first" if known == 1 else "round"


def advance(rules: FitRules, last: Payload, sums: Payload) -> Payload:
    """The next server post from the pooled sums of a look or a round."""
    if kind_of(last) == "look":
        return _after_look(rules, last, sums)
    return _after_round(rules, last, sums)


# Looks


def _after_look(rules: FitRules, last: Payload, sums: Payload) -> Payload:
    model, frame = rules.model, Frame.from_payload(rules.model.layout, last)
    moments = _moments(model, sums)
    check_size(model, float(sums["n"]), moments.outcome, moments.n)
    drawn, clear = draw_frame(frame, moments)
    looks = int(last["looks"]) + 1
    if not clear and looks < MAX_LOOKS:
        state = {"beta": np.zeros(model.p), "null": 0.0, "looks": looks, "known": 0}
        return _has_settled({**drawn.payload(), **state, "rests": False})
    _check_variation(model, frame, moments)
    if not np.any(rules.penalty.weights) and not model.firth:
        check_levels(model.layout, model.family, _count_levels(model, frame, moments), rules.advice)
    state = {"looks": looks, "known": 1, "rests": False, "halvings": 0, "objective": UNKNOWN}
    start = _start(rules, frame, drawn, moments)
    # One step solves a linear model.
    closing = _close(move_moments(moments, frame, drawn).gram) if model.linear and np.any(start["step"]) else {}
    return _has_settled({**drawn.payload(), **state, **start, **closing})


def _moments(model: Model, sums: Payload) -> Moments:
    weight = "weight" if model.weighs else "n"
    n, squares, outcome = (float(sums[name]) for name in (weight, "deviance", "outcome"))
    offset = float(sums["offset"]) if "offset" in sums else 0.0
    return Moments(n, linalg.symmetric(sums["information"], model.p), sums["score"], squares, outcome, offset)


def check_size(model: Model, n: float, outcome: float, weight: float | None = None) -> None:
    """StudyError or Separation where so many rows of this weight with this outcome carry no fit."""
    if n <= model.p:
        raise StudyError("CO-N203", f"{pluralise(n, 'row')} at all sites together cannot carry {model.p} coefficients.")
    if model.family.whole and not model.firth:
        model.family.check_extremes(n if weight is None else weight, outcome)


def _check_variation(model: Model, frame: Frame, moments: Moments) -> None:
    names = model.layout.design.names
    if not model.layout.design.formula.intercept:
        return
    gram = np.diag(moments.gram)
    never = [names[j] for j in model.layout.indicators() if gram[j] == 0.0 and model.layout.centred[j]]
    if never:
        raise linalg.no_variation(never)
    constant = [names[j] for j, spread in column_spreads(frame, moments).items() if spread.constant]
    if constant:
        raise Collinear(
            "CO-N202",
            f"The column {constant[0]} is a combination of (Intercept): it has one value in all pooled rows. "
            "Leave it out.",
        )


def _count_levels(model: Model, frame: Frame, moments: Moments) -> LevelCounts | None:
    """Rows and outcomes of the indicator columns, which a look holds where outcomes are counted."""
    at = model.layout.indicators()
    if not model.family.whole or model.weighs or model.profiled or not at:
        return None
    centre, scale = frame.centre[at], frame.scale[at]
    if model.layout.design.formula.intercept:
        rows = moments.n * centre + scale * moments.gram[0, at]
    else:
        rows = scale * scale * np.diag(moments.gram)[at]
    outcomes = centre * moments.outcome + scale * moments.cross[at]
    return LevelCounts(tuple(at), np.rint(rows), np.rint(outcomes), moments.n, moments.outcome)


def _start(rules: FitRules, frame: Frame, drawn: Frame, moments: Moments) -> dict[str, Any]:
    """The model with an intercept alone, and one step from it where the moments say what it needs.

    The moments know nothing of an offset but its mean, so that step is a guess there; `_before` judges it.
    """
    model = rules.model
    base = np.zeros(model.p)
    if not model.common_intercept:
        return {"null": 0.0, "beta": base, "base": base, "step": base}
    stretch = frame.outcome_scale / drawn.outcome_scale
    null = 0.0 if model.linear else model.family.start(stretch * moments.outcome / moments.n)
    base[0] = null
    # A guess may leave the range of the means, and without a null deviance nothing judges it.
    too_bold = model.has_offset and (model.family.bounded or model.family.shaped)
    if model.layout.derived or too_bold:
        return {"null": null, "beta": base, "base": base, "step": np.zeros(model.p)}
    here = move_moments(moments, frame, drawn)
    curve = model.family.curve(np.array([null]))
    slope, mean, weight = (float(v[0]) for v in (curve.slope, curve.mean, curve.weight))
    score = slope * (here.cross - mean * here.gram[0])
    point = Point(base, score, weight * here.gram, weight * here.gram, 0.0)
    step = _limit(rules, _step(rules, drawn, point)[1])
    return {"null": null, "beta": base + step, "base": base, "step": step}


# Rounds


def _after_round(rules: FitRules, last: Payload, sums: Payload) -> Payload:
    model, frame = rules.model.at_state(last), Frame.from_payload(rules.model.layout, last)
    known = _carry(model, frame, last, sums)
    null_step, null_rests = _step_of_null(model, sums)
    information = linalg.symmetric(sums["information"], model.p)
    curvature = _curvature_of(rules, frame, information, sums)
    here = Point(last["beta"], sums["score"], information, curvature, max(float(sums["deviance"]), 0.0))
    # With a shape the saturated likelihood is not constant.
    moving = 2.0 * float(sums["saturated"]) if model.family.shaped else 0.0
    objective = here.deviance - moving + rules.penalty.value(frame, here.beta) - _log_determinant(model, information)
    if not model.linear and objective - _before(rules, frame, last, known, sums) > WORSE * (abs(objective) + 0.1):
        return _start_again(last) if kind_of(last) == "first" and model.has_offset else _halve(last)
    if model.firth and not last.get("fresh", False):
        # Sites find the leverages of their rows from this, and post the penalised score at the same coefficients.
        upper = information[linalg.upper_triangle(model.p)]
        state = {"known": 2, "halvings": 0, "objective": objective, "information": upper, "fresh": True}
        return _has_settled({**last, **known, **state})
    factor, step, gradient = _solve(rules, frame, here)
    dispersion = dispersion_of(model, here.deviance, float(known["n"]))
    noise = _noise(rules, here, factor, Totals(**{name: float(known[name]) for name in model.counts}))
    gain = max(linalg.dot(gradient, step), 0.0)
    post = {
        **known,
        **frame.payload(),
        "null": float(last["null"]) + null_step,
        "looks": last["looks"],
        "known": 2,
        "base": here.beta,
        "step": step,
        "objective": objective,
        "deviance": here.deviance,
        "gain": gain / dispersion,
        "noise": noise / dispersion,
        "halvings": 0,
        **({"fresh": False} if model.firth else {}),
        **_step_shape(model, last, sums),
    }
    rests = null_rests and bool(post.get("shape_rests", True))
    if rests and gain <= max(rules.tolerance**2 * dispersion, noise):
        exact = model.linear and here.deviance <= noise + _EXACT * rules.unit
        return _has_settled({**post, **_rest(rules, frame, here, step), "exact": exact, "rests": True})
    if not np.any(rules.penalty.weights) and not model.firth:
        check_steps(model.layout, model.family, frame, (gain, step, last["step"]), rules.advice)
    last_step = model.linear or _foresees_rest(rules, post, last)
    closing = _close(information) if last_step and not model.firth else {}
    return _has_settled({**post, **closing, "beta": here.beta + _limit(rules, step), "rests": False})


def closes(last: Payload) -> bool:
    """Whether the sites add their part of the test of agreement to their next sums, which are expected to rest."""
    return bool(last.get("closing", False))


def _foresees_rest(rules: FitRules, post: Mapping[str, Any], last: Payload) -> bool:
    """Whether the next step should be so short that the fit rests.

    Near the end a step of Newton's is as long as a constant times the square of the one before.
    """
    gain, before = float(post["gain"]), float(last["gain"]) if "gain" in last else 1.0
    following = gain**3 / before**2 if before > gain else gain
    return bool(following <= _NEAR_REST**2 * max(rules.tolerance**2, float(post["noise"])))


def _close(information: Array) -> dict[str, Any]:
    """What a post has for that: the pooled information (p, p) of the last sums, its upper triangle."""
    return {"closing": True, "information": information[linalg.upper_triangle(len(information))]}


def _step_shape(model: Model, last: Payload, sums: Payload) -> dict[str, Any]:
    """The next Newton step of a shape's logarithm, and its standard error; NotConverged if it leaves all bounds."""
    if not model.family.shaped:
        return {}
    here, (score, information) = float(last["shape"]) if "shape" in last else 0.0, (float(v) for v in sums["shape"])
    if here > LARGEST_SHAPE:
        raise NotConverged(
            "CO-N105",
            'The counts vary no more than a Poisson model allows: theta has no bound. Set family = "poisson".',
        )
    theta = float(elementary.exp_of_array(np.array([here]))[0])
    slope, curvature = theta * score, theta * theta * information - theta * score
    size = curvature if curvature > 0.0 else abs(theta * theta * information) + 1e-300
    step = min(max(slope / size, -1.0), 1.0)
    rests = slope * slope <= SHAPE_RESTS * size
    error = float(np.sqrt(1.0 / information)) if information > 0.0 else UNKNOWN
    return {"shape": here + step, "shape_base": here, "shape_step": step, "shape_error": error, "shape_rests": rests}


def _log_determinant(model: Model, information: Array) -> float:
    """Twice Firth's penalty: the logarithm of the determinant of the information; 0 without it."""
    if not model.firth:
        return 0.0
    factor = linalg.cholesky(information, model.layout.design.names)
    return 2.0 * float(np.sum(elementary.log_of_array(np.diag(factor))))


def _curvature_of(rules: FitRules, frame: Frame, information: Array, sums: Payload) -> Array:
    """The observed information (p, p) for the next step; the expected one where that has no maximum ahead."""
    model = rules.model
    if model.family.canonical:
        return information
    observed = linalg.symmetric(sums["curvature"], model.p)
    if model.family.concave:
        return observed
    try:
        linalg.cholesky(observed + rules.penalty.matrix(frame), model.layout.design.names)
    except Collinear:
        return information
    return observed


def _step_of_null(model: Model, sums: Payload) -> tuple[float, bool]:
    """The next Newton step of the model with an intercept alone, and whether it rests."""
    if not model.runs_null:
        return 0.0, True
    deviance, score, curvature = (float(v) for v in sums["null"])
    if not curvature > 0.0:
        return 0.0, True
    gain = score * score / curvature
    return score / curvature, gain <= NULL_RESTS * (abs(deviance) + 1.0)


def _solve(rules: FitRules, frame: Frame, here: Point) -> tuple[Array, Array, Array]:
    """Factor of the information that steps go by, the step (p,), and the penalised score (p,)."""
    gradient = here.score - rules.penalty.gradient(frame, here.beta)
    whole = here.curvature + rules.penalty.matrix(frame)
    factor = linalg.cholesky(whole, rules.model.layout.design.names)
    step = linalg.solve(factor, gradient)
    if not np.all(np.abs(step) < HUGE):
        raise ProtocolError("CO-P507", "The sums of the sites lead to no finite step; no rows could have them.")
    return factor, step, gradient


def _step(rules: FitRules, frame: Frame, here: Point) -> tuple[Array, Array]:
    factor, step, _ = _solve(rules, frame, here)
    return factor, step


def _limit(rules: FitRules, step: Array) -> Array:
    limit, longest = rules.model.family.limit, float(np.max(np.abs(step), initial=0.0))
    return step if limit is None or longest <= limit else step * (limit / longest)


def _before(rules: FitRules, frame: Frame, last: Payload, known: Mapping[str, Any], sums: Payload) -> float:
    """The objective that the last step started from; at the first round that of the model without covariates."""
    known_null = "null_deviance" in known and not rules.model.family.shaped
    if int(last["known"]) > 1 or not known_null or not np.any(last["step"]):
        return float(last["objective"])
    # With an offset the first step did not start at the best intercept, but where these sums are.
    null = sums["null"][0] if rules.model.has_offset else known["null_deviance"]
    return float(null) + rules.penalty.value(frame, last["base"])


def _noise(rules: FitRules, here: Point, factor: Array, totals: Totals) -> float:
    """The gain that rounding alone may make of the sums at this point, in squared standard errors times dispersion.

    A row's predictor carries one rounding of each product in it, its outcome and mean one of themselves; as a random
    error of the working residuals that moves the gain by no more than their weighted sum of squares.
    """
    sizes = linalg.dot(np.abs(here.beta), np.sqrt(np.maximum(np.diag(here.information), 0.0)))
    scale = rules.model.family.rounding_scale(totals, here.deviance)
    rounding = _ROUNDING * _EPS * (sizes + np.sqrt(scale))
    if not rules.unit:
        return float(rounding * rounding)
    root = linalg.invert_lower(factor)
    trace = math.fsum(pairwise_sum(root * root).tolist())
    return float(rounding * rounding + _ROUNDING * rules.unit**2 * trace)


def _carry(model: Model, frame: Frame, last: Payload, sums: Payload) -> dict[str, Any]:
    """What every model post repeats, so that the last one alone holds the fit.

    After an exclusion the counts are those of the sites that are left, and the null deviance is known only where it
    follows from the counts.
    """
    counts = {name: float(sums[name]) for name in model.counts}
    totals = Totals(**counts)
    intercept = model.common_intercept
    if model.runs_null:
        return counts | {"null_deviance": float(sums["null"][0])}
    if kind_of(last) == "first":
        check_size(model, counts["n"], counts["outcome"], counts.get("weight"))
        guess = (float(sums["null"][0]), float(sums["null"][1])) if intercept else (0.0, 0.0)
        null = model.family.null_deviance(totals, guess) if intercept else _without_intercept(model, sums, last)
        return counts | ({} if null is None else {"null_deviance": null})
    if all(counts[name] == float(last[name]) for name in model.counts):
        return counts | {name: last[name] for name in ("null_deviance",) if name in last}
    check_size(model, counts["n"], counts["outcome"], counts.get("weight"))
    null = model.family.null_from_counts(totals) if intercept else None
    return counts | ({} if null is None else {"null_deviance": null})


def _without_intercept(model: Model, sums: Payload, last: Payload) -> float | None:
    """If nothing is fitted: the deviance at coefficients of zero, which are those of the first round."""
    return max(float(sums["deviance"]), 0.0) if not np.any(last["beta"]) else None


def _start_again(last: Payload) -> Payload:
    """The model with an intercept alone, because the first step was a wrong guess."""
    return _has_settled({**last, "beta": last["base"], "step": np.zeros_like(last["step"]), "closing": False})


def _halve(last: Payload) -> Payload:
    """The last step again, half as long; NotConverged after ten halvings."""
    count = int(last["halvings"]) + 1
    if count > MAX_HALVINGS:
        raise NotConverged(
            "CO-N102",
            f"The deviance still grows after halving a step {MAX_HALVINGS} times. Check the data and the family.",
        )
    half = {"beta": last["base"] + last["step"] * 0.5**count, "halvings": count, "closing": False}
    if "shape" in last:
        half["shape"] = last["shape_base"] + last["shape_step"] * 0.5**count
    return _has_settled({**last, **half})


def _rest(rules: FitRules, frame: Frame, here: Point, step: Array) -> dict[str, Any]:
    """The end: coefficients after the last step, which costs no sums, and a root R of their covariance, dispersion 1.

    R R' = (I + P)^-1 I (I + P)^-1 with a ridge P, I being the expected information, of which `information` is the upper
    triangle.
    """
    names = rules.model.layout.design.names
    penalty = rules.penalty.matrix(frame)
    root = linalg.invert_lower(linalg.cholesky(here.information + penalty, names)).T
    if np.any(penalty):
        root = linalg.matmul(linalg.matmul(root, root.T), linalg.cholesky(here.information, names))
    upper = here.information[linalg.upper_triangle(len(names))]
    return {"beta": here.beta + step, "root": root, "information": upper}


def dispersion_of(model: Model, deviance: float, n: float) -> float:
    """What a squared step is measured in; the smallest positive number for an exact fit."""
    measured = model.family.dispersion == "residual" or not model.family.whole
    return max(deviance / (n - model.p), 1e-300) if measured else 1.0


def _has_settled(values: Mapping[str, Any]) -> Payload:
    """Values as arrays."""
    return {name: np.asarray(value) for name, value in values.items()}
