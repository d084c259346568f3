"""Signing in at the hospital's identity provider: OpenID Connect, code flow with PKCE.

    /login/provider --state, nonce, PKCE--> provider --code, state--> /login/provider/back --> session

The provider says who somebody is and in which groups. node.toml maps groups to roles; the register of persons counts
for signatures alone. Each check has its error: state and answer are of this session and count once; the ID token is
signed by a key of the issuer, for this client, with this nonce, and now.
Source: OpenID Connect Core 1.0, 3.1; RFC 7636; RFC 9207.
"""

from __future__ import annotations

import secrets
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic_core import from_json
from starlette.responses import RedirectResponse, Response

from coterie_chain.keys.private_files import read_private
from coterie_node.errors import ConfigError
from coterie_node.persons.names import check_person_name
from coterie_node.persons.roles import Person, Role
from coterie_node.persons.subjects import bind_subject
from coterie_node.site.config import LOOPBACK_HOSTS, OidcPart
from coterie_node.site.folder import SiteFolder
from coterie_node.web.access import Entrance, PageRoute, Visit
from coterie_node.web.guard import go, set_cookie
from coterie_node.web.login.challenges import Challenges

with warnings.catch_warnings(record=True):  # it would rather have another package than httpx, and says so
    from authlib.common.errors import AuthlibBaseError
    from authlib.integrations.httpx_client import OAuth2Client

START, BACK = "/login/provider", "/login/provider/back"
_METADATA = "/.well-known/openid-configuration"
ALGORITHMS = ["RS256", "PS256", "ES256", "RS512", "ES384"]
# Seconds to wait for the provider, by which its clock may differ, and bytes of its longest answer.
_WAIT_SECONDS, _SKEW_SECONDS, _MAX_BYTES = 10.0, 60, 1 << 18


@dataclass(frozen=True)
class ProviderQuestion:
    """What the browser was sent to the provider with."""

    state: str
    nonce: str
    verifier: str
    back: str


@dataclass(frozen=True)
class ProviderPages:
    """The two routes of a login at a provider."""

    home: SiteFolder
    settings: OidcPart
    questions: Challenges[ProviderQuestion] = field(default_factory=Challenges)

    @property
    def routes(self) -> tuple[PageRoute, ...]:
        """The routes of the pages."""
        return (
            PageRoute("GET", START, Entrance.OPEN, self.start),
            PageRoute("GET", BACK, Entrance.OPEN, self.finish),
        )

    def start(self, visit: Visit) -> Response:
        """Send the browser to the provider."""
        back = f"{visit.request.url.scheme}://{visit.request.url.netloc}{BACK}"
        question = ProviderQuestion(
            secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(64), back
        )
        self.questions.ask(visit.session.name, "provider", question)
        with self._open_client(question) as client:
            address, _ = client.create_authorization_url(
                self._read_metadata()["authorization_endpoint"],
                state=question.state,
                nonce=question.nonce,
                code_verifier=question.verifier,
            )
        return RedirectResponse(address, 303)

    def finish(self, visit: Visit) -> Response:
        """Take the provider's answer, and begin a session of the person."""
        question, fields = self.questions.take(visit.session.name, "provider"), visit.request.query_params
        if not secrets.compare_digest(fields.get("state", "").encode(), question.state.encode()):
            raise _refuse("the answer is to another question than this browser was sent with")
        if fields.get("iss", self.settings.issuer) != self.settings.issuer:
            raise _refuse("another provider answered")
        if "code" not in fields:
            raise _refuse(f"it answered {fields.get('error', 'nothing')[:60]!a}")
        metadata = self._read_metadata()
        claims = read_claims(self._fetch_token(metadata, question, fields["code"]), self._read_keys(metadata))
        person = make_person(check_claims(claims, self.settings, question.nonce, int(time.time())), self.settings)
        if person.roles:
            bind_subject(self.home.persons, person)
        self.home.persons.log.append("sign-in", person.name, person.account, int(time.time()))
        visit.services.sessions.end(visit.session.name)
        response = go(visit, "/")
        set_cookie(response, visit, visit.services.sessions.begin(person))
        return response

    def _fetch_token(self, metadata: Mapping[str, Any], question: ProviderQuestion, code: str) -> str:
        try:
            with self._open_client(question) as client:
                answer = client.fetch_token(metadata["token_endpoint"], code=code, code_verifier=question.verifier)
            return str(answer["id_token"])
        except (AuthlibBaseError, httpx.HTTPError, KeyError, TypeError, ValueError) as error:
            raise _refuse(f"it gives no token for the code ({type(error).__name__})") from None

    def _open_client(self, question: ProviderQuestion) -> OAuth2Client:
        path = self.home.path(self.settings.secret_file)
        return OAuth2Client(
            self.settings.client_id,
            read_private(path, "the client secret").strip(),
            scope=self.settings.scopes,
            redirect_uri=question.back,
            code_challenge_method="S256",
            timeout=_WAIT_SECONDS,
            follow_redirects=False,
        )

    def _read_metadata(self) -> Mapping[str, Any]:
        metadata = fetch_json(self.settings.issuer.rstrip("/") + _METADATA)
        if metadata.get("issuer") != self.settings.issuer:
            raise _refuse(f"it calls itself {str(metadata.get('issuer'))[:100]!a}, not {self.settings.issuer}")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            check_address(str(metadata.get(name, "")))
        return metadata

    def _read_keys(self, metadata: Mapping[str, Any]) -> KeySet:
        try:
            return KeySet.import_key_set(dict(fetch_json(metadata["jwks_uri"])))  # type: ignore[arg-type]
        except (JoseError, ValueError, TypeError, KeyError):
            raise _refuse("its keys cannot be read") from None


def read_claims(token: str, keys: KeySet) -> Mapping[str, Any]:
    """The claims of an ID token; ConfigError (CO-F440) unless one of the keys signed it."""
    try:
        return dict(jwt.decode(token, keys, algorithms=ALGORITHMS).claims)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise _refuse(f"no key of the issuer signed the ID token ({type(error).__name__})") from None


def check_claims(claims: Mapping[str, Any], settings: OidcPart, nonce: str, now: int) -> Mapping[str, Any]:
    """The claims, if they are of this issuer, for this client, for this question and of now; ConfigError (CO-F440)."""
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    expires, issued = claims.get("exp"), claims.get("iat")
    if claims.get("iss") != settings.issuer:
        raise _refuse(f"the ID token is of the issuer {str(claims.get('iss'))[:100]!a}")
    if settings.client_id not in audiences or claims.get("azp", settings.client_id) != settings.client_id:
        raise _refuse(f"the ID token is for {str(audience)[:100]!a}, not for {settings.client_id}")
    if not secrets.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise _refuse("the ID token answers another question")
    if not isinstance(expires, int | float) or not isinstance(issued, int | float):
        raise _refuse("the ID token has no time")
    if now > expires + _SKEW_SECONDS or issued > now + _SKEW_SECONDS:
        raise _refuse("the ID token has expired, or is of the future")
    return claims


def make_person(claims: Mapping[str, Any], settings: OidcPart) -> Person:
    """The person of an ID token, with the roles of the groups; ConfigError (CO-F431) for a name that is none."""
    subject, groups = claims.get("sub"), claims.get(settings.groups_claim, [])
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise _refuse("the ID token names no subject")
    names = [group for group in groups if isinstance(group, str)] if isinstance(groups, list) else []
    roles = frozenset(role for group in names for role in settings.roles.get(group, ()))
    name = check_person_name(str(claims.get(settings.name_claim, subject)))
    return Person(f"{settings.issuer}#{subject}", name, frozenset(Role(role) for role in roles))


def fetch_json(address: str) -> Mapping[str, Any]:
    """A JSON object of the provider; ConfigError (CO-F440) for another answer."""
    check_address(address)
    try:
        with httpx.stream("GET", address, timeout=_WAIT_SECONDS, follow_redirects=False) as response:
            response.raise_for_status()
            raw = b""
            for part in response.iter_bytes():
                raw += part
                if len(raw) > _MAX_BYTES:
                    raise ValueError
        document = from_json(raw)
    except (httpx.HTTPError, ValueError) as error:
        raise _refuse(f"{address} gives no answer ({type(error).__name__})") from None
    if not isinstance(document, dict):
        raise _refuse(f"{address} gives no JSON object")
    return document


def check_address(address: str) -> None:
    """ConfigError (CO-F440) for an address that anybody on the way could answer."""
    parts = urlsplit(address)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK_HOSTS):
        raise _refuse(f"{address[:100]!a} is not an address with TLS")


def _refuse(cause: str) -> ConfigError:
    return ConfigError("CO-F440", f"The identity provider did not sign anybody in: {cause}. Try again.")
