"""Options that several commands share, and the folder of the site that they name.

Every path that is typed is read from the working folder. `--node DIR` names a node's own folder; without it
`COTERIE_NODE` does, or the working folder is it. `--at DIR` names a run's folder, and `--site NAME` one of its sites.
"""

from __future__ import annotations

import os
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie_node.errors import ConfigError

if TYPE_CHECKING:  # a command that names no site does not read any: its start is that much shorter
    from coterie_node.audit.sources import AuditLocation
    from coterie_node.site.folder import SiteFolder


class Format(StrEnum):
    """How a table is printed."""

    text = "text"
    json = "json"
    csv = "csv"
    markdown = "markdown"
    latex = "latex"
    html = "html"
    docx = "docx"


class TableFormat(StrEnum):
    """How the history is printed or written."""

    text = "text"
    json = "json"
    csv = "csv"
    parquet = "parquet"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
ModelName = Annotated[str | None, typer.Option("--model", help="Name of the model, if the study has several.")]
Shape = Annotated[Format, typer.Option("--format", help="text, json, csv, markdown, latex, html or docx.")]
Out = Annotated[Path | None, typer.Option("--out", help="New file for what would be printed; docx needs one.")]
Level = Annotated[float, typer.Option(min=0.01, max=0.9999, help="Confidence level of intervals.")]
NodeOption = Annotated[
    Path | None,
    typer.Option("--node", help="Folder of this site's node. Default: $COTERIE_NODE, or the working folder."),
]
At = Annotated[
    Path | None,
    typer.Option("--at", help="Instead of --node: folder of a run (`coterie demo --keep`, `coterie devnet up`)."),
]
Site = Annotated[str | None, typer.Option("--site", help="With --at: name of the run's site.")]
Chain = Annotated[
    str | None,
    typer.Option(help="Instead of a folder: URL of an Ethereum node of your own, or another ledger's address."),
]


def check_block_hash(text: str | None) -> str | None:
    """The hash of a block as it was typed; BadParameter for a part of one, which would look like another network's."""
    return _check_digits(text, 64, "hash of a block")


def check_contract_address(text: str | None) -> str | None:
    """The address of a contract as it was typed; BadParameter for a part of one."""
    return _check_digits(text, 40, "address of a contract")


def _check_digits(text: str | None, count: int, what: str) -> str | None:
    if text is not None and not re.fullmatch(rf"0x[0-9a-fA-F]{{{count}}}", text):
        raise typer.BadParameter(f"'{text[:80]}' is no {what}, which is 0x and {count} digits. Copy it whole.")
    return text


Catalog = Annotated[
    str | None,
    typer.Option(help="Address of the Catalog contract, if the chain has several.", callback=check_contract_address),
]
Store = Annotated[str | None, typer.Option(help="Your store: folder:PATH or kubo+http://HOST:PORT.")]
StudyFile = Annotated[Path, typer.Argument(help="Study file (TOML).")]
StudyArgument = Annotated[
    str | None, typer.Argument(help="Number on the ledger, hash, or study file. Default: the newest.")
]
LedgerStudyArgument = Annotated[str, typer.Argument(help="Number on the ledger, hash, or study file.")]
_VARIABLE = "COTERIE_NODE"


def open_node_folder(node: Path | None) -> SiteFolder:
    """The folder of this site's node: --node, COTERIE_NODE, or the working folder."""
    from coterie_node.site.folder import find_node

    return find_node(node or Path(os.environ.get(_VARIABLE) or "."))


def open_site(node: Path | None, at: Path | None, site: str | None) -> SiteFolder:
    """The site's folder that the options name: one of a run, or this site's node; ConfigError (CO-F313) if unclear."""
    if at is None and site is None:
        return open_node_folder(node)
    if at is None or site is None or node is not None:
        options = {"--node": node, "--at": at, "--site": site}
        typed = ", ".join(name for name, value in options.items() if value is not None)
        message = f"These options name no site, or more than one: {typed}"
        raise ConfigError("CO-F313", f"{message}. Give --node DIR, or --at DIR and --site NAME.")
    from coterie_node.site.run_folder import RunFolder

    return RunFolder(at).find_site(site)


def require_daemon(folder: SiteFolder) -> SiteFolder:
    """The folder of a site whose daemon acts on decisions; ConfigError (CO-F313) for a site of a run without one."""
    from coterie_node.site.config import CONFIG
    from coterie_node.upgrade.running_version import describe_other_release

    if not (folder.root / CONFIG).exists():
        message = f"{folder.name} has no daemon, which would act on a decision: {folder.root} has no {CONFIG}"
        raise ConfigError("CO-F313", f"{message}. Decide at a node (--node DIR) or on a network of `devnet up`.")
    if warning := describe_other_release(folder.config.api):
        print(warning, file=sys.stderr)
    return folder


def locate(
    node: Path | None, at: Path | None, chain: str | None, catalog: str | None, store: str | None
) -> AuditLocation:
    """The source of an audit; without --node, --at and --chain from this site's node, if there is one here."""
    from coterie_node.audit.sources import AuditLocation
    from coterie_node.site.config import CONFIG

    where = AuditLocation(node, at, chain, catalog, store)
    own = os.environ.get(_VARIABLE)
    if not where.empty or (own is None and not Path(CONFIG).exists()):
        return where
    return AuditLocation(node=Path(own or "."), store=store)


def choose_shape(shape: Format, as_json: bool, out: Path | None) -> Format:
    """The format asked for; BadParameter for a Word document without a file, which no terminal could show."""
    if shape is Format.docx and out is None and not as_json:
        raise typer.BadParameter("A Word document is no text. Name its file: --out table.docx.", param_hint="--format")
    return Format.json if as_json else shape
