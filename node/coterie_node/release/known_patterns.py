"""Patterns of covariates whose patients or events follow from several plain studies on the same rows, put together.

One study's patterns are judged by its learner. Another study adds equations: with products of other columns, or with
another outcome. The first sums of all of them are compared with the patterns of the columns that are tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from coterie_node.privacy.entries import ReleaseHead
from coterie_node.privacy.equations import MOST_PATTERNS, judge_patterns
from coterie_node.privacy.log import Candidate
from coterie_node.privacy.objections import Objection
from coterie_node.privacy.prints import RawRows
from coterie_node.privacy.spans import Whole
from coterie_node.privacy.values import LevelTable
from coterie_node.release.derivations.known_derivations import list_term_parts

# Each column as a table, or None.
Tables = Mapping[str, LevelTable | None]


def judge_known_patterns(
    candidate: Candidate, same_rows: Sequence[ReleaseHead], raw: RawRows, tables: Tables, floor: int
) -> Iterator[Objection]:
    """Objections to a plain release whose first sums, with those of former ones on these rows, solve small patterns.

    Columns that only former studies read are left out, as their order among these rows may be another one.
    """
    head = candidate.head
    others = [o for o in same_rows if (o.outcome, set(o.terms)) != (head.outcome, set(head.terms))]
    if not others or floor < 2:
        return
    covariates = {name: table for name, table in tables.items() if table is not None and name != head.outcome}
    events = _find_events(raw, head.outcome)
    if not covariates or events is None:
        return
    codes = np.column_stack([table.codes for table in covariates.values()])
    patterns, inverse = np.unique(codes, axis=0, return_inverse=True)
    if len(patterns) > MOST_PATTERNS:
        return
    at = inverse.ravel()
    counts = np.concatenate([np.bincount(at), np.bincount(at[events], minlength=len(patterns))])
    levels = {name: np.tile(column, 2) for name, column in zip(covariates, patterns.T.astype(np.int64), strict=True)}
    levels[head.outcome] = np.repeat(np.arange(2), len(patterns))
    parts = [_list_equations(other, head.outcome, levels) for other in (head, *others)]
    yield from judge_patterns(_of_patients_and_events(np.vstack(parts)), counts.astype(np.int64), floor)


def _find_events(raw: RawRows, outcome: str) -> NDArray[np.bool_] | None:
    """Whether each row has the outcome (n,); None where it is no event."""
    values = raw.values.get(outcome)
    return None if values is None or not np.isin(values, (0, 1)).all() else np.asarray(values != 0)


def _list_equations(head: ReleaseHead, outcome: str, levels: Mapping[str, Whole]) -> Whole:
    """What a study's X'X and X'y are sums of (k, 2 m): cells of patterns without the outcome, then with it."""
    x = _build_design(head.terms, levels, len(levels[outcome]))
    upper = np.triu_indices(x.shape[1])
    products = (x[:, upper[0]] * x[:, upper[1]]).T
    return np.vstack([products, (x * levels[outcome][:, None]).T]) if head.outcome == outcome else products


def _of_patients_and_events(equations: Whole) -> Whole:
    """The same equations (k, 2 m) on patients, then events, by pattern."""
    without, with_outcome = np.split(equations, 2, axis=1)
    return np.unique(np.hstack([without, with_outcome - without]), axis=0)


def _list_variables(term: str, levels: Mapping[str, Whole]) -> tuple[str, ...]:
    """The variables of a term; a derived one is known by its text, which may have brackets."""
    derived = [name for name in list_term_parts(term, levels) if not name.isidentifier()]
    for name in sorted(derived, key=len, reverse=True):
        if term.startswith(f"{name}["):
            return (name,)
    return tuple(re.sub(r"\[[^]]*\]", "", term).split(":"))


def _build_design(terms: Sequence[str], levels: Mapping[str, Whole], cells: int) -> Whole:
    """The columns (cells, p) of a study: everybody, and each level of every term of tables alone.

    A column of levels stands for each of its values, so that no equation of a number with few values is left out.
    """
    columns = [np.ones(cells, np.int64)]
    for names in dict.fromkeys(_list_variables(term, levels) for term in terms):
        if set(names) <= set(levels):
            codes = np.column_stack([levels[name] for name in dict.fromkeys(names)])
            kinds, inverse = np.unique(codes, axis=0, return_inverse=True)
            columns += list((inverse.ravel() == np.arange(len(kinds))[:, None]).astype(np.int64))
    return np.unique(np.column_stack(columns), axis=1)
