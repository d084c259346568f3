"""`coterie seal`: who can open a study's sealed payloads, and the end of that."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coterie_chain.keys.journal import SqliteJournal
from coterie_chain.keys.site_keys import SiteKeys, read_passphrase
from coterie_node.errors import ConfigError
from coterie_node.run.study_keys import destroy
from coterie_node.run.view_grants import save_grant, view_of
from coterie_node.site.run_folder import RunFolder, load_study_keys

seal = typer.Typer(no_args_is_help=True, help="Who can open a study's sealed payloads, and the end of that.")

_At = Annotated[Path, typer.Option(help="Folder of the run.")]
_SiteName = Annotated[str, typer.Option(help="Name of this site.")]
_Number = Annotated[int, typer.Option(help="The study's number on the ledger.")]
_Keys = Annotated[Path, typer.Option(help="Directory for the auditor's key files.")]
_Passphrase = Annotated[Path, typer.Option(help="File (mode 0600) with the passphrase of these keys.")]


@seal.command("auditor")
def auditor_command(keys: _Keys, passphrase_file: _Passphrase) -> None:
    """Make keys for an auditor; prints the sealing key to give to the sites."""
    print(SiteKeys.create(keys, read_passphrase(passphrase_file)).sealing.hex())


@seal.command("grant")
def grant_command(
    at: _At,
    site: _SiteName,
    to: Annotated[str, typer.Option(help="The auditor's sealing key, as `coterie seal auditor` printed it.")],
    out: Annotated[Path, typer.Option(help="File to write the grant to.")],
    study: _Number = 1,
) -> None:
    """Let an auditor open what this site can read of one study; it cannot be taken back."""
    place = RunFolder(at)
    own = load_study_keys(place, site, _session_name(place, study))
    with place.reader() as ledger:
        view = view_of(ledger, place.blobs(), study, site, own)
        digest = ledger.view(study).terms.hash
    try:
        save_grant(out, view, digest, bytes.fromhex(to), own[-1])
    except (FileExistsError, ValueError):
        raise ConfigError("CO-F352", f"{out} exists already, or {to!r} is no key in hexadecimal digits.") from None
    print(f"{len(view)} payloads of study {study} can be opened with {out}.")


@seal.command("destroy")
def destroy_command(at: _At, site: _SiteName, study: _Number = 1) -> None:
    """Destroy this site's sealing key of one study; what was sealed to it cannot be opened here ever again."""
    place = RunFolder(at)
    journal = SqliteJournal(place.site(site).journal)
    try:
        was_there = destroy(journal.vault, _session_name(place, study))
    finally:
        journal.close()
    outcome = (
        "is destroyed. Copies of the journal hold it still, if there are any, and grants open what they opened."
        if was_there
        else "was not there (any more)."
    )
    print(f"{site}'s sealing key of study {study} {outcome}")


def _session_name(place: RunFolder, study: int) -> str:
    return f"{place.network().scope}/{study}"
