"""The families of outcomes for the engine: one class has everything that the engine asks of a family.

McCullagh and Nelder, Generalized Linear Models, 2nd ed. 1989, chapter 2. For a row with linear predictor eta and mean
mu: the residual is the score per unit of eta, (y - mu) mu'(eta) / V(mu); the weight the expected information,
mu'(eta)^2 / V(mu); the curvature the observed one, minus the residual's derivative; the deviance twice the
log-likelihood ratio against the saturated model (dispersion 1).

A family works in two arithmetics: `parts` and its kin on a site's own rows, at the speed of numpy; `curve` and its kin
with the bits of `elementary`, for whatever a server posts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from coterie_learners.errors import ProtocolError, StudyError
from coterie_learners.numeric import elementary
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Variable

# Beyond this a mean (1e13) is far outside any declared count; the step that led there is halved anyway.
LOG_LIMIT = 30.0
TINY = 1e-300
# A fitted mean nearer than this to an end of its range is that end to a float (R's glm.fit: 10 eps).
AT_AN_END = 10.0 * float(np.finfo(float).eps)

RATIOS = {"logit": "OR", "log": "IRR", "cloglog": "HR"}


@dataclass(frozen=True)
class Parts:
    """The quantities of rows at a linear predictor (m,), each (m,): residual, weight, curvature, deviance, and mean.

    The curvature of a canonical link is the weight itself.
    """

    residual: Array
    weight: Array
    curvature: Array
    deviance: Array
    mean: Array


@dataclass(frozen=True)
class Curve:
    """A family's mean at one linear predictor (m,) for each pattern of rows.

    `mean`; `variance` V(mean); `slope` d mean / d eta over V, which is 1 for a canonical link; `weight` the information
    of a row, slope^2 V; `up` and `down`: the log-likelihood of a row is y up + down, without the terms that the
    coefficients do not touch.
    """

    mean: Array
    variance: Array
    slope: Array
    weight: Array
    up: Array
    down: Array


@dataclass(frozen=True)
class Baseline:
    """The frame of a table, from the declared ranges: centre and scale of the outcome, centre of the offset."""

    centre: float = 0.0
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class OutcomeUnit:
    """How the fit of an outcome above zero changes with the unit in which the outcome is measured.

    Coefficients grow with the unit to the power `coefficients`, deviance and dispersion to the power `deviance`. Means
    from `low` to `high` are taken as they are; others in units of a power of two near them.
    """

    coefficients: int
    deviance: int
    low: float
    high: float


@dataclass(frozen=True)
class Totals:
    """Rows, the sum of their outcomes (events, or counts) and the saturated log-likelihood, over all sites.

    `weight`: the sum of the likelihood's weights, None where each row weighs one.
    """

    n: float
    outcome: float
    saturated: float
    weight: float | None = None

    @property
    def mass(self) -> float:
        """The total weight of the rows."""
        return self.n if self.weight is None else self.weight


class Family(ABC):
    """A family with its link.

    `law`: the family's name without "quasi", for people; code asks the attributes below. `links`: the canonical one
    first. `outcomes`: variable types that the outcome may have. `dispersion`: known, or estimated from Pearson's
    residuals or from the residual sum of squares. `quasi`: the family with the same variance and an estimated
    dispersion, empty if there is none. `whole`: whether outcomes are whole numbers, of which sums are counts.
    `has_events`: whether each patient has the event or does not, so that sums of the outcome are patients. `binary`:
    whether an outcome is one of few levels, so that a pattern has no more events than rows. `separable`: whether an
    estimate may lie at infinity. `limit`: the longest step of a coefficient of a standardised column, None where any
    length is safe. `offsets`: whether a linear predictor may have an offset. `firth_links`: the links for which
    Firth's penalty is written. `extreme_means`: what people call fitted means at an end of their range. `certified`:
    whether `score_by_definition` is written, so that a study can be compared with a pooled fit.
    """

    name: ClassVar[str]
    law: ClassVar[str]
    links: ClassVar[tuple[str, ...]]
    outcomes: ClassVar[tuple[str, ...]]
    dispersion: ClassVar[Literal["known", "pearson", "residual"]] = "known"
    whole: ClassVar[bool] = True
    # The natural parameter per unit of eta at the canonical link.
    natural: ClassVar[float] = 1.0
    separable: ClassVar[bool] = True
    offsets: ClassVar[bool] = True
    has_events: ClassVar[bool] = False
    binary: ClassVar[bool] = False
    quasi: ClassVar[str] = ""
    firth_links: ClassVar[tuple[str, ...]] = ()
    extreme_means: ClassVar[str] = "means numerically 0"
    certified: ClassVar[bool] = False
    # Whether rows can be summed one by one, and not only tables of patterns.
    by_rows: ClassVar[bool] = True
    # Whether the outcome's levels have an order.
    ordered: ClassVar[bool] = False
    # Whether tables of patterns can be fitted.
    tabled: ClassVar[bool] = True
    # Open ends of the means.
    ends: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    # Whether the variance has a shape that is estimated with the coefficients.
    shaped: ClassVar[bool] = False
    # What a table sums per pattern beside the rows, and what a fit needs summed over all patterns.
    measures: ClassVar[tuple[str, ...]] = ("s",)
    whole_sums: ClassVar[tuple[str, ...]] = ()

    def __init__(self, link: str | None = None) -> None:
        self.link = link or self.links[0]

    @property
    def canonical(self) -> bool:
        """Whether the coefficients depend on the outcome through X'y alone."""
        return self.link == self.links[0]

    @property
    def linear(self) -> bool:
        """Whether the outcome may be measured about any centre in any unit: then it is centred and scaled."""
        return False

    @property
    def unit(self) -> OutcomeUnit | None:
        """How a fit changes with the outcome's unit, where sums of rows would leave their range in another one."""
        return None

    @property
    def probes(self) -> tuple[float, float]:
        """Two outcomes, at which pieces of a row tell how they depend on the outcome."""
        return 0.0, 1.0

    @property
    def concave(self) -> bool:
        """Whether the log-likelihood of every row is concave in its predictor."""
        return True

    @property
    def bounded(self) -> bool:
        """Whether a predictor may leave the range in which its mean exists."""
        return False

    @property
    def ratio(self) -> str:
        """The name of exp(estimate): OR, IRR, HR, RRR, or nothing."""
        return RATIOS.get(self.link, "")

    @property
    def limit(self) -> float | None:
        """The longest safe step: a mean grows beyond all bounds with the log link only."""
        return 5.0 if self.link == "log" else None

    def at_state(self, state: Mapping[str, Any]) -> Family:
        """The family with the parameters that a server posted besides the coefficients."""
        return self

    def shape_parts(self, y: Array, mean: Array) -> tuple[Array, Array]:
        """Score and observed information of a shape, of each row (m,)."""
        return np.zeros_like(y), np.zeros_like(y)

    # On a site's rows

    @abstractmethod
    def parts(self, eta: Array, y: Array) -> Parts:
        """Pieces of rows with outcome y (m,) at the linear predictor eta (m,)."""

    def compute_saturated(self, y: Array) -> Array:
        """The saturated log-likelihood of each row (m,), dispersion 1."""
        return np.zeros_like(y)

    def list_summed(self, y: Array) -> Mapping[str, Array]:
        """Functions (m,) of the outcome, besides itself and its square, whose sums a fit discloses, by their formulas.

        `{}` stands for the outcome's name. The release gate looks for a patient who has nearly all of such a sum.
        """
        return {}

    def weight_terms(self, prior: Array) -> Array:
        """The terms of the log-likelihood of rows that depend on the weights (m,) alone."""
        return np.zeros_like(prior)

    def variance(self, mean: Array) -> Array:
        """V(mu) (m,), up to the dispersion."""
        return np.ones_like(mean)

    def at_an_end(self, mean: Array) -> bool:
        """Whether a row's fitted mean is an end of its range to a float."""
        return False

    @property
    def pairs(self) -> bool:
        """Whether a table's sums of the outcome are pairs of `exact`."""
        return self.linear

    def tally(self, y: Array, offset: Array, place: Baseline) -> Sequence[Array]:
        """Each row's share (m,) in `measures`."""
        return (y,)

    # For what a server posts

    @abstractmethod
    def curve(self, eta: Array) -> Curve:
        """The mean at a linear predictor (m,), the same bits everywhere."""

    @property
    def bent(self) -> bool:
        """Whether `bend` is the observed information of a row for a link that is not canonical."""
        return False

    def bend(self, eta: Array, y: Array, residual: Array, weight: Array) -> Array:
        """The curvature of the log-likelihood of rows (m,) at eta, by exact operations on their quantities there.

        The observed information where it is written, which it is for canonical links; else the expected one.
        """
        return weight

    @abstractmethod
    def start(self, mean: float) -> float:
        """A linear predictor near that of a pooled mean."""

    def null_deviance(self, totals: Totals, guess: tuple[float, float]) -> float:
        """Deviance of the model with an intercept alone.

        `guess` is its deviance at the predictor that `start` gave, and the sum of the means there.
        """
        return guess[0]

    @property
    def has_pooled_fit(self) -> bool:
        """Whether scoring converges from any start, so that an independent pooled fit can be compared."""
        simple = self.dispersion == "known" or self.linear
        return self.certified and simple and not self.bounded and not self.shaped

    @property
    def by_tables(self) -> bool:
        """Whether a table of patterns can be fitted."""
        return True

    @property
    def by_columns(self) -> bool:
        """Whether a model on columns split over sites has one optimum, which damped steps find from the null model."""
        return self.by_rows and self.concave and not self.bounded and not self.shaped

    @property
    def exposures(self) -> bool:
        """Whether rows of a table may have an offset: it makes exposures of counts, or is taken from the outcome."""
        return self.closed_null

    @property
    def closed_null(self) -> bool:
        """Whether `null_deviance` is right with an offset too."""
        return False

    def rounding_scale(self, totals: Totals, deviance: float) -> float:
        """The weighted squares by which the rounding of outcomes and means moves a step, in squared roundings."""
        return max(abs(totals.outcome), totals.mass)

    def null_from_counts(self, totals: Totals) -> float | None:
        """The same from the totals alone, None where they do not suffice."""
        return None

    def log_likelihood(self, totals: Totals, deviance: float) -> float | None:
        """Log-likelihood of a fit with this deviance; None for a quasi family, which has none."""
        return totals.saturated - 0.5 * deviance

    # Checks of studies and sums

    def check_outcome(self, name: str, variable: Variable) -> None:
        """StudyError unless the outcome's declared type fits the family."""
        if variable.type not in self.outcomes:
            raise StudyError(
                "CO-S301",
                f"A {self.name} model needs an outcome of type {' or '.join(self.outcomes)}; "
                f"{name!r} is declared as {variable.type}.",
            )

    def check_offset(self) -> None:
        """StudyError if a linear predictor of this family has no offset."""
        if not self.offsets:
            raise StudyError("CO-S304", f"A {self.name} model takes no offset. Leave it out.")

    def check_total(self, n: float, outcome: float) -> None:
        """ProtocolError if n rows cannot have this sum of outcomes."""
        return

    def check_intercept(self, n: float, outcome: float, weight: float, score: float) -> None:
        """ProtocolError if n rows cannot carry this information and score of an intercept."""
        if not weight > 0.0:
            raise ProtocolError("CO-P508", f"{n:.0f} rows cannot carry an information of {weight:.6g}.")

    def check_extremes(self, n: float, outcome: float) -> None:
        """Separation if the outcomes of all sites together leave nothing to fit."""
        return

    def find_one_sided(self, n: Array, outcome: Array) -> tuple[Sequence[bool], Sequence[bool]]:
        """Which groups of n (k,) rows with this sum of outcomes (k,) have the least outcome only, and the most only."""
        nowhere = [False] * len(n)
        return nowhere, nowhere

    def rarer(self, n: int, outcome: int) -> tuple[int, str]:
        """The number of observations that carry the fit, and their name: rows, events, rarer outcomes."""
        return outcome, "events"

    def count_events(self, outcome: float) -> int | None:
        """Events in a sum of outcomes; None where an outcome is no count."""
        return int(outcome) if self.whole else None

    # Synthetic rows, and the pooled fit to compare with

    @abstractmethod
    def draw(self, eta: Array, bounds: tuple[float, float], rng: np.random.Generator) -> Array:
        """Synthetic outcomes (m,) at linear predictors of about unit spread, within the declared bounds."""

    def shift_to(self, eta: Array, mean: float) -> float:
        """The constant to add to eta (m,) so that drawn outcomes have this mean; 0 for an outcome that is no count."""
        return 0.0

    def score_by_definition(self, eta: Array, y: Array) -> tuple[Array, Array]:
        """Score and expected weight of rows (m,) each, from the textbook alone: no code in common with `parts`."""
        raise NotImplementedError(f"{self.name} has no pooled fit to compare with.")


def check_positive(family: str, name: str, variable: Variable) -> None:
    """StudyError unless the declared range of an outcome begins above 0."""
    if variable.bounds[0] <= 0.0:
        raise StudyError(
            "CO-S307",
            f"The outcome of a {family} model is above 0; the range of {name!r} begins at {variable.bounds[0]:g}. "
            "Begin it at the smallest value that can be measured.",
        )


def scalar(function: object, value: float) -> float:
    """An elementary function of one number."""
    assert callable(function)
    return float(function(np.array([value]))[0])


def log_odds(mean: float) -> float:
    """log(mean / (1 - mean)), the same bits everywhere."""
    return scalar(elementary.log_of_array, mean / (1.0 - mean))
