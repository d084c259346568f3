"""`coterie study compare`: two results on the same rows, by AIC, BIC and the likelihood ratio."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coterie_node.cli.options import Json
from coterie_node.cli.output import print_document


def compare_command(
    first: Annotated[Path, typer.Argument(help="A result as --json prints it.")],
    second: Annotated[Path, typer.Argument(help="Another one, on the same rows.")],
    as_json: Json = False,
) -> None:
    """Compare two fits on the same rows: AIC, BIC, and the test of the larger model where it holds the smaller one."""
    from coterie_node.analysis.compare import compare_results
    from coterie_node.audit.publication import read_publication

    comparison = compare_results(read_publication(first), read_publication(second))
    print_document(comparison.as_dict(), comparison.text(), as_json)
