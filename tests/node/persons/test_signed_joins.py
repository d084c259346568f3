"""Persons sign, the site joins, and everybody can check who signed what: on three daemons in one process."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from support.node.houses import NETWORK, NodeNetwork, study_file
from support.node.persons import PersonsNetwork, decide, sign_as

from coterie_chain.ledger.memory import MemoryLedger
from coterie_chain.ledger.protocol import Event, State
from coterie_node.audit.approvals.act_anchors import CLOCK_SECONDS, find_anchors
from coterie_node.audit.approvals.signatures import SignedJoin, check_signatures
from coterie_node.errors import AuditFailed, ConfigError
from coterie_node.persons.act_log import ActLog, LogHead
from coterie_node.persons.approval_statement import ApprovalStatement
from coterie_node.persons.folder import PersonsFolder
from coterie_node.persons.roles import Role
from coterie_node.site.decisions import make_decision
from coterie_node.site.folder import SiteFolder
from coterie_node.site.statements.approvals import ActSubject, make_domain

DOMAIN = make_domain(NETWORK)


def propose(network: NodeNetwork) -> int:
    """Put a study on the ledger."""
    network.propose(study_file(network.root))
    for _ in range(3):
        network.daemons["north"].tick()
    return network.chain.ledger(None).studies()[-1]


def check(network: NodeNetwork, number: int) -> dict[str, SignedJoin]:
    joins = check_signatures(network.chain.ledger(None), network.blobs, number, DOMAIN)
    return {join.site: join for join in joins}


def test_an_honest_join_says_who_signed_what_and_when(node_network: NodeNetwork) -> None:
    home = PersonsNetwork(node_network).open("south", "Ada Berg", "Bo Dahl", approvals=2)
    number, ledger = propose(node_network), node_network.chain.ledger(None)
    view, now = ledger.view(number), int(node_network.seconds)
    decide(home, view, now, "Ada Berg", "Bo Dahl")
    node_network.approve(view.terms.hash, "west")
    node_network.settle()
    assert ledger.view(number).state == State.COMPLETED
    joins = check(node_network, number)
    assert [s.name for s in joins["south"].signatures] == ["Ada Berg", "Bo Dahl"]
    (line, _) = joins["south"].sentences
    assert line.startswith('Signed by Ada Berg for south, in the role "approve", on 1970-01-12 ')
    assert "I have read this study and approve that my site takes part." in line
    assert joins["west"].sentences == [
        "west joined without signatures of persons: an unnamed operator of west approved."
    ]
    head = home.persons.log.verify(s.log for s in home.persons.list_statements())
    assert head.entries == 2


def test_one_pair_of_eyes_does_not_join_where_the_policy_asks_for_two(node_network: NodeNetwork) -> None:
    home = PersonsNetwork(node_network).open("south", "Ada Berg", "Bo Dahl", approvals=2)
    number, ledger = propose(node_network), node_network.chain.ledger(None)
    view, now = ledger.view(number), int(node_network.seconds)
    decide(home, view, now, "Ada Berg", "Ada Berg")
    for _ in range(4):
        node_network.daemons["south"].tick()
    assert ledger.view(number).joined == ("north",)
    task = node_network.daemons["south"].tasks[number]
    assert task.waits_for is not None
    assert "1 of 2 have signed" in task.waits_for.text
    decide(home, view, now, "Bo Dahl")
    for _ in range(4):
        node_network.daemons["south"].tick()
    assert ledger.view(number).joined == ("north", "south")


def test_a_site_that_does_not_publish_has_its_digest_alone_on_the_ledger(node_network: NodeNetwork) -> None:
    home = PersonsNetwork(node_network).open("south", "Ada Berg", publish=False)
    number, ledger = propose(node_network), node_network.chain.ledger(None)
    decide(home, ledger.view(number), int(node_network.seconds), "Ada Berg")
    for _ in range(4):
        node_network.daemons["south"].tick()
    (statement,) = home.persons.list_statements()
    digest = hashlib.sha256(statement.document).hexdigest()
    joined = [e for e in ledger.history() if isinstance(e, Event) and (e.name, e.site) == ("StudyJoined", "south")]
    assert dict(joined[0].details)["approvals"] == f"0x{digest}"
    join = check(node_network, number)["south"]
    assert (join.published, join.signatures, join.digest) == (False, (), digest)


def test_who_was_removed_after_signing_joins_nothing(node_network: NodeNetwork) -> None:
    home = PersonsNetwork(node_network).open("south", "Ada Berg")
    number, ledger = propose(node_network), node_network.chain.ledger(None)
    decide(home, ledger.view(number), int(node_network.seconds), "Ada Berg")
    register = home.persons.require_register()
    (entry,) = register.entries
    gone = entry.model_copy(update={"until": int(node_network.seconds)})
    home.persons.save_register(register.replace(entry, gone))
    for _ in range(4):
        node_network.daemons["south"].tick()
    assert ledger.view(number).joined == ("north",)


def test_a_refusal_ends_what_was_signed_before_it(node_network: NodeNetwork) -> None:
    home = PersonsNetwork(node_network).open("south", "Ada Berg", "Bo Dahl", approvals=2)
    number, ledger = propose(node_network), node_network.chain.ledger(None)
    view, now = ledger.view(number), int(node_network.seconds)
    decide(home, view, now, "Ada Berg")
    home.decisions.record(make_decision(view.terms.hash, "withdraw", view=view))
    assert [act.text.name for act in decide(home, view, now, "Bo Dahl").signatures] == ["Bo Dahl"]


def test_a_proposal_is_signed_before_it_has_a_number(node_network: NodeNetwork) -> None:
    home = PersonsNetwork(node_network).open("north", "Ada Berg")
    study = node_network.propose(study_file(node_network.root))
    for _ in range(3):
        node_network.daemons["north"].tick()
    assert node_network.chain.ledger(None).studies() == ()  # nobody signed
    signed = sign_as(home, "Ada Berg", ActSubject(study), int(node_network.seconds), "propose")
    home.decisions.record(make_decision(study, "propose", signatures=(signed,)))
    for _ in range(3):
        node_network.daemons["north"].tick()
    (number,) = node_network.chain.ledger(None).studies()
    assert [s.name for s in check(node_network, number)["north"].signatures] == ["Ada Berg"]


def test_a_person_acts_in_the_roles_of_the_register_alone(node_network: NodeNetwork) -> None:
    home = PersonsNetwork(node_network).open("south", "Ada Berg")
    register = home.persons.require_register()
    (entry,) = register.entries
    home.persons.save_register(register.replace(entry, entry.model_copy(update={"roles": (Role.READ,)})))
    with pytest.raises(ConfigError, match="does not have the role") as caught:
        sign_as(home, "Ada Berg", ActSubject(), int(node_network.seconds))
    assert caught.value.code == "CO-F433"
    with pytest.raises(ConfigError) as caught:
        sign_as(home, "Eve Falk", ActSubject(), int(node_network.seconds))
    assert caught.value.code == "CO-F432"


def test_a_log_that_was_cut_does_not_reach_the_head_that_was_signed(node_network: NodeNetwork) -> None:
    home = PersonsNetwork(node_network).open("south", "Ada Berg")
    number, ledger = propose(node_network), node_network.chain.ledger(None)
    home.persons.log.append("login", "Ada Berg", "", 5)
    decide(home, ledger.view(number), int(node_network.seconds), "Ada Berg")
    for _ in range(4):
        node_network.daemons["south"].tick()
    anchors = [statement.log for statement in home.persons.list_statements()]
    whole = home.persons.log.path.read_bytes()
    assert home.persons.log.verify(anchors).entries == 2
    for changed in (whole.splitlines(True)[0], whole.replace(b"login", b"logon"), b""):
        home.persons.log.path.write_bytes(changed)
        with pytest.raises(AuditFailed, match=r"cut or changed|does not follow") as caught:
            home.persons.log.verify(anchors)
        assert caught.value.code == "CO-A215"


def join_signed(network: NodeNetwork) -> tuple[SiteFolder, MemoryLedger, ApprovalStatement]:
    """South joins the first study by a person's signature: its folder, the ledger, and what was signed."""
    home = PersonsNetwork(network).open("south", "Ada Berg")
    number, ledger = propose(network), network.chain.ledger(None)
    decide(home, ledger.view(number), int(network.seconds), "Ada Berg")
    for _ in range(4):
        network.daemons["south"].tick()
    (statement,) = home.persons.list_statements()
    return home, ledger, statement


def test_a_log_written_again_with_its_statements_is_not_that_of_the_ledger(node_network: NodeNetwork) -> None:
    home, ledger, statement = join_signed(node_network)
    assert find_anchors(ledger.history(), "south", [statement], ()) == (statement.log,)
    assert find_anchors(ledger.history(), "west", [statement], ()) == ()
    forged = statement.model_copy(update={"log": LogHead()})
    for statements in ([], [forged]):
        with pytest.raises(AuditFailed, match="join of study 1 south put the digest") as caught:
            find_anchors(ledger.history(), "south", statements, home.decisions.list_signed_files())
        assert caught.value.code == "CO-A215"
    digest = hashlib.sha256(statement.document).hexdigest()
    assert find_anchors(ledger.history(), "south", [], {digest}) == ()


def test_a_site_with_a_register_cannot_pass_a_statement_for_a_file_of_another_form(node_network: NodeNetwork) -> None:
    """The digest of a statement that was taken away, written into a decision, would make a log without any head."""
    _, ledger, statement = join_signed(node_network)
    files = {hashlib.sha256(statement.document).hexdigest()}
    joined = next(
        e.time for e in ledger.history() if isinstance(e, Event) and (e.name, e.site) == ("StudyJoined", "south")
    )
    assert find_anchors(ledger.history(), "south", [], files, joined) == ()
    assert find_anchors(ledger.history(), "south", [], files, joined - CLOCK_SECONDS) == ()
    with pytest.raises(AuditFailed, match="join of study 1 south put the digest") as caught:
        find_anchors(ledger.history(), "south", [], files, joined - CLOCK_SECONDS - 1)
    assert caught.value.code == "CO-A215"
    assert find_anchors(ledger.history(), "south", [statement], files, 0) == (statement.log,)


@pytest.mark.parametrize("form", [b'{"person":"Eve","number"', b'{ "number"', b'{"extra":1,"number"'])
def test_a_line_of_the_log_has_one_spelling(form: bytes, tmp_path: Path) -> None:
    """What a person reads in the file is what the hash is of: no key stands twice, and nothing beside."""
    log = ActLog(tmp_path / "log.jsonl")
    log.append("login", "Ada Berg", "", 5)
    assert log.verify().entries == 1
    log.path.write_bytes(log.path.read_bytes().replace(b'{"number"', form))
    with pytest.raises(ConfigError) as caught:
        log.verify()
    assert caught.value.code == "CO-F437"


def test_a_line_that_a_crash_cut_short_is_written_again_and_garbage_is_not(tmp_path: Path) -> None:
    log = ActLog(tmp_path / "persons" / "log.jsonl")
    log.append("login", "Ada Berg", "", 5)
    head = log.append("vote", "Bo Dahl", "resume 3", 6)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-7])
    assert (log.head.entries, [entry.act for entry in log.read()]) == (1, ["login"])
    assert log.append("vote", "Bo Dahl", "resume 3", 6) == head
    assert log.path.read_bytes() == whole
    assert log.verify().entries == 2
    for garbage in (b"{}\n", b"x" * 40_000, b"x" * 40_000 + b"\n"):
        log.path.write_bytes(whole + garbage)
        with pytest.raises(ConfigError) as caught:
            log.append("login", "Ada Berg", "", 7)
        assert caught.value.code == "CO-F437"
        assert log.path.read_bytes() == whole + garbage


def test_changed_settings_are_in_the_log_once(tmp_path: Path) -> None:
    folder = PersonsFolder(tmp_path / "persons")
    for settings in (b"ask = true", b"ask = true", b"ask = false"):
        folder.note_settings(settings, 5)
    assert [entry.act for entry in folder.log.read()] == ["settings", "settings"]
