"""Bearer tokens of a site's API: named, with scopes and an end. The file has their digests, never the tokens.

A token is `coterie_ID_SECRET`: eight digits by which people name it, and 256 random bits. A digest of so many bits
needs no slow hash. An unknown ID is compared like a known one, so that time says nothing about which IDs there are.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from coterie_chain.keys.private_files import read_private, replace_private
from coterie_learners.study.document import Frozen, Text
from coterie_node.errors import ConfigError, NodeError
from coterie_node.persons.roles import Person, Role

TOKENS = "tokens.json"
MAX_TOKENS, MAX_DAYS = 64, 366
DAY = 86_400
_FORM = re.compile(r"coterie_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
# What an unknown token is compared with.
_NOBODY = "0" * 64


class Refused(NodeError):
    """A request without the right to what it asks for; `status` is that of HTTP."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(code, message)
        self.status = status


class ApiToken(Frozen):
    """One token: its holder, its scopes, its times (seconds since 1970), and the SHA-256 of its secret."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{8}$")]
    name: Annotated[Text, Field(min_length=1)]
    scopes: tuple[Role, ...]
    created: int
    expires: int
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @property
    def person(self) -> Person:
        """The person who acts with the token, with the roles that its scopes name."""
        return Person(f"token:{self.id}", self.name, frozenset(self.scopes))


_TOKENS = TypeAdapter(tuple[ApiToken, ...])


@dataclass(frozen=True)
class TokenFile:
    """The tokens of one site, in a file of mode 0600."""

    path: Path

    def list_all(self) -> tuple[ApiToken, ...]:
        """All tokens, those that have ended too; ConfigError (CO-H132) for a file that is none."""
        if not self.path.exists():
            return ()
        try:
            return _TOKENS.validate_json(read_private(self.path, "the file of tokens"))
        except ValidationError:
            message = f"The file of tokens {self.path} cannot be read"
            raise ConfigError("CO-H132", f"{message}. Remove it, and make the tokens again.") from None

    def create(self, name: str, scopes: tuple[Role, ...], days: int, now: float) -> tuple[ApiToken, str]:
        """Make a token; returns it and its text, which is nowhere else. ConfigError (CO-H131) for one out of bounds."""
        if not scopes or not 1 <= days <= MAX_DAYS:
            message = f"A token has a scope or more, and lasts 1 to {MAX_DAYS} days, not {days}"
            raise ConfigError("CO-H131", f"{message}. Give --scope and --days.")
        secret, digits = secrets.token_urlsafe(32), secrets.token_hex(4)
        try:
            token = ApiToken(
                id=digits,
                name=name,
                scopes=tuple(sorted(set(scopes))),
                created=int(now),
                expires=int(now) + days * DAY,
                digest=_digest(secret),
            )
        except ValidationError:
            raise ConfigError("CO-H131", "A token's name is one line of 1 to 200 characters. Shorten it.") from None
        with self._lock():
            living = [other for other in self.list_all() if other.expires > now]
            if len(living) >= MAX_TOKENS or any(other.id == digits for other in living):
                message = f"The site has {len(living)} tokens, of {MAX_TOKENS} that it may have"
                raise ConfigError("CO-H131", f"{message}. Revoke one: coterie token revoke ID.")
            self._save((*living, token))
        return token, f"coterie_{digits}_{secret}"

    def revoke(self, digits: str) -> ApiToken:
        """End a token at once; ConfigError (CO-H133) if there is none of this ID."""
        with self._lock():
            tokens = self.list_all()
            token = next((token for token in tokens if token.id == digits), None)
            if token is None:
                raise ConfigError("CO-H133", f"There is no token {digits[:20]!r}. List them: coterie token list.")
            self._save(tuple(other for other in tokens if other.id != digits))
        return token

    def check(self, text: str, now: float) -> ApiToken:
        """The token of this text; Refused (CO-H101) for an unknown one, CO-H102 for one that has ended."""
        match = _FORM.fullmatch(text)
        digits, secret = (match[1], match[2]) if match else ("", "")
        token = next((token for token in self.list_all() if token.id == digits), None)
        equal = hmac.compare_digest(_digest(secret), _NOBODY if token is None else token.digest)
        if token is None or not equal:
            raise Refused("CO-H101", "The request has no token of this site. Ask for one: coterie token create.", 401)
        if now >= token.expires:
            raise Refused("CO-H102", f"The token {token.id} has ended. Ask for a new one: coterie token create.", 401)
        return token

    def require(self, token: ApiToken, now: float) -> None:
        """Refused (CO-H102) if a token that was good has been revoked or has ended since."""
        if token not in self.list_all() or now >= token.expires:
            raise Refused("CO-H102", f"The token {token.id} has ended. Ask for a new one: coterie token create.", 401)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One command at a time changes the file."""
        handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _save(self, tokens: tuple[ApiToken, ...]) -> None:
        replace_private(self.path, _TOKENS.dump_json(tokens, indent=1).decode() + "\n")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
