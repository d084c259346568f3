"""Times that follow from two studies of curves: counts by step on two grids, or of patients in only one of the two.

Events of competing causes are counted by cause. Two studies that each count one cause together show the patients with
neither.

Cumulative counts at an end of a step of each of two grids differ by the patients who leave between these ends. So over
the same patients the counts of the joint grid are known, and all of them must stand on the floor. If the patients of
two studies differ, the counts at common ends differ by those of the patients in only one of the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.disclosure import TimeSteps
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.prints import RawRows

# A fraction of a width: how far a time may lie behind an end and still be in the step before it.
_ROUNDING = 1e-9
_OF = "events of "
# Counts of patients, the last axis by step, those before it by table.
Counts = Mapping[str, NDArray[np.int64]]
StepPlaces = NDArray[np.int64]
# The patients who count (n,) and their steps (n,), by kind.
Placed = Mapping[str, tuple[NDArray[np.bool_], StepPlaces]]


@dataclass(frozen=True)
class LoggedTimes:
    """The log's entry about a study of curves: its grid, and this site's counts on it."""

    steps: TimeSteps
    counts: Counts

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self.steps), "counts": {name: array.tolist() for name, array in self.counts.items()}}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> LoggedTimes:
        """The inverse of as_dict."""
        own = {name: value for name, value in plain.items() if name != "counts"}
        counts = {name: np.array(array, dtype=np.int64) for name, array in plain["counts"].items()}
        return cls(TimeSteps(**own | {"tables": tuple(own["tables"])}), counts)

    def merge_tables(self, tables: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """The counts by these tables alone, in the order in which this study has them."""
        axes = tuple(k for k, name in enumerate(self.steps.tables) if name not in tables)
        return {name: array.sum(axis=axes) for name, array in self.counts.items()}


def count_times(steps: TimeSteps, raw: RawRows) -> LoggedTimes:
    """This site's counts: who leaves, has the event, and enters, by table and step."""
    levels = [_place_levels(raw, name) for name in steps.tables]
    shape = (*(size for _, size in levels), steps.steps)
    placed = _place(steps, raw)
    counts = {}
    for kind, (inside, at) in placed.items():
        counts[kind] = np.zeros(shape, np.int64)
        np.add.at(counts[kind], (*(codes[inside] for codes, _ in levels), at[inside]), 1)
    return LoggedTimes(steps, counts)


def _place_levels(raw: RawRows, name: str) -> tuple[StepPlaces, int]:
    return np.asarray(raw.values[name]).astype(np.int64), len(raw.levels.get(name, ())) or 2


def _place(steps: TimeSteps, raw: RawRows, causes: tuple[str, ...] | None = None) -> Placed:
    """The patients who count (n,) and their steps (n,), by kind; who leaves after the horizon leaves in the last step.

    Kinds of columns that are not among the raw ones, of another study, are left out. Events of a category count by
    these causes, or by those that the study shows.
    """
    time, late = np.asarray(raw.values[steps.time], dtype=np.float64), steps.entry in raw.values
    entry = np.asarray(raw.values[steps.entry], dtype=np.float64) if late else np.zeros(len(time))
    inside = entry < steps.width * steps.steps
    end = np.maximum(np.ceil(time / steps.width - _ROUNDING).astype(np.int64), 1) - 1
    last = np.minimum(end, steps.steps - 1)
    out: dict[str, tuple[NDArray[np.bool_], StepPlaces]] = {"exits": (inside, last)}
    if late:
        out["entries"] = inside, np.clip(np.floor(entry / steps.width + _ROUNDING).astype(np.int64), 0, last)
    if steps.event in raw.values:
        shown = _list_causes(steps, raw) if causes is None else causes
        out |= _place_events(steps, raw, shown, (inside, inside & (end < steps.steps)), last)
    return out


def _list_causes(steps: TimeSteps, raw: RawRows) -> tuple[str, ...]:
    """The causes that a study counts: one, or all levels of its event but the first; none of a binary event."""
    return (steps.cause,) if steps.cause else tuple(raw.levels.get(steps.event, ())[1:])


def _place_events(
    steps: TimeSteps,
    raw: RawRows,
    causes: tuple[str, ...],
    among: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    last: StepPlaces,
) -> Placed:
    """The events in each step by cause, and who leaves without one; `among`: who counts, who has left in time."""
    inside, in_time = among
    codes, levels = np.asarray(raw.values[steps.event]), raw.levels.get(steps.event, ())
    if not causes:
        event = in_time & (codes == 1)
        return {"events": (event, last), "censored": (inside & ~event, last)}
    events = {f"{_OF}{cause}": in_time & (codes == levels.index(cause)) for cause in causes}
    some = np.logical_or.reduce(list(events.values()))
    return {**{kind: (event, last) for kind, event in events.items()}, "censored": (inside & ~some, last)}


def judge_joint_grid(new: TimeSteps, former: TimeSteps, study: str, raw: RawRows, floor: int) -> Iterator[Objection]:
    """Objections to counts on a grid that, with those of a former study over the same patients, show few of a step."""
    if new.time != former.time or floor < 2:
        return
    codes = [_place_levels(raw, name)[0] for name in new.tables if name in former.tables]
    # If both studies are of one event, together they show the causes of each.
    causes = None
    if new.event == former.event:
        causes = tuple(dict.fromkeys((*_list_causes(new, raw), *_list_causes(former, raw))))
    here, there = _place(new, raw, causes), _place(former, raw, causes)
    if new.event == former.event and _shows_full_step(codes, here, there):
        yield _refuse_joint_grid(new.time, study, floor)
        return
    for kind in here.keys() & there.keys():
        if kind not in ("exits", "entries") and new.event != former.event:
            continue
        inside = here[kind][0] | there[kind][0]
        cells = np.column_stack([*codes, _outside(here[kind], new), _outside(there[kind], former)])[inside]
        if _is_small(np.unique(cells, axis=0, return_counts=True)[1], floor):
            yield _refuse_joint_grid(new.time, study, floor)
            return


def _shows_full_step(codes: Sequence[StepPlaces], here: Placed, there: Placed) -> bool:
    """Whether all patients at risk have the event between two ends; not judged where patients enter late."""
    if "entries" in here or "entries" in there:
        return False
    cells = np.column_stack([*codes, here["exits"][1], there["exits"][1]])
    steps, at, exits = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    events = np.bincount(at.ravel(), _has_event(here) & _has_event(there))
    tables = np.unique(steps[:, :-2], axis=0, return_inverse=True)[1].ravel() if codes else np.zeros(len(steps), int)
    # Steps are in the order of time within their table: who leaves there or later is at risk.
    later = [exits[k:][tables[k:] == table].sum() for k, table in enumerate(tables.tolist())]
    return bool(np.any((events > 0) & (events == later)))


def _has_event(placed: Placed) -> NDArray[np.bool_]:
    """The patients with an event of any kind (n,)."""
    events = [inside for kind, (inside, _) in placed.items() if kind.startswith("events")]
    return np.asarray(np.logical_or.reduce(events), dtype=np.bool_)


def _outside(placed: tuple[NDArray[np.bool_], StepPlaces], steps: TimeSteps) -> StepPlaces:
    """The step of each patient (n,), and the one behind the last where the patient does not count."""
    inside, at = placed
    return np.where(inside, at, steps.steps)


def judge_difference_of_times(new: LoggedTimes, former: LoggedTimes, study: str, floor: int) -> Iterator[Objection]:
    """Objections to counts that, less those of a study over more or fewer patients, are those of few in a step."""
    if new.steps.time != former.steps.time or floor < 2:
        return
    tables = [name for name in new.steps.tables if name in former.steps.tables]
    ends = _list_common_ends(new.steps, former.steps)
    mine, theirs = (_add_complements(part.merge_tables(tables)) for part in (new, former))
    theirs = {name: _order_axes(array, former.steps.tables, new.steps.tables, tables) for name, array in theirs.items()}
    for kind in mine.keys() & theirs.keys():
        if kind not in ("exits", "entries") and new.steps.event != former.steps.event:
            continue
        apart = _merge_steps(mine[kind], [e[0] for e in ends]) - _merge_steps(theirs[kind], [e[1] for e in ends])
        if _is_small(np.abs(apart), floor):
            yield _refuse_difference(new.steps.time, study, floor)
            return


def _add_complements(counts: Counts) -> dict[str, NDArray[np.int64]]:
    """The counts, and of each cause who leaves without it."""
    causes = [kind for kind in counts if kind.startswith(_OF)]
    # What is censored in a study of one cause is not what is censored in one of all causes.
    own = {kind: array for kind, array in counts.items() if not causes or kind != "censored"}
    return own | {f"not {kind}": counts["exits"] - counts[kind] for kind in causes} | _add_rest(counts, causes)


def _add_rest(counts: Counts, causes: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    return {f"none of {', '.join(sorted(causes))}": counts["censored"]} if causes else {}


def _order_axes(
    array: NDArray[np.int64], own: Sequence[str], wanted: Sequence[str], tables: Sequence[str]
) -> NDArray[np.int64]:
    """Counts by tables in another study's order of these."""
    kept = [name for name in own if name in tables]
    order = [kept.index(name) for name in wanted if name in tables]
    return np.transpose(array, (*order, len(order)))


def _list_common_ends(new: TimeSteps, former: TimeSteps) -> list[tuple[int, int]]:
    """The ends of steps that both grids have, as numbers of steps of each; the last one of each grid at the end."""
    at = [k * new.width / former.width for k in range(1, new.steps)]
    common = [(k + 1, round(x)) for k, x in enumerate(at) if abs(x - round(x)) < _ROUNDING * max(x, 1.0)]
    return [*((k, j) for k, j in common if j < former.steps), (new.steps, former.steps)]


def _merge_steps(counts: NDArray[np.int64], ends: Sequence[int]) -> NDArray[np.int64]:
    """Counts between neighbouring ends."""
    sums = np.cumsum(counts, axis=-1)[..., [end - 1 for end in ends]]
    return np.diff(sums, axis=-1, prepend=0)


def _is_small(counts: NDArray[Any], floor: int) -> bool:
    return bool(np.any((counts > 0) & (counts < floor)))


def _refuse_joint_grid(time: str, study: str, floor: int) -> Objection:
    sentence = (
        f"with the counts of the study {study!r}, on another grid of {time}, it shows how many patients leave between "
        f"two neighbouring ends of steps (time steps). Somewhere these are fewer than {floor}, or all who are at risk. "
        "Agree on one grid of time for all studies, or let a person say yes with a reason (coterie release allow)."
    )
    return Objection(Grade.REFUSE, "time steps", sentence, study, subject=f"{time} of {study}")


def _refuse_difference(time: str, study: str, floor: int) -> Objection:
    sentence = (
        f"less the counts of the study {study!r} it shows those of the patients in only one of the two (difference). "
        f"Fewer than {floor} of these leave, enter or have the event in a step of {time}. Keep the patients the same "
        "with a declared cohort ([cohort] name, complete), take wider steps, or let a person say yes with a reason "
        "(coterie release allow)."
    )
    return Objection(Grade.REFUSE, "difference", sentence, study, subject=f"difference: {time}")
