"""What a payload discloses, and whether the study's floors allow it.

A learner says of each step that posts from a site's own rows what its readers can solve from the exact payload (an
`Exposure`); the release gate of the site's node asks before any byte leaves. The judgement is made of the payload, not
of the rows, so that it holds for what really leaves. A count of zero is not blocked: it says that nobody is there.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array
from coterie_learners.study.design import INTERCEPT, Column, Design
from coterie_learners.study.document import Floors

SHOWN = 3
# More pairs of variables than these are one phrase in a list of kinds of cells.
MAX_PAIRS = 400
PATTERNS = "single patterns of all covariates"
# What the gate compares each payload with, by the floor's name in the study.
FLOOR_RULES = {
    "rows": "a payload stands on at least so many rows",
    "cell": "no number of patients from 1 to below this follows from a payload",
    "events_per_parameter": "so many patients with the outcome, and without it, for each coefficient",
    "rebuild": "whether a payload may let its readers rebuild a column row by row",
}


class Ruling(IntEnum):
    """What the gate decided; the first byte of a record's verdict."""

    NOT_JUDGED = 0
    PASSED = 1
    SUMS_ONLY = 2
    CONSENTED = 3
    REFUSED = 9


@dataclass(frozen=True)
class TimeSteps:
    """A grid of time on which patients are counted: `steps` steps of `width` from 0, and the columns that are read.

    `tables`: by which columns the counts stand. `entry` is empty where nobody enters late. `cause`: the level of
    `event` that alone counts as the event; empty for each level of a category but the first, or for a binary event.
    """

    time: str
    event: str
    entry: str
    tables: tuple[str, ...]
    width: float
    steps: int
    cause: str = ""


@dataclass(frozen=True)
class ColumnCut:
    """A column of which patients are counted by the parts (a, b] between its breaks, for each level of `by` apart."""

    column: str
    breaks: tuple[float, ...]
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoreWeights:
    """Sums by arm of a treatment, of rows weighed by the chance (n,) of it, and the scores at which weights end.

    `of_outcomes`: sums of weighed outcomes are among them, and not of the weights alone.
    """

    treatment: str
    estimand: str
    truncate: tuple[float, ...]
    of_outcomes: bool
    score: Array = field(repr=False, compare=False)


@dataclass(frozen=True)
class Exposure:
    """What the readers of one payload can solve from it.

    `what` names the payload in words. `readers`: the sites that can open it (None: every member). `rows` behind it;
    `events` of them with the outcome, `parameters` that the study estimates. `cells`: counts of patients that follow
    exactly, by name; these names and numbers are for this site's own people. `kinds`: the cells' kinds, for everybody.
    `rebuilt`: columns that come back row by row; `gridded`: those that do by lattice reduction, up to sums with small
    coefficients. `sums_only`: the bytes are uniformly distributed to anybody without this site's keys; only a sum over
    `parties` sites exists. `by_columns`: sums over rows of products of the formula's columns and the outcome, so that
    every level, pair and event is a count that they show; without the rows whose pattern of covariates has fewer than
    `least_pattern`.
    `numbers`: how many such sums there are, where they are no round of score and information. `labels`: each party's
    label of each raw column's rows; `labels_only`: nothing but those.
    `opening`: masked counts that are opened before any other sum of the pool; `unopened`: masked sums without such
    counts before them. `pooled`: the patients and events of the pool by level, as they were opened before these masked
    sums. `uncounted`: the pool's levels were compared with the floor by bits, and nobody knows their counts.
    `by_patient`: `rows` and the opened counts are of patients, who may have several rows. `instead`: the option of this
    study's learner, or the learner, that does not show the cells. `times`: the grid of time of
    these counts, if they are such. `cuts`: columns that are counted by parts. `ranges`: of counts by range of a score,
    the range (n,) of each row, by the column whose levels are counted apart; `scores`: of sums of a model's scores, the
    `logit` and the `probability` (n,) of each row; `weighed`: how rows are weighed by such a score; `matched`: of sums
    over the patients that sites with other columns have in common, the numbers of their rows. All four
    are for the gate alone.
    """

    what: str
    rows: int
    readers: tuple[str, ...] | None = None
    events: int | None = None
    parameters: int = 0
    cells: Mapping[str, int] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    rebuilt: tuple[str, ...] = ()
    gridded: tuple[str, ...] = ()
    sums_only: bool = False
    parties: int = 0
    by_columns: bool = False
    least_pattern: int = 0
    numbers: int = 0
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    labels_only: bool = False
    opening: bool = False
    unopened: bool = False
    pooled: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    uncounted: bool = False
    by_patient: bool = False
    instead: str = ""
    times: TimeSteps | None = None
    cuts: tuple[ColumnCut, ...] = ()
    ranges: Mapping[str, NDArray[np.int64]] = field(default_factory=dict, repr=False, compare=False)
    scores: Mapping[str, Array] = field(default_factory=dict, repr=False, compare=False)
    weighed: ScoreWeights | None = field(default=None, repr=False, compare=False)
    matched: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)

    def small(self, floor: int) -> dict[str, int]:
        """The cells above zero and below the floor."""
        return {name: count for name, count in self.cells.items() if 0 < count < floor}


@dataclass(frozen=True)
class GateVerdict:
    """The gate's decision on one payload: a ruling, and one sentence without any number of patients.

    `secret` is for this site's own people: the cells below the floor with their counts.
    """

    ruling: Ruling
    sentence: str
    floors: Floors
    topic: str
    secret: Mapping[str, int] = field(default_factory=dict)

    @property
    def refused(self) -> bool:
        """Whether the payload must stay."""
        return self.ruling is Ruling.REFUSED

    @property
    def digest(self) -> bytes:
        """What goes on the ledger (32 bytes): the ruling and 31 bytes of the SHA-256 of everything but the secret."""
        plain = {"ruling": int(self.ruling), "sentence": self.sentence, "topic": self.topic}
        text = json.dumps(plain | {"floors": self.floors.as_dict()}, sort_keys=True, separators=(",", ":"))
        return bytes([self.ruling]) + hashlib.sha256(text.encode()).digest()[:31]

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys of what may be shown to anybody."""
        return {
            "topic": self.topic,
            "ruling": self.ruling.name.lower().replace("_", " "),
            "sentence": self.sentence,
            "floors": self.floors.as_dict(),
            "digest": self.digest.hex(),
        }


def judge_exposure(exposure: Exposure, floors: Floors, topic: str) -> GateVerdict:
    """Compare an exposure with the floors; the first floor that it breaks decides."""
    to = "every member" if exposure.readers is None else " and ".join(exposure.readers) or "nobody"
    passed = GateVerdict(Ruling.PASSED, f"{exposure.what} goes to {to}; it breaks no floor.", floors, topic)
    if exposure.sums_only:
        message = (
            f"{exposure.what} leaves as uniformly distributed numbers; only sums over {exposure.parties} sites exist."
        )
        passed = replace(passed, ruling=Ruling.SUMS_ONLY, sentence=message)
    broken = next((message for message in _list_breaches(exposure, floors) if message), None)
    if broken is None:
        return passed
    message = f"{exposure.what} may not go to {to}: {broken}"
    return replace(passed, ruling=Ruling.REFUSED, sentence=message, secret=exposure.small(floors.cell))


def _list_breaches(exposure: Exposure, floors: Floors) -> Sequence[str | None]:
    return (
        _check_rows(exposure, floors),
        _check_parameters(exposure, floors),
        None if exposure.sums_only else _check_cells(exposure, floors),
        None if floors.rebuild == "allow" else _check_rebuild(exposure),
    )


def _check_rows(exposure: Exposure, floors: Floors) -> str | None:
    if exposure.rows >= floors.rows:
        return None
    return f"it is from fewer than {floors.rows} rows. Take part with more rows, or agree on another floor."


def _check_parameters(exposure: Exposure, floors: Floors) -> str | None:
    events = exposure.rows if exposure.events is None else min(exposure.events, exposure.rows - exposure.events)
    if events >= floors.events_per_parameter * exposure.parameters:
        return None
    return (
        f"there are fewer than {floors.events_per_parameter:g} events here for each of {exposure.parameters} "
        "coefficients. Shorten the formula, or agree on another floor."
    )


def _check_cells(exposure: Exposure, floors: Floors) -> str | None:
    small = exposure.small(floors.cell)
    if not small:
        return None
    kinds = list(dict.fromkeys(exposure.kinds.get(name, name) for name in small))
    rest = f" and {len(kinds) - SHOWN} more kinds" if len(kinds) > SHOWN else ""
    instead = f", {exposure.instead}," if exposure.instead else ""
    return (
        f"counts below {floors.cell} patients can be solved from it, of {'; '.join(kinds[:SHOWN])}{rest}. "
        f"Merge rare levels{instead} or agree on another floor."
    )


def _check_rebuild(exposure: Exposure) -> str | None:
    if not exposure.rebuilt and not exposure.gridded:
        return None
    bordered = f"{_shorten(exposure.rebuilt)} row by row" if exposure.rebuilt else ""
    grid = f"{_shorten(exposure.gridded)} row by row, whose values lie on a grid" if exposure.gridded else ""
    columns = ", and ".join(filter(None, (bordered, grid)))
    return (
        f"its readers can rebuild {columns}. Leave these columns out, take a learner that computes on shares, or agree "
        'on disclosure.rebuild = "allow" knowingly.'
    )


def _shorten(names: Sequence[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{rest}"


# Two-way tables


@dataclass(frozen=True)
class Atom:
    """A group of patients as a combination of indicator columns: all rows times weights[0], plus the columns."""

    variable: str
    name: str
    weights: Array


def name_events(level: str, first: str, outcome: str) -> str:
    """How a level of the pool is called with its events of an outcome, in a study whose first outcome is `first`."""
    return level if outcome == first else f"{level} (with {outcome})"


def indicators(design: Design) -> list[int]:
    """Indices of the columns that are 0 or 1 for every row: levels, binary variables, and their products."""
    return [j for j, column in enumerate(design.columns) if column.name != INTERCEPT and _binary(design, column)]


def two_way(
    design: Design, n: float, gram: Array, events: tuple[float, Array] | None
) -> tuple[dict[str, int], dict[str, str]]:
    """Every two-way table of the 0/1 columns and with the outcome, from their cross-products, and the cells' kinds.

    `gram` (k, k) are the cross-products of the columns `indicators(design)`; `events` the sum of a binary outcome and
    its products with these columns (k,). Rounded to whole numbers, as they are exactly up to rounding.
    """
    columns = [design.columns[j] for j in indicators(design)]
    bordered = np.block([[np.array([[n]]), np.diag(gram)[None, :]], [np.diag(gram)[:, None], gram]])
    groups = _groups(design, columns)
    cells = {f"{a.name}": float(a.weights @ bordered[0]) for group in groups for a in group}
    kinds = {a.name: a.variable for group in groups for a in group}
    for first_group, other in itertools.combinations(groups, 2):
        for a, b in itertools.product(first_group, other):
            name = f"{a.name} & {b.name}"
            cells[name] = float(a.weights @ bordered @ b.weights)
            kinds[name] = f"{a.variable} by {b.variable}"
    if events is not None:
        _with_outcome(design.formula.outcome, groups, bordered, events, cells, kinds)
    return {name: round(count) for name, count in cells.items()}, kinds


def list_cell_kinds(design: Design) -> tuple[str, ...]:
    """The kinds of counts that sums of products of the columns show, by the names of `Exposure.kinds`.

    These are each level, each pair of levels and, of a binary outcome, its events in both; and single patterns of
    covariates where few occur.
    """
    columns = [design.columns[j] for j in indicators(design)]
    names = [*_list_single(columns), *(column.name for column in columns if len(column.factors) > 1)]
    pairs = [f"{a} by {b}" for a, b in itertools.islice(itertools.combinations(names, 2), MAX_PAIRS + 1)]
    pairs = pairs if len(pairs) <= MAX_PAIRS else ["each pair of these"]
    outcome = design.formula.outcome
    events = [outcome, *(f"{name} by {outcome}" for name in names)] if design.outcome.type == "binary" else []
    return tuple(dict.fromkeys([*names, *pairs, *events, PATTERNS]))


def _with_outcome(
    outcome: str,
    groups: Sequence[Sequence[Atom]],
    bordered: Array,
    events: tuple[float, Array],
    cells: dict[str, float],
    kinds: dict[str, str],
) -> None:
    total = np.concatenate([[events[0]], events[1]])
    for value, sums in ((1, total), (0, bordered[0] - total)):
        cells[f"{outcome}={value}"], kinds[f"{outcome}={value}"] = float(sums[0]), outcome
        for atom in itertools.chain.from_iterable(groups):
            name = f"{atom.name} & {outcome}={value}"
            cells[name], kinds[name] = float(atom.weights @ sums), f"{atom.variable} by {outcome}"


def _groups(design: Design, columns: Sequence[Column]) -> list[list[Atom]]:
    """The levels of each variable as atoms, the reference level among them; products as in or out."""
    groups = [_levels(design, variable, columns) for variable in _list_single(columns)]
    return groups + [_in_or_out(c.name, k, len(columns)) for k, c in enumerate(columns) if len(c.factors) > 1]


def _list_single(columns: Sequence[Column]) -> list[str]:
    """The variables that are columns of their own."""
    return list(dict.fromkeys(c.factors[0].variable for c in columns if len(c.factors) == 1))


def _levels(design: Design, variable: str, columns: Sequence[Column]) -> list[Atom]:
    own_positions = [k for k, c in enumerate(columns) if len(c.factors) == 1 and c.factors[0].variable == variable]
    declared = design.declared[variable]
    if declared.type != "category":
        return _in_or_out(variable, own_positions[0], len(columns))
    units = np.eye(len(columns) + 1)
    atoms = [Atom(variable, f"{variable}[{declared.levels[0]}]", units[0] - sum(units[k + 1] for k in own_positions))]
    return atoms + [Atom(variable, columns[k].name, units[k + 1]) for k in own_positions]


def _in_or_out(name: str, k: int, size: int) -> list[Atom]:
    units = np.eye(size + 1)
    return [Atom(name, f"{name}=0", units[0] - units[k + 1]), Atom(name, f"{name}=1", units[k + 1])]


def _binary(design: Design, column: Column) -> bool:
    return all(f.level is not None or design.declared[f.variable].type == "binary" for f in column.factors)
