"""Passkeys on the page: a person registers one, and signs with it the text of a decision.

The challenge of a signature is the digest of the text (EIP-712), so that the passkey's answer is the signature, which
every auditor can check. A passkey belongs to an origin: the hospital's name with TLS, or `http://SITE.localhost` on
the node's own machine. Browsers take none on an address of numbers.
"""

from __future__ import annotations

import json
import secrets
import time
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.responses import Response
from webauthn import generate_registration_options, options_to_json, verify_registration_response
from webauthn.helpers import decode_credential_public_key
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import AuthenticatorSelectionCriteria, UserVerificationRequirement

from coterie_node.errors import ConfigError
from coterie_node.persons.acts import ActText, PersonKey, SignedAct
from coterie_node.persons.passkeys import Assertion, encode_challenge
from coterie_node.persons.register import PersonEntry
from coterie_node.persons.roles import Role
from coterie_node.site.folder import SiteFolder
from coterie_node.site.statements.approvals import ActSubject, prepare_act
from coterie_node.verbs.decide import abort, approve, decline, find_open_study, read_proposal
from coterie_node.verbs.signing import PreparedSigner
from coterie_node.web.access import Entrance, PageRoute, Visit
from coterie_node.web.guard import go
from coterie_node.web.login.challenges import Challenges
from coterie_node.web.login.signed_acts import SIGN
from coterie_node.web.rendering import render

PASSKEYS, MAX_ANSWER = "/passkeys", 1 << 14
ES256 = [COSEAlgorithmIdentifier.ECDSA_SHA_256]


@dataclass(frozen=True)
class PasskeyPages:
    """The pages of one site's passkeys."""

    home: SiteFolder
    registrations: Challenges[bytes] = field(default_factory=Challenges)
    texts: Challenges[ActText] = field(default_factory=Challenges)

    @property
    def routes(self) -> tuple[PageRoute, ...]:
        """The routes of the pages."""
        signs = {"approve": self.approve, "decline": self.decline, "abort": self.abort}
        return (
            PageRoute("GET", PASSKEYS, Entrance.SIGNED_IN, self.show),
            PageRoute("POST", PASSKEYS, Entrance.SIGNED_IN, self.register),
            *(PageRoute("GET", f"/sign/{act}/{{number}}", Role.APPROVE, self.show_text) for act in signs),
            *(PageRoute("POST", f"/sign/{act}/{{number}}", Role.APPROVE, answer) for act, answer in signs.items()),
            PageRoute("GET", f"{SIGN}/{{question}}", Entrance.SIGNED_IN, self.show_question),
            PageRoute("POST", f"{SIGN}/{{question}}", Entrance.SIGNED_IN, self.answer_question),
        )

    def show(self, visit: Visit) -> Response:
        """The person's keys, and the form that registers another one."""
        entry, origin = self._find_entry(visit), find_origin(visit)
        challenge = self.registrations.ask(visit.session.name, "register", secrets.token_bytes(32))
        options = generate_registration_options(
            rp_id=_host(origin),
            rp_name=f"Coterie {self.home.name}",
            user_name=entry.name,
            challenge=challenge,
            authenticator_selection=AuthenticatorSelectionCriteria(
                user_verification=UserVerificationRequirement.REQUIRED
            ),
            supported_pub_key_algs=ES256,
        )
        return render(visit, "login/passkeys.html.j2", entry=entry, options=options_to_json(options))

    def register(self, visit: Visit) -> Response:
        """Add the passkey that the browser made to the person's entry."""
        origin, entry = find_origin(visit), self._find_entry(visit)
        challenge = self.registrations.take(visit.session.name, "register")
        key = read_registration(visit.read_field("answer"), challenge, origin)
        now = int(time.time())
        self.home.persons.change_register(lambda register: register.add_key(entry.name, key, now))
        self.home.persons.log.append("passkey registered", entry.name, key.fingerprint, now)
        return go(visit, PASSKEYS, "The passkey is in the register.")

    def show_text(self, visit: Visit) -> Response:
        """The text that is to be signed, in words."""
        entry = self._find_entry(visit)
        _, act, number = visit.request.url.path.rsplit("/", 2)
        view = read_proposal(self.home, number)[0] if act == "approve" else find_open_study(self.home, number)
        text = prepare_act(self.home, entry.name, act, ActSubject.of(view), int(time.time()))  # type: ignore[arg-type]
        self.texts.ask(visit.session.name, f"{act} {number}", text)
        reason = visit.services.drafts.find(visit.session.name, f"{act} {number}") or ""
        return self._render(visit, text, f"{act} study {number}", reason)

    def show_question(self, visit: Visit) -> Response:
        """The text that a form's act needs signed, in words."""
        question = visit.services.questions.read(visit.session.name, visit.request.path_params["question"])
        return self._render(visit, question.text, question.act.words)

    def answer_question(self, visit: Visit) -> Response:
        """Do what the form asked for, with the signature of the person."""
        question = visit.services.questions.take(visit.session.name, visit.request.path_params["question"])
        message = question.act.run("", self._make_signer(visit, question.text))
        return go(visit, question.act.back, message)

    def _render(self, visit: Visit, text: ActText, words: str, reason: str | None = None) -> Response:
        """A text with the question to the browser; with a field for the reason unless the form had one."""
        entry, origin = self._find_entry(visit), find_origin(visit)
        keys = [key for key in entry.keys if key.origin == origin]
        options = {
            "challenge": encode_challenge(text.digest),
            "rpId": _host(origin),
            "userVerification": "required",
            "allowCredentials": [{"type": "public-key", "id": key.credential} for key in keys],
        }
        return render(
            visit, "login/sign.html.j2", text=text, words=words, reason=reason, options=json.dumps(options), keys=keys
        )

    def approve(self, visit: Visit) -> Response:
        """Approve the study with the signature of the person."""
        number, signer = self._read_signature(visit)
        _, _, lines = approve(self.home, number, reason=visit.read_field("reason"), signer=signer)
        return go(visit, f"/studies/{number}", " ".join(lines[:2]))

    def decline(self, visit: Visit) -> Response:
        """Decline the study with the signature of the person."""
        number, signer = self._read_signature(visit)
        decline(self.home, [find_open_study(self.home, number)], visit.read_field("reason"), signer=signer)
        return go(visit, f"/studies/{number}", f"Study {number} is declined.")

    def abort(self, visit: Visit) -> Response:
        """End the study for all sites with the signature of the person."""
        number, signer = self._read_signature(visit)
        abort(self.home, number, visit.read_field("reason"), signer=signer)
        return go(visit, f"/studies/{number}", f"Study {number} ends for all sites.")

    def _read_signature(self, visit: Visit) -> tuple[str, PreparedSigner]:
        _, act, number = visit.request.url.path.rsplit("/", 2)
        text = self.texts.take(visit.session.name, f"{act} {number}")
        return number, self._make_signer(visit, text)

    def _make_signer(self, visit: Visit, text: ActText) -> PreparedSigner:
        """The browser's answer as the signature of a text; ConfigError (CO-F442) for another person's passkey."""
        entry, origin = self._find_entry(visit), find_origin(visit)
        credential, assertion = read_assertion(visit.read_field("answer"))
        key = next((k for k in entry.keys if (k.credential, k.origin) == (credential, origin)), None)
        if key is None or text.name != entry.name:
            message = f"{entry.name} has no such passkey in this site's register"
            raise ConfigError("CO-F442", f"{message}. Register it on the page of passkeys.")
        return PreparedSigner(text, SignedAct(text=text, key=key, assertion=assertion))

    def _find_entry(self, visit: Visit) -> PersonEntry:
        """The register's entry of the person who is signed in with all that it needs."""
        entry = self.home.persons.require_register().find(visit.person.name, int(time.time()))
        if not set(entry.roles) <= visit.person.roles:
            message = "A passkey needs a sign-in with a code, and this one was with a password alone"
            raise ConfigError("CO-F442", f"{message}. Enrol an authenticator: coterie person totp NAME.")
        return entry


def find_origin(visit: Visit) -> str:
    """The origin of a request; ConfigError (CO-F442) for one on which browsers take no passkey."""
    url = visit.request.url
    host = url.hostname or ""
    if url.scheme == "https" or host == "localhost" or host.endswith(".localhost"):
        return f"{url.scheme}://{url.netloc}"
    message = f"Browsers take no passkey on {url.scheme}://{url.netloc}"
    name = f"{visit.services.site.name}.localhost"
    raise ConfigError("CO-F442", f"{message}. Open the page by the name {name}, or by its own name with TLS.")


def read_registration(answer: str, challenge: bytes, origin: str) -> PersonKey:
    """The key of a passkey that was made for a challenge on an origin; ConfigError (CO-F442) for anything else."""
    try:
        if len(answer) > MAX_ANSWER:
            raise ValueError
        verified = verify_registration_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=_host(origin),
            expected_origin=origin,
            require_user_verification=True,
            supported_pub_key_algs=ES256,
        )
        public = decode_credential_public_key(verified.credential_public_key)
        point = bytes(getattr(public, "x", b"")) + bytes(getattr(public, "y", b""))
        return PersonKey(kind="passkey", public=point.hex(), credential=_encode(verified.credential_id), origin=origin)
    except (WebAuthnException, ValueError, TypeError, LookupError, RecursionError) as error:
        message = f"The browser's answer is no passkey for {origin} ({type(error).__name__})"
        raise ConfigError("CO-F442", f"{message}. Try again on this page.") from None


def read_assertion(answer: str) -> tuple[str, Assertion]:
    """A credential's id and its assertion from the browser's JSON; ConfigError (CO-F442) for anything else."""
    try:
        if len(answer) > MAX_ANSWER:
            raise ValueError
        plain = from_json(answer)
        parts = {"client_data": "clientDataJSON", "authenticator_data": "authenticatorData", "signature": "signature"}
        texts = {name: _decode(plain["response"][key]).hex() for name, key in parts.items()}
        return str(plain["id"]), Assertion.model_validate(texts)
    except (ValueError, TypeError, KeyError, ValidationError):
        raise ConfigError("CO-F442", "The browser's answer is no signature of a passkey. Try again.") from None


def _host(origin: str) -> str:
    return urlsplit(origin).hostname or ""


def _decode(text: Any) -> bytes:
    return urlsafe_b64decode(str(text) + "=" * (-len(str(text)) % 4))


def _encode(raw: bytes) -> str:
    return encode_challenge(raw)
