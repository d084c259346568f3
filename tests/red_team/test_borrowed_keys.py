"""A member chooses its own sealing key: another site's public key, or one of which no secret can be made.

It needs nobody's leave for that. With the key of another site its pad with a third one was that other site's pad with
it. One was added and one taken off, so that the third site's post was bare. With a useless key all others stopped at
their first post, and the ledger named one of them as silent.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from support.learners import cohorts, vertical
from support.node.houses import NodeNetwork, study_file
from support.node.worlds import World, cohort, sweep

from coterie_chain.keys.site_keys import SiteKeys, is_usable_key
from coterie_chain.ledger.protocol import Event, State
from coterie_learners.core.masked_sum import encode_fixed_point, mask_short, mask_sums
from coterie_learners.core.protocol import Site
from coterie_learners.errors import ProtocolError
from coterie_learners.vertical.vertigo import VERTIGO
from coterie_node.run.simulate import site_of
from coterie_node.run.study_files import load_study, study_terms

# Points of X25519 with which everybody's secret is zero (RFC 7748, section 6.1), and what is no point's length.
USELESS = (bytes(32), bytes([1]) + bytes(31), bytes.fromhex("ec" + "ff" * 30 + "7f"))
LIAR = "west"


@pytest.fixture
def network(tmp_path: Path) -> Iterator[NodeNetwork]:
    """Three sites; of the pairs with one shared key, south is the one between north and west."""
    network = NodeNetwork(tmp_path)
    yield network
    for log in network.logs.values():
        log.close()


def take_key(network: NodeNetwork, sealing: bytes) -> None:
    """Move the liar's seat to a new signing key of its own with this sealing key; no vote is needed."""
    keys = SiteKeys.of(secrets.token_bytes(32), secrets.token_bytes(32))
    network.chain.ledger(network.keys[LIAR].address).offer(keys.address, sealing or keys.sealing)
    network.chain.ledger(keys.address).accept(LIAR)
    network.keys[LIAR] = keys
    network.daemons[LIAR] = network.daemon(LIAR)


def take_borrowed_key(network: NodeNetwork, kind: str) -> None:
    take_key(network, network.keys["north"].sealing if kind == "another's" else USELESS[1])


@pytest.mark.parametrize("kind", ["another's", "useless"])
@pytest.mark.parametrize("proposer", ["north", LIAR])
def test_no_site_joins_a_study_with_such_a_key_and_all_join_it_with_another(
    network: NodeNetwork, kind: str, proposer: str
) -> None:
    take_borrowed_key(network, kind)
    study = load_study(study_file(network.root))
    network.blobs.put(study.document)
    ledger = network.chain.ledger(network.keys[proposer].address)
    number = ledger.propose(study_terms(study))
    network.approve(study.hash, *(name for name in network.keys if name != proposer))
    for _ in range(3):
        network.settle()
        network.seconds += 61
    view = ledger.view(number)
    assert view.state == State.PROPOSED
    assert set(view.joined) <= {proposer, LIAR}
    fault = cast(dict[str, str], network.daemons["south"].status[0]["fault"])
    assert fault["code"] == "CO-C106"
    assert LIAR in fault["message"]
    ledger.decline([number], 1)
    take_key(network, b"")
    again = study_file(network.root, "again")
    network.approve(network.propose(again), "south", LIAR)
    network.settle()
    assert ledger.view(number + 1).state == State.COMPLETED


def test_nobody_is_named_for_a_study_that_nobody_could_join(network: NodeNetwork) -> None:
    take_borrowed_key(network, "useless")
    network.approve(network.propose(study_file(network.root)), "south", LIAR)
    for _ in range(3):
        network.settle()
        network.seconds += 3600
    names = {event.name for event in network.chain.log if isinstance(event, Event)}
    assert not names & {"StudyAborted", "AbortVoted", "ExclusionVoted", "ServerSkipped"}


def make_site(name: str, shared: dict[str, bytes]) -> Site:
    study = cohorts.study(count=3)
    return Site(study, name, shared=shared, session="run", parties=("ana", "bob", "cyd"))


def test_pads_under_one_shared_key_do_not_cancel() -> None:
    site = make_site("bob", {"ana": b"k" * 32, "cyd": b"k" * 32})
    values = np.array([120.0, 68.0, -0.5])
    masked = np.asarray(mask_sums(site, "stats/0", {"sums": values})["masked"])
    assert not np.any(masked == encode_fixed_point(values, 1e9))
    short = np.asarray(mask_short(site, "stats/0", values, ("ana", "cyd"))).view(np.int64)
    assert not np.any(short == np.rint(values * 2.0**40).astype(np.int64))


def test_both_ends_of_a_pair_make_the_same_pad() -> None:
    ana, bob = make_site("ana", {"bob": b"k" * 32}), make_site("bob", {"ana": b"k" * 32})
    assert ana.mask("bob", "stats/0", 48) == bob.mask("ana", "stats/0", 48)


@pytest.mark.parametrize("key", [*USELESS, b"", bytes(31)], ids=range(5))
def test_a_key_that_is_taken_in_the_middle_of_a_study_is_its_owner_s_fault(key: bytes) -> None:
    """A restart reads the Catalog's keys again: the others still run, and name that site where they need its key."""
    assert not is_usable_key(key)
    world = cohort(3, aggregation="masked")
    entries = [e if e.name != "east" else type(e)(e.id, e.name, e.address, key) for e in world.entries]
    site = site_of(world.study, "north", world.rows["north"], world.keys["north"], entries, "run")
    with pytest.raises(ProtocolError) as caught:
        site.mask("east", "stats/0", 16)
    assert (caught.value.site, caught.value.code) == ("east", "CO-P402")


@pytest.mark.parametrize("key", USELESS, ids=range(3))
def test_a_useless_key_for_one_run_is_a_bad_payload_of_the_site_that_announces_it(key: bytes) -> None:
    study = vertical.study()
    world = World(study, cast(Any, vertical.split(study, vertical.draw(60))), VERTIGO.script)
    world.forge("south", lambda payload: payload.__setitem__("sealing", np.frombuffer(key, np.uint8)))
    sweep([world.runner("east")])
    world.runner("north").turn()
    with pytest.raises(ProtocolError) as caught:
        sweep([world.runner("north")])
    assert (caught.value.site, caught.value.topic, caught.value.code) == ("south", "keys", "CO-P553")
