"""`coterie seal`: who can open a study's sealed payloads, and the end of that."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coterie_chain.keys.journal import SqliteJournal
from coterie_chain.keys.site_keys import SiteKeys, read_passphrase
from coterie_learners.errors import pluralise
from coterie_node.cli.options import At, NodeOption, Site, open_site
from coterie_node.errors import ConfigError
from coterie_node.run.study_keys import destroy
from coterie_node.run.view_grants import save_grant, view_of
from coterie_node.site.folder import SiteFolder

seal = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Grants to open a study's sealed payloads, and the destruction of keys.",
)

_Number = Annotated[int, typer.Option(help="The study's number on the ledger.")]
_Keys = Annotated[Path, typer.Option(help="Directory for the auditor's key files.")]
_Passphrase = Annotated[Path, typer.Option(help="File (mode 0600) with the passphrase of these keys.")]


@seal.command("auditor")
def auditor_command(keys: _Keys, passphrase_file: _Passphrase) -> None:
    """Make keys for an auditor; prints the sealing key to give to the sites."""
    print(SiteKeys.create(keys, read_passphrase(passphrase_file)).sealing.hex())


@seal.command("grant")
def grant_command(
    to: Annotated[str, typer.Option(help="The auditor's sealing key, as `coterie seal auditor` printed it.")],
    out: Annotated[Path, typer.Option(help="File to write the grant to.")],
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    study: _Number = 1,
) -> None:
    """Let an auditor open what this site can read of one study; it cannot be taken back.

    The site's daemon must not run meanwhile: it holds the journal.
    """
    folder = open_site(node, at, site)
    own = folder.load_study_keys(_session_name(folder, study))
    with folder.open_ledger() as ledger:
        view = view_of(ledger, folder.open_archive(), study, folder.name, own)
        digest = ledger.view(study).terms.hash
    try:
        save_grant(out, view, digest, bytes.fromhex(to), own[-1])
    except (FileExistsError, ValueError):
        message = f"No grant is written: {out} exists already, or {to!r} is not a key in hexadecimal digits"
        raise ConfigError("CO-F352", f"{message}. Give a new file, and the key as the auditor sent it.") from None
    print(f"{out} opens {pluralise(len(view), 'payload')} of study {study}.")


@seal.command("destroy")
def destroy_command(node: NodeOption = None, at: At = None, site: Site = None, study: _Number = 1) -> None:
    """Destroy this site's sealing key of one study; what was sealed to it can never be opened here again.

    The site's daemon must not run meanwhile: it holds the journal.
    """
    folder = open_site(node, at, site)
    with SqliteJournal(folder.journal) as journal:
        existed = destroy(journal.vault, _session_name(folder, study))
    outcome = (
        "is destroyed. Copies of the journal have it still, if there are any, and grants open what they opened."
        if existed
        else "was not there (any more)."
    )
    print(f"{folder.name}'s sealing key of study {study} {outcome}")


def _session_name(folder: SiteFolder, study: int) -> str:
    return f"{folder.network().scope}/{study}"
