"""The command `coterie`: noun verb, `--json` everywhere, errors as one sentence with a code, stable exit statuses."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from coterie_node.cli.lazy import make_typer
from coterie_node.cli.table import COMMANDS
from coterie_node.errors import CoterieError, exit_status
from coterie_node.process_settings import set_up_process

app = make_typer("One regression model from all hospitals' patients; no row leaves.", COMMANDS, add_completion=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        from coterie_node.cli.version import version_command

        version_command()
        raise typer.Exit


@app.callback()
def coterie(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end."),
    ] = False,
) -> None:
    """One regression model from all hospitals' patients; no row leaves."""


def main() -> None:
    """Run the command; errors of ours become one sentence on standard error, never a traceback."""
    set_up_process()
    try:
        app()
    except CoterieError as error:
        sys.exit(_fail(error.code, error.message, exit_status(error)))


def _fail(code: str, message: str, status: int) -> int:
    if {"--json", "json", "--format=json"} & set(sys.argv) or "take-part" in sys.argv[1:2]:
        print(json.dumps({"error": {"code": code, "message": message, "status": status}}), flush=True)
    else:
        from coterie_node.data.findings import printable

        # A message may quote a file or a ledger: nothing in it steers the terminal.
        print("\n".join(map(printable, f"{code}: {message}".split("\n"))), file=sys.stderr)
    return status
