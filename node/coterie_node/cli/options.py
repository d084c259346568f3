"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """How a table is printed."""

    text = "text"
    json = "json"
    csv = "csv"


class TableFormat(StrEnum):
    """How the history is printed or written."""

    text = "text"
    json = "json"
    csv = "csv"
    parquet = "parquet"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Shape = Annotated[Format, typer.Option("--format", help="text, json or csv.")]
At = Annotated[Path | None, typer.Option(help="Folder of a run that `coterie demo --keep` left.")]
Chain = Annotated[str | None, typer.Option(help="URL of an Ethereum node of your own.")]
Catalog = Annotated[str | None, typer.Option(help="Address of the Catalog contract, if the chain holds several.")]
Store = Annotated[str | None, typer.Option(help="Your store: folder:PATH or kubo+http://HOST:PORT, with --chain.")]
StudyArgument = Annotated[
    str | None, typer.Argument(help="Number on the ledger, hash, or study file. Default: the last.")
]
