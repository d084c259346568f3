"""The one who acts through the API: the token's holder, or a person of the site's register."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pydantic import ValidationError

from coterie_node.persons.acts import SignedAct
from coterie_node.persons.roles import Person, Role
from coterie_node.site.folder import SiteFolder
from coterie_node.verbs.signing import PersonSigner, PreparedSigner, TextSigner
from coterie_node.web.api.bodies import SigningBody
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
class SignatureRecord:
    """Whose name goes on record, the SHA-256 of a site's own file of signatures (empty for none), and who signs."""

    by: str
    approvals: str = ""
    signer: PersonSigner | None = None


class PersonSignatures(Protocol):
    """The persons of a site who sign."""

    def verify_signature(self, act: Act, caller: Person, body: SigningBody) -> SignatureRecord:
        """The signer of this act; Refused (CO-H111) if it needs a person's signature and has none that counts."""


class NoRegister:
    """A site without a register of persons: the token's holder acts."""

    def verify_signature(self, act: Act, caller: Person, body: SigningBody) -> SignatureRecord:
        """The token's holder; Refused (CO-H111) for a signature, which nobody here could check."""
        if body.signature is not None or body.person:
            message = "The request names a signer, but this site has no register of persons"
            raise Refused("CO-H111", f"{message}. Leave them out.", 422)
        return SignatureRecord(f"{caller.name} ({caller.account})"[:200])


class RegisterSignatures:
    """The persons of a site's register; at a site without one the token's holder acts."""

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder

    def verify_signature(self, act: Act, caller: Person, body: SigningBody) -> SignatureRecord:
        """The person who signed; the verb compares the text with what is done, and checks the signature."""
        if self._folder.persons.read_register() is None:
            return NoRegister().verify_signature(act, caller, body)
        if body.person and body.signature is None:
            return SignatureRecord(body.person, signer=TextSigner(body.person))
        try:
            given = None if body.signature is None else SignedAct.model_validate(body.signature)
        except ValidationError:
            given = None
        if given is None:
            message = f"{self._folder.name} has a register of persons, and the request has no signature of one"
            raise Refused(
                "CO-H111",
                f"{message}. Ask for the text with `person`, and send it signed.",
                422,
            )
        return SignatureRecord(given.text.name, signer=PreparedSigner(given.text, given))
