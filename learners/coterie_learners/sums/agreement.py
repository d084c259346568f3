"""Whether the sites agree on the model: a score test of homogeneity from one masked sum at the final coefficients.

Rao, Proc Camb Phil Soc 1948;44:50-57: with a score U_i and information I_i at each of k sites at the common estimate,
Q = sum U_i' I_i^-1 U_i is about chi-squared on (k - 1) p degrees of freedom if one model holds everywhere (for a linear
model over its dispersion). Term by term, each site's own estimate by one Newton step gives Cochran's Q (Biometrics
1954;10:101-129); the intercept is that of a row with the pooled means. Only the sums over the sites are needed, so that
no site's part is seen.

The same sum carries Pearson's chi-squared (McCullagh and Nelder 1989, section 4.5), whether a fitted mean is an end of
its range, and the squared shares of the information, whose sum says how many sites the fit rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import chi_squared_tails, f_above
from coterie_learners.numeric.linalg import symmetric
from coterie_learners.study.elsewhere import over_blocks_in_parallel
from coterie_learners.study.rows import Block, Rows
from coterie_learners.sums.frame import Frame
from coterie_learners.sums.rounds import Model, compute_gram

# An eigenvalue of a site's scaled information below this share of the largest says nothing of its direction.
_SINGULAR = 1e-9
# A smaller p-value is worth a sentence.
NOTABLE_P = 0.01

Note = Callable[[Array, Array], None]


@dataclass(frozen=True)
class Agreement:
    """The score test, in all and by term; NaN where fewer than two sites can tell.

    `chi2` on `df` with `p`, and `below`, the probability of sites agreeing still better. By term (p,): Cochran's `q` on
    `q_df`, `q_p`, and I^2. `pearson`: Pearson's chi-squared on the residual degrees of freedom. `at_an_end`: at how
    many sites a fitted mean is an end of its range to a float. `effective`: how many sites of equal weight would carry
    as evenly.
    """

    terms: tuple[str, ...]
    chi2: float
    df: int
    p: float
    below: float
    q: Array
    q_df: Array
    q_p: Array
    i2: Array
    pearson: float
    at_an_end: int
    effective: float

    @property
    def differing(self) -> str:
        """The term on which the sites agree least."""
        return self.terms[int(np.nanargmin(self.q_p))] if not np.all(np.isnan(self.q_p)) else ""


def shapes(p: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a site's part."""
    by_term = dict.fromkeys(("weights", "moved", "squares", "can_tell"), (p,))
    return {**by_term, **dict.fromkeys(("chi2", "rank", "pearson", "at_an_end", "share"), ())}


def form(p: int) -> Schema:
    """Form of a site's part in the clear."""
    return Schema({name: Field("<f8", shape) for name, shape in shapes(p).items()})


def measure(
    model: Model, rows: Rows, frame: Frame, end: Payload, penalty: Array, note: Note = lambda score, information: None
) -> dict[str, Array]:
    """A site's part at the final coefficients.

    `end`: the last server post (beta, information); `penalty` (p,): the gradient of the penalty there, of which each
    site carries its share of the information. `note` gets the site's own score (p,) and information (p, p).
    """
    beta, information, score = end["beta"], np.zeros((model.p, model.p)), np.zeros(model.p)
    pearson, ends = 0.0, 0.0

    def sum_block(block: Block) -> tuple[Array, Array, Mapping[str, Array | float]]:
        return _block(model, model.weigh(frame.block(block)), beta)

    for one, two, fit in over_blocks_in_parallel(sum_block, rows):
        score, information = score + one, information + two
        pearson, ends = pearson + float(fit["pearson"]), ends + float(fit["at_an_end"])
    return _finish(score, information, {"pearson": pearson, "at_an_end": ends}, end, penalty, note)


def measure_of_sums(model: Model, sums: Payload, end: Payload, penalty: Array, note: Note) -> dict[str, Array]:
    """The same from a round's sums with `fits` at the same coefficients, without another pass over the rows."""
    return _finish(sums["score"], symmetric(sums["information"], model.p), sums, end, penalty, note)


def _finish(
    score: Array, information: Array, fit: Mapping[str, Array | float], end: Payload, penalty: Array, note: Note
) -> dict[str, Array]:
    whole = symmetric(end["information"], len(score))
    if np.any(penalty):
        score = score - information @ np.linalg.solve(whole, penalty)
    note(score, information)
    return pack_part(part_of(score, information, whole), float(fit["pearson"]), bool(fit["at_an_end"]))


def pack_part(part: Mapping[str, Array | float], pearson: float, ends: bool) -> dict[str, Array]:
    """A part with what else the sum carries, as it is posted."""
    out = {**part, "pearson": pearson, "at_an_end": float(ends)}
    p = len(np.asarray(part["weights"]))
    return {name: np.asarray(out[name], dtype=np.float64).reshape(shape) for name, shape in shapes(p).items()}


def _block(model: Model, block: Block, beta: Array) -> tuple[Array, Array, Mapping[str, Array | float]]:
    eta = block.x @ beta if block.offset is None else block.x @ beta + block.offset
    parts = model.family.parts(eta, block.y)
    own = 1.0 if block.weight is None else block.weight
    information = compute_gram(block.x, parts.weight * own)
    return block.x.T @ (parts.residual * own), information, model.measure_fit(block, parts.mean)


def part_of(score: Array, information: Array, whole: Array) -> dict[str, Array | float]:
    """U' I^- U and the rank of I; by term the weight of the site's own estimate, how far off it is, and so squared.

    And the squared share that this site has of the `whole` information (p, p).
    """
    scale = np.sqrt(np.maximum(np.diag(information), 0.0))
    safe = np.where(scale > 0.0, scale, 1.0)
    size, basis = np.linalg.eigh(information / safe[:, None] / safe)
    kept = size > _SINGULAR * max(float(size[-1]), 1e-300)
    root = basis[:, kept] / np.sqrt(size[kept])
    coordinates = root.T @ (score / safe)
    can_tell = (scale > 0.0) & (np.sum(basis[:, ~kept] ** 2, axis=1) < _SINGULAR)
    step, variance = (root @ coordinates) / safe, np.sum(root * root, axis=1) / safe**2
    weights = np.where(can_tell, 1.0 / np.where(can_tell, variance, 1.0), 0.0)
    by_term = {"weights": weights, "moved": weights * step, "squares": weights * step * step}
    share = float(np.trace(np.linalg.solve(whole, information))) / len(score)
    single = {"chi2": float(coordinates @ coordinates), "rank": float(np.sum(kept)), "share": share * share}
    return {**by_term, "can_tell": can_tell.astype(float), **single}


def as_dict(test: Agreement) -> dict[str, Any]:
    """The test as JSON has it."""
    columns = (test.terms, test.q.tolist(), test.q_df.tolist(), test.q_p.tolist(), test.i2.tolist())
    by_term = [
        {"term": term, "q": q, "df": int(df), "p": p, "i2": i2} for term, q, df, p, i2 in zip(*columns, strict=True)
    ]
    return {"chi2": test.chi2, "df": test.df, "p": test.p, "terms": by_term, "effective_sites": test.effective}


def compare(terms: Sequence[str], sums: Mapping[str, Any], dispersion: float, freedom: int) -> Agreement:
    """The test from the sums over all sites.

    `dispersion` on `freedom` degrees of freedom, 0 where it is known; of a dispersion of 0 nothing can be tested.
    """
    unit = dispersion if dispersion > 0.0 else np.nan
    chi2, df = float(sums["chi2"]) / unit, round(float(sums["rank"])) - len(terms)
    weight = np.where(sums["weights"] > 0.0, sums["weights"], 1.0)
    q = np.maximum(sums["squares"] - sums["moved"] ** 2 / weight, 0.0) / unit
    q_df = np.maximum(np.rint(sums["can_tell"]) - 1.0, 0.0)
    q = np.where(q_df > 0, q, np.nan)
    pair = np.array([chi2]), np.array([float(max(df, 0))])
    return Agreement(
        terms=tuple(terms),
        chi2=chi2,
        df=max(df, 0),
        p=float(_tail(*pair, freedom)[0]),
        below=float(1.0 - _tail(*pair, freedom)[0]),
        q=q,
        q_df=q_df,
        q_p=_tail(q, q_df, freedom),
        i2=np.where(q > 0.0, np.maximum(0.0, 1.0 - q_df / np.where(q > 0.0, q, 1.0)), 0.0),
        pearson=float(sums["pearson"]),
        at_an_end=round(float(sums["at_an_end"])),
        effective=1.0 / max(float(sums["share"]), 1e-300),
    )


def _tail(value: Array, df: Array, freedom: int) -> Array:
    """Probability of a larger chi-squared value, or F value where the dispersion is estimated; NaN without df."""
    known = (df > 0) & np.isfinite(value)
    safe_df, safe = np.where(known, df, 1.0), np.where(known, value, 0.0)
    tail = f_above(safe / safe_df, safe_df, freedom) if freedom > 0 else chi_squared_tails(safe, safe_df)
    return np.asarray(np.where(known, tail, np.nan))


@dataclass(frozen=True)
class Distance:
    """How far one site's score lies from the others': chi-squared on `df`, and the probability of a larger one."""

    chi2: float
    df: int
    p: float

    @property
    def sentence(self) -> str:
        """The same for the people of this site."""
        if not self.df or not np.isfinite(self.p):
            return "It cannot be said how far this site's rows are from those of the others."
        test = f"chi-squared {self.chi2:.2f} on {self.df} df, p = {self.p:.2g}, limit {NOTABLE_P:g}"
        if self.p < NOTABLE_P:
            return (
                f"This site differs from the others ({test}). Check its coding, units and labels. This line stays "
                "at this site."
            )
        return f"This site does not stand apart from the others ({test}). This line stays at this site."


def stand_apart(score: Array, information: Array, whole: Array, dispersion: float = 1.0, freedom: int = 0) -> Distance:
    """How far one site's score U_i lies from the others', for this site's own eyes.

    U_i' V^- U_i with V = I_i - I_i I^-1 I_i, the variance of U_i beside the pooled estimate. If all matrices can be
    inverted, it is to first order the Wald test of the site's own estimate against that of the others: V^-1 = I_i^-1 +
    (I - I_i)^-1. The degrees of freedom are the rank of V. `dispersion` on `freedom` degrees of freedom, 0 where it is
    known.
    """
    variance = information - information @ np.linalg.solve(whole, information)
    scale = np.sqrt(np.maximum(np.diag(information), 0.0))
    safe = np.where(scale > 0.0, scale, 1.0)
    size, basis = np.linalg.eigh(0.5 * (variance + variance.T) / safe[:, None] / safe)
    kept = size > _SINGULAR
    if not np.any(kept) or not dispersion > 0.0:
        return Distance(float("nan"), 0, float("nan"))
    coordinates = basis[:, kept].T @ (score / safe)
    chi2, df = float(np.sum(coordinates**2 / size[kept])) / dispersion, int(np.sum(kept))
    return Distance(chi2, df, float(_tail(np.array([chi2]), np.array([float(df)]), freedom)[0]))
