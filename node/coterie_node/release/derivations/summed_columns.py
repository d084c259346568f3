"""The columns of which a study and former ones over the same patients show sums, with their values on these rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.study.design import Design
from coterie_learners.study.time_columns import list_time_columns
from coterie_node.privacy.entries import ReleaseHead
from coterie_node.privacy.log import Candidate, PrivacyLog
from coterie_node.privacy.prints import RawRows, find_few_distinct
from coterie_node.privacy.values import ColumnValues
from coterie_node.release.derivations.known_columns import SummedColumn
from coterie_node.release.derivations.known_derivations import RAW, parse_levels, read_former_columns
from coterie_node.release.derivations.logged_derivations import derive_logged
from coterie_node.release.known_cuts import derive_again

ColumnsByName = Mapping[str, NDArray[Any]]
LevelNames = Mapping[str, Sequence[str]]
# Rows on which raw numbers are looked at first, and the share of them on which two must agree to be looked at wholly.
_SAMPLED, _AGREE = 256, 0.5


def list_own_columns(design: Design, measures: Mapping[str, ColumnValues], rows: RawRows) -> list[SummedColumn]:
    """The columns of a new study: variables of its models, and their powers and products."""
    derived = {*design.derived, *design.study.derivations}
    several = {part.name: name for name, parts in design.functions.items() if len(parts) > 1 for part in parts}
    # No opening counts the strata and the times of entry that a study derives.
    aside = derived.intersection(list_time_columns(design.study)) - {design.formula.outcome}
    out = []
    for name in (name for name in design.variables if name in measures):
        if name in several:
            out.append(SummedColumn(name, rows.values[name], is_raw=False, is_judged=False, function=several[name]))
            continue
        few = name in rows.levels or rows.find_few(name) is not None
        out.append(SummedColumn(name, rows.values[name], few, False, name not in derived, name not in aside))
    out += list_terms(design.names, rows.values, rows.levels, former=False)
    return [*out, *_weigh(log_row_weights(design), out, rows.values, rows.levels)]


def log_row_weights(design: Design) -> dict[str, Any]:
    """The columns that weigh the rows of a study's models, and the offsets of counts, as the log keeps them."""
    named: dict[str, list[str | None]] = {
        "rows": [m.weights for m in design.models],
        "offsets": [m.formula.offset for m in design.models if m.outcome.type != "binary"],
    }
    kept = {kind: [name for name in dict.fromkeys(names) if name] for kind, names in named.items()}
    return {kind: names for kind, names in kept.items() if names}


def _weigh(
    weighed: Mapping[str, Any], columns: Sequence[SummedColumn], values: ColumnsByName, levels: LevelNames
) -> Iterator[SummedColumn]:
    """The columns as rows with weights have them in sums; an offset weighs by its exponential under a log link."""
    weights = {name: _read_number(values[name]) for name in weighed.get("rows", ()) if name in values}
    for name in (name for name in weighed.get("offsets", ()) if name in values):
        offset = _read_number(values[name])
        weights[f"exp({name})"] = np.exp(offset - offset.max(initial=0.0))
    for name, weight in weights.items():
        former = bool(columns) and columns[0].is_former
        yield SummedColumn(name, weight, False, former, is_raw=False, is_judged=False)
        for column in columns:
            of_levels = column.name in levels
            for k, part in enumerate(column.code().T if of_levels else [_read_number(column.values)]):
                own = f"{name} times {column.name}" + (f" ({k + 1})" if of_levels else "")
                by = name if of_levels or np.isin(part, (0.0, 1.0)).all() else ""
                yield SummedColumn(own, weight * part, False, former, is_raw=False, is_judged=False, number=by)


def _read_number(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.nan_to_num(np.asarray(values, dtype=np.float64), posinf=0.0, neginf=0.0)


def list_former_columns(
    log: PrivacyLog, candidate: Candidate, same: Sequence[ReleaseHead], rows: RawRows
) -> list[SummedColumn]:
    """The columns of former studies on these rows, as far as their values follow from what the new study reads."""
    out = []
    plain: set[str] = set()  # columns of the file, their powers and products: the same in all studies on these rows
    for head in same:
        known = list_derivable_columns(head, rows, () if head.weighed else plain)
        out += known
        names = {*plain, *(column.name for column in known)}
        plain |= names if not head.derivations and not head.functions and not head.weighed else set()
        for name, prints in read_former_columns(log, candidate, [head], names).items():
            table = parse_levels(name, prints)
            if table is not None:
                derived = name in head.derivations or name not in head.columns
                out.append(SummedColumn(name, table.codes, is_table=True, is_former=True, is_raw=not derived))
    return out


def list_derivable_columns(
    head: ReleaseHead, rows: RawRows, without: Collection[str] = frozenset()
) -> list[SummedColumn]:
    """The columns of a former study whose values on these rows follow from their columns.

    `without`: names of columns of the file, and of their powers and products, that are known already.
    """
    out: list[SummedColumn] = []
    values, levels, several = _derive_former(head, rows)
    for name in (name for name in head.tables if name in values and (head.tables[name] != RAW or name not in without)):
        if name in several:
            function = several[name]
            out.append(SummedColumn(name, values[name], False, True, is_raw=False, is_judged=False, function=function))
            continue
        few = name in levels or find_few_distinct(values[name]) is not None
        out.append(SummedColumn(name, values[name], few, is_former=True, is_raw=head.tables[name] == RAW))
    made = bool(head.derivations or head.functions)
    terms = [term for term in head.terms if made or term not in without]
    out += list_terms(terms, values, levels, former=True)
    return [*out, *_weigh(head.weighed, out, values, levels)]


def _derive_former(
    head: ReleaseHead, rows: RawRows
) -> tuple[dict[str, NDArray[Any]], dict[str, Sequence[str]], dict[str, str]]:
    """The values of a former study's columns on these rows; the levels of categories; the functions of several."""
    raw = [name for name in head.columns if name in rows.values and name not in head.derivations]
    values: dict[str, NDArray[Any]] = {name: rows.values[name] for name in raw}
    levels = {name: rows.levels[name] for name in raw if name in rows.levels}
    for name, derivation in derive_logged(head, rows).items():
        values[name] = derivation.values
        if derivation.kind.levels:
            levels[name] = derivation.kind.levels
    several: dict[str, str] = {}
    for name, (_, parts) in zip(head.functions, derive_again(head.functions), strict=True):
        for part in parts if set(parts[0].sources) <= set(values) else ():
            values[part.name] = part.transform(values)
            levels |= {part.name: part.variable.levels} if part.variable.levels else {}
            several |= {part.name: name} if len(parts) > 1 else {}
    return values, levels, several


def choose_columns(columns: Sequence[SummedColumn]) -> list[SummedColumn]:
    """All columns if any is derived, a power or a product; of columns of the file such as often agree with another."""
    if any(not column.is_raw for column in columns):
        return list(columns)
    numbers = list({column.name: column for column in columns if not column.is_table}.values())
    n = len(numbers[0].values) if numbers else 0
    at = np.linspace(0, n - 1, min(n, _SAMPLED)).astype(np.intp)
    if not n:
        return []
    sample = np.stack([np.asarray(column.values, np.float64)[at] for column in numbers])
    alike = [np.flatnonzero(np.mean(sample == one, axis=1) > _AGREE) for one in sample]
    return [column for k, column in enumerate(numbers) if np.any(alike[k] != k)]


def list_terms(terms: Sequence[str], values: ColumnsByName, levels: LevelNames, former: bool) -> Iterator[SummedColumn]:
    """The powers and products of a design as columns, as far as their variables are here."""
    for term in terms:
        parts = {part: _read_part(part, values, levels) for part in term.split(":")}
        known = {part: column for part, column in parts.items() if column is not None}
        if len(known) < len(parts) or (len(parts) == 1 and "^" not in term):
            continue
        product = np.prod(list(known.values()), axis=0)
        if np.isfinite(product).all() and product.any():
            numbers = [part for part, column in known.items() if not np.isin(column, (0.0, 1.0)).all()]
            alone = numbers[0] if len(parts) > 1 and len(numbers) == 1 and numbers[0] in values else ""
            yield SummedColumn(term, product, not numbers, former, is_raw=False, is_judged=not numbers, number=alone)


def _read_part(part: str, values: ColumnsByName, levels: LevelNames) -> NDArray[np.float64] | None:
    """One factor of a term: a number, a power of one, or whether a row has a level."""
    if part in values and part not in levels:
        return np.asarray(values[part], dtype=np.float64)
    name, mark, power = part.rpartition("^")
    if mark and name in values and power.isdigit():
        return np.asarray(values[name], dtype=np.float64) ** int(power)
    for name, own in levels.items():
        level = part[len(name) + 1 : -1]
        if part.startswith(f"{name}[") and part.endswith("]") and level in own and name in values:
            return np.asarray(np.asarray(values[name]) == list(own).index(level), dtype=np.float64)
    return None
