"""What a study that waits for this site wants of its people, in words."""

from __future__ import annotations

from dataclasses import replace

from support.node.houses import NodeNetwork, study_file

from coterie_node.site.decisions import make_decision
from coterie_node.site.folder import find_node
from coterie_node.verbs.studies import describe_duty


def duty(network: NodeNetwork, name: str) -> str:
    return describe_duty(find_node(network.root / name), network.chain.ledger(None).view(1))


def test_a_site_that_is_waited_for_reads_what_it_must_do_and_not_its_own_name(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.settle()
    undecided = duty(node_network, "west")
    assert "coterie study approve 1" in undecided
    assert "west" not in undecided
    node_network.approve(study, "west")
    assert "the daemon joins" in duty(node_network, "west")
    node_network.decisions("west").record(make_decision(study, "decline"))
    assert "does not take part" in duty(node_network, "west")


def test_a_payload_that_waits_for_a_person_is_named_before_the_daemon(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.settle()
    node_network.approve(study, "south", "west")
    node_network.settle()
    home = find_node(node_network.root / "west")
    waiting = home.releases / study.hex()[:16]
    waiting.mkdir(parents=True, exist_ok=True)
    (waiting / "0-0.json").write_text("{}")
    view = replace(node_network.chain.ledger(None).view(1))
    assert "coterie release approve DIGEST" in describe_duty(home, view)
