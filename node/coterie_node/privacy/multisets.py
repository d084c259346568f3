"""Rows without identifiers: a release is a multiset of the values in the columns that it shares with another one.

The difference of two such multisets is what the difference of their sums can show. It is never too lax while values
are written alike; a file that is coded in another way defeats it. Therefore nearly equal numbers of rows are refused
as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.own_rows import MOST_ATOMS, MOST_RELEASES, WAYS_OUT
from coterie_node.privacy.prints import Fingerprints
from coterie_node.privacy.spans import Groups, Whole, find_added_by_last, solve_combination

# Former releases that are added to and taken off the new one by twos.
_PAIRS = 24
# Releases that are compared at once.
_GROUP = 60
# Odd numbers that mix the prints of a row's columns into one; prints are keyed already.
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class ValueRows:
    """One release's rows as value prints by column (n,).

    `by_patient`: the rows are compared with the new release's by their patients as well, so that here they count in
    combinations only. `renamed`: they have identifiers, and hardly any that the new release's have.
    """

    study: str
    columns: Mapping[str, Fingerprints] = field(repr=False)
    n: int
    by_patient: bool = False
    renamed: bool = False


def judge_multisets(
    new: ValueRows, past: Sequence[ValueRows], floor: int, lacking: Mapping[str, int] | None = None
) -> list[Objection]:
    """Objections to a release without identifiers for the few rows that it and former ones differ by."""
    out: list[Objection] = []
    for shared in _find_shared_columns(new, past):
        group = [other for other in past if shared <= set(other.columns)][-_GROUP:]
        out += _judge_group(new, group, sorted(shared), floor, lacking or {})
    unnamed = [other for other in past if not other.by_patient and not other.renamed]
    return out + [_nearly_as_many(other, floor) for other in unnamed if 0 < abs(other.n - new.n) < floor]


def _find_shared_columns(new: ValueRows, past: Sequence[ValueRows]) -> list[frozenset[str]]:
    shared = (frozenset(new.columns) & frozenset(other.columns) for other in past)
    return [columns for columns in dict.fromkeys(shared) if columns]


def _judge_group(
    new: ValueRows, group: Sequence[ValueRows], columns: Sequence[str], floor: int, lacking: Mapping[str, int]
) -> Iterator[Objection]:
    counts = _count_patterns([*group, new], columns)
    differences = counts[-1] - counts[:-1]
    compared = np.array([not other.by_patient for other in group])
    if not differences[compared].any(axis=1).all():
        return
    sizes = np.maximum(np.maximum(differences, 0).sum(axis=1), np.maximum(-differences, 0).sum(axis=1))
    near = np.flatnonzero(compared & (sizes < floor))
    if len(near):
        yield _near(group[near[0]], new, differences[near[0]], floor, lacking)
    elif _some_sum_is_small(counts, floor):
        yield _combine(group, floor)


def find_excess(these: Mapping[str, Fingerprints], those: Mapping[str, Fingerprints]) -> NDArray[np.intp]:
    """The places of rows (n,) that those rows, by the values of all columns, do not have, or not as often."""
    names = sorted(these)
    if not names:
        return np.empty(0, np.intp)
    own, others = (_number_repeats(_mix_columns(columns, names)) for columns in (these, those))
    return np.flatnonzero(~np.isin(own, others))


def _number_repeats(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each row's word with its number among equal ones."""
    order = np.argsort(words, kind="stable")
    ordered = words[order]
    repeats = np.empty(len(words), np.uint64)
    repeats[order] = np.arange(len(words)) - np.searchsorted(ordered, ordered)
    return words * _MIX + repeats


def _count_patterns(releases: Sequence[ValueRows], columns: Sequence[str]) -> Whole:
    """The number of rows (r, k) of each release with each pattern of these columns."""
    words = [_row_words(release, columns) for release in releases]
    patterns = np.unique(np.concatenate(words))
    counts = np.zeros((len(words), len(patterns)), np.int64)
    for row, word in zip(counts, words, strict=True):
        np.add.at(row, np.searchsorted(patterns, word), 1)
    return counts


def _row_words(release: ValueRows, columns: Sequence[str]) -> NDArray[np.uint64]:
    return _mix_columns(release.columns, columns)


def _mix_columns(columns: Mapping[str, Fingerprints], names: Sequence[str]) -> NDArray[np.uint64]:
    """One word (n,) for each row's values."""
    out = np.zeros(len(columns[names[0]]), np.uint64)
    for name in names:
        out = (out ^ (out >> np.uint64(29))) * _MIX + columns[name]
    return out


def _some_sum_is_small(counts: Whole, floor: int) -> bool:
    """Whether the new release, with two former ones added or taken off, or in any exact combination, is small."""
    former, latest = counts[-_PAIRS - 1 : -1], counts[-1]
    for (a, b), (s, t) in itertools.product(itertools.combinations(former, 2), itertools.product((1, -1), repeat=2)):
        if 0 < _size(latest + s * a + t * b) < floor:
            return True
    return _follows_from_span(counts, floor)


def _size(difference: Whole) -> int:
    return int(max(np.maximum(difference, 0).sum(), np.maximum(-difference, 0).sum()))


def _follows_from_span(counts: Whole, floor: int) -> bool:
    atoms, weights = np.unique(counts, axis=1, return_counts=True)
    if len(counts) > MOST_RELEASES or atoms.shape[1] > MOST_ATOMS:
        return False
    added = find_added_by_last(atoms, Groups(np.arange(atoms.shape[1]), weights.astype(np.int64)), floor)
    if added.smallest is None:
        return False
    shares = solve_combination(atoms, added.smallest.row)
    return shares is not None and 0 < _size((np.array(shares) @ atoms) * weights) < floor


def _nearly_as_many(other: ValueRows, floor: int) -> Objection:
    sentence = (
        f"Its rows are nearly as many as those of the study {other.study!r}, and without a declared identifier nobody "
        f"can say whose they are (row count). Name the column that identifies patients (patient = ...), wait until at "
        f"least {floor} rows more differ, or let a person say yes with a reason (coterie release allow)."
    )
    return Objection(Grade.REFUSE, "row count", sentence, other.study, subject=other.study)


def _near(other: ValueRows, new: ValueRows, difference: Whole, floor: int, lacking: Mapping[str, int]) -> Objection:
    if other.renamed:
        return _refuse_renamed(other, difference, floor)
    more, fewer = bool((difference > 0).any()), bool((difference < 0).any())
    kind = "value changed" if more and fewer else "added" if more else "dropped"
    words = {
        "added": f"It adds fewer than {floor} rows to those of the study {other.study!r}",
        "dropped": f"It leaves out fewer than {floor} rows of the study {other.study!r}",
        "value changed": f"Fewer than {floor} rows have other values than in the study {other.study!r}",
    }[kind]
    blank = [name for name in lacking if lacking[name] and name not in other.columns]
    if kind == "dropped" and blank:
        words += f", as they lack {' or '.join(blank[:3])}"
    sentence = f"{words} ({kind}): the difference of the two releases would be these patients' own values. "
    secret = {"rows": _size(difference)}
    return Objection(Grade.REFUSE, kind, sentence + WAYS_OUT.format(floor=floor), other.study, secret, other.study)


def _refuse_renamed(other: ValueRows, difference: Whole, floor: int) -> Objection:
    sentence = (
        f"Its rows have the values of the study {other.study!r} except for fewer than {floor} rows, under other "
        "identifiers (identifiers changed): the difference of the two would be those patients' own values. Identify "
        f"patients as that study does. {WAYS_OUT.format(floor=floor)}"
    )
    secret = {"rows": _size(difference)}
    return Objection(Grade.REFUSE, "identifiers changed", sentence, other.study, secret, other.study)


def _combine(group: Sequence[ValueRows], floor: int) -> Objection:
    names = " and ".join(repr(name) for name in list(dict.fromkeys(other.study for other in group[-3:])))
    sentence = f"With the releases of {names} it gives sums over fewer than {floor} patients (combination). "
    return Objection(Grade.REFUSE, "combination", sentence + WAYS_OUT.format(floor=floor), group[-1].study)
