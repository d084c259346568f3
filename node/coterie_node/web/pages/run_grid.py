"""The grid of a run: a line for each site, a column for each step, and what stands where they meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coterie_chain.ledger.protocol import Event, OpenStep, Record, StudyView
from coterie_node.web.live.site_reader import Entries

# A cell: its class, and the sign that stands in it, so that no meaning hangs on a colour.
POSTED, SERVED, AWAITED, LATE, GONE, NONE = ("p", "•"), ("s", "S"), ("w", "…"), ("l", "!"), ("x", "×"), ("", "")
LEGEND = (
    (POSTED, "posted"),
    (SERVED, "was the server"),
    (AWAITED, "is awaited"),
    (LATE, "is late"),
    (GONE, "excluded or left"),
    (("e", ""), "has no part in the step, or comes later"),
)
# The newest steps that a page shows.
MOST_STEPS_SHOWN = 240


@dataclass(frozen=True)
class GridRound:
    """A round and how many columns of the grid it has."""

    number: int
    width: int


@dataclass(frozen=True)
class RunGrid:
    """Rounds and kinds of steps across, sites down; `skipped`: how many steps before these are not shown."""

    rounds: tuple[GridRound, ...]
    kinds: tuple[str, ...]
    lines: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    skipped: int = 0
    starts: frozenset[int] = frozenset()


def draw_grid(view: StudyView, entries: Entries, now: int) -> RunGrid:
    """The grid of a study as of one block."""
    steps = _list_steps(view, entries)
    skipped = max(len(steps) - MOST_STEPS_SHOWN, 0)
    shown = steps[skipped:]
    rounds, starts = _group_rounds(shown)
    gone = _find_gone(view, entries)
    lines = tuple((site, _draw_line(site, shown, gone.get(site), now)) for site in view.terms.sites)
    return RunGrid(rounds, tuple(step.kind for step in shown), lines, skipped, starts)


@dataclass(frozen=True)
class _Step:
    position: int
    round: int
    kind: str
    posters: frozenset[str]
    open: OpenStep | None = None


def _list_steps(view: StudyView, entries: Iterable[Record | Event]) -> list[_Step]:
    """The steps in order: those with a record (of the last attempt), and the open one."""
    records: dict[int, list[Record]] = {}
    for entry in entries:
        if isinstance(entry, Record):
            records.setdefault(entry.post.position, []).append(entry)
    steps = [_make_step(position, found) for position, found in sorted(records.items())]
    if view.open is None:
        return steps
    last = view.open
    steps = [step for step in steps if step.position < last.position]
    return [*steps, _Step(last.position, last.round, last.kind, frozenset(last.posted), last)]


def _make_step(position: int, records: Sequence[Record]) -> _Step:
    last = max(record.post.attempt for record in records)
    posters = frozenset(record.site for record in records if record.post.attempt == last)
    return _Step(position, records[-1].round, records[-1].kind, posters)


def _group_rounds(steps: Sequence[_Step]) -> tuple[tuple[GridRound, ...], frozenset[int]]:
    groups: list[GridRound] = []
    starts: set[int] = set()
    for at, step in enumerate(steps):
        if groups and groups[-1].number == step.round + 1:
            groups[-1] = GridRound(step.round + 1, groups[-1].width + 1)
        else:
            groups.append(GridRound(step.round + 1, 1))
            starts.add(at)
    return tuple(groups), frozenset(starts)


def _find_gone(view: StudyView, entries: Iterable[Record | Event]) -> dict[str, int]:
    """The step from which on a site is no party any more."""
    gone: dict[str, int] = {}
    for entry in entries:
        if isinstance(entry, Event) and entry.name in ("SiteExcluded", "SiteLeft"):
            details = dict(entry.details)
            gone[str(details.get("silent", entry.site))] = int(details["position"])
    return {site: at for site, at in gone.items() if site not in view.parties}


def _draw_line(site: str, steps: Sequence[_Step], gone: int | None, now: int) -> tuple[tuple[str, str], ...]:
    return tuple(_draw_cell(site, step, gone, now) for step in steps)


def _draw_cell(site: str, step: _Step, gone: int | None, now: int) -> tuple[str, str]:
    if site in step.posters:
        return POSTED if step.kind == "each" else SERVED
    if step.open is not None and site in step.open.posters:
        return LATE if now > step.open.deadline else AWAITED
    return GONE if gone is not None and step.position >= gone else NONE
