"""`coterie release`: payloads that wait for approval at a site, and the approval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from coterie_node.cli.options import At, Json, NodeOption, Site, open_site
from coterie_node.cli.output import print_document
from coterie_node.release.approval import ApprovalFolder
from coterie_node.site.folder import SiteFolder

release = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Payloads that wait until this site's people let them leave."
)


@release.command("list")
def list_releases_command(node: NodeOption = None, at: At = None, site: Site = None, as_json: Json = False) -> None:
    """Show what waits: the verdict, the counts that could be solved, and with --json every number."""
    payloads = [payload for folder in _list_folders(open_site(node, at, site)) for payload in folder.waiting()]
    print_document(payloads, _format_payloads(payloads), as_json)


@release.command("approve")
def approve_release_command(
    digest: Annotated[str, typer.Argument(help="The digest that `release list` shows.")],
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
) -> None:
    """Let one payload leave; the site's node posts it at its next turn."""
    folders = _list_folders(open_site(node, at, site))
    matches = [f for f in folders if any(payload["payload_digest"].startswith(digest) for payload in f.waiting())]
    payload = (matches or folders)[0].approve(digest)
    print(f"Approved: {payload['topic']} ({payload['payload_digest'][:16]}).")


def _format_payloads(payloads: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for payload in payloads:
        lines.append(f"{payload['payload_digest'][:16]}  {payload['topic']}  {payload['sentence']}")
        lines += [f"  {name}: {count}" for name, count in payload["cells_below_floor"].items()]
    return "\n".join(lines) or "Nothing waits for a person's yes."


def _list_folders(site: SiteFolder) -> list[ApprovalFolder]:
    """Where payloads wait: a daemon has a folder for each study, a process of a run one for its only study."""
    return [ApprovalFolder(folder) for folder in (site.releases, *sorted(site.releases.glob("*/")))]
