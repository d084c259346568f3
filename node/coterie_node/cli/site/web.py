"""`coterie web`: this site's page, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coterie_node.cli.options import open_node_folder
from coterie_node.errors import ConfigError

NodeFolder = Annotated[
    Path | None, typer.Argument(help="Folder of this site's node. Default: $COTERIE_NODE, or the working folder.")
]


def web_command(node: NodeFolder = None) -> None:
    """Show this site's page at the address of [web] in node.toml, until SIGTERM or Ctrl-C; `serve` starts it too.

    It reads the ledger and this folder, and writes decisions, which the daemon carries out.
    """
    from coterie_node.site.watch.log import EventLog

    home = open_node_folder(node)
    try:
        from coterie_node.web.server import serve_page
    except ModuleNotFoundError as error:
        message = f"The page needs the package {error.name}, which is not installed"
        raise ConfigError("CO-W108", f"{message}. Install it with: pip install 'coterie[web]'.") from None
    serve_page(home, EventLog())
