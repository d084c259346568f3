"""`coterie release`: what waits for a person's yes at a site, and the yes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie_node.errors import ConfigError
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.storage import FolderStorage
from coterie_node.release.approval import ApprovalFolder
from coterie_node.release.budgets import group_populations
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


@release.command("log")
def show_log_command(
    at: _At = None,
    site: _SiteName = "",
    node: _NodeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what has left this site by population, how much of it is known, and what would be refused next."""
    log = _open_log(at, site, node)
    populations = [population.as_dict() for population in group_populations(log)]
    refusals = log.refusals()
    if as_json:
        print(json.dumps({"populations": populations, "refusals": refusals}, indent=2))
        return
    if not populations and not refusals:
        print("Nothing has left this site, and nothing was refused.")
    for population in populations:
        print(_describe_population(population))
    for digest, noted in refusals.items():
        print("".join(f"refused  {digest[:16]}  {entry['study']}: {entry['sentence']}\n" for entry in noted), end="")


@release.command("allow")
def allow_release_command(
    digest: Annotated[str, typer.Argument(help="The hash of the study, as `release log` shows it.")],
    reason: Annotated[str, typer.Option(help="Why this site lets it leave; goes on record.")],
    at: _At = None,
    site: _SiteName = "",
    node: _NodeOption = None,
) -> None:
    """Say yes, with a reason, to what the privacy log refused of a study: to this, and to nothing else."""
    log = _open_log(at, site, node)
    full = [name for name in log.refusals() if len(digest) >= 8 and name.startswith(digest)]
    if len(full) != 1 or not reason.strip():
        message = f"Nothing was refused of one study with the hash {digest!r}, or there is no reason"
        raise ConfigError("CO-F311", f"{message}. List refusals with `coterie release log`.")
    for entry in log.allow(full[0], reason.strip()):
        print(f"Allowed: {entry['study']}: {entry['kind']}.")


def _open_log(at: Path | None, site: str, node: Path | None) -> PrivacyLog:
    if node is not None and at is None:
        return PrivacyLog(FolderStorage(NodeFolder(node).privacy))
    if at is None or not site:
        raise ConfigError("CO-F313", "Name whose log: --node DIR, or --at DIR and --site NAME.")
    return PrivacyLog(FolderStorage(RunFolder(at).site(site).privacy))


def _describe_population(population: Mapping[str, Any]) -> str:
    smallest = population["smallest_known_set"]
    lines = [
        f"{', '.join(population['studies'])}: {population['releases']} releases, {population['masked']} masked",
        f"  columns of rows         {population['columns']} of {population['rows']}",
        f"  equations of unknowns   {population['equations']} of {population['unknowns']}",
        f"  smallest known set      {'none' if smallest is None else smallest}",
        *(f"  refused next            {words}" for words in population["refused_next"]),
    ]
    return "\n".join(lines)
