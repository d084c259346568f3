"""Tables of the R package pda (COLA-GLM, `SITE_initialize.json`): read from sites that run R, written for a lead that
does.

pda sends {"SXY": [[...]], "Xtable": [{"(Intercept)": 1, "age65_79": 0, ..., "n": 19}, ...]}: X'y, and a row count for
every combination of the dummy-coded columns, impossible ones and zeros included, whose order depends on each site's
data. Rows are identified by their columns, never by their place. pda's own suppression (`cutoff`) leaves X'y as it is.
Numbers have all digits. On R's side set `digits = 15`, or it rounds to four.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from coterie_learners.cola.cola import CountedTable
from coterie_learners.cola.tables.patterns import Grid
from coterie_learners.errors import StudyError
from coterie_learners.study.design import INTERCEPT, Design
from coterie_node.data.findings import FileOrigin, join_values

MAX_BYTES = 256 << 20
INTERCEPTS = ("(Intercept)", "intercept", "Intercept", "X.Intercept.")
COUNT = "n"


class PdaTable(BaseModel):
    """A COLA-GLM table as pda writes it."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    SXY: list[list[float]]
    Xtable: list[dict[str, float]]


def read_table(origin: FileOrigin, design: Design) -> CountedTable:
    """A site's table from pda's JSON; DataError if it does not fit the study's columns."""
    table = _read_json(origin)
    names = _columns(origin, design, table)
    grid = Grid.of(design, design.study.learner.options.get("grids", {}))
    counted = [line for line in table.Xtable if line[COUNT] != 0]
    wide = np.array([[line[name] for name in names] for line in counted]).reshape(len(counted), len(names))
    counts = np.array([line[COUNT] for line in counted])
    if not len(counts) or np.any(counts != np.rint(counts)) or np.any(counts < 0):
        raise origin.error("CO-D142", "Its row counts are not whole numbers. Have R write it with digits = 15.")
    keys = _keys(origin, design, grid, wide)
    order = np.argsort(keys)
    if len(np.unique(keys)) != len(keys):
        raise origin.error("CO-D142", "It lists a pattern twice. Export it again.")
    return CountedTable(grid, keys[order], counts[order].astype(np.int64), np.array(table.SXY[0]))


def as_pda(design: Design, grid: Grid, table: Mapping[str, Any]) -> dict[str, Any]:
    """The table over the whole grid, as pda has it."""
    keys = np.arange(grid.size)
    counts = np.zeros(grid.size, dtype=np.int64)
    counts[table["keys"]] = table["n"]
    raw = grid.raw(design, keys)
    names = [pda_term(name) for name in design.names]
    lines = [
        {**{name: _number(v) for name, v in zip(names, row, strict=True)}, COUNT: int(c)}
        for row, c in zip(raw.tolist(), counts.tolist(), strict=True)
    ]
    return {"SXY": [[_number(v) for v in table["cross"].tolist()]], "Xtable": lines}


def pda_term(term: str) -> str:
    """R's name of a column: age65_79 for age[65_79]."""
    return term.replace("[", "").replace("]", "")


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _read_json(origin: FileOrigin) -> PdaTable:
    try:
        if origin.path.stat().st_size > MAX_BYTES:
            raise origin.error("CO-D141", f"It is larger than {MAX_BYTES} bytes. Name the file of a COLA table.")
        table = PdaTable.model_validate_json(origin.path.read_bytes())
    except OSError as error:
        raise origin.error(
            "CO-D102", f"{origin.path} cannot be read: {error.strerror}. Check the path and its rights."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        message = f"It is not a COLA table of pda ({where}: {first['msg']})"
        raise origin.error(
            "CO-D141", f"{message}. It needs SXY and Xtable, as pda writes them for model COLA."
        ) from None
    if len(table.SXY) != 1 or not table.Xtable or any(COUNT not in line for line in table.Xtable):
        raise origin.error(
            "CO-D141",
            "It is not a COLA table of pda: one row in SXY, and n in each line of Xtable. Export it for COLA again.",
        )
    return table


def _columns(origin: FileOrigin, design: Design, table: PdaTable) -> list[str]:
    """pda's names of the design's columns, in the design's order."""
    have = [name for name in table.Xtable[0] if name != COUNT]
    wanted = [pda_term(name) for name in design.names]
    first = [next((n for n in INTERCEPTS if n in have), INTERCEPT)] if wanted[0] == INTERCEPT else []
    names = first + wanted[len(first) :]
    uneven = any(set(line) != {*have, COUNT} for line in table.Xtable)
    if set(names) != set(have) or uneven or len(table.SXY[0]) != len(names):
        raise origin.error(
            "CO-D142",
            f"Its columns are {join_values(have, 10)}; the study's are {join_values(names, 10)}."
            " Export it for the formula of the study.",
        )
    if have != names:
        # X'y stands in the order of pda's columns.
        table.SXY[0][:] = [table.SXY[0][have.index(name)] for name in names]
    return names


def _keys(origin: FileOrigin, design: Design, grid: Grid, wide: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    """Pattern numbers of rows given by their design columns; DataError for a row that no person can have."""
    codes = {axis.name: _decode_levels(design, axis.name, wide) for axis in grid.axes}
    for axis in grid.axes:
        if not np.isin(codes[axis.name], axis.values).all():
            raise origin.error(
                "CO-D142",
                f"It counts rows with a value of {axis.name} that the study does not declare."
                " Declare the value, or export it again.",
            )
    keys = grid.keys(codes, len(wide)).astype(np.int64)
    if not np.array_equal(grid.raw(design, keys), wide):
        raise origin.error(
            "CO-D142",
            "It counts rows of a pattern that no person can have, such as two levels at once. Export it again.",
        )
    return keys


def _decode_levels(design: Design, name: str, wide: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    """A variable's values from the columns of its main effect."""
    own_columns: Sequence[int] = [
        j for j, c in enumerate(design.columns) if len(c.factors) == 1 and c.factors[0].variable == name
    ]
    plain = [j for j in own_columns if design.columns[j].factors[0].power == 1]
    if not plain:
        message = f"{name} has no main effect in the formula, so that pda's table cannot be read"
        raise StudyError("CO-S327", f"{message}. Count the rows of this site here.")
    if design.declared[name].type != "category":
        return wide[:, plain[0]]
    levels = np.array([design.columns[j].factors[0].level for j in plain])
    return wide[:, plain] @ levels
