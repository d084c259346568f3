"""`coterie release`: what waits for a person's yes at a site, and the yes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from coterie_node.consent import ReleaseFolder
from coterie_node.place import Place

release = typer.Typer(no_args_is_help=True, help="Payloads that wait until this site's people let them leave.")

At = Annotated[Path, typer.Option(help="Folder of the run.")]
SiteName = Annotated[str, typer.Option(help="Name of this site.")]


@release.command("list")
def list_command(
    at: At, site: SiteName, as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False
) -> None:
    """Show what waits: the verdict, the counts that could be solved, and with --json every number."""
    held = ReleaseFolder(Place(at).site(site).releases).waiting()
    if as_json:
        print(json.dumps(held, indent=2))
        return
    for one in held:
        print(f"{one['payload_digest'][:16]}  {one['topic']}  {one['sentence']}")
        print("".join(f"  {name}: {count}\n" for name, count in one["cells_below_floor"].items()), end="")


@release.command("approve")
def approve_command(
    at: At, site: SiteName, digest: Annotated[str, typer.Argument(help="The digest that `release list` shows.")]
) -> None:
    """Let one payload leave; the site's node posts it at its next turn."""
    held = ReleaseFolder(Place(at).site(site).releases).approve(digest)
    print(f"Approved: {held['topic']} ({held['payload_digest'][:16]}).")
