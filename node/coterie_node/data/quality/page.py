"""The report of `coterie data check` as text, and as one HTML page that loads nothing."""

from __future__ import annotations

from html import escape

from coterie_node.data.cohort.flow import draw_flow, list_flow_lines
from coterie_node.data.findings import printable
from coterie_node.data.quality.check import DataCheck

_STYLE = (
    ":root{color-scheme:light dark;--ink:#1b1f24;--page:#fff;--line:#c9d1d9;--fault:#9b1c1c}"
    "@media screen and (prefers-color-scheme:dark){:root{--ink:#e6eaee;--page:#14181c;--line:#3d4650;--fault:#ff9a8f}}"
    "body{font:15px/1.4 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:var(--ink);"
    "background:var(--page);overflow-wrap:anywhere}.wide{overflow-x:auto}table{border-collapse:collapse;overflow-wrap:normal}"
    "td,th{border:1px solid var(--line);padding:.3em .6em;text-align:left}.fault{color:var(--fault)}"
    ".wide>svg{min-width:34em}td:last-child{min-width:14em}"
)
HOME = "This page shows values of patients. It is for the people of this site; it must not be sent anywhere."
REMEDY = "Correct these, or state in a mapping what they mean: missing, levels, yes and no, factor (docs/mapping.md)."
HEADS = ("variable", "type", "missing", "wrong", "spread: least [quartiles] largest, or counts")


def list_lines(check: DataCheck) -> list[str]:
    """The report as lines of text."""
    lines = [f"{check.site}, {check.source}: {check.rows} rows, {check.complete} complete, study {check.study}"]
    rows = [list(HEADS), *list_cells(check)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(HEADS))]
    lines += ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["Flow into the study:", *(f"  {text}" for text in list_flow_lines(check.flow))]
    lines += ["The study refuses:", *(f"  {text}" for text in check.faults), f"  {REMEDY}"] if check.faults else []
    lines += ["To look at:", *(f"  {text}" for text in check.notes)] if check.notes else []
    return [printable(line) for line in lines] if check.faults or check.notes else [*lines, "Nothing to look at."]


def write_page(check: DataCheck) -> str:
    """The report as an HTML page; every value is escaped, and the page has no script."""
    head = "".join(f"<th>{escape(text)}</th>" for text in HEADS)
    rows = "".join(f"<tr>{''.join(f'<td>{_show(cell)}</td>' for cell in row)}</tr>" for row in list_cells(check))
    title = f"Rows of {_show(check.site)} for the study {_show(check.study)}"
    screen = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{policy}{screen}<title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1><p><strong>{HOME}</strong></p>"
        f"<p>{_show(check.source)}: {check.rows} rows, {check.complete} complete.</p>"
        f"<h2>Flow into the study</h2><div class='wide'>{draw_flow(check.flow)}</div>"
        f"{_list_items('The study refuses', check.faults, 'fault')}{f'<p>{REMEDY}</p>' if check.faults else ''}"
        f"{_list_items('To look at', check.notes, 'note')}"
        f"<h2>Variables</h2><div class='wide'><table><tr>{head}</tr>{rows}</table></div></body></html>\n"
    )


def list_cells(check: DataCheck) -> list[list[str]]:
    """The cells of the table of variables, under `HEADS`."""
    return [
        [
            column.name + (f" ({column.unit})" if column.unit else ""),
            column.kind,
            f"{column.missing} ({column.missing / column.rows:.1%})" if column.rows else "0",
            f"{column.wrong} ({column.wrong / column.rows:.1%})" if column.wrong else "",
            column.spread,
        ]
        for column in check.columns
    ]


def _list_items(head: str, texts: tuple[str, ...], kind: str) -> str:
    if not texts:
        return ""
    return f'<h2>{head}</h2><ul class="{kind}">{"".join(f"<li>{_show(text)}</li>" for text in texts)}</ul>'


def _show(text: str) -> str:
    return escape(printable(text))
