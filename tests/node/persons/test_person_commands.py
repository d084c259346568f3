"""`coterie person`, and persons who sign at the command line."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from support.node.commands import refusal, run
from support.node.houses import make_node_folder
from support.node.persons import PASSPHRASE, join_network, typed

from coterie_node.cli.site.signing import make_signer
from coterie_node.errors import ConfigError
from coterie_node.persons.acts import recover_signer
from coterie_node.persons.register import encode_canonical
from coterie_node.site.decisions import make_decision
from coterie_node.site.folder import SiteFolder
from coterie_node.site.votes import Ballot
from coterie_node.verbs.signing import PersonKeySigner, record_ballot, record_decision

STUDY = bytes(31) + b"\x05"


@pytest.fixture
def home(tmp_path: Path) -> SiteFolder:
    """A node of one site, on a network."""
    folder = make_node_folder(tmp_path / "north", "north")
    join_network(folder)
    return folder


def add(home: SiteFolder, name: str, *roles: str) -> str:
    options = [word for role in roles for word in ("--role", role)]
    with typed() as descriptor:
        return run("person", "add", name, *options, "--node", home.root, "--passphrase-fd", descriptor, "--light")


def test_a_person_is_added_listed_removed_and_nothing_of_it_is_forgotten(home: SiteFolder) -> None:
    assert "has no register of persons" in run("person", "list", "--node", home.root)
    assert "Public key: 0x" in add(home, "Ada Berg", "approve", "propose")
    (keyfile,) = (home.root / "persons" / "keys").iterdir()
    assert json.loads(keyfile.read_text())["version"] == 3
    for path in (keyfile, home.persons.register_path, home.persons.log.path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with typed() as descriptor:
        options = ("--node", home.root, "--passphrase-fd", descriptor, "--light")
        assert refusal("person", "add", "ada berg", *options).code == "CO-F431"
    with typed("short") as descriptor:
        options = ("--node", home.root, "--passphrase-fd", descriptor, "--light")
        assert refusal("person", "add", "Bo Dahl", *options).code == "CO-F439"
    (row,) = json.loads(run("person", "list", "--node", home.root, "--json"))
    assert (row["name"], row["roles"], row["until"]) == ("Ada Berg", "approve, propose", "")
    run("person", "remove", "Ada Berg", "--node", home.root)
    assert not keyfile.exists()
    assert refusal("person", "remove", "Ada Berg", "--node", home.root).code == "CO-F432"
    (row,) = json.loads(run("person", "list", "--node", home.root, "--json"))
    assert row["until"]
    acts = [entry["act"] for entry in json.loads(run("person", "log", "--node", home.root, "--json"))]
    assert acts == ["person added", "person removed"]
    assert "Each entry follows from the one before it: 2 in all. 0 signed statements fit them." in run(
        "person", "log", "--verify", "--node", home.root
    )


def test_the_exported_register_is_signed_by_the_site(home: SiteFolder) -> None:
    from eth_utils.crypto import keccak

    add(home, "Ada Berg", "approve")
    document = json.loads(run("person", "export", "--node", home.root))
    signature = document.pop("signature")
    prefixed = b"\x19Coterie register\n" + encode_canonical(document)
    assert recover_signer(bytes(keccak(prefixed)), signature) == document["address"]
    assert document["address"] == home.load_keys().address.lower()
    assert document["digest"] == home.persons.require_register().digest


def test_a_decision_and_a_vote_carry_the_signature_of_the_person_who_is_named(home: SiteFolder) -> None:
    add(home, "Ada Berg", "approve", "operate")
    decision = make_decision(STUDY, "approve")
    with pytest.raises(ConfigError, match="nobody signs this act") as caught:
        record_decision(home, decision)
    assert caught.value.code == "CO-F434"
    with typed("another passphrase") as descriptor, pytest.raises(ConfigError, match="does not open") as caught:
        record_decision(home, decision, make_signer(home, "Ada Berg", descriptor))
    assert (caught.value.code, home.decisions.count(STUDY)) == ("CO-F439", 0)
    with typed() as descriptor:
        signer = make_signer(home, "Ada Berg", descriptor)
        record_decision(home, decision, signer)
        record_ballot(home, Ballot(motion="resume", subject="3"), signer=signer)
    latest = home.decisions.latest(STUDY)
    assert latest is not None
    assert (latest.by, len(latest.signatures), PASSPHRASE in latest.model_dump_json()) == ("Ada Berg", 1, False)
    (path,) = home.ballots.waiting()
    ballot = home.ballots.read(path)
    assert ballot.by == "Ada Berg"
    assert ballot.signature is not None
    ballot.signature.check()


def test_without_a_register_an_unnamed_operator_acts_and_no_variable_names_anybody(
    home: SiteFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("USER", "ada")
    monkeypatch.setenv("SUDO_USER", "ada")
    record_decision(home, make_decision(STUDY, "approve"), make_signer(home, None, None))
    record_ballot(home, Ballot(motion="resume", subject="3"))
    latest = home.decisions.latest(STUDY)
    assert latest is not None
    assert (latest.by, latest.signatures) == ("unnamed operator of north", ())
    assert "an unnamed operator of north acts" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="has no register") as caught:
        record_decision(home, make_decision(STUDY, "approve"), PersonKeySigner("Ada Berg", lambda _: PASSPHRASE))
    assert caught.value.code == "CO-F434"
    assert [e.person for e in home.persons.log.read()] == ["unnamed operator of north"] * 2
