"""`coterie release`: what waits for a person's yes at a site, and the yes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from coterie_node.errors import ConfigError
from coterie_node.release.approval import ApprovalFolder
from coterie_node.site.config import NodeFolder
from coterie_node.site.run_folder import RunFolder

release = typer.Typer(no_args_is_help=True, help="Payloads that wait until this site's people let them leave.")

_At = Annotated[Path | None, typer.Option(help="Folder of a run of this machine, with --site.")]
_SiteName = Annotated[str, typer.Option(help="Name of this site.")]
_NodeOption = Annotated[
    Path | None, typer.Option(envvar="COTERIE_NODE", help="Folder of this site's node, instead of --at and --site.")
]


@release.command("list")
def list_releases_command(
    at: _At = None,
    site: _SiteName = "",
    node: _NodeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what waits: the verdict, the counts that could be solved, and with --json every number."""
    waiting_payloads = [payload for folder in _find_folders(at, site, node) for payload in folder.waiting()]
    if as_json:
        print(json.dumps(waiting_payloads, indent=2))
        return
    if not waiting_payloads:
        print("Nothing waits for a person's yes.")
    for payload in waiting_payloads:
        print(f"{payload['payload_digest'][:16]}  {payload['topic']}  {payload['sentence']}")
        print("".join(f"  {name}: {count}\n" for name, count in payload["cells_below_floor"].items()), end="")


@release.command("approve")
def approve_release_command(
    digest: Annotated[str, typer.Argument(help="The digest that `release list` shows.")],
    at: _At = None,
    site: _SiteName = "",
    node: _NodeOption = None,
) -> None:
    """Let one payload leave; the site's node posts it at its next turn."""
    folders = _find_folders(at, site, node)
    holding = [f for f in folders if any(payload["payload_digest"].startswith(digest) for payload in f.waiting())]
    payload = (holding or folders)[0].approve(digest)
    print(f"Approved: {payload['topic']} ({payload['payload_digest'][:16]}).")


def _find_folders(at: Path | None, site: str, node: Path | None) -> list[ApprovalFolder]:
    """Where payloads wait: a run's folder for one site, or one folder for each study of a node."""
    if node is not None and at is None:
        root = NodeFolder(node).root / "releases"
        return [ApprovalFolder(folder) for folder in sorted(root.glob("*/"))] or [ApprovalFolder(root)]
    if at is None or not site:
        raise ConfigError("CO-F313", "Name whose payloads: --node DIR, or --at DIR and --site NAME.")
    return [ApprovalFolder(RunFolder(at).site(site).releases)]
