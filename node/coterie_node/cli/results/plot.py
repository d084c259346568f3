"""`coterie study plot`: the survival curves of a published result, or the incidence of a cause, as SVG or PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from coterie_node.errors import ConfigError


def plot_command(
    result: Annotated[Path, typer.Argument(help="A result as --json prints it.")],
    out: Annotated[Path | None, typer.Option(help="New file .svg or .png; without it the SVG is printed.")] = None,
    cause: Annotated[str, typer.Option(help="Draw the cumulative incidence of this competing cause.")] = "",
) -> None:
    """Draw the survival curves of a result, or the incidence of a cause, with limits and numbers at risk."""
    picture = _draw(result, cause)
    if out is None:
        typer.echo(picture)
        return
    content = _rasterise(picture) if out.suffix.lower() == ".png" else f"{picture}\n".encode()
    try:
        with out.open("xb") as file:
            file.write(content)
    except OSError as error:
        raise ConfigError("CO-F206", f"{out} cannot be written: {error.strerror}. Name a new file.") from None


def _draw(result: Path, cause: str) -> str:
    from coterie_node.audit.publication import read_publication
    from coterie_node.audit.report.survival_figure import draw_survival, list_causes

    details = read_publication(result).get("details")
    curves = details.get("survival") if isinstance(details, Mapping) else None
    if not isinstance(curves, Mapping):
        message = f"{result} has no survival curves"
        raise ConfigError("CO-F367", f"{message}. Name a result of the learner survival_curves.")
    causes = list_causes(curves)
    if cause and cause not in causes:
        message = f"{result} has no cause {cause!r}"
        advice = f"Choose of {', '.join(causes)}" if causes else "Its event has no causes; leave --cause out"
        raise ConfigError("CO-F367", f"{message}. {advice}.")
    return draw_survival(curves, cause)


def _rasterise(picture: str) -> bytes:
    from coterie_node.audit.report.raster import rasterise

    return rasterise(picture)
