"""`coterie backup` and `coterie restore`: a site in one encrypted file, and a site made of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from coterie_chain.keys.private_files import read_private
from coterie_chain.keys.site_keys import read_passphrase
from coterie_learners.errors import pluralise
from coterie_node.cli.options import NodeOption, open_node_folder
from coterie_node.network.backup import Passphrase, PublicKey, SecretKey, list_outside, restore_backup, write_backup

_Passphrase = Annotated[
    Path | None,
    typer.Option(help="File whose first line is the backup's passphrase (mode 600). Without it you are asked."),
]


def backup_command(
    to: Annotated[Path, typer.Option(help="New file of the backup.")],
    node: NodeOption = None,
    passphrase_file: _Passphrase = None,
    recipient: Annotated[
        str | None, typer.Option(help="Instead of a passphrase: a public key of age (age1...), as a timer needs it.")
    ] = None,
) -> None:
    """Write all that makes this site into one encrypted file: keys, identities, journal, decisions, privacy log.

    The daemon may run. The rows are not in it, nor blocks of the chain and of the store, which the other sites have.
    """
    home = open_node_folder(node)
    lock = PublicKey(recipient) if recipient else _read_passphrase(passphrase_file, confirm=True)
    manifest = write_backup(home, to, lock)
    unknown = "an unknown number of records"
    records = unknown if manifest.records is None else pluralise(manifest.records, "record")
    print(f"{to} has {manifest.site} as of now, with {records} on the ledger. Keep what opens it elsewhere.")
    for path in list_outside(home):
        print(f"Not in it: {path}. Keep a copy of its own.")


def restore_command(
    file: Annotated[Path, typer.Argument(help="The backup.")],
    folder: Annotated[Path, typer.Argument(help="New folder of the site.")],
    passphrase_file: _Passphrase = None,
    key_file: Annotated[
        Path | None, typer.Option(help="File with the secret key of age (mode 600), for a backup with --recipient.")
    ] = None,
) -> None:
    """Make a site's folder from its backup; refused while another copy of the site answers at its addresses.

    Start the chain node and the store, then look with `coterie doctor`, then start the daemon. It compares the ledger
    with the backup: if the site has recorded more since, every release asks a person.
    """
    key = _read_key(key_file) if key_file is not None else _read_passphrase(passphrase_file, confirm=False)
    manifest = restore_backup(file, folder, key)
    when = time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(manifest.time))
    print(f"{folder} is {manifest.site} as of {when}, written by coterie {manifest.version}.")
    print(f"Next: put the rows back, then coterie site start --node {folder} (or your units), then coterie doctor.")
    print("Has the swarm a new key since this backup? Take the newest order over: coterie network rekey rekey.json")
    print(f"If releases wait afterwards, people decide about them: coterie release list --node {folder}")


def _read_passphrase(file: Path | None, *, confirm: bool) -> Passphrase:
    if file is not None:
        return Passphrase(read_passphrase(file))
    return Passphrase(str(typer.prompt("Passphrase of the backup", hide_input=True, confirmation_prompt=confirm)))


def _read_key(file: Path) -> SecretKey:
    """The line of a key file that is no comment."""
    lines = [line.strip() for line in read_private(file, "the backup's key").splitlines()]
    return SecretKey(next((line for line in lines if line and not line.startswith("#")), ""))
