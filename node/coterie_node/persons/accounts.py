"""Local accounts: persons of the register who sign in with a password and a code, at a site without a provider.

    persons/accounts.json   {"Ada Berg": {"password": "$argon2id$...", "totp": "...", "counter": 59, ...}}

A password alone lets a person read. All other roles need the code of an authenticator too (TOTP, RFC 6238), or one of
the recovery codes, each of which counts once. A code counts once as well. After some failures an account is locked for
a while; the count is in the file, so that a restart does not end it.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import pyotp
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import Field, TypeAdapter, ValidationError

from coterie_chain.keys.private_files import replace_private
from coterie_learners.study.document import Frozen, Text
from coterie_node.errors import ConfigError
from coterie_node.persons.attempts import AttemptLimit
from coterie_node.persons.folder import PersonsFolder
from coterie_node.persons.roles import Person, Role

MAX_ACCOUNTS_BYTES = 1 << 20
MIN_PASSWORD, MAX_PASSWORD = 12, 1024
# Failures until an account is locked, and for how many seconds.
MOST_FAILURES, LOCK_SECONDS = 5, 300
# Names without an account whose failures are counted, so that a lock does not say which names have one.
MOST_STRANGERS = 1024
# Argon2's memory in KiB, passes and lanes at most: a file from elsewhere must not stop the page.
MOST_MEMORY, MOST_PASSES, MOST_LANES = 1 << 20, 16, 16
STEP_SECONDS, RECOVERY_CODES = 30, 8
# How the accounts of identity providers begin, which are their addresses.
PROVIDERS = ("https://", "http://")


class PasswordAccount(Frozen):
    """One account: the password's Argon2id hash, the authenticator's secret, and what was used up of its codes."""

    password: str = Field(repr=False)
    totp: str = Field(default="", repr=False)
    counter: Annotated[int, Field(ge=0)] = 0
    recovery: Annotated[tuple[str, ...], Field(max_length=RECOVERY_CODES)] = Field(default=(), repr=False)
    failures: Annotated[int, Field(ge=0)] = 0
    failed_at: Annotated[int, Field(ge=0)] = 0


_FORM = TypeAdapter(dict[Text, PasswordAccount])


class LocalAccounts:
    """The accounts of a site; `clock` gives seconds since 1970."""

    def __init__(self, folder: PersonsFolder, clock: Callable[[], int], hasher: PasswordHasher | None = None) -> None:
        self._folder, self._clock = folder, clock
        self._path = folder.accounts_path
        self._hasher = hasher or PasswordHasher()
        # A name that does not exist takes as long as a wrong password.
        self._nobody = self._hasher.hash(secrets.token_hex(16))
        self.attempts = AttemptLimit(clock)
        self._strangers: OrderedDict[str, PasswordAccount] = OrderedDict()

    def check(self, name: str, password: str, code: str) -> Person | None:
        """The person of an account; None for a wrong name, password or code, ConfigError (CO-F438) while locked."""
        self.attempts.count()
        with self._open(always=True) as accounts:
            account, now = accounts.get(name) or self._find_stranger(name), self._clock()
            if account.failures >= MOST_FAILURES and now - account.failed_at < LOCK_SECONDS:
                message = f"The account is locked after {account.failures} failures"
                raise ConfigError("CO-F438", f"{message}. Wait {LOCK_SECONDS // 60} minutes, then sign in again.")
            after = self._verify(name, account, password, code)
            if after is None:
                place = accounts if name in accounts else self._strangers
                place[name] = _count_failure(account, now)
                self._folder.log.append("sign-in refused", "", name, now)
                return None
            accounts[name] = after
        person = self._make_person(name, bool(after.totp))
        self._folder.log.append("sign-in" if person else "sign-in refused", name if person else "", name, now)
        return person

    def refresh(self, person: Person) -> Person | None:
        """The person of a session as the register lists them now; None for one who was removed.

        A person from an identity provider keeps the roles of the sign-in for as long as the session lasts.
        """
        with self._open() as accounts:
            account = accounts.get(person.account)
        if account is None:
            return person if person.account.startswith(PROVIDERS) else None
        return self._make_person(person.account, bool(account.totp))

    def is_empty(self) -> bool:
        """Whether nobody can sign in yet."""
        return not self._read()

    def set_password(self, name: str, password: str) -> None:
        """Give a person of the register a password; ConfigError (CO-F439) for a short one. Locks and codes stay."""
        self._folder.require_register().find(name, self._clock())
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise ConfigError("CO-F439", f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters. Choose another.")
        hashed = self._hasher.hash(password)
        with self._open() as accounts:
            old = accounts.get(name) or PasswordAccount(password=hashed)
            accounts[name] = old.model_copy(update={"password": hashed, "failures": 0})
        self._folder.log.append("password set", "", name, self._clock())

    def enrol(self, name: str, site: str) -> tuple[str, tuple[str, ...]]:
        """Give an account a new authenticator: the address for its QR code, and recovery codes; both shown once."""
        secret = pyotp.random_base32()
        codes = tuple(f"{secrets.randbelow(10**10):010d}" for _ in range(RECOVERY_CODES))
        with self._open() as accounts:
            if name not in accounts:
                message = f"{name[:60]!a} has no password at this site"
                raise ConfigError("CO-F432", f"{message}. Set one first: coterie person password NAME.")
            hashes = tuple(_hash_code(name, code) for code in codes)
            accounts[name] = accounts[name].model_copy(update={"totp": secret, "counter": 0, "recovery": hashes})
        self._folder.log.append("authenticator enrolled", "", name, self._clock())
        return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=f"Coterie {site}"), codes

    def _find_stranger(self, name: str) -> PasswordAccount:
        """The account for a name without one, with a password that nobody knows; the oldest are forgotten."""
        while len(self._strangers) >= MOST_STRANGERS:
            self._strangers.popitem(last=False)
        return self._strangers.get(name) or PasswordAccount(password=self._nobody)

    def _verify(self, name: str, account: PasswordAccount, password: str, code: str) -> PasswordAccount | None:
        """The account after a good password and code, which are used up; None for bad ones."""
        if not is_hash_of(self._hasher, account.password, password[:MAX_PASSWORD]):
            return None
        clean = account.model_copy(update={"failures": 0})
        return self._use_code(name, clean, "".join(code.split())) if account.totp else clean

    def _use_code(self, name: str, account: PasswordAccount, code: str) -> PasswordAccount | None:
        step, totp = self._clock() // STEP_SECONDS, pyotp.TOTP(account.totp)
        typed = code.encode("ascii", "replace")
        for counter in (step - 1, step, step + 1):
            if counter > account.counter and hmac.compare_digest(totp.generate_otp(counter).encode(), typed):
                return account.model_copy(update={"counter": counter})
        hashed = _hash_code(name, code)
        if hashed not in account.recovery:
            return None
        return account.model_copy(update={"recovery": tuple(other for other in account.recovery if other != hashed)})

    def _make_person(self, name: str, with_code: bool) -> Person | None:
        register = self._folder.read_register()
        try:
            entry = None if register is None else register.find(name, self._clock())
        except ConfigError:
            return None
        if entry is None:
            return None
        roles = frozenset(entry.roles)
        return Person(name, entry.name, roles if with_code else roles & {Role.READ})

    @contextmanager
    def _open(self, always: bool = False) -> Iterator[dict[str, PasswordAccount]]:
        """The accounts, which are written back if they changed, even after a refusal; others wait meanwhile.

        `always`: also if they did not, so that the time says nothing about whose failure was counted.
        """
        self._folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._folder.root / "accounts.lock", os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(handle, "r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self._read()
            accounts = dict(before)
            try:
                yield accounts
            finally:
                if accounts != before or always:
                    replace_private(self._path, _FORM.dump_json(accounts, indent=1).decode() + "\n")

    def _read(self) -> dict[str, PasswordAccount]:
        return read_accounts(self._path)


def read_accounts(path: Path) -> dict[str, PasswordAccount]:
    """The accounts of a file by name, none without one; ConfigError (CO-F436) if it is none."""
    try:
        with path.open("rb") as file:
            return _FORM.validate_json(file.read(MAX_ACCOUNTS_BYTES + 1))
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError):
        raise ConfigError("CO-F436", f"{path} is no file of accounts. Restore it from your copy.") from None


def is_hash_of(hasher: PasswordHasher, hashed: str, text: str) -> bool:
    """Whether a text has this Argon2 hash; no for a hash that asks for more memory or time than a page has."""
    try:
        asked = extract_parameters(hashed)
        if asked.memory_cost > MOST_MEMORY or asked.time_cost > MOST_PASSES or asked.parallelism > MOST_LANES:
            return False
        return hasher.verify(hashed, text)
    except (VerificationError, InvalidHashError, UnicodeError):
        return False


def _hash_code(name: str, code: str) -> str:
    """The digest of a recovery code in the file; anybody who reads the file has the authenticator's secret anyway."""
    return hashlib.sha256(f"coterie recovery code\n{name}\n{code}".encode()).hexdigest()


def _count_failure(account: PasswordAccount, now: int) -> PasswordAccount:
    recent = now - account.failed_at < LOCK_SECONDS
    return account.model_copy(update={"failures": account.failures + 1 if recent else 1, "failed_at": now})
