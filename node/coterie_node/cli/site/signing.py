"""Options of the commands that a person signs, and the passphrase of the person's key."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from coterie_node.data.findings import printable
from coterie_node.errors import ConfigError
from coterie_node.site.folder import SiteFolder
from coterie_node.site.statements.approvals import name_unnamed
from coterie_node.verbs.signing import PersonKeySigner

PersonOption = Annotated[
    str | None,
    typer.Option("--person", help="Person who signs, by name in this site's register (coterie person list)."),
]
PassphraseFd = Annotated[
    int | None,
    typer.Option("--passphrase-fd", min=0, help="File descriptor with the person's passphrase. Default: a prompt."),
]
_MAX_PASSPHRASE = 4096


def make_signer(home: SiteFolder, person: str | None, descriptor: int | None) -> PersonKeySigner | None:
    """The person who is named; None, and a line that says so, where nobody is and the site has no register."""
    if person is not None:
        return PersonKeySigner(person, lambda name: ask_passphrase(name, descriptor))
    if home.persons.read_register() is None:
        print(f"{home.name} has no register of persons: an {name_unnamed(home.name)} acts (coterie person add).")
    return None


def ask_passphrase(name: str, descriptor: int | None, confirm: bool = False) -> str:
    """A person's passphrase, from a file descriptor or from a prompt; it is never an argument."""
    if descriptor is None:
        return str(typer.prompt(f"Passphrase of {printable(name)}", hide_input=True, confirmation_prompt=confirm))
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            line = file.readline(_MAX_PASSPHRASE).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        message = f"The file descriptor {descriptor} gives no passphrase: {error}"
        raise ConfigError("CO-F439", f"{message}. Open a file or a pipe on it.") from None
    if not line:
        raise ConfigError("CO-F439", f"The file descriptor {descriptor} gives an empty line. Write to it first.")
    return line
