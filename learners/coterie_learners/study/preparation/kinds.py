"""What the values of an expression are, and what computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Variable
from coterie_learners.study.syntax import MakeError

Form = Literal["number", "truth", "date", "category"]
# An expression has one value for everything, one for each row of the file, or one for each patient.
Unit = Literal["constant", "row", "patient"]
# Visits of one patient that a count allows for unless the study declares another range.
MOST_VISITS = 1000.0


@dataclass(frozen=True)
class ValueType:
    """Numbers from `low` to `high` (`whole` ones or not), truths (0, 1), dates (days since 1970-01-01), or levels."""

    form: Form
    unit: Unit = "row"
    low: float = 0.0
    high: float = 1.0
    whole: bool = False
    levels: tuple[str, ...] = ()

    @property
    def numeric(self) -> bool:
        """Whether arithmetic takes it: numbers, and truths as 0 and 1."""
        return self.form in ("number", "truth")

    @property
    def name(self) -> str:
        """What a message calls it."""
        return {"number": "a number", "truth": "true or false", "date": "a date", "category": "a category"}[self.form]

    def at(self, unit: Unit) -> ValueType:
        """The same of another unit."""
        return replace(self, unit=unit)

    @classmethod
    def of(cls, variable: Variable, unit: Unit = "row") -> ValueType:
        """The kind of a declared variable."""
        if variable.type == "category":
            return cls("category", unit, levels=variable.levels)
        if variable.type == "binary":
            return cls("truth", unit, 0.0, 1.0, True)
        low, high = variable.bounds
        return cls("date" if variable.type == "date" else "number", unit, low, high, variable.type != "number")

    def declare(self) -> Variable:
        """The declaration of a derived variable of this kind."""
        if self.form == "category":
            return Variable(type="category", levels=self.levels)
        if self.form == "truth":
            return Variable(type="binary")
        kind: Literal["date", "count", "number"] = (
            "date" if self.form == "date" else "count" if self.whole and self.low >= 0.0 else "number"
        )
        return Variable(type=kind, range=(self.low, self.high))


@dataclass(frozen=True)
class Visits:
    """Rows of patients: the number of each row's patient (m,) from 0, how many patients, and the rows' order (m,)."""

    patient: NDArray[np.int64]
    count: int
    order: Array | None = None


@dataclass(frozen=True)
class Space:
    """All values that an expression may read: of rows (m,), of patients (g,), and which rows are of which patient."""

    rows: Mapping[str, Array]
    patients: Mapping[str, Array] = field(default_factory=dict)
    visits: Visits | None = None


Compute = Callable[[Space], Array]


@dataclass(frozen=True)
class Typed:
    """An expression that was checked: its kind, the variables that it reads, and what computes its values."""

    kind: ValueType
    sources: frozenset[str]
    compute: Compute


def explain_in(where: str, text: str) -> MakeError:
    """What makes the error for an expression of the study: it names the character, counted from 1."""

    def explain(message: str, at: int) -> StudyError:
        piece = f" ({text[at : at + 12].strip()!r})" if text[at : at + 12].strip() else ""
        return StudyError(
            "CO-S214",
            f"In {where} = {text[:200]!r}, at character {at + 1}{piece}: {message}. Write it as docs/study.md shows.",
        )

    return explain
