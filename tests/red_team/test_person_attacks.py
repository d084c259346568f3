"""Attacks on who somebody is: names of others, names that look alike, locks that talk, races, lying providers."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
from argon2 import PasswordHasher
from starlette.testclient import TestClient
from support.node.authenticators import SoftAuthenticator
from support.node.pages import PageHouse
from support.node.persons import entry_of, join_network, key_of
from support.node.small_providers import CLIENT, SmallProvider, run_small_provider, sign_in_by

from coterie_chain.keys.private_files import write_private
from coterie_node.errors import ConfigError, NodeError
from coterie_node.persons.accounts import MOST_FAILURES, LocalAccounts, is_hash_of
from coterie_node.persons.folder import PersonsFolder
from coterie_node.persons.names import check_person_name, fold_name
from coterie_node.persons.register import PersonRegister
from coterie_node.persons.roles import Role
from coterie_node.site.config import OidcPart
from coterie_node.site.folder import find_node
from coterie_node.web.access import PagePart
from coterie_node.web.app import build_app
from coterie_node.web.file_accounts import MOST_WRONG, FileAccounts
from coterie_node.web.login.passkeys import PasskeyPages, read_registration
from coterie_node.web.login.provider import ProviderPages

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ADA, EVE, PASSWORD = "Ada Berg", "Eve Falk", "the lid of the well is oak"
ORIGIN, NOW = "http://north.localhost:9480", 1_700_000_010
APPROVE = {"groups": ["approvers"]}


def make_accounts(root: Path) -> LocalAccounts:
    folder = PersonsFolder(root / "persons")
    folder.save_register(PersonRegister(entries=(entry_of(ADA, 1, 0, Role.READ, Role.APPROVE),)))
    accounts = LocalAccounts(folder, lambda: NOW, QUICK)
    accounts.set_password(ADA, PASSWORD)
    return accounts


def together(count: int, work: Any) -> list[Any]:
    """What several threads get that begin at one moment; a refusal is its code."""
    barrier, outcomes = threading.Barrier(count), []

    def run() -> None:
        barrier.wait()
        try:
            outcomes.append(work())
        except NodeError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


# Identity providers


class ProvidedHouse:
    """The page of north, whose persons come from a provider."""

    def __init__(self, root: Path, provider: SmallProvider) -> None:
        self.pages = PageHouse(root)
        join_network(self.pages.network.homes["north"])
        self.home = find_node(self.pages.network.homes["north"].root)
        write_private(self.home.root / "oidc.secret", "secret of the client\n")
        entries = tuple(entry_of(name, 1, 0, Role.APPROVE).model_copy(update={"keys": ()}) for name in (ADA, EVE))
        self.home.persons.save_register(PersonRegister(entries=entries))
        settings = OidcPart(issuer=provider.address, client_id=CLIENT, roles={"approvers": (Role.APPROVE,)})
        routes = (*PasskeyPages(self.home).routes, *ProviderPages(self.home, settings).routes)
        services = self.pages.services
        object.__setattr__(services, "accounts", LocalAccounts(self.home.persons, lambda: NOW, QUICK))
        self.app, self.provider = build_app(services, (PagePart(routes=routes),)), provider

    def enter(self, **claims: Any) -> tuple[TestClient, Any]:
        client = TestClient(self.app, base_url=ORIGIN, follow_redirects=False)
        return client, sign_in_by(client, self.provider, **claims)


@pytest.fixture
def provided(tmp_path: Path) -> Iterator[ProvidedHouse]:
    with run_small_provider() as provider:
        house = ProvidedHouse(tmp_path, provider)
        with house.pages:
            yield house


def test_nobody_takes_the_name_of_another_at_the_provider_and_signs_as_two(provided: ProvidedHouse) -> None:
    """Eve renames herself at the provider: as Ada she would register a passkey, and be four eyes alone."""
    assert provided.enter(sub="1", name=ADA, **APPROVE)[1].status_code == 303
    eve, entry = provided.enter(sub="2", name=EVE, **APPROVE)
    assert (entry.status_code, eve.get("/passkeys").status_code) == (303, 200)
    for subject, name in (("2", ADA), ("3", ADA), ("3", "ADA  BERG".replace("  ", " ")), ("2", "Somebody Else")):
        thief, refused = provided.enter(sub=subject, name=name, **APPROVE)
        assert (refused.status_code, "CO-F443" in refused.text) == (409, True), name
        assert thief.get("/passkeys").headers["location"].startswith("/login")
    assert provided.enter(sub="2", name=EVE, **APPROVE)[1].status_code == 303  # she still is who she was


@pytest.mark.long
def test_a_provider_gives_nobody_the_name_of_an_account_of_this_site(provided: ProvidedHouse) -> None:
    LocalAccounts(provided.home.persons, lambda: NOW, QUICK).set_password(ADA, PASSWORD)
    assert "CO-F443" in provided.enter(sub="9", name=ADA, **APPROVE)[1].text


LIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("none", {}),
    ("HS256", {}),
    ("RS256", {"nonce": None}),
    ("RS256", {"nonce": ["n"]}),
    ("RS256", {"iss": "https://other.example"}),
    ("RS256", {"aud": None}),
    ("RS256", {"exp": None}),
    ("RS256", {"sub": {"id": 1}}),
)


@pytest.mark.long
def test_no_token_of_a_lie_signs_anybody_in(provided: ProvidedHouse) -> None:
    for algorithm, claims in LIES:
        provided.provider.algorithm = algorithm
        client, refused = provided.enter(**({"name": ADA, **APPROVE} | claims))
        assert (refused.status_code, "CO-F440" in refused.text) == (409, True), (algorithm, claims)
        assert client.get("/studies").headers["location"].startswith("/login")


# Local accounts


def test_a_lock_does_not_say_which_names_have_an_account(tmp_path: Path) -> None:
    accounts = make_accounts(tmp_path)
    answers: dict[str, list[str]] = {}
    for name in (ADA, "Nobody Here"):
        for _ in range(MOST_FAILURES + 2):
            try:
                outcome = str(accounts.check(name, "another password", ""))
            except ConfigError as error:
                outcome = f"{error.code} {error.message}"
            answers.setdefault(name, []).append(outcome)
    assert answers[ADA] == answers["Nobody Here"]
    assert answers[ADA][-1].startswith("CO-F438")


def test_one_code_opens_one_session_however_many_send_it_at_once(tmp_path: Path) -> None:
    accounts = make_accounts(tmp_path)
    uri, recovery = accounts.enrol(ADA, "north")
    code = pyotp.TOTP(parse_qs(urlsplit(uri).query)["secret"][0]).at(NOW)
    for typed in (code, recovery[0]):
        persons = together(4, lambda typed=typed: accounts.check(ADA, PASSWORD, typed))
        assert sum(person is not None for person in persons) == 1
        accounts.set_password(ADA, PASSWORD)  # ends the lock
    restarted = LocalAccounts(PersonsFolder(tmp_path / "persons"), lambda: NOW, QUICK)
    assert [restarted.check(ADA, PASSWORD, typed) for typed in (code, recovery[0])] == [None, None]


def test_guesses_at_once_are_counted_as_guesses_in_turn(tmp_path: Path) -> None:
    accounts = FileAccounts(tmp_path / "accounts.json", hasher=QUICK)
    accounts.save("ada", ADA, (Role.READ,), PASSWORD)
    outcomes = together(MOST_WRONG + 5, lambda: accounts.check("ada", "another password", ""))
    assert (outcomes.count(None), outcomes.count("CO-W106")) == (MOST_WRONG, 5)


@pytest.mark.parametrize("asked", ["m=1073741824,t=1,p=1", "m=8,t=100000000,p=1", "m=8192,t=1,p=1000", "x"])
def test_no_file_makes_a_login_take_all_memory_or_time(asked: str) -> None:
    hashed = QUICK.hash(PASSWORD).replace("m=8,t=1,p=1", asked)
    assert not is_hash_of(QUICK, hashed, PASSWORD)
    assert is_hash_of(QUICK, QUICK.hash(PASSWORD), PASSWORD)


# The register


@pytest.mark.parametrize(
    "name", ["In\u0261rid Berg", "A\u01c0an Berg", "\u1d0fla Dahl", "Ada\u2009Berg", "Ada \u202eBerg"]
)
def test_no_name_is_written_with_letters_that_pass_for_others(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_person_name(name)
    assert caught.value.code == "CO-F431"


def test_names_of_many_languages_stay_names_and_dashes_are_one() -> None:
    for name in ("Nguyễn Thị Ơn", "Łukasz Wiśniewski", "Þórr Æsir", "Əli Ağa", "山田 はな", "Ayọ Ọlá"):
        assert check_person_name(name) == name
    dashes = "-\u2010\u2011\u2012\u2013\u2014\u2212"
    assert {fold_name(f"Ann{dash}Marie") for dash in dashes} == {fold_name("Ann-Marie")}


def test_a_change_of_the_register_loses_no_other(tmp_path: Path) -> None:
    """One who asks for a passphrase meanwhile wrote the register back as it was, with whom it had removed."""
    folder = PersonsFolder(tmp_path / "persons")
    folder.save_register(PersonRegister(entries=(entry_of(EVE, 1),)))
    names = iter([f"{first} Berg" for first in ("Ada", "Bo", "Cy", "Dag")])
    together(4, lambda: folder.change_register(lambda register: register.add(entry_of(next(names), 1))))
    assert len(folder.require_register().entries) == 5
    folder.change_register(lambda register: register.end(EVE, NOW))
    with pytest.raises(ConfigError) as caught:  # a page that was open before the removal
        folder.change_register(lambda register: register.add_key(EVE, key_of("another"), NOW))
    assert caught.value.code == "CO-F432"
    assert folder.require_register().list_valid(NOW)[0].name != EVE


@pytest.fixture
def plain_recursion() -> Iterator[None]:
    """The limit that a page's process has; packages of the tests raise it."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("plain_recursion")
@pytest.mark.parametrize("answer", ["[" * 16_000, '{"id":"a"}', "\ud800", '{"response":' + "[" * 9000])
def test_no_answer_of_a_browser_breaks_the_page(answer: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_registration(answer, bytes(32), ORIGIN)
    assert caught.value.code == "CO-F442"


@pytest.mark.usefixtures("plain_recursion")
@pytest.mark.parametrize("raw", [b"\x81" * 9000, b"\xbf" * 9000, b"\x5b" + b"\xff" * 8, b""])
def test_no_attestation_breaks_the_page(raw: bytes) -> None:
    device = SoftAuthenticator(ORIGIN)
    good = device._answer(  # the browser's form around what no device makes
        clientDataJSON=device._client("webauthn.create", {"challenge": "AAAA"}), attestationObject=raw
    )
    with pytest.raises(ConfigError) as caught:
        read_registration(good, bytes(3), ORIGIN)
    assert caught.value.code == "CO-F442"
