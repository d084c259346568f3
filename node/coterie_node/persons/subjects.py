"""Which account of the identity provider has which name: the first sign-in binds one to the other, for good.

    persons/subjects.json   {"https://id.example#7f3a": "Ada Berg"}

A provider vouches for the account (issuer and subject). The name is what people print there, and many providers let
them change it. A person who could take the name of another person would register a passkey for that person, and sign as
two.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from coterie_chain.keys.private_files import replace_private
from coterie_learners.study.document import Text
from coterie_node.errors import ConfigError
from coterie_node.persons.accounts import read_accounts
from coterie_node.persons.folder import PersonsFolder
from coterie_node.persons.names import fold_name
from coterie_node.persons.roles import Person

MAX_SUBJECTS_BYTES = 1 << 20
_Account = Annotated[str, Field(max_length=600)]
_FORM = TypeAdapter(Annotated[dict[_Account, Text], Field(max_length=2000)])


def bind_subject(folder: PersonsFolder, person: Person) -> None:
    """Bind a provider's account to its person's name; ConfigError (CO-F443) if either has another counterpart."""
    folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder.root / "subjects.json"
    handle = os.open(folder.root / "subjects.lock", os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(handle, "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subjects = _read(path)
        _check(folder, person, subjects)
        if person.account not in subjects:
            replace_private(path, _FORM.dump_json(subjects | {person.account: person.name}, indent=1).decode() + "\n")


def _check(folder: PersonsFolder, person: Person, subjects: dict[str, str]) -> None:
    folded, bound = fold_name(person.name), subjects.get(person.account)
    if bound == person.name:
        return
    if bound is not None:
        cause = f"This account signed in as {bound!a} before, and calls itself {person.name!a} now"
    elif any(fold_name(name) == folded for account, name in subjects.items() if account != person.account):
        cause = f"The name {person.name!a} is that of another account of the identity provider"
    elif any(fold_name(name) == folded for name in read_accounts(folder.accounts_path)):
        cause = f"The name {person.name!a} is that of an account of this site"
    else:
        return
    raise ConfigError("CO-F443", f"{cause}. If it is the same person, correct persons/subjects.json at the node.")


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            return _FORM.validate_json(file.read(MAX_SUBJECTS_BYTES + 1))
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError):
        raise ConfigError("CO-F436", f"{path} cannot be read. Restore it from your copy.") from None
