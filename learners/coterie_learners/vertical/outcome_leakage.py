"""Could a covariate site solve its answer for the outcome? What the response site checks before it returns anything.

A covariate site k holds X_k and receives gamma_k and, if standard errors are asked for, T_k, a block of the
covariance. Three questions, each with its limits:

1. First order (VALORIS' own criterion): which patients' outcomes could be the other one with the same L_k' x, where
   x_i is the residual (y_i - p_i with the logit link, phi / Phi with probit, minus the hazard or an event's share of it
   with cloglog)? Its sign is the outcome. Linear programs over the residuals that the link allows find a flipped x, or
   prove that there is none. At most a few programs flip all; then one for each patient who is left. An outcome that is
   no yes or no (a measurement, a count) is never fixed: with the other sites' part of the predictor it moves while
   its residual stays.
2. Counting: T_k is r (r + 1) / 2 equations on n variances; with too many of them they, and with them the outcome's
   probabilities, may be determined.
3. Second order (ridge 0): a whole other data set, other outcomes and other sites' columns, with the same gamma_k and
   T_k (`alternative_outcome`). That one exists is proved by making it; that none was found proves nothing.

"Not unique" is a weak promise: it bounds no probability, and other sites with few or only binary columns make twins
less likely than the construction assumes, which grants them r + 1 columns of any numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import special
from coterie_learners.numeric.parallel import one_thread
from coterie_learners.sums.family import Family

# |x| stays below 1 by the first; a flipped x_i is at least the second away from 0 (VALORIS: 1e-3 and 1e-2).
BOX, MARGIN = 1e-3, 1e-2
# Sizes between which mirror images of x are tried before any program.
MIRRORS = ((0.0, 1 - BOX), (0.05, 0.9), (0.1, 0.8), (0.2, 0.7), (0.3, 0.6))
# With probit no residual, and with cloglog none without an event, is further from 0: a probability below 1e-15.
LARGEST_RESIDUAL = 8.0
# Rows of patients per coefficient that the answer must be spread over.
ROWS_PER_COEFFICIENT = 5
MAX_PROGRAMS = 200
# Fractions of the linear predictors that twins are drawn from.
FLATNESS = (0.95, 0.9, 0.85, 0.8, 0.9, 0.75)
SAME = 1e-6


@dataclass(frozen=True)
class FlipCheck:
    """The patients whose outcomes could flip (n,), those whose outcomes provably could not, and programs solved."""

    flippable: NDArray[np.bool_]
    fixed: NDArray[np.bool_]
    programs: int


@dataclass(frozen=True)
class AnswerKind:
    """What an answer is to its reader: whether outcomes are yes or no, the residuals that they may have, and whether
    the sum of the residuals is known as well, as it is with an intercept."""

    binary: bool
    low: float
    high: float
    intercept: bool

    @classmethod
    def of(cls, family: Family, intercept: bool) -> AnswerKind:
        """The kind of a family's answers."""
        low = -1.0 if family.link == "logit" else -LARGEST_RESIDUAL
        return cls(family.binary, low, LARGEST_RESIDUAL if family.link == "probit" else 1.0, intercept)


@dataclass(frozen=True)
class LeakageVerdict:
    """What one covariate site's answer lets it find out.

    `flippable` and `fixed` count patients; `twinned` those whose outcome differs in a twin that was found, None where
    none was looked for.
    """

    site: str
    n: int
    rank: int
    flippable: int
    fixed: int
    programs: int
    covariance: bool
    twinned: int | None
    binary: bool = True

    @property
    def enough_rows(self) -> bool:
        """Whether the answer is spread over enough patients."""
        return self.n >= ROWS_PER_COEFFICIENT * (self.rank + 1)

    @property
    def few_equations(self) -> bool:
        """Whether the covariance is far fewer equations than there are patients."""
        return not self.covariance or self.rank * (self.rank + 1) <= self.n

    @property
    def safe(self) -> bool:
        """Whether the answer may go out."""
        return self.flippable == self.n and self.enough_rows and self.few_equations

    @property
    def words(self) -> str:
        """The verdict in sentences."""
        other = "the other one" if self.binary else "another one"
        message = f"{self.site}: every outcome could be {other} given its coefficients."
        if self.flippable < self.n:
            proved = f", for {self.fixed} this is proved" if self.fixed else ""
            message = (
                f"{self.site}: {self.n - self.flippable} of {self.n} outcomes follow from its coefficients{proved}."
            )
        if not self.enough_rows:
            message += (
                f" {self.n} patients are too few for {self.rank} columns ({ROWS_PER_COEFFICIENT} each are asked)."
            )
        if not self.few_equations:
            equations = self.rank * (self.rank + 1) // 2
            message += f" Its covariance is {equations} equations on {self.n} patients and may determine them."
        if self.twinned == 0:
            message += " No other data with the same answer were found, which proves nothing."
        elif self.twinned is not None:
            message += f" Other data with the same answer were made in which {self.twinned} outcomes differ."
        return message

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        return {
            "site": self.site,
            "patients": self.n,
            "rank": self.rank,
            "flippable": self.flippable,
            "proved_fixed": self.fixed,
            "enough_rows": self.enough_rows,
            "few_equations": self.few_equations,
            "twinned": self.twinned,
            "released": self.safe,
            "words": self.words,
        }


def check_flips(factor: Array, x: Array, kind: AnswerKind) -> FlipCheck:
    """The patients whose outcome could be flipped, as far as a site with this factor (n, r) knows the residuals x (n,).

    With an intercept the flipped x keeps its sum too, so that a twin has the same intercept.
    """
    if not kind.binary:
        return FlipCheck(np.ones(len(x), dtype=bool), np.zeros(len(x), dtype=bool), 0)
    from scipy import optimize  # slow to import, and most studies do not come here

    low, high = kind.low + BOX, kind.high - BOX
    a = np.c_[factor, np.ones(len(x))] if kind.intercept else factor
    basis = np.linalg.svd(a, full_matrices=False)
    rows = basis[0][:, basis[1] > 1e-10 * basis[1][0]].T
    sign = np.where(x > 0, 1.0, -1.0)
    flippable_mask = np.zeros(len(x), dtype=bool)
    # Without a ridge rows @ x is 0, so that -x alone flips nearly everybody; with one it does after a correction.
    for least, most in MIRRORS:
        mirrored = -sign * np.clip(np.abs(x), least, most)
        mirrored = mirrored + rows.T @ (rows @ (x - mirrored))
        if np.all((mirrored >= low) & (mirrored <= high)):
            flippable_mask |= sign * mirrored <= -MARGIN
    fixed, programs = np.zeros(len(x), dtype=bool), 0
    while programs < MAX_PROGRAMS and not np.all(flippable_mask | fixed):
        remaining = np.flatnonzero(~(flippable_mask | fixed))
        # All at once as long as that gains something, then one by one: there the optimum is a proof.
        targets = remaining if programs < 3 else remaining[:1]
        cost = np.zeros(len(x))
        cost[targets] = sign[targets]
        done = optimize.linprog(cost, A_eq=rows, b_eq=rows @ x, bounds=(low, high), method="highs")
        programs += 1
        if done.status == 0:
            flippable_mask |= sign * done.x <= -MARGIN
        if len(targets) == 1 and not flippable_mask[targets[0]]:
            fixed[targets[0]] = True
    return FlipCheck(flippable_mask, fixed & ~flippable_mask, programs)


@dataclass(frozen=True)
class FactorEstimate:
    """What a covariate site receives: coefficients gamma (r,) of its factor and their covariance (r, r); and what it
    does not: the intercept."""

    gamma: Array
    covariance: Array
    intercept: float


@dataclass(frozen=True)
class AlternativeData:
    """Other outcomes y (n,) and other sites' columns z (n, r + 1) that give a site the same answer."""

    y: Array
    z: Array


def compare_alternatives(factor: Array, answer: FactorEstimate, x: Array, eta: Array) -> NDArray[np.bool_]:
    """Which outcomes (n,) differ in some twin, of those that were made; each is checked by its score and information.

    The outcomes of a twin are drawn from the model itself with a somewhat flatter linear predictor eta (n,), which
    leaves room between its information and the answer's.
    """
    rng = np.random.default_rng(0)
    flipped = np.zeros(len(x), dtype=bool)
    for flatness in FLATNESS:
        candidate = _draw_residuals(factor, flatness * eta, rng)
        twin = None if candidate is None else alternative_outcome(factor, answer, candidate, rng)
        if twin is not None and candidate is not None and is_alternative(factor, answer, twin, candidate):
            flipped |= twin.y != (x > 0)
    return flipped


def _draw_residuals(factor: Array, eta: Array, rng: np.random.Generator) -> Array | None:
    """y - p of outcomes drawn at eta, moved into the kernel of the factor and 1, scaled so that its own eta' x = 0."""
    from scipy import optimize

    a = np.c_[np.ones(len(eta)), factor]
    p = special().expit(eta)
    x = (rng.random(len(p)) < p) - p
    weighted = a * (p * (1 - p))[:, None]
    x = x - weighted @ np.linalg.solve(weighted.T @ a, a.T @ x)
    largest = 0.9999 / float(np.max(np.abs(x)))
    if np.min(np.abs(x)) < 1e-12 or _entropy(x * largest) > 0:
        return None
    scaled: Array = x * float(optimize.brentq(lambda c: _entropy(x * c), 1e-6 * largest, largest, xtol=1e-16))
    return scaled


def _entropy(x: Array) -> float:
    size = np.abs(x)
    return float(np.sum(size * np.log((1 - size) / size)))


def alternative_outcome(
    factor: Array, answer: FactorEstimate, x: Array, rng: np.random.Generator
) -> AlternativeData | None:
    """Outcomes and other sites' columns for which y - p = x, with the site's answer unchanged; None if this x has none.

    With D = sqrt(p (1 - p)) and u what of the linear predictor is the others', the residual of D L on D [1, u] has a
    Gram matrix A; the answer needs T^-1. Columns G with G' R = A that take A - T^-1 off it exist if that is positive.
    """
    n, r = factor.shape
    y = (x > 0).astype(float)
    p = y - x
    eta, root = np.log(p / (1 - p)), np.sqrt(p * (1 - p))
    u = eta - factor @ answer.gamma - answer.intercept
    constraints = root[:, None] * np.c_[np.ones(n), u]
    basis, _ = np.linalg.qr(constraints)
    own = root[:, None] * factor
    rest = own - basis @ (basis.T @ own)
    a = rest.T @ rest
    gap = a - np.linalg.inv(answer.covariance)
    if np.linalg.eigvalsh((gap + gap.T) / 2)[0] <= 1e-9 * np.trace(a) / r or n < 3 * r + 4:
        return None
    spread = a @ np.linalg.solve(gap, a) - a
    free = rng.standard_normal((n, r))
    spanned, _ = np.linalg.qr(np.c_[rest, constraints, x / root])
    for _ in range(2):
        free = free - spanned @ (spanned.T @ free)
    free, _ = np.linalg.qr(free)
    added = rest + free @ np.linalg.cholesky((spread + spread.T) / 2).T
    return AlternativeData(y, np.c_[u, added / root[:, None]])


def is_alternative(factor: Array, answer: FactorEstimate, twin: AlternativeData, x: Array) -> bool:
    """Whether the twin's maximum likelihood gives the same answer: its score vanishes there, its information agrees."""
    design = np.c_[np.ones(len(x)), factor, twin.z]
    p = twin.y - x
    score = np.abs(design.T @ x) / np.sqrt(np.sum(design**2, axis=0))
    claimed = factor @ answer.gamma + answer.intercept + twin.z[:, 0]
    information = (design * (p * (1 - p))[:, None]).T @ design
    block = np.linalg.inv(information)[1 : 1 + factor.shape[1], 1 : 1 + factor.shape[1]]
    off = np.max(np.abs(block - answer.covariance)) / np.max(np.abs(answer.covariance))
    linear = np.max(np.abs(claimed - np.log(p / (1 - p))))
    return bool(np.max(score) < SAME and off < SAME and linear < SAME)


@one_thread()
def assess(
    site: str, factor: Array, x: Array, kind: AnswerKind, answer: FactorEstimate | None, eta: Array | None = None
) -> LeakageVerdict:
    """The verdict on a site's answer, which is None without a covariance; twins are made where eta (n,) is given.

    They need the logit link, a ridge of 0, an intercept, and no offset.
    """
    flippable_mask = check_flips(factor, x, kind)
    looked = answer is not None and eta is not None and factor.shape[1] > 0
    twinned = (
        int(np.sum(compare_alternatives(factor, answer, x, eta)))
        if looked and answer is not None and eta is not None
        else None
    )
    return LeakageVerdict(
        site=site,
        n=len(x),
        rank=factor.shape[1],
        flippable=int(np.sum(flippable_mask.flippable)),
        fixed=int(np.sum(flippable_mask.fixed)),
        programs=flippable_mask.programs,
        covariance=answer is not None,
        twinned=twinned,
        binary=kind.binary,
    )
