"""A learner's data with the raw rows behind them, which the gate judges: before any range, scale or derived term."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.protocol import Site
from coterie_learners.study.design import INTERCEPT, Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import (
    ArrayCodes,
    ArrayRows,
    CodedPart,
    CodedRows,
    Codes,
    Data,
    MadeOfCodes,
    OwnColumns,
    Rows,
)
from coterie_node.privacy.prints import RawRows

# Digits to which values are brought back from a scaled design: what is beyond is rounding of the scaling.
_DIGITS = 12


@runtime_checkable
class WithRaw(Protocol):
    """Data that come with their raw rows."""

    def read_raw(self) -> RawRows:
        """The raw rows, in the order of the data."""


@runtime_checkable
class Selectable(WithRaw, Protocol):
    """Data that can be cut down to some of their rows."""

    def take(self, at: NDArray[np.intp]) -> Data:
        """These rows only."""


class Beside(Protocol):
    """An object on another machine."""

    def ask(self, method: str, *arguments: object) -> Any:
        """What one of its methods answers."""


@runtime_checkable
class StaysElsewhere(Protocol):
    """Data whose raw rows stay on other machines, where an object beside them can judge them."""

    def start_beside(self, make: Callable[..., Any], *arguments: object) -> Beside:
        """make(raw rows, *arguments) as an object there."""


class SiteRows(ArrayRows):
    """Rows in memory with the raw ones."""

    def __init__(self, rows: ArrayRows, raw: RawRows) -> None:
        block = rows.everything
        super().__init__(block.x, block.y, block.offset)
        self._all = block
        self._raw = raw

    def read_raw(self) -> RawRows:
        """The raw rows."""
        return self._raw

    def take(self, at: NDArray[np.intp]) -> SiteRows:
        """These rows only."""
        block = self.everything.take(at)
        return SiteRows(ArrayRows.of(replace(block, x=np.asfortranarray(block.x))), self._raw.take(at))


class SiteCodes(ArrayCodes):
    """Coded rows in memory with the identifiers of the rows."""

    def __init__(self, codes: Codes, raw: RawRows) -> None:
        super().__init__(codes)
        self._raw = raw

    def read_raw(self) -> RawRows:
        """The raw rows."""
        return self._raw

    def take(self, at: NDArray[np.intp]) -> SiteCodes:
        """These rows only."""
        codes = {name: values[at] for name, values in self.everything.items()}
        return SiteCodes(codes, self._raw.take(at))


@dataclass(frozen=True)
class RawSiteColumns(OwnColumns):
    """A site's own columns with the raw rows."""

    raw: RawRows | None = field(default=None, repr=False)

    def read_raw(self) -> RawRows:
        """The raw rows."""
        assert self.raw is not None
        return self.raw

    def take(self, at: NDArray[np.intp]) -> RawSiteColumns:
        """These rows only."""
        y, offset = (None if part is None else part[at] for part in (self.y, self.offset))
        identifiers = tuple(self.identifiers[k] for k in at.tolist())
        return RawSiteColumns(identifiers, self.names, self.x[at], y, offset, self.incomplete, self.read_raw().take(at))


def raw_rows(site: Site) -> RawRows | None:
    """The raw rows of a site's data, brought back from the learner's form where they do not come along."""
    data = site.data
    if data is None:
        return None
    if isinstance(data, WithRaw):
        return data.read_raw()
    part = find_part(data)
    if part is not None:
        whole = raw_rows(replace(site, data=part.whole))
        return None if whole is None else whole.take(np.flatnonzero(part.inside))
    if isinstance(data, OwnColumns):
        columns = {name: _round_values(data.x[:, j]) for j, name in enumerate(data.names)}
        own = columns or {"outcome": np.asarray(data.y if data.y is not None else np.zeros(data.n))}
        return RawRows(own, {}, data.identifiers)
    if isinstance(data, CodedRows):
        return raw_of_codes(site.study, data.codes())
    return _from_design(Design(site.study, site.name), data)


def find_part(data: Data | None) -> CodedPart | None:
    """The part of a site's rows that its data are; None where they are all of them."""
    coded = data.coded if isinstance(data, MadeOfCodes) else data
    return coded if isinstance(coded, CodedPart) else None


def raw_of_codes(
    study: Study,
    codes: Iterable[Codes],
    identifiers: Sequence[Sequence[str]] | None = None,
    lacking: Mapping[str, int] | None = None,
) -> RawRows:
    """Raw rows of variables' values, block by block."""
    parts = list(codes)
    names = [name for name in parts[0] if name in study.variables]  # what a formula derives is derived when judged
    values = {name: _join([part[name] for part in parts]) for name in names}
    plan = study.preparation
    numbers = set(plan.raw) if plan is not None and plan.by_patient else set[str]()
    levels = {n: study.variables[n].levels for n in values if n not in numbers and study.variables[n].levels}
    for name in tuple(levels) if plan is not None or study.rows.missing == "keep" else ():
        # A missing value is one more level, so that each value has a text.
        lacks = np.isnan(np.asarray(values[name], dtype=np.float64))
        if not lacks.any() and study.rows.missing != "keep":
            continue
        values[name], levels[name] = np.where(lacks, len(levels[name]), values[name]), (*levels[name], "")
    left_out = {} if study.rows.missing == "keep" else dict(lacking or {})
    return RawRows(values, levels, identifiers, left_out)


def _join(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The parts as one array; a single one is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _round_values(values: NDArray[Any]) -> NDArray[np.float64]:
    """The values to _DIGITS significant digits."""
    whole = np.asarray(values, dtype=np.float64)
    sizes = np.floor(np.log10(np.abs(whole), where=whole != 0, out=np.zeros_like(whole)))
    power = 10.0 ** (_DIGITS - 1 - sizes)
    return np.asarray(np.round(whole * power) / power)


def _from_design(design: Design, rows: Rows) -> RawRows:
    """The variables' values, as far as single columns of the design have them; other columns under their own names."""
    blocks = list(rows.blocks())
    values: dict[str, NDArray[Any]] = {design.formula.outcome: np.concatenate([block.y for block in blocks])}
    for j, column in enumerate(design.columns):
        if column.name == INTERCEPT:
            continue
        own = np.concatenate([block.x[:, j] for block in blocks])
        factor = column.factors[0]
        if len(column.factors) > 1 or factor.power > 1:
            continue
        if factor.level is None:
            values[factor.variable] = own
        else:
            values[factor.variable] = values.get(factor.variable, np.zeros(len(own))) + factor.level * own
    if design.formula.offset and blocks[0].offset is not None:
        values[design.formula.offset] = np.concatenate([b.offset for b in blocks if b.offset is not None])
    if design.weights and blocks[0].prior is not None:
        values[design.weights] = np.concatenate([b.prior for b in blocks if b.prior is not None])
    levels = {name: design.declared[name].levels for name in values if design.declared[name].levels}
    return RawRows(values, levels)
