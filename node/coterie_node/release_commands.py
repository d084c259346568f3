"""`coterie release`: what waits for a person's yes at a site, and the yes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from coterie_node.consent import ReleaseFolder
from coterie_node.errors import ConfigError
from coterie_node.place import Place
from coterie_node.site_config import Home

release = typer.Typer(no_args_is_help=True, help="Payloads that wait until this site's people let them leave.")

At = Annotated[Path | None, typer.Option(help="Folder of a run of this machine, with --site.")]
SiteName = Annotated[str, typer.Option(help="Name of this site.")]
NodeFolder = Annotated[
    Path | None, typer.Option(envvar="COTERIE_NODE", help="Folder of this site's node, instead of --at and --site.")
]


@release.command("list")
def list_command(
    at: At = None,
    site: SiteName = "",
    node: NodeFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what waits: the verdict, the counts that could be solved, and with --json every number."""
    held = [one for folder in _folders(at, site, node) for one in folder.waiting()]
    if as_json:
        print(json.dumps(held, indent=2))
        return
    if not held:
        print("Nothing waits for a person's yes.")
    for one in held:
        print(f"{one['payload_digest'][:16]}  {one['topic']}  {one['sentence']}")
        print("".join(f"  {name}: {count}\n" for name, count in one["cells_below_floor"].items()), end="")


@release.command("approve")
def approve_command(
    digest: Annotated[str, typer.Argument(help="The digest that `release list` shows.")],
    at: At = None,
    site: SiteName = "",
    node: NodeFolder = None,
) -> None:
    """Let one payload leave; the site's node posts it at its next turn."""
    folders = _folders(at, site, node)
    holding = [f for f in folders if any(one["payload_digest"].startswith(digest) for one in f.waiting())]
    held = (holding or folders)[0].approve(digest)
    print(f"Approved: {held['topic']} ({held['payload_digest'][:16]}).")


def _folders(at: Path | None, site: str, node: Path | None) -> list[ReleaseFolder]:
    """Where payloads wait: a run's folder for one site, or one folder for each study of a node."""
    if node is not None and at is None:
        root = Home(node).root / "releases"
        return [ReleaseFolder(folder) for folder in sorted(root.glob("*/"))] or [ReleaseFolder(root)]
    if at is None or not site:
        raise ConfigError("CO-F313", "Name whose payloads: --node DIR, or --at DIR and --site NAME.")
    return [ReleaseFolder(Place(at).site(site).releases)]
