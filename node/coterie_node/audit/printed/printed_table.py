"""A table as papers take it: aligned text, CSV, Markdown, LaTeX or HTML, from the same cells."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

INDENT = "  "
# Characters that begin a command in LaTeX, or a cell in Markdown, with their replacements.
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
_LATEX |= {letter: rf"\{letter}" for letter in "&%$#_{}"}
_MARKDOWN = {letter: rf"\{letter}" for letter in r"\|*_`[]<>~"}


@dataclass(frozen=True)
class PrintedTable:
    """The head and the lines of a table, all as words; the first cell of a line names it, indented under a parent."""

    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    def text_lines(self) -> list[str]:
        """Aligned lines: names to the left, all else to the right."""
        rows = [self.head, *self.lines]
        first, *widths = (max(len(row[k]) for row in rows) for k in range(len(self.head)))
        cells = ([row[0].ljust(first), *(c.rjust(w) for c, w in zip(row[1:], widths, strict=True))] for row in rows)
        return ["  ".join(row).rstrip() for row in cells]

    def text(self) -> str:
        """The same in one text."""
        return "\n".join(self.text_lines())

    def csv(self) -> str:
        """Comma-separated values, in which no spreadsheet takes a cell for a formula."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        rows = [[cell.strip() for cell in row] for row in (self.head, *self.lines)]
        cells = (
            [escape_formula(row[0]), *(c if _is_number(c) else escape_formula(c) for c in row[1:])] for row in rows
        )
        writer.writerows(cells)
        return out.getvalue().rstrip("\n")

    def markdown(self) -> str:
        """A table of pipes, numbers to the right."""
        rule = ["---", *["---:"] * (len(self.head) - 1)]
        rows = [_escape_all(row, _MARKDOWN, "&nbsp;&nbsp;") for row in (self.head, *self.lines)]
        return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))

    def latex(self) -> str:
        """A tabular that needs no package."""
        rows = [_escape_all(row, _LATEX, r"\quad ") for row in (self.head, *self.lines)]
        body = [" & ".join(row) + r" \\" for row in rows]
        begin = rf"\begin{{tabular}}{{l{'r' * (len(self.head) - 1)}}}"
        return "\n".join([begin, r"\hline", body[0], r"\hline", *body[1:], r"\hline", r"\end{tabular}"])

    def html(self) -> str:
        """A table element, every word escaped."""
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in self.head)
        body = [_format_line(line) for line in self.lines]
        return "\n".join(["<table>", f"<thead><tr>{head}</tr></thead>", "<tbody>", *body, "</tbody>", "</table>"])

    @property
    def writers(self) -> Mapping[str, Callable[[], str]]:
        """Every format by its name."""
        return {
            "text": self.text,
            "csv": self.csv,
            "markdown": self.markdown,
            "latex": self.latex,
            "html": self.html,
        }


def escape_formula(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return "'" + text if text and text[0] in "=+-@\t\r" else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _escape_all(row: Sequence[str], letters: Mapping[str, str], indent: str) -> list[str]:
    first, *others = ("".join(letters.get(letter, letter) for letter in cell.strip()) for cell in row)
    return [(indent if row[0].startswith(INDENT) else "") + first, *others]


def _format_line(line: Sequence[str]) -> str:
    space = "&nbsp;&nbsp;" if line[0].startswith(INDENT) else ""
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in line[1:])
    return f'<tr><th scope="row">{space}{html.escape(line[0].strip())}</th>{cells}</tr>'
