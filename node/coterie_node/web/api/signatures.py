"""Who stands behind an act that comes through the API: the token's holder, or a person of the site's register."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from coterie_node.persons.roles import Person, Role
from coterie_node.web.api.tokens import Refused


@dataclass(frozen=True)
class Act:
    """What is done: the kind, the role that it needs, the study's hash and number, and the SHA-256 of what else."""

    kind: str
    role: Role
    study: bytes = bytes(32)
    number: int = 0
    about: bytes = bytes(32)


@dataclass(frozen=True)
class Signed:
    """Whose name goes on record, and the SHA-256 of the signatures in hexadecimal digits; empty for none."""

    by: str
    approvals: str = ""


class Signatures(Protocol):
    """The persons of a site who sign."""

    def verify_signature(self, act: Act, caller: Person, signed: Mapping[str, Any] | None) -> Signed:
        """Who signed this act; Refused (CO-H111) if it needs a person's signature and has none that counts."""


class NoRegister:
    """A site without a register of persons: the token's holder acts."""

    def verify_signature(self, act: Act, caller: Person, signed: Mapping[str, Any] | None) -> Signed:
        """The token's holder; Refused (CO-H111) for a signature, which nobody here could check."""
        if signed is not None:
            message = "The request has a signature, and this site has no register of persons to check it by"
            raise Refused("CO-H111", f"{message}. Leave it out.", 422)
        return Signed(f"{caller.name} ({caller.account})"[:200])
