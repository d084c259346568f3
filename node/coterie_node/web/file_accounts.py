"""Accounts in one file of the site's folder: a name, roles, and the Argon2 hash of a password.

    accounts.json   {"ada": {"name": "Ada Lovelace", "roles": ["read", "approve"], "hash": "$argon2id$..."}}

The file is read at each check, so that a change counts at once. After some wrong passwords an account is locked for a
while, in this process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from argon2 import PasswordHasher
from pydantic import Field, TypeAdapter, ValidationError

from coterie_chain.keys.private_files import replace_private
from coterie_learners.study.document import Frozen, Text
from coterie_node.data.files.bounded_file import read_bounded
from coterie_node.data.files.folder_listing import is_settled
from coterie_node.errors import ConfigError
from coterie_node.persons.accounts import MAX_PASSWORD, is_hash_of
from coterie_node.persons.attempts import AttemptLimit
from coterie_node.persons.roles import Person, Role

ACCOUNTS = "accounts.json"
MAX_FILE_BYTES = 1 << 20
# Wrong passwords until an account is locked, and for how many seconds.
MOST_WRONG, LOCKED_SECONDS = 5, 300.0


class FileAccount(Frozen):
    """One account."""

    name: Text
    roles: tuple[Role, ...] = ()
    hash: str = Field(repr=False)


_FORM = TypeAdapter(dict[str, FileAccount])


class FileAccounts:
    """The accounts of a file."""

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.monotonic, hasher: PasswordHasher | None = None
    ) -> None:
        self._path, self._clock = path, clock
        self._hasher, self._attempts = hasher or PasswordHasher(), AttemptLimit(clock)
        self._failures: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._kept: tuple[tuple[int, int, int], dict[str, FileAccount]] | None = None
        # A name that does not exist takes as long as a wrong password.
        self._nobody = FileAccount(name="nobody", hash=self._hasher.hash("nobody"))

    def check(self, name: str, password: str, code: str) -> Person | None:
        """The person of an account with this password; ConfigError (CO-W106) while the account is locked."""
        self._attempts.count()
        # One check at a time: many at once would each find the account unlocked, and take a hash's memory each.
        with self._lock:
            self._check_lock(name)
            account = self._read().get(name)
            right = is_hash_of(self._hasher, (account or self._nobody).hash, password[:MAX_PASSWORD])
            if account is None or not right:
                self._note_failure(name)
                return None
            self._failures.pop(name, None)
        return Person(name, account.name, frozenset(account.roles))

    def refresh(self, person: Person) -> Person | None:
        """The person as the file has them now."""
        account = self._read().get(person.account)
        return None if account is None else Person(person.account, account.name, frozenset(account.roles))

    def is_empty(self) -> bool:
        """Whether there is no account."""
        return not self._read()

    def save(self, account: str, name: str, roles: tuple[Role, ...], password: str) -> None:
        """Add an account, or replace it."""
        accounts = self._read() | {
            account: FileAccount(name=name, roles=roles, hash=self._hasher.hash(password)),
        }
        replace_private(self._path, _FORM.dump_json(accounts, indent=2).decode() + "\n")

    def _read(self) -> dict[str, FileAccount]:
        """The accounts, read again when the file is another one than before."""
        try:
            state = self._path.stat()
        except OSError:
            return self._read_file()
        identity = state.st_ino, state.st_mtime_ns, state.st_size
        kept = self._kept
        if kept is not None and kept[0] == identity:
            return kept[1]
        accounts = self._read_file()
        if is_settled(state.st_mtime_ns, time.time_ns()):
            self._kept = identity, accounts
        return accounts

    def _read_file(self) -> dict[str, FileAccount]:
        try:
            return _FORM.validate_json(read_bounded(self._path, MAX_FILE_BYTES))
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError):
            raise ConfigError("CO-W107", f"{self._path} is no file of accounts. Restore it from a backup.") from None

    def _check_lock(self, name: str) -> None:
        count, since = self._failures.get(name, (0, 0.0))
        if count >= MOST_WRONG and self._clock() - since < LOCKED_SECONDS:
            minutes = f"{LOCKED_SECONDS / 60:.0f} minutes"
            raise ConfigError("CO-W106", f"The account is locked after {count} wrong passwords. Wait {minutes}.")

    def _note_failure(self, name: str) -> None:
        count, since = self._failures.get(name, (0, 0.0))
        count = count if self._clock() - since < LOCKED_SECONDS else 0
        self._failures[name] = (count + 1, self._clock())
        while len(self._failures) > MAX_FILE_BYTES >> 8:
            del self._failures[next(iter(self._failures))]
