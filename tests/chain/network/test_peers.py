"""Addresses of peers as they are written, ports that answer, and the fingerprint of a swarm's key."""

from __future__ import annotations

import socket

import pytest
from support.lanes import later

from coterie_chain.network.peers import (
    find_open_ports,
    list_neighbours,
    read_enode_key,
    read_enode_place,
    read_swarm_place,
)
from coterie_chain.network.programs.kubo import create_swarm_key, fingerprint_swarm_key
from coterie_chain.store.kubo_rpc import read_peer_ids

KEY = "ab" * 64


@pytest.mark.parametrize(
    ("enode", "key", "place"),
    [
        (f"enode://{KEY}@10.0.0.1:30303?discport=0", KEY, ("10.0.0.1", 30303)),
        (f"enode://{KEY}@[fd00::1]:30303", KEY, ("fd00::1", 30303)),
        (f"enode://{KEY}@host:99999", KEY, None),
        (f"enode://{KEY[2:]}@host:1", "", None),
        ("http://host:1", "", None),
        ("", "", None),
    ],
)
def test_the_address_of_a_chain_node_has_a_key_and_a_place(enode: str, key: str, place: tuple[str, int] | None) -> None:
    assert (read_enode_key(enode), read_enode_place(enode)) == (key, place)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("/ip4/10.0.0.1/tcp/4001", ("10.0.0.1", 4001)),
        ("/dns4/kubo.example/tcp/4001", ("kubo.example", 4001)),
        ("/ip4/10.0.0.1/udp/4001/quic", None),
        ("/ip4/10.0.0.1/tcp/70000", None),
    ],
)
def test_the_address_of_a_store_has_a_place(text: str, place: tuple[str, int] | None) -> None:
    assert read_swarm_place(text) == place


def test_the_ports_that_answer_are_named_and_no_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        closed = other.getsockname()
        other.close()
        places = {"open": listener.getsockname(), "closed": closed, "nowhere": ("host.invalid", 1)}
        assert find_open_ports(places, 2.0) == {"open"}
    assert find_open_ports({}) == frozenset()


def test_the_fingerprint_of_a_swarm_s_key_is_the_one_that_kubo_prints() -> None:
    """The expected value is the line "Swarm key fingerprint" in the log of Kubo 0.43.1 with this key."""
    key = "/key/swarm/psk/1.0.0/\n/base16/\n" + "0123456789abcdef" * 4 + "\n"
    assert fingerprint_swarm_key(key) == "6808474cf686c91fd0a6b09d778e9b73"
    assert fingerprint_swarm_key(create_swarm_key()) != fingerprint_swarm_key(create_swarm_key())
    assert fingerprint_swarm_key("no key") == ""


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (b'{"Peers": [{"Addr": "/ip4/1.2.3.4/tcp/1", "Peer": "12D3a"}, {"Peer": "12D3b"}]}', {"12D3a", "12D3b"}),
        (b'{"Peers": null}', set()),
        (b'{"Peers": [1, {"Peer": 2}]}', set()),
        (b"[", set()),
    ],
)
def test_the_peers_of_a_store_are_read_from_its_answer_alone(body: bytes, ids: set[str]) -> None:
    assert read_peer_ids(body) == ids


@pytest.mark.parametrize("count", [3, 16, 17, 20, 50, 200])
def test_many_programs_of_one_machine_are_all_connected_over_few_steps(count: int) -> None:
    neighbours = [set(list_neighbours(place, count)) for place in range(count)]
    assert all(place in neighbours[other] for place in range(count) for other in neighbours[place])
    assert all(place not in neighbours[place] for place in range(count))
    assert max(map(len, neighbours)) <= max(15, 2 * count.bit_length())
    seen = reached = {0}
    steps = 0
    while len(seen) < count:
        reached = set().union(*(neighbours[place] for place in reached)) - seen
        seen, steps = seen | reached, steps + 1
    assert steps <= count.bit_length()


@pytest.mark.parametrize("count", [17, *later(*range(18, 61))])
def test_a_ring_of_any_size_stays_in_one_piece_without_any_two_of_its_programs(count: int) -> None:
    """All places are alike, so that one of the two may be the first."""
    neighbours = [set(list_neighbours(place, count)) for place in range(count)]
    for other in range(count):
        gone = {0, other}
        start = next(place for place in range(count) if place not in gone)
        seen = reached = {start}
        while reached:
            reached = set().union(*(neighbours[place] for place in reached)) - seen - gone
            seen = seen | reached
        assert seen == set(range(count)) - gone
