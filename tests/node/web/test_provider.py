"""Signing in at an identity provider: a certified one as a process, and tokens that are not for this site."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from starlette.testclient import TestClient
from support.node.houses import make_node_folder
from support.node.pages import PageHouse
from support.node.providers import SECRET, run_provider, sign_in_there

from coterie_chain.keys.private_files import write_private
from coterie_node.errors import ConfigError
from coterie_node.persons.accounts import LocalAccounts
from coterie_node.persons.roles import Person, Role
from coterie_node.site.config import OidcPart
from coterie_node.site.folder import find_node
from coterie_node.web.app import build_app
from coterie_node.web.login.part import make_login_part
from coterie_node.web.login.provider import check_address, check_claims, make_person, read_claims

NOW = 1_700_000_000
ORIGIN = "http://north.localhost:9480"
SETTINGS = OidcPart(issuer="https://id.example", client_id="coterie-north", roles={"approvers": (Role.APPROVE,)})
GOOD: dict[str, Any] = {
    "iss": "https://id.example",
    "aud": "coterie-north",
    "sub": "ada",
    "name": "Ada Lovelace",
    "nonce": "n",
    "iat": NOW,
    "exp": NOW + 300,
    "groups": ["approvers", "choir"],
}


def test_groups_become_roles_and_no_other_group_does() -> None:
    person = make_person(check_claims(GOOD, SETTINGS, "n", NOW), SETTINGS)
    assert person == Person("https://id.example#ada", "Ada Lovelace", frozenset({Role.APPROVE}))
    for groups in ("approvers", None, {"approvers": 1}, [["approvers"]], ["APPROVERS"]):
        assert make_person(GOOD | {"groups": groups}, SETTINGS).roles == frozenset()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iss": "https://id.example.evil"}, "of the issuer"),
        ({"aud": "another-service"}, "not for coterie-north"),
        ({"aud": ["another-service"]}, "not for coterie-north"),
        ({"aud": ["coterie-north", "another-service"], "azp": "another-service"}, "not for coterie-north"),
        ({"nonce": "m"}, "another question"),
        ({"nonce": None}, "another question"),
        ({"exp": NOW - 61}, "has expired"),
        ({"iat": NOW + 61}, "of the future"),
        ({"exp": "soon"}, "has no time"),
    ],
)
def test_a_token_of_another_issuer_audience_question_or_time_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check_claims(GOOD | changes, SETTINGS, "n", NOW)
    assert caught.value.code == "CO-F440"


@pytest.mark.parametrize("changes", [{"sub": ""}, {"sub": 7}, {"name": "A\u200bda"}, {"name": "Аda"}])
def test_nobody_without_a_subject_or_with_a_name_that_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_person(GOOD | changes, SETTINGS)
    assert caught.value.code in ("CO-F440", "CO-F431")


def test_only_a_key_of_the_issuer_signs_a_token() -> None:
    ours, other = RSAKey.generate_key(2048), RSAKey.generate_key(2048)
    keys = KeySet([ours])
    token = jwt.encode({"alg": "RS256", "kid": ours.kid}, GOOD, ours)
    assert read_claims(token, keys)["sub"] == "ada"
    head, body, signature = token.split(".")
    forged = jwt.encode({"alg": "RS256", "kid": ours.kid}, GOOD, other)
    unsigned = "eyJhbGciOiJub25lIn0." + body + "."
    for bad in (forged, unsigned, f"{head}.{body}.", f"{head}.{body[:-2]}AA.{signature}", "", "a.b.c", "x" * 100):
        with pytest.raises(ConfigError, match="no key of the issuer"):
            read_claims(bad, keys)


def test_an_address_without_tls_is_asked_on_loopback_alone() -> None:
    check_address("http://127.0.0.1:4000/jwks")
    check_address("https://id.example/jwks")
    for address in ("http://id.example/jwks", "file:///etc/passwd", "", "http://127.0.0.1.evil.example/"):
        with pytest.raises(ConfigError, match="is not an address with TLS"):
            check_address(address)


class ProviderHouse:
    """The page of north with an identity provider."""

    def __init__(self, root: Path, issuer: str, client: str = "coterie-north") -> None:
        self.pages = PageHouse(root)
        home = make_node_folder(root / "home" / "north", "north")
        write_private(home.root / "oidc.secret", SECRET + "\n")
        settings = home.root / "node.toml"
        lines = ["[web.oidc]", f'issuer = "{issuer}"', f'client_id = "{client}"', 'scopes = "openid profile groups"']
        roles = '[web.oidc.roles]\nstatistics = ["read"]\napprovers = ["approve"]'
        settings.write_text(settings.read_text() + "\n[web]\n" + "\n".join(lines) + f"\n{roles}\n")
        self.home = find_node(home.root)
        accounts = LocalAccounts(self.home.persons, lambda: int(time.time()))
        assert self.home.config.web is not None
        self.services = replace(self.pages.services, accounts=accounts, settings=self.home.config.web)
        self.app = build_app(self.services, (make_login_part(self.home),))

    def browser(self) -> TestClient:
        return TestClient(self.app, base_url=ORIGIN, follow_redirects=False, client=("127.0.0.1", 5))


@pytest.mark.provider
def test_a_person_signs_in_at_a_certified_provider(tmp_path: Path) -> None:
    with run_provider(f"{ORIGIN}/login/provider/back") as issuer:
        house = ProviderHouse(tmp_path, issuer)
        with house.pages:
            client = house.browser()
            assert issuer in client.get("/login").text
            start = client.get("/login/provider").headers["location"]
            assert "code_challenge_method=S256" in start
            back = sign_in_there(start, "ada")
            done = client.get(back)
            assert (done.status_code, done.headers["location"]) == (303, "/")
            session = house.services.sessions.find(client.cookies["coterie_north"])
            assert session is not None
            assert session.person == Person(f"{issuer}#ada", "Ada Lovelace", frozenset({Role.READ, Role.APPROVE}))
            assert client.get("/studies").status_code == 200
            assert client.get(back).status_code == 409  # an answer counts once
            stranger = house.browser()
            stranger.get("/login/provider")
            assert "another question" in stranger.get(back).text  # of another browser
            (entry,) = house.home.persons.log.read()
            assert (entry.act, entry.person) == ("sign-in", "Ada Lovelace")


@pytest.mark.provider
def test_an_answer_to_another_client_s_question_signs_nobody_in(tmp_path: Path) -> None:
    with run_provider(f"{ORIGIN}/login/provider/back") as issuer:
        theirs, ours = ProviderHouse(tmp_path / "a", issuer, "another-service"), ProviderHouse(tmp_path / "b", issuer)
        with theirs.pages, ours.pages:
            one, two = theirs.browser(), ours.browser()
            one.get("/login")
            back = sign_in_there(one.get("/login/provider").headers["location"], "ada")
            own = two.get("/login/provider").headers["location"]
            state = own.partition("state=")[2].partition("&")[0]
            code = back.partition("code=")[2].partition("&")[0]
            refused = two.get(f"/login/provider/back?code={code}&state={state}")
            assert (refused.status_code, "CO-F440" in refused.text) == (409, True)
