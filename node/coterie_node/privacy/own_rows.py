"""The site's own rows: does a new release, with all former ones, give sums over few patients?

Tested over each raw column, for patients and for units (a patient with a value), exactly. A difference is a release,
so a larger known set that is new is handed on, to be judged as a payload of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from coterie_node.privacy.atoms import Atoms, split_patients, split_units
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.patients import ColumnVersions, Indices, PatientMask
from coterie_node.privacy.spans import PRIMES, Addition, SmallSet, find_added_by_last, solve_combination

# The exact test covers so many releases and atoms; beyond it differences to each former release are looked at.
MOST_RELEASES = 200
MOST_ATOMS = 4000
# So many independent small sets are searched through; beyond it a person is asked.
MOST_SMALL = 12
# A fraction of the values that two releases have in common; when nearly all differ, the column is coded in another way.
_RECODED = 0.9
_SHOWN = 3


@dataclass(frozen=True)
class RowSet:
    """One release's patients (bits by place in the dictionary) and the version of each raw column that it read."""

    study: str
    bits: PatientMask = field(repr=False)
    versions: Mapping[str, int]

    @property
    def n(self) -> int:
        """Number of patients."""
        return int(np.count_nonzero(self.bits))


@dataclass(frozen=True)
class History:
    """All former releases of a site, and its columns; bits of all have one length."""

    past: Sequence[RowSet]
    columns: Mapping[str, ColumnVersions]


def judge_rows(new: RowSet, history: History, floor: int, lacking: Mapping[str, int] | None = None) -> list[Objection]:
    """Objections to a release for the small sets that follow from it; `lacking` as in PrintedRows."""
    objections: list[Objection] = []
    tests: dict[tuple[int, ...], list[Objection]] = {}
    for name in new.versions:
        readers = tuple(k for k, past in enumerate(history.past) if name in past.versions)
        if not readers:
            continue
        past = [history.past[k] for k in readers]
        if readers not in tests:
            tests[readers] = list(_judge_patients(new, past, history, floor, lacking or {}))
            objections += tests[readers]
        if any(other.versions[name] != new.versions[name] for other in past):
            objections += _judge_units(name, new, past, history.columns[name], floor)
    return objections


def find_known_sets(new: RowSet, past: Sequence[RowSet]) -> Iterator[tuple[RowSet, PatientMask]]:
    """Sets of patients whose own sums follow from the new release and a former one: what is in one of the two only.

    Yields the former release, and the set (bits). Both differ in one direction; otherwise it is a difference of sums.
    """
    for other in past:
        more, fewer = new.bits & ~other.bits, other.bits & ~new.bits
        if more.any() != fewer.any():
            yield other, more | fewer


def rest_set(new: RowSet, past: Sequence[RowSet]) -> PatientMask | None:
    """The set (bits) that is left of the new release when all former ones are taken off, if it is a set of its own."""
    atoms = split_patients([*(other.bits for other in past), new.bits])
    if not _find_within(atoms, len(past)):
        return None
    added = find_added_by_last(atoms.matrix, atoms.groups, 0)
    if not added.changes or added.rest is None:
        return None
    values = np.unique(added.rest)
    if len(values) != 2 or values[0] != 0:
        return None
    mask: PatientMask = (added.rest != 0)[atoms.of]
    return mask


def _find_within(atoms: Atoms, releases: int) -> bool:
    return releases < MOST_RELEASES and atoms.matrix.shape[1] <= MOST_ATOMS


def _judge_patients(
    new: RowSet, past: Sequence[RowSet], history: History, floor: int, lacking: Mapping[str, int]
) -> Iterator[Objection]:
    if any(np.array_equal(new.bits, other.bits) for other in past):
        return
    near = next((other for other in past if 0 < _apart(new, other) < floor), None)
    if near is not None:
        yield _near(new, near, floor, _judge_recoded(new, near, history), lacking)
        return
    atoms = split_patients([*(other.bits for other in past), new.bits])
    yield from _judge_span(atoms, past, floor)


def _judge_units(
    name: str, new: RowSet, past: Sequence[RowSet], column: ColumnVersions, floor: int
) -> Iterator[Objection]:
    atoms = split_units(
        [*(o.bits for o in past), new.bits], column, [*(o.versions[name] for o in past), new.versions[name]]
    )
    yield from _judge_span(atoms, past, floor, name)


def _judge_span(atoms: Atoms, past: Sequence[RowSet], floor: int, column: str = "") -> Iterator[Objection]:
    if not _find_within(atoms, len(past)):
        return
    added = _confirm(atoms, floor)
    if added.smallest is not None and added.smallest.patients < floor:
        yield _combine(atoms, added.smallest, past, floor, column)
    elif added.smallest is not None and added.dimension > MOST_SMALL:
        yield _ask_undecided(past)


def _confirm(atoms: Atoms, floor: int) -> Addition:
    """What the last release adds; a small set must be there modulo a second prime as well."""
    added = find_added_by_last(atoms.matrix, atoms.groups, floor)
    if added.smallest is None or added.smallest.patients >= floor:
        return added
    again = find_added_by_last(atoms.matrix, atoms.groups, floor, PRIMES[1])
    return added if again.smallest is not None else again


def _apart(a: RowSet, b: RowSet) -> int:
    return int(np.count_nonzero(a.bits ^ b.bits))


WAYS_OUT = (
    "Keep to the same patients with a declared cohort ([cohort] name and complete), wait until at least {floor} "
    "patients more differ, or let a person say yes with a reason (coterie release allow)."
)


def _near(new: RowSet, other: RowSet, floor: int, recoded: Sequence[str], lacking: Mapping[str, int]) -> Objection:
    kind = "re-coded" if recoded else _direction(new, other)
    blank = [name for name in lacking if lacking[name] and name not in other.versions]
    words = {
        "added": f"It adds fewer than {floor} patients to those of the study {other.study!r}",
        "dropped": f"It leaves out fewer than {floor} patients of the study {other.study!r}",
        "exchanged": f"Its patients are those of the study {other.study!r} except fewer than {floor}",
        "re-coded": f"Its patients are those of the study {other.study!r} except fewer than {floor}, and "
        f"{' and '.join(recoded[:_SHOWN])} is written in another way",
    }[kind]
    if kind == "dropped" and blank:
        words += f", whose rows lack {' or '.join(blank[:_SHOWN])}"
    ways = WAYS_OUT.format(floor=floor)
    sentence = f"{words} ({kind}): the difference of the two releases would be those patients' own values. {ways}"
    return Objection(Grade.REFUSE, kind, sentence, other.study, {"patients": _apart(new, other)}, other.study)


def _direction(new: RowSet, other: RowSet) -> str:
    more = bool((new.bits & ~other.bits).any())
    fewer = bool((other.bits & ~new.bits).any())
    return "exchanged" if more and fewer else "added" if more else "dropped"


def _judge_recoded(new: RowSet, other: RowSet, history: History) -> list[str]:
    """The columns of both whose value differs for nearly all common patients."""
    common = np.flatnonzero(new.bits & other.bits).astype(np.uint32)
    both = [name for name in new.versions if other.versions.get(name, new.versions[name]) != new.versions[name]]
    return [name for name in both if len(common) and _share_changed(name, new, other, history, common) > _RECODED]


def _share_changed(name: str, new: RowSet, other: RowSet, history: History, patients: Indices) -> float:
    """The share of these patients whose value of a column differs between two releases."""
    column = history.columns[name]
    values = (column.at_version(row_set.versions[name], patients) for row_set in (other, new))
    return float(np.mean(np.not_equal(*values)))


def _combine(atoms: Atoms, small: SmallSet, past: Sequence[RowSet], floor: int, column: str) -> Objection:
    shares = solve_combination(atoms.matrix, small.row) or (1,) * (len(past) + 1)
    names = list(dict.fromkeys(o.study for o, share in zip(past, shares, strict=False) if share))
    studies = " and ".join(repr(name) for name in names[:_SHOWN])
    ways = WAYS_OUT.format(floor=floor)
    if not column:
        words = f"With the release of {studies} it gives sums over fewer than {floor} patients (combination)"
        sentence = f"{words}. {ways}"
        return Objection(Grade.REFUSE, "combination", sentence, names[0] if names else "", {"patients": small.patients})
    words = f"The column {column} of fewer than {floor} patients of {studies} has another value now (value changed)"
    sentence = f"{words}: the difference of the two releases would be those patients' own values. {ways}"
    first = names[0] if names else ""
    return Objection(Grade.REFUSE, "value changed", sentence, first, {"patients": small.patients}, column)


def _ask_undecided(past: Sequence[RowSet]) -> Objection:
    names = " and ".join(repr(name) for name in dict.fromkeys(other.study for other in past[-_SHOWN:]))
    sentence = (
        f"With {names} and other releases so many sums over small groups follow that it cannot be ruled out that one "
        "is over very few patients. A person of this site decides, with a reason (coterie release allow)."
    )
    return Objection(Grade.ASK, "many small groups", sentence)
