"""Small cells of a site's table: what is not shared, and what the rest must not give away.

Floors in use: 5 (OHDSI), 11 (US Centers for Medicare and Medicaid Services, PEDSnet).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coterie_learners.design import Design
from coterie_learners.errors import DataError
from coterie_learners.rows import Array
from coterie_learners.tally import Counts


def dropped(counts: Counts, floor: int) -> Counts:
    """Without the patterns that have fewer rows: they leave every sum, and look like patterns that do not occur."""
    return counts.kept(counts.sums["n"] >= floor)


def imputed(counts: Counts, floor: int) -> Counts:
    """Patterns with fewer rows count as half the floor, rounded up; sums of the outcome stay as they are."""
    n = np.where(counts.sums["n"] < floor, float((floor + 1) // 2), counts.sums["n"])
    return replace(counts, sums={**counts.sums, "n": n})


def rounded(counts: Counts, floor: int) -> NDArray[np.int64]:
    """Patterns and rows below the floor, (2,), each rounded up to a multiple of the floor."""
    small = counts.sums["n"] < floor
    exact = np.array([np.count_nonzero(small), counts.sums["n"][small].sum()])
    return np.asarray(np.ceil(exact / floor) * floor, dtype=np.int64)


def check_sums(design: Design, raw: Array, counts: Counts, cells: bool, floor: int, site: str) -> None:
    """DataError if sums of the outcome show fewer events, or fewer of the others, than the floor, but more than none.

    `raw` (m, p) is the design of the counted patterns. With `cells` the sums are those of each pattern, else those of
    each column of indicators, and of the rows outside it.
    """
    for events in _groups(counts, design.outcome.type):
        if cells:
            shown = {"a pattern": events}
        else:
            columns = zip(design.names, raw.T, strict=True)
            shown = {name: np.array([c @ events, (1.0 - c) @ events]) for name, c in columns if _indicator(c)}
        for what, numbers in shown.items():
            small = numbers[(numbers > 0) & (numbers < floor)]
            if len(small):
                raise _too_few(site, what, design.formula.outcome, float(small.min()), floor)


def _groups(counts: Counts, outcome: str) -> list[Array]:
    """Numbers per pattern (m,) of those with each value of the outcome; of a count, the events."""
    if outcome == "number":
        return []
    levels = [values for name, values in counts.sums.items() if name == "s" or name[1:].isdigit()]
    return levels if outcome == "count" else [*levels, counts.sums["n"] - np.sum(levels, axis=0)]


def _indicator(column: Array) -> bool:
    return bool(np.all((column == 0.0) | (column == 1.0)))


def _too_few(site: str, what: str, outcome: str, number: float, floor: int) -> DataError:
    return DataError(
        "CO-D303",
        f"Site {site}: its table would give away that {number:.0f} rows with or without {what} share a value of "
        f"{outcome}; the floor is {floor}. Merge levels, use secure_cola, "
        'or let the study have small_sums = "allow".',
    )
