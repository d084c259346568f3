"""What is wrong with a site's file: gathered over all rows, then said in one message.

Messages quote values of patients, for the people of this site. They must not be posted or sent anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from coterie_learners.errors import DataError, pluralise

if TYPE_CHECKING:
    from coterie_node.data.arrow_values import Mask

EXAMPLES = 5
CLIP = 40

Places = Callable[[Sequence[int]], Sequence[str]]


def printable(text: str) -> str:
    """The text with control and formatting characters spelled out, so that a file cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quote(value: object) -> str:
    """A value as a message shows it: text in quotation marks, at most 40 characters."""
    formatted = repr(value[: CLIP + 1]) if isinstance(value, str) else printable(str(value))
    return formatted if len(formatted) <= CLIP else formatted[: CLIP - 1] + "…"


def join_values(values: Sequence[object], most: int) -> str:
    """The first values, quoted, and how many there are besides."""
    suffix = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(quote(v) for v in values[:most]) + suffix


@dataclass(frozen=True)
class Origin:
    """Whose rows, and from where: every message begins with it. `name` holds no secret.

    provenance: what else a snapshot states about it, as (name, value), such as the digest of a mapping.
    """

    site: str
    name: str
    kind: str = "source"
    provenance: tuple[tuple[str, str], ...] = ()

    def error(self, code: str, text: str) -> DataError:
        """A DataError that names the site and where its rows come from."""
        return DataError(code, printable(f"Site {self.site}, {self.kind} {quote(self.name)}: {text}"))


@dataclass(frozen=True)
class FileOrigin(Origin):
    """Whose file."""

    path: Path = field(kw_only=True)

    @classmethod
    def of(cls, site: str, path: Path) -> FileOrigin:
        """The origin of a site's file."""
        return cls(site, path.name, "file", path=path)


@dataclass
class ColumnFault:
    """One kind of fault in one column: how many rows, and the first of them as (row from 0, value)."""

    total: int = 0
    first: list[tuple[int, object]] = field(default_factory=list)


@dataclass
class Findings:
    """All faults found so far, by column and error code."""

    by_column: dict[tuple[str, str], ColumnFault] = field(default_factory=dict)

    def note(self, column: str, code: str, mask: Mask, start: int, value: Callable[[int], object]) -> None:
        """Add the rows of a batch that `mask` marks; the batch begins at row `start`, `value` gives its i-th value."""
        (hits,) = mask.nonzero()
        if not len(hits):
            return
        finding = self.by_column.setdefault((column, code), ColumnFault())
        finding.total += len(hits)
        wanted = hits[: EXAMPLES - len(finding.first)].tolist() if len(finding.first) < EXAMPLES else []
        finding.first += [(start + i, value(i)) for i in wanted]

    def first(self, columns: Sequence[str]) -> tuple[str, str] | None:
        """Column and code to report: of the first column with a fault, the fault that begins first."""
        keys = sorted(self.by_column, key=lambda key: (columns.index(key[0]), self.by_column[key].first[0][0]))
        return keys[0] if keys else None

    def rows(self, key: tuple[str, str], read: int, places: Places) -> str:
        """Such as `in 7 of 200 rows: line 5 '1,5', line 9 'x' and 5 more`."""
        finding = self.by_column[key]
        names = places([row for row, _ in finding.first])
        formatted = ", ".join(f"{name} {quote(value)}" for name, (_, value) in zip(names, finding.first, strict=True))
        suffix = f" and {finding.total - len(finding.first)} more" if finding.total > len(finding.first) else ""
        return f"in {finding.total} of {read} rows: {formatted}{suffix}"

    def others(self, key: tuple[str, str]) -> str:
        """Such as ` Faults also in 'age' (3 rows).`, so that a file can be mended in one go."""
        counts: Mapping[str, int] = {
            column: sum(f.total for (c, _), f in self.by_column.items() if c == column) for column, _ in self.by_column
        }
        rest = [f"{quote(c)} ({pluralise(n, 'row')})" for c, n in counts.items() if c != key[0]]
        return f" Faults also in {', '.join(rest)}." if rest else ""
