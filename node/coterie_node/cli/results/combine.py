"""`coterie study combine`: one model on several completions of the data, by Rubin's rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coterie_node.cli.options import Format, Json, Level, Out, Shape, choose_shape
from coterie_node.cli.output import format_json, save_or_print, save_or_print_table


def combine_command(
    results: Annotated[list[Path], typer.Argument(help="Results as --json prints them, one for each completion.")],
    model: Annotated[
        list[str] | None, typer.Option(help="The completions in a result with several models, once for each.")
    ] = None,
    level: Level = 0.95,
    shape: Shape = Format.text,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Combine one model fitted on several completions of the data (multiple imputation) by Rubin's rules."""
    from coterie_node.analysis.imputations import combinations_to_json, combine_imputations, print_combinations
    from coterie_node.audit.publication import read_published_model
    from coterie_node.audit.result import finite

    shape = choose_shape(shape, as_json, out)
    published = [read_published_model(path, name) for path in results for name in model or (None,)]
    terms = combine_imputations(published, level)
    if shape is Format.json:
        save_or_print(format_json(finite(combinations_to_json(terms, len(published), level))), out)
        return
    title = f"{published[0].get('study', '')}: {len(published)} completions, combined by Rubin's rules"
    save_or_print_table(print_combinations(terms, level), shape, out, title)
