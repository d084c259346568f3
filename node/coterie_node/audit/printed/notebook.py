"""What notebooks show: summaries that are texts and more, pictures, and lists of facts; every word is escaped."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie_node.audit.printed.printed_table import PrintedTable
from coterie_node.errors import ConfigError


class ResultSummary(str):
    """A result for a terminal, which writes its table in other formats too."""

    _write: Callable[[str], str]

    def __new__(cls, text: str, write: Callable[[str], str]) -> ResultSummary:
        """The text, and what writes its table in a format."""
        summary = super().__new__(cls, text)
        summary._write = write
        return summary

    def as_latex(self) -> str:
        """The table as a tabular that needs no package."""
        return self._write("latex")

    def as_html(self) -> str:
        """The table as an element of HTML."""
        return self._write("html")

    def as_csv(self) -> str:
        """The table with broom's column names and full precision."""
        return self._write("csv")

    def as_markdown(self) -> str:
        """The table in pipes."""
        return self._write("markdown")

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self)}</pre>"


@dataclass(frozen=True)
class Plot:
    """A picture as SVG, which loads nothing and runs nothing."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> Path:
        """Write the picture into a new file .svg, or .png with the extra `plot`; ConfigError (CO-F206) if it exists."""
        place = Path(path)
        content = _rasterise(self.svg) if place.suffix.lower() == ".png" else f"{self.svg}\n".encode()
        try:
            with place.open("xb") as file:
                file.write(content)
        except OSError as error:
            raise ConfigError("CO-F206", f"{place} cannot be written: {error.strerror}. Name a new file.") from None
        return place


def render_facts(title: str, facts: Mapping[str, Any]) -> str:
    """A list of facts: a heading, and a table of names and values."""
    return render_block(title, ("", ""), [(name, _spell(value)) for name, value in facts.items()])


def _spell(value: object) -> str:
    return ", ".join(f"{k} = {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def render_block(title: str, head: Sequence[str], lines: Sequence[Sequence[str]], remarks: Sequence[str] = ()) -> str:
    """A heading, a table, and sentences below it."""
    table = PrintedTable(tuple(head), tuple(tuple(line) for line in lines)).html()
    below = "".join(f"<p>{html.escape(remark)}</p>" for remark in remarks)
    return f"<div><p><strong>{html.escape(title)}</strong></p>{table}{below}</div>"


def _rasterise(picture: str) -> bytes:
    from coterie_node.audit.report.raster import rasterise

    return rasterise(picture)
