"""Tables that notebooks show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coterie_node.audit.printed.printed_table import PrintedTable


@dataclass(frozen=True)
class HtmlTable(Sequence[Mapping[str, Any]]):
    """Rows by the names of their columns; a sequence of mappings, and a table in a notebook."""

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]

    def __getitem__(self, place: Any) -> Any:
        return self.rows[place]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.rows)

    def _repr_html_(self) -> str:
        lines = [tuple(str(row.get(name, "")) for name in self.columns) for row in self.rows]
        return PrintedTable(self.columns, tuple(lines)).html()
