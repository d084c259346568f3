"""Columns that are derived in one way in a study and in another way in a former one, on the same rows.

The log keeps keyed prints of each derived column, as it keeps those of raw columns. Over the same rows `age > 40` less
`age > 41` is a sum over those of 41. So levels of two studies, or several levels together, that differ by few patients
are refused, and so are numbers that differ for few. Outcomes, weights and offsets count as covariates do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_node.privacy.entries import ReleaseHead
from coterie_node.privacy.files.packing import pack_words, unpack_words
from coterie_node.privacy.log import Candidate, PrivacyLog
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.prints import MOST_LEVELS, Fingerprints, find_few_distinct, print_numbers
from coterie_node.privacy.storage import read_blob
from coterie_node.privacy.values import LevelTable
from coterie_node.release.derivations.joint_levels import are_twins, differ_little, isolate_few

# In place of a digest: the prints are among those of the raw columns.
RAW, DERIVED = "raw", "derived"
# Rows on which columns are compared first.
_SAMPLED = 64
DerivedTables = Mapping[str, LevelTable]


@dataclass(frozen=True)
class Sizes:
    """The floor, and whether sums of this site alone leave: in the clear."""

    floor: int
    plain: bool


def keep_columns(log: PrivacyLog, candidate: Candidate, columns: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Write the prints of what a formula derives, and return the digest of each."""
    out = {}
    for name, values in columns.items():
        prints = print_numbers(values, name, log.key)
        if candidate.head.identified:
            prints = prints[np.argsort(candidate.at, kind="stable")]
        digest = hashlib.sha256(prints.tobytes()).hexdigest()
        log.storage[f"table/{digest}"] = pack_words(prints)
        out[name] = digest
    return out


def read_prints(log: PrivacyLog, head: ReleaseHead, name: str) -> Fingerprints | None:
    """The prints (n,) of a table that a former study derived: by place of the patients, else row by row."""
    place = f"table/{head.tables.get(name, '')}"
    return read_blob(log.storage, place, unpack_words) if place in log.storage else None


def read_former_tables(
    log: PrivacyLog, candidate: Candidate, same: Sequence[ReleaseHead], known: Collection[str]
) -> DerivedTables:
    """The tables of models that former studies on these rows read, and the new one does not, in the new one's order."""
    former = read_former_columns(log, candidate, same, known)
    tables = {name: parse_levels(name, prints) for name, prints in former.items()}
    return {name: table for name, table in tables.items() if table is not None}


def read_former_columns(
    log: PrivacyLog, candidate: Candidate, same: Sequence[ReleaseHead], known: Collection[str]
) -> dict[str, Fingerprints]:
    """The prints (n,) of the columns of models that former studies on these rows read, in the new one's order."""
    out: dict[str, Fingerprints] = {}
    rank = np.argsort(np.argsort(candidate.at, kind="stable"), kind="stable")
    for head in same:
        for name, prints in read_model_columns(log, head, {*known, *out}):
            if len(prints) == candidate.head.n and (not head.identified or len(rank) == len(prints)):
                out[name] = prints[rank] if head.identified else prints
    return out


def read_model_columns(
    log: PrivacyLog, head: ReleaseHead, without: Collection[str]
) -> Iterator[tuple[str, Fingerprints]]:
    """The prints (n,) of each column that a former model read: by place of the patients, else row by row."""
    for name in head.tables:
        prints = None if name in without else read_prints(log, head, name)
        if prints is None and name not in without and name in head.columns:
            prints = log.values(head, [name])[name]
        if prints is not None:
            yield name, prints


def list_derived(head: ReleaseHead) -> list[str]:
    """The columns that a model reads and that its study or its formula derives."""
    return [name for name, place in head.tables.items() if place != RAW]


def parse_levels(name: str, prints: Fingerprints) -> LevelTable | None:
    """The levels of a column of few values, from its prints."""
    few = find_few_distinct(prints)
    return None if few is None else LevelTable(name, few[1], len(few[0]))


def list_term_parts(term: str, names: Collection[str]) -> list[str]:
    """Which of these variables stand in a term, alone or by a level or a power."""
    return [n for n in names if any(_begins(part, n) for part in term.split(":")) or _begins(term, n)]


def _begins(part: str, name: str) -> bool:
    return part == name or part.startswith((f"{name}[", f"{name}^"))


def judge_derivations(
    new: DerivedTables, former: DerivedTables, derived: Set[str], sizes: Sizes
) -> Iterator[Objection]:
    """Objections to levels of the new study that a former one's levels on these rows differ from by few patients.

    `derived`: the columns that the new study or a former one derives.
    """
    for name, table in new.items():
        for other, earlier in former.items():
            # The pool's sums tell each pair of levels of two columns of the file, if one is no copy of the other.
            is_near = are_twins if derived.isdisjoint((name, other)) else differ_little
            if table.size <= MOST_LEVELS and is_near(table, earlier, sizes.floor):
                yield object_to_few(f"{name} and {other} differ by these", f"{name} and {other}", sizes)
                return
    tables, earlier_tables = ([t for t in side.values() if t.size <= MOST_LEVELS] for side in (new, former))
    raw = {name for name in (*new, *former) if name not in derived}
    if isolate_few(tables, earlier_tables, raw, sizes.floor):
        names = [" and ".join(table.name for table in side) for side in (tables, earlier_tables)]
        what = f"levels of {names[0]} with those of {names[1]} set these apart"
        yield object_to_few(what, " with ".join(names), sizes)


def judge_numbers(
    new: Mapping[str, NDArray[Any]],
    former: Mapping[str, Fingerprints],
    derived: Set[str],
    log: PrivacyLog,
    sizes: Sizes,
) -> Iterator[Objection]:
    """Objections to numbers of the new study that are those of a former column on these rows except for few patients.

    Each column's prints are its own, so that the new numbers are printed under the former one's name.
    """
    for name, other in _list_near_pairs(new, former, derived, log.key, sizes.floor):
        apart = int(np.count_nonzero(print_numbers(new[name], other, log.key) != former[other]))
        if 0 < apart < sizes.floor:
            yield object_to_few(f"{name} and {other} differ by these", f"{name} and {other}", sizes)
            return


def _list_near_pairs(
    new: Mapping[str, NDArray[Any]], former: Mapping[str, Fingerprints], derived: Set[str], key: bytes, floor: int
) -> Iterator[tuple[str, str]]:
    """Pairs of a new and a former column that differ for fewer patients than the floor among some rows already.

    All others differ for more. So few rows tell nearly all pairs apart, and each column is printed in one call.
    """
    names = list(new)
    n = len(new[names[0]]) if names else 0
    if not n:
        return
    at = np.linspace(0, n - 1, min(n, max(_SAMPLED, 4 * floor))).astype(np.intp)
    sample = np.concatenate([np.asarray(new[name], np.float64)[at] for name in names])
    for other, prints in former.items():
        apart = (print_numbers(sample, other, key).reshape(len(names), len(at)) != prints[at]).sum(axis=1)
        # A column of the file that has changed is judged as such.
        yield from ((names[k], other) for k in np.flatnonzero(apart < floor) if names[k] != other or other in derived)


def object_to_few(what: str, subject: str, sizes: Sizes) -> Objection:
    """The objection to sums that show few patients with those of a former study."""
    where = "it shows" if sizes.plain else "at this site it shows, and perhaps in the pool,"
    sentence = (
        f"with the sums of a former study on the same patients {where} those of fewer than {sizes.floor}: {what} "
        "(derived otherwise). Derive the column as before, merge levels, or let a person say yes with a reason "
        "(coterie release allow)."
    )
    grade = Grade.REFUSE if sizes.plain else Grade.ASK
    return Objection(grade, "derived otherwise", sentence, subject=subject)
