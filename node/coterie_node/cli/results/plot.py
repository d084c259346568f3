"""`coterie study plot`: the survival curves of a published result as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from coterie_node.errors import ConfigError


def plot_command(
    result: Annotated[Path, typer.Argument(help="A result as --json prints it.")],
    out: Annotated[Path | None, typer.Option(help="New file .svg; without it the SVG is printed.")] = None,
) -> None:
    """Draw the survival curves of a result as SVG, with limits and the numbers at risk beneath."""
    from coterie_node.audit.publication import read_publication
    from coterie_node.audit.report.survival_figure import draw_survival

    details = read_publication(result).get("details")
    curves = details.get("survival") if isinstance(details, Mapping) else None
    if not isinstance(curves, Mapping):
        message = f"{result} has no survival curves"
        raise ConfigError("CO-F367", f"{message}. Name a result of the learner survival_curves.")
    picture = draw_survival(curves)
    if out is None:
        typer.echo(picture)
        return
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(f"{picture}\n")
    except OSError as error:
        raise ConfigError("CO-F206", f"{out} cannot be written: {error.strerror}. Name a new file.") from None
