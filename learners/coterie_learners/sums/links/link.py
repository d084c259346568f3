"""What a link is: the mean as a function of the linear predictor, with two derivatives, and where it is defined.

McCullagh and Nelder, Generalized Linear Models, 2nd ed. 1989, section 2.2.3. A link is written once for both
arithmetics: its caller hands over the exponential function.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from coterie_learners.numeric.array import Array

Elementary = Callable[[Array], Array]


@dataclass(frozen=True)
class LinkPoint:
    """The mean (m,) at a linear predictor with its first and second derivative there."""

    mean: Array
    slope: Array
    bend: Array


class Link(ABC):
    """A link by name."""

    name: ClassVar[str]

    @abstractmethod
    def at(self, eta: Array, exp: Elementary) -> LinkPoint:
        """The mean and its derivatives at predictors (m,) that are `inside`."""

    @abstractmethod
    def predictor(self, mean: float) -> float:
        """The predictor of a mean, the same bits everywhere."""

    @abstractmethod
    def inside(self, low: float, high: float) -> tuple[float, float]:
        """Open ends of the predictors whose means lie between `low` and `high`."""
