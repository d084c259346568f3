"""Columns that are derived in one way in a study and in another way in a former one, on the same rows.

The log keeps keyed prints of each derived column that is a table, as it keeps those of raw columns. Over the same rows
`age > 40` less `age > 41` is a sum over those of 41: levels of two studies that differ by few patients are refused.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from coterie_node.privacy.entries import Head
from coterie_node.privacy.log import Candidate, PrivacyLog
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.prints import MOST_LEVELS, Fingerprints, find_few_distinct, print_numbers
from coterie_node.privacy.values import LevelTable
from coterie_node.release.derivations.joint_levels import differ_little, isolate_few

DerivedTables = Mapping[str, LevelTable]
# The print of a level's number is keyed by the column.
_FIRST_LEVEL = np.zeros(1)


def keep_tables(log: PrivacyLog, candidate: Candidate, tables: DerivedTables) -> dict[str, str]:
    """Write the prints of derived tables, and return the digest of each."""
    out = {}
    for name, table in tables.items():
        prints = print_numbers(table.codes, name, log.key)
        if candidate.head.identified:
            prints = prints[np.argsort(candidate.at, kind="stable")]
        digest = hashlib.sha256(prints.tobytes()).hexdigest()
        log.storage[f"table/{digest}"] = zlib.compress(prints.tobytes(), 1)
        out[name] = digest
    return out


def read_prints(log: PrivacyLog, head: Head, name: str) -> Fingerprints | None:
    """The prints (n,) of a table that a former study derived: by place of the patients, else row by row."""
    place = f"table/{head.tables.get(name, '')}"
    if place not in log.storage:
        return None
    return np.frombuffer(zlib.decompress(log.storage[place]), np.uint32)


def find_zero(log: PrivacyLog, name: str) -> int:
    """The print of a derived table's first level."""
    return int(print_numbers(_FIRST_LEVEL, name, log.key)[0])


def read_former_tables(
    log: PrivacyLog, candidate: Candidate, same: Sequence[Head], known: Collection[str]
) -> DerivedTables:
    """The tables of models that former studies on these rows read, and the new one does not, in the new one's order."""
    out: dict[str, LevelTable] = {}
    rank = np.argsort(np.argsort(candidate.at, kind="stable"), kind="stable")
    for head in same:
        names = [name for name in (*head.tables, *head.columns) if name not in known and name not in out]
        for name in names:
            if name != head.outcome and not any(list_term_parts(term, [name]) for term in head.terms):
                continue
            prints = read_prints(log, head, name) if name in head.tables else log.values(head, [name])[name]
            table = _read_table(name, prints, rank if head.identified else None, candidate.head.n)
            if table is not None:
                out[name] = table
    return out


def _read_table(name: str, prints: Fingerprints | None, rank: NDArray[np.intp] | None, n: int) -> LevelTable | None:
    if prints is None or len(prints) != n or (rank is not None and len(rank) != n):
        return None
    few = find_few_distinct(prints if rank is None else prints[rank])
    return None if few is None else LevelTable(name, few[1], len(few[0]))


def list_term_parts(term: str, names: Collection[str]) -> list[str]:
    """Which of these variables stand in a term, alone or by a level or a power."""
    return [n for n in names if any(_begins(part, n) for part in term.split(":")) or _begins(term, n)]


def _begins(part: str, name: str) -> bool:
    return part == name or part.startswith((f"{name}[", f"{name}^"))


def judge_derivations(
    new: DerivedTables, former: DerivedTables, derived: Collection[str], floor: int, plain: bool
) -> Iterator[Objection]:
    """Objections to levels of the new study that a former one's levels on these rows differ from by few patients.

    `derived`: the columns of the new study that are derived; those of the former one count all.
    """
    for name, table in new.items():
        for other, earlier in former.items():
            if name not in derived and not _is_derived(other):
                continue
            if table.size <= MOST_LEVELS and differ_little(table, earlier, floor):
                yield _object(f"{name} and {other} differ by these", f"{name} and {other}", plain, floor)
                return
    tables, earlier_tables = ([t for t in side.values() if t.size <= MOST_LEVELS] for side in (new, former))
    raw = {name for name in (*new, *former) if name not in derived and not _is_derived(name)}
    if isolate_few(tables, earlier_tables, raw, floor):
        names = [" and ".join(table.name for table in side) for side in (tables, earlier_tables)]
        what = f"levels of {names[0]} with those of {names[1]} set these apart"
        yield _object(what, " with ".join(names), plain, floor)


def _is_derived(name: str) -> bool:
    """Whether a former column has no plain name: a formula derived it."""
    return not name.isidentifier()


def _object(what: str, subject: str, plain: bool, floor: int) -> Objection:
    where = "it shows" if plain else "at this site it shows, and perhaps in the pool,"
    sentence = (
        f"with the sums of a former study on the same patients {where} those of fewer than {floor}: {what} "
        "(derived otherwise). Derive the column as before, merge levels, or let a person say yes with a reason "
        "(coterie release allow)."
    )
    grade = Grade.REFUSE if plain else Grade.ASK
    return Objection(grade, "derived otherwise", sentence, subject=subject)
