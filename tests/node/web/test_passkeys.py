"""A person registers a passkey on the page and approves a study with it; the auditor checks the signature."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.node.authenticators import PRESENT, VERIFIED, SoftAuthenticator, read_options
from support.node.houses import NETWORK, study_file
from support.node.pages import PageHouse, find_token, sign_in
from support.node.persons import in_memory, join_network

from coterie_node.audit.approvals.signatures import check_signatures
from coterie_node.persons.register import PersonEntry, PersonRegister
from coterie_node.persons.roles import Role
from coterie_node.site.folder import SiteFolder
from coterie_node.site.statements.approvals import make_domain
from coterie_node.web.app import build_app
from coterie_node.web.login.part import make_login_part

ORIGIN = "http://north.localhost:9480"
NAME = "Ada Lovelace"


class SigningHouse:
    """The page of north with its login part, over a network in memory whose clock is today's."""

    def __init__(self, root: Path) -> None:
        self.pages = PageHouse(root)
        network = self.pages.network
        network.seconds = time.time()
        join_network(network.homes["north"])
        settings = network.homes["north"].root / "node.toml"
        settings.write_text(settings.read_text().replace("publish = false", "publish = true"))
        network.daemons["north"] = network.daemon("north")
        self.home: SiteFolder = in_memory(network, network.daemons["north"].services.home)
        roles = tuple(Role)
        entry = PersonEntry(name=NAME, roles=roles, since=int(time.time()) - 60)
        self.home.persons.save_register(PersonRegister(entries=(entry,)))
        self.device = SoftAuthenticator(ORIGIN)
        self.app = build_app(self.pages.services, (make_login_part(self.home),))

    def browser(self, base: str = ORIGIN, account: str = "ada") -> TestClient:
        client = TestClient(self.app, base_url=base, follow_redirects=False, client=("127.0.0.1", 5))
        sign_in(client, account)
        return client

    def propose(self, root: Path) -> int:
        self.pages.propose(root)
        return self.pages.reader.ledger.studies()[-1]


def answer(client: TestClient, page: str, text: str) -> Any:
    return client.post(page, data={"csrf": find_token(client.get(page).text), "answer": text})


def answer_shown(client: TestClient, page: str, shown: str, text: str) -> Any:
    """Send the form of a page that is open already."""
    return client.post(page, data={"csrf": find_token(shown), "answer": text})


def register(client: TestClient, device: SoftAuthenticator) -> Any:
    shown = client.get("/passkeys").text
    return answer_shown(client, "/passkeys", shown, device.create(read_options(shown)))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[SigningHouse]:
    signing = SigningHouse(tmp_path)
    with signing.pages:
        yield signing


def test_a_passkey_is_registered_and_approves_a_study(house: SigningHouse, tmp_path: Path) -> None:
    client, device = house.browser(), SoftAuthenticator(ORIGIN)
    number = house.propose(tmp_path)
    assert "You have no passkey on this address" in client.get(f"/sign/approve/{number}").text
    assert register(client, device).status_code == 303
    assert f"on {ORIGIN}" in client.get("/passkeys").text
    shown = client.get(f"/sign/approve/{number}").text
    assert "I have read this study and approve that my site takes part." in shown
    done = answer_shown(client, f"/sign/approve/{number}", shown, device.get(read_options(shown)))
    assert (done.status_code, done.headers["location"]) == (303, f"/studies/{number}")
    network = house.pages.network
    for _ in range(4):
        network.daemons["north"].tick()
    ledger = network.chain.ledger(None)
    assert "north" in ledger.view(number).joined
    joins = {j.site: j for j in check_signatures(ledger, network.blobs, number, make_domain(NETWORK))}
    (signature,) = joins["north"].signatures
    assert (signature.name, signature.key.endswith(f"on {ORIGIN}")) == (NAME, True)
    acts = [entry.act for entry in house.home.persons.log.read()]
    assert acts == ["passkey registered", "approve"]


def test_the_study_s_own_form_leads_to_the_signature(house: SigningHouse, tmp_path: Path) -> None:
    client, number = house.browser(), house.propose(tmp_path)
    settings = house.pages.network.homes["north"]
    assert settings.persons.read_register() is not None
    for form, act in (("approve", "approve"), ("decline", "decline"), ("end", "abort")):
        fields = {"csrf": find_token(client.get("/studies").text), "read": "yes"}
        moved = client.post(f"/studies/{number}/{form}", data=fields)
        assert (moved.status_code, moved.headers.get("location")) == (303, f"/sign/{act}/{number}")


def sign_form(house: SigningHouse, client: TestClient, page: str, action: str, **fields: str) -> Any:
    """Send a form, and sign what it leads to; the answer to the signature."""
    moved = client.post(action, data={"csrf": find_token(client.get(page).text), **fields})
    assert moved.status_code == 303, moved.text
    place = moved.headers["location"]
    assert place.startswith("/sign/"), place
    shown = client.get(place).text
    return answer_shown(client, place, shown, house.device.get(read_options(shown)))


def test_proposals_amendments_and_votes_are_signed_on_the_page(house: SigningHouse, tmp_path: Path) -> None:
    client, number = house.browser(), house.propose(tmp_path)
    register(client, house.device)
    text = study_file(tmp_path, "signed").read_text()
    done = sign_form(house, client, "/propose", "/propose", act="propose", text=text)
    assert (done.status_code, done.headers["location"]) == (303, "/studies")
    again = study_file(tmp_path, "amended").read_text()
    fields = {"act": "propose", "text": again, "amends": str(number), "why": "the wrong outcome"}
    assert sign_form(house, client, "/propose", "/propose", **fields).status_code == 303
    done = sign_form(house, client, "/network", "/network/vote", motion="revoke", site="west")
    assert (done.status_code, done.headers["location"]) == (303, "/network")
    acts = [entry.act for entry in house.home.persons.log.read()]
    assert acts == ["passkey registered", "propose", "amend", "vote"]
    (waiting,) = house.home.ballots.waiting()
    ballot = house.home.ballots.read(waiting)
    assert (ballot.motion, ballot.subject, ballot.by) == ("revoke", "west", NAME)
    assert ballot.signature is not None
    for proposal in house.home.decisions.proposals():
        decision = house.home.decisions.latest(proposal)
        assert decision is not None
        assert [act.text.name for act in decision.signatures] == [NAME]


def test_a_question_is_of_one_session_and_is_answered_once(house: SigningHouse) -> None:
    client, other = house.browser(), house.browser()
    register(client, house.device)
    fields = {"csrf": find_token(client.get("/studies").text), "motion": "revoke", "site": "west"}
    place = client.post("/network/vote", data=fields).headers["location"]
    assert (other.get(place).status_code, "CO-F442" in other.get(place).text) == (409, True)
    shown = client.get(place).text
    signed = house.device.get(read_options(shown))
    assert answer_shown(client, place, shown, signed).status_code == 303
    assert answer_shown(client, place, shown, signed).status_code == 409
    assert len(house.home.ballots.waiting()) == 1


def test_a_reason_of_the_study_s_form_stands_in_the_signature_s(house: SigningHouse, tmp_path: Path) -> None:
    client, number = house.browser(), house.propose(tmp_path)
    register(client, house.device)
    fields = {"csrf": find_token(client.get("/studies").text), "reason": "no rows of this kind"}
    place = client.post(f"/studies/{number}/decline", data=fields).headers["location"]
    assert 'value="no rows of this kind"' in client.get(place).text
    # A form that is sent before the script listens has no answer, and its question is used up.
    for page in (place, "/passkeys"):
        assert "<button disabled>" in client.get(page).text, page


def test_an_answer_counts_once_and_for_its_own_question(house: SigningHouse, tmp_path: Path) -> None:
    client, device = house.browser(), SoftAuthenticator(ORIGIN)
    number = house.propose(tmp_path)
    register(client, device)
    page = f"/sign/approve/{number}"
    shown = client.get(page).text
    other = client.get(f"/sign/decline/{number}").text
    refused = answer_shown(client, page, shown, device.get(read_options(other)))
    assert (refused.status_code, "CO-F442" in refused.text) == (409, True)
    replayed = answer_shown(client, page, shown, device.get(read_options(shown)))
    assert (replayed.status_code, "given already" in replayed.text) == (409, True)
    assert house.home.decisions.latest(house.pages.reader.ledger.view(number).terms.hash) is None


@pytest.mark.parametrize(
    "device",
    [
        SoftAuthenticator("http://evil.localhost:9480"),
        SoftAuthenticator("https://north.localhost:9480"),
        SoftAuthenticator(ORIGIN, PRESENT),
        SoftAuthenticator(ORIGIN, VERIFIED),
    ],
)
def test_no_passkey_is_taken_of_another_origin_or_without_verifying(
    house: SigningHouse, device: SoftAuthenticator
) -> None:
    refused = register(house.browser(), device)
    assert (refused.status_code, "CO-F442" in refused.text) == (409, True)
    (entry,) = house.home.persons.require_register().entries
    assert entry.keys == ()


def test_garbage_is_no_passkey_and_no_signature(house: SigningHouse, tmp_path: Path) -> None:
    client, number = house.browser(), house.propose(tmp_path)
    for text in ("", "{}", "[]", '{"id": 1}', "x" * 20_000, '{"id":"a","rawId":"a","type":"public-key","response":7}'):
        assert answer(client, "/passkeys", text).status_code == 409
    register(client, SoftAuthenticator(ORIGIN))
    for text in ("", "{}", "[]", '{"id": 1, "response": {}}', "x" * 20_000):
        assert answer(client, f"/sign/approve/{number}", text).status_code == 409


def test_who_is_not_in_the_register_or_has_not_the_role_signs_nothing(house: SigningHouse, tmp_path: Path) -> None:
    number = house.propose(tmp_path)
    refused = house.browser(account="approve").get(f"/sign/approve/{number}")
    assert (refused.status_code, "CO-F432" in refused.text) == (409, True)
    assert house.browser(account="read").get(f"/sign/approve/{number}").status_code == 403
    assert "north.localhost" in house.browser("http://127.0.0.1").get("/passkeys").text
