"""Which studies a table of patterns is for: covariates with few declared values, and enough rows for each pattern."""

from __future__ import annotations

from coterie_learners.cola.tables.patterns import Grid
from coterie_learners.core.masked_sum import MIN_PARTIES
from coterie_learners.core.profile import Suitability
from coterie_learners.errors import StudyError
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study

# A table of more patterns is nearly a list of patients.
SMALL_GRID = 4096
# The fewest rows for each pattern that the floor asks, on average, so that few patterns lie below it.
AMPLE = 4
# A table of all patterns, with rows or without, has at most so many.
MAX_DENSE_PATTERNS = 1 << 20


def size_grid(study: Study) -> int | str:
    """Patterns of the covariates, or why nobody can count them."""
    try:
        return Grid.of(Design(study), study.learner.options.get("grids", {})).size
    except StudyError as error:
        return error.message


def assess_cola(study: Study, rows: int | None) -> Suitability:
    """COLA-GLM comes first where the grid is small and the rows are ample, and last where they are not."""
    size, sites, floor = size_grid(study), len(study.sites), study.disclosure.cell
    if isinstance(size, str):
        return Suitability(3, False, size)
    thin = rows is not None and rows < AMPLE * max(floor, 1) * size * sites
    why = f"all covariates have declared values, {size} patterns together: one round, exact; all read each site's table"
    if size > SMALL_GRID:
        return Suitability(3, True, f"{why}; so many patterns are nearly a list of patients.")
    if thin:
        loss = f"{rows} rows over {sites} sites leave many patterns below the floor of {floor}: they are left out."
        return Suitability(3, True, f"{why}; {loss}")
    end = f"patterns with fewer than {floor} rows at a site are left out." if floor else "no floor is set."
    return Suitability(0, True, f"{why}; {end}")


def assess_secure_cola(study: Study, rows: int | None) -> Suitability:
    """The sum of the tables is the second choice where the grid is small, and the last where it is not."""
    size, sites, floor = size_grid(study), len(study.sites), study.disclosure.cell
    if isinstance(size, str):
        return Suitability(4, False, size)
    if sites < MIN_PARTIES:
        return Suitability(4, False, f"it needs three sites or more; the study has {sites}.")
    if size > MAX_DENSE_PATTERNS:
        why = f"a table of all {size} patterns is too large; at most {MAX_DENSE_PATTERNS} can be."
        return Suitability(4, False, why)
    end = f"; the floor of {floor} applies to the sum, so that fewer patterns are left out" if floor else ""
    why = f"as cola, but only the sum of the tables exists outside a site{end}."
    return Suitability(1 if size <= SMALL_GRID else 4, True, why)
