"""`coterie version` and `coterie explain`."""

from __future__ import annotations

from typing import Annotated

import typer


def version_command() -> None:
    """Print the version."""
    from importlib.metadata import version

    print(version("coterie"))


def explain_command(code: Annotated[str, typer.Argument(help="An error code, such as CO-F342.")]) -> None:
    """Print what an error code means and what to do."""
    from coterie_node.error_codes import explain_code

    entry = explain_code(code)
    print(f"{entry.code}  {entry.cause}\n{entry.remedy}")
