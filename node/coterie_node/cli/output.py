"""Options that several commands share, and how a table is printed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ledger.protocol import Ledger
from coterie_node.data.findings import printable
from coterie_node.errors import ConfigError
from coterie_node.site.config import NodeFolder

Folder = Annotated[Path, typer.Option("--node", envvar="COTERIE_NODE", help="Folder of this site's node.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
HERE = Path()


@contextmanager
def open_ledger(home: NodeFolder) -> Iterator[Ledger]:
    """The ledger through this site's own chain node, without its key."""
    with EthereumLedger(home.network(), None) as ledger:
        yield ledger


def resolve_study_number(ledger: Ledger, study: str) -> int:
    """A study's number on the ledger, by number or by the first eight letters or more of its hash."""
    numbers = ledger.studies()
    if study.isdecimal() and int(study) in numbers:
        return int(study)
    matches = [n for n in numbers if len(study) >= 8 and ledger.view(n).terms.hash.hex().startswith(study.lower())]
    if not matches:
        raise ConfigError("CO-F304", f"There is no study {study!r} on this ledger; there are {len(numbers)}.")
    return matches[-1]


def print_rows(rows: Sequence[dict[str, Any]], as_json: bool, columns: Sequence[str]) -> None:
    """A table with these columns; everything as JSON."""
    if as_json:
        print(json.dumps(rows, indent=2, default=str))
        return
    lines = [[name.replace("_", " ") for name in columns]]
    lines += [[printable(str(row.get(name, ""))) for name in columns] for row in rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
