"""The folder of a site's persons: register, keys, accounts, log of acts, and the statements that were signed.

persons/register.json  log.jsonl  keys/  accounts/  statements/
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from coterie_chain.keys.private_files import replace_private
from coterie_node.errors import ConfigError
from coterie_node.persons.act_log import ActLog
from coterie_node.persons.approval_statement import MAX_STATEMENT_BYTES, ApprovalStatement
from coterie_node.persons.keystores import KeyFolder
from coterie_node.persons.register import PersonRegister

# The act under which the log has the settings.
_SETTINGS = "settings"


@dataclass(frozen=True)
class PersonsFolder:
    """The persons of one site; a site without a register has none."""

    root: Path

    @property
    def register_path(self) -> Path:
        """The file of the register."""
        return self.root / "register.json"

    @property
    def accounts_path(self) -> Path:
        """The file of the local accounts."""
        return self.root / "accounts.json"

    @property
    def keys(self) -> KeyFolder:
        """The key files of persons who sign at the command line."""
        return KeyFolder(self.root / "keys")

    @property
    def log(self) -> ActLog:
        """What persons did at this site."""
        return ActLog(self.root / "log.jsonl")

    def read_register(self) -> PersonRegister | None:
        """The register; None if the site has none."""
        return PersonRegister.load(self.register_path)

    def require_register(self) -> PersonRegister:
        """The register; ConfigError (CO-F432) if the site has none."""
        register = self.read_register()
        if register is None:
            raise ConfigError("CO-F432", "This site has no register of persons. Make one: coterie person add NAME.")
        return register

    def change_register(self, change: Callable[[PersonRegister], PersonRegister]) -> PersonRegister:
        """Write what `change` makes of the register as it is now; one process at a time, so that no change is lost."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.root / "register.lock", os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(handle, "r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            register = change(self.read_register() or PersonRegister())
            self.save_register(register)
        return register

    def save_register(self, register: PersonRegister) -> None:
        """Write the register."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        register.save(self.register_path)

    def save_statement(self, statement: ApprovalStatement) -> bytes:
        """Keep a statement in this site's records; returns its SHA-256."""
        digest = hashlib.sha256(statement.document).digest()
        place = self.root / "statements"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_private(place / f"{digest.hex()}.json", statement.document.decode())
        return digest

    def note_settings(self, settings: bytes, now: int) -> None:
        """Write the SHA-256 of the site's settings into the log, if they are not those of the last time."""
        digest = hashlib.sha256(settings).hexdigest()
        last = next((entry.subject for entry in reversed(list(self.log.read())) if entry.act == _SETTINGS), "")
        if last != digest:
            self.log.append(_SETTINGS, "", digest, now)

    def list_statements(self) -> Iterator[ApprovalStatement]:
        """The statements that this site has signed; AuditFailed (CO-A210) for a file that is none."""
        for path in sorted((self.root / "statements").glob("*.json")):
            with path.open("rb") as file:
                yield ApprovalStatement.parse(file.read(MAX_STATEMENT_BYTES + 1), path.name)
