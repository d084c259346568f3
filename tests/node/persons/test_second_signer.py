"""The next person signs what the first has proposed, without its file; one signature withdraws every vote it names."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.node.houses import NodeNetwork, study_file
from support.node.pages import PageHouse, find_token
from support.node.persons import add_persons, entry_of, in_memory, join_network, secret_of, sign_as

from coterie_chain.ledger.protocol import ZERO
from coterie_node.errors import ConfigError
from coterie_node.persons.acts import ActKind, SignedAct, sign_act
from coterie_node.persons.roles import Role
from coterie_node.run.study_files import amend_study, load_study
from coterie_node.site.folder import SiteFolder
from coterie_node.site.statements.approvals import ActSubject
from coterie_node.site.statements.open_votes import list_open_votes
from coterie_node.verbs.decide import find_proposed, propose
from coterie_node.verbs.members import withdraw_votes
from coterie_node.verbs.signing import PreparedSigner, prepare_text


@dataclass(frozen=True)
class KeyOf:
    """A person who signs with a key of the tests."""

    name: str

    def sign(self, home: SiteFolder, act: ActKind, subject: ActSubject) -> SignedAct:
        return sign_as(home, self.name, subject, int(time.time()), act)  # type: ignore[arg-type]


def open_site(network: NodeNetwork, *names: str, approvals: int = 2) -> SiteFolder:
    """A site whose persons sign by the clock of this machine."""
    home = network.homes["north"]
    join_network(home)
    home = add_persons(home, int(time.time()) - 60, *names, approvals=approvals)
    register = home.persons.require_register()
    for entry in register.entries:
        register = register.replace(entry, entry_of(entry.name, entry.since, 0, *Role))
    home.persons.save_register(register)
    network.homes["north"] = home
    return in_memory(network, home)


def signers_of(home: SiteFolder, study: bytes) -> list[tuple[str, str]]:
    decision = home.decisions.latest(study)
    assert decision is not None
    return [(act.text.name, act.text.act) for act in decision.signatures]


def test_the_second_person_finds_the_document_at_the_site(node_network: NodeNetwork) -> None:
    home = open_site(node_network, "Ada Berg", "Bo Dahl")
    path = study_file(node_network.root)
    study = load_study(path)
    lines = propose(home, study, signer=KeyOf("Ada Berg"))
    assert any("1 of 2; the node joins once another person has approved too" in line for line in lines)
    path.unlink()
    found = find_proposed(home, study.hash.hex()[:8])
    assert found.document == study.document
    assert any("Signed by Ada Berg, Bo Dahl: 2 of 2." in line for line in propose(home, found, signer=KeyOf("Bo Dahl")))
    assert signers_of(home, study.hash) == [("Ada Berg", "propose"), ("Bo Dahl", "propose")]


@pytest.mark.long
def test_the_second_person_of_an_amendment_signs_an_amendment(node_network: NodeNetwork) -> None:
    home = open_site(node_network, "Ada Berg", "Bo Dahl")
    study = amend_study(load_study(study_file(node_network.root)), b"\x07" * 32, "the permit was renewed")
    propose(home, study, signer=KeyOf("Ada Berg"), act="amend")
    propose(home, find_proposed(home, study.hash.hex()), signer=KeyOf("Bo Dahl"))
    assert signers_of(home, study.hash) == [("Ada Berg", "amend"), ("Bo Dahl", "amend")]


@pytest.mark.parametrize(
    "digits", [pytest.param("", marks=pytest.mark.long), pytest.param("0123456", marks=pytest.mark.long), "0" * 64]
)
def test_only_a_proposal_of_this_site_is_found(node_network: NodeNetwork, digits: str) -> None:
    home = in_memory(node_network, node_network.homes["north"])
    node_network.propose(study_file(node_network.root))
    with pytest.raises(ConfigError, match="0 proposals of north") as caught:
        find_proposed(home, digits)
    assert caught.value.code == "CO-F304"


def test_the_page_leads_the_second_person_to_the_document(tmp_path: Path) -> None:
    with PageHouse(tmp_path) as pages:
        home = open_site(pages.network, "Ada Lovelace", "Propose")
        pages.services.site.folder = home
        study = load_study(study_file(tmp_path))
        propose(home, study, signer=KeyOf("Ada Lovelace"))
        client = pages.browser("propose")
        listed = pages.browser("ada").get("/studies").text
        assert "1 of 2 have signed: another person has to approve too." in listed
        assert f'href="/propose?study={study.hash.hex()}"' in listed
        shown = client.get(f"/propose?study={study.hash.hex()}")
        assert (shown.status_code, f"SHA-256 <code>{study.hash.hex()}</code>" in shown.text) == (200, True)
        fields = {"csrf": find_token(shown.text), "act": "propose", "text": study.document.decode()}
        moved = client.post("/propose", data=fields)
        assert (moved.status_code, moved.headers["location"].startswith("/sign/")) == (303, True)
        assert client.get("/propose?study=" + "0" * 64).status_code == 409


def cast_two_votes(network: NodeNetwork) -> None:
    """North votes against two members; neither vote passes alone."""
    ledger = network.chain.ledger(network.keys["north"].address)
    ledger.revoke("west")
    entry = next(member for member in ledger.sites() if member.name == "west")
    ledger.recover("west", "0x" + "77" * 20, entry.sealing)


def test_one_signature_withdraws_every_vote_about_a_member(node_network: NodeNetwork) -> None:
    home = open_site(node_network, "Ada Berg", approvals=1)
    cast_two_votes(node_network)
    text = prepare_text("Ada Berg", lambda signer: withdraw_votes(home, "west", signer=signer))
    assert home.ballots.waiting() == []
    prepared = PreparedSigner(text, sign_act(text, secret_of("Ada Berg")))
    taken = withdraw_votes(home, "west", signer=prepared)
    ballots = [home.ballots.read(path) for path in home.ballots.waiting()]
    assert {ballot.subject for ballot in ballots} == {vote.motion.hex() for vote in taken}
    assert len(ballots) == 2
    assert {ballot.by for ballot in ballots} == {"Ada Berg"}
    assert all(ballot.signature == prepared.signed for ballot in ballots)
    ledger = node_network.chain.ledger(node_network.keys["north"].address)
    for ballot in ballots:
        ballot.cast(ledger, node_network.blobs)
    assert list_open_votes(ledger, ledger.history(0)) == []


@pytest.mark.long
def test_a_signature_of_other_votes_withdraws_none(node_network: NodeNetwork) -> None:
    """Another vote was cast between the text and its signature."""
    home = open_site(node_network, "Ada Berg", approvals=1)
    node_network.chain.ledger(node_network.keys["north"].address).revoke("west")
    text = prepare_text("Ada Berg", lambda signer: withdraw_votes(home, "west", signer=signer))
    ledger = node_network.chain.ledger(node_network.keys["north"].address)
    entry = next(member for member in ledger.sites() if member.name == "west")
    ledger.recover("west", "0x" + "77" * 20, entry.sealing)
    with pytest.raises(ConfigError):
        withdraw_votes(home, "west", signer=PreparedSigner(text, sign_act(text, secret_of("Ada Berg"))))
    assert home.ballots.waiting() == []
    assert ZERO not in {vote.motion for vote in list_open_votes(ledger, ledger.history(0))}


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (ActSubject(b"\xab" * 32, 5, "c" * 64), "study abababababababab, proposal 5, digest cccccccccccccccc"),
        (ActSubject(b"\xab" * 32), "study abababababababab"),
        (ActSubject(about="c" * 64), "digest cccccccccccccccc"),
    ],
)
def test_the_log_of_acts_names_only_what_an_act_is_about(subject: ActSubject, words: str) -> None:
    assert subject.words == words
