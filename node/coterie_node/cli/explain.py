"""`coterie explain`: what an error code means."""

from __future__ import annotations

from typing import Annotated

import typer

from coterie_node.error_codes import explain_code


def explain_command(code: Annotated[str, typer.Argument(help="An error code, such as CO-F342.")]) -> None:
    """Print what an error code means and what to do."""
    entry = explain_code(code)
    print(f"{entry.code}  {entry.cause}\n{entry.remedy}")
