"""Signed heartbeats make one matrix of the whole network at any site; false ones are refused under a name."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.chain.kubo_server import KuboServer, serve_kubo
from support.node.founded_sites import FoundedSites

from coterie_chain.errors import ChainError, StoreFault
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.network.gossip import KuboGossip, MemoryGossip
from coterie_chain.store.kubo import KuboBlobs
from coterie_node.errors import ConfigError
from coterie_node.network.heartbeats.heartbeat import (
    MAX_AGE,
    MAX_HEARTBEAT_BYTES,
    NOBODY,
    Heartbeat,
    HeartbeatLog,
    Refusal,
)
from coterie_node.network.heartbeats.matrix import SILENT_SECONDS, NamedRefusal, make_matrix, read_answer
from coterie_node.network.heartbeats.pulse import SPEAK_SECONDS, Members, Pulse
from coterie_node.site.config import CONFIG

SCOPE, NOW = "20240/0x00/0x12", 1_800_000_000


@pytest.fixture
def sites(tmp_path: Path) -> FoundedSites:
    """Three sites that have founded a network."""
    return FoundedSites(tmp_path)


# Fingerprints of a swarm's key before and after `coterie network rekey`.
OLD, NEW = "01" * 16, "fe" * 16


def beat(site: str = "south", **fields: object) -> Heartbeat:
    """What a site says when nothing is wrong."""
    others = tuple(sorted({"north", "south", "west"} - {site}))
    usual = {"network": SCOPE, "site": site, "time": NOW, "version": "0.3.0", "head": 50, "swarm_key": OLD}
    return Heartbeat.model_validate({**usual, "chain_peers": others, "swarm_peers": others} | fields)


def hear(sites: FoundedSites, *messages: bytes, now: float = NOW) -> HeartbeatLog:
    """A site's log after these messages."""
    log = HeartbeatLog(SCOPE)
    log.hear(messages, sites.chain.ledger(None).sites(), now)
    return log


# Red team


def forge(sites: FoundedSites) -> bytes:
    """North speaks in south's name."""
    return beat().sign(sites.keys("north")).message


def alter(sites: FoundedSites) -> bytes:
    """Who passes south's heartbeat on says that its chain is further."""
    return beat().sign(sites.keys("south")).model_copy(update={"head": 51}).message


def unsign(sites: FoundedSites) -> bytes:
    """Nobody signs."""
    return beat().message


def grow(sites: FoundedSites) -> bytes:
    """Ten megabytes of blanks around it."""
    return b" " * (10 << 20) + beat().sign(sites.keys("south")).message


def flood_names(sites: FoundedSites) -> bytes:
    """A member lists more sites than there can be."""
    raw = json.loads(beat().message) | {"swarm_peers": ["a"] * 254}
    return json.dumps(raw).encode()


def nest(sites: FoundedSites) -> bytes:
    """Brackets that crash a careless reader."""
    return b"[" * 30_000


def come_late(sites: FoundedSites) -> bytes:
    """South's own words of an hour ago, kept by somebody."""
    return beat(time=NOW - 3600).sign(sites.keys("south")).message


def come_early(sites: FoundedSites) -> bytes:
    """A heartbeat that would hide all true ones of the next hour."""
    return beat(time=NOW + 3600).sign(sites.keys("south")).message


def cross_networks(sites: FoundedSites) -> bytes:
    """South's true heartbeat in another network of its."""
    return beat(network="1/2/3").sign(sites.keys("south")).message


def intrude(sites: FoundedSites) -> bytes:
    """A site without a seat."""
    return beat("far").sign(sites.keys("far")).message


ATTACKS: list[tuple[Callable[[FoundedSites], bytes], str, Refusal]] = [
    (forge, "south", Refusal.FORGED),
    (alter, "south", Refusal.FORGED),
    (unsign, "south", Refusal.FORGED),
    (grow, NOBODY, Refusal.OVERSIZED),
    (flood_names, NOBODY, Refusal.MALFORMED),
    (nest, NOBODY, Refusal.MALFORMED),
    (come_late, "south", Refusal.OLD),
    (come_early, "south", Refusal.EARLY),
    (cross_networks, "south", Refusal.FOREIGN),
    (intrude, NOBODY, Refusal.STRANGER),
]


@pytest.mark.parametrize(("attack", "name", "refusal"), ATTACKS)
def test_a_false_heartbeat_is_refused_under_a_name(
    attack: Callable[[FoundedSites], bytes], name: str, refusal: Refusal, sites: FoundedSites
) -> None:
    log = hear(sites, attack(sites), beat().sign(sites.keys("south")).message)
    assert {key: refused.count for key, refused in log.refused.items()} == {(name, refusal): 1}
    assert log.newest["south"].head == 50


def test_an_older_heartbeat_does_not_replace_a_newer_one(sites: FoundedSites) -> None:
    first, second = (beat(time=NOW - back, head=head).sign(sites.keys("south")) for back, head in ((60, 40), (0, 50)))
    log = hear(sites, first.message, second.message, first.message, second.message)
    assert log.newest["south"] == second
    assert {key: refused.count for key, refused in log.refused.items()} == {("south", Refusal.REPLAYED): 1}


def test_a_flood_leaves_no_more_than_one_heartbeat_and_one_count_a_member(sites: FoundedSites) -> None:
    messages = [beat(head=k).sign(sites.keys("north")).message for k in range(50)]
    messages += [beat(f"stranger{k}").message for k in range(50)]
    log = hear(sites, *messages)
    assert (len(log.newest), len(log.refused)) == (0, 2)


def test_a_site_whose_seat_is_revoked_is_heard_no_more(sites: FoundedSites) -> None:
    log = hear(sites, beat().sign(sites.keys("south")).message)
    for member in ("north", "west"):
        sites.ledger(member).revoke("south")
    log.hear([beat(time=NOW + 1).sign(sites.keys("south")).message], sites.chain.ledger(None).sites(), NOW)
    assert (log.newest, list(log.refused)) == ({}, [("south", Refusal.REVOKED)])


def test_the_largest_network_fits_into_a_heartbeat() -> None:
    names = tuple(f"site-{k:03}".ljust(31, "x") for k in range(253))
    full = beat(chain_peers=names, swarm_peers=names, chain_unknown=names, swarm_unknown=names)
    assert len(full.sign(SiteKeys.of(b"\x11" * 32, b"\x22" * 32)).message) < MAX_HEARTBEAT_BYTES
    assert MAX_AGE < SILENT_SECONDS


# A site's own heart


class LonelyKubo(KuboServer):
    """A Kubo without any peer."""

    def answer(self, command: str, query: dict[str, str], body: bytes | None) -> tuple[int, bytes]:
        return (200, b'{"Peers": []}') if command == "swarm/peers" else super().answer(command, query, body)


class Hearts:
    """Three sites' heartbeats in a room of one process."""

    def __init__(self, sites: FoundedSites) -> None:
        self.room, self.seconds = MemoryGossip(), float(NOW)
        listed = sites.chain.ledger(None).sites()
        self.ears = {name: self.room.open_ear() for name in ("north", "south", "west")}
        self.pulses = {
            name: Pulse(
                sites.home(name),
                sites.keys(name),
                ear,
                HeartbeatLog(SCOPE),
                lambda: Members(listed, 7),
                lambda: self.seconds,
            )
            for name, ear in self.ears.items()
        }

    def beat(self) -> list[bool]:
        """One step of each."""
        return [pulse.step() for pulse in self.pulses.values()]


@pytest.fixture
def hearts(sites: FoundedSites) -> Iterator[Hearts]:
    """Sites whose stores are asked for their peers, and answer that there is nobody."""
    with serve_kubo(LonelyKubo()) as kubo:
        for name in ("north", "south", "west"):
            path = sites.root / name / CONFIG
            path.write_text(re.sub(r'"kubo\+http://[^"?]+\?[^"]*"', f'"kubo+{kubo.url}"', path.read_text()))
        yield Hearts(sites)


def test_every_site_hears_all_and_speaks_every_two_minutes(hearts: Hearts) -> None:
    hearts.beat()
    hearts.beat()
    assert [sorted(p.log.newest) for p in hearts.pulses.values()] == [["north", "south", "west"]] * 3
    assert [p.log.newest["south"].head for p in hearts.pulses.values()] == [7, 7, 7]
    hearts.seconds += SPEAK_SECONDS - 1
    hearts.beat()
    assert [ear.heard for ear in hearts.ears.values()] == [[], [], []]
    hearts.seconds += 1
    hearts.pulses["north"].step()
    assert [len(ear.heard) for ear in hearts.ears.values()] == [0, 1, 1]


def test_a_store_that_does_not_listen_is_a_fault_that_is_shown_and_passes(hearts: Hearts) -> None:
    hearts.ears["north"].fault = StoreFault("CO-C206", "no Kubo")
    assert hearts.beat() == [False, True, True]
    assert hearts.pulses["north"].as_dict()["fault"] == "CO-C206: no Kubo"
    hearts.ears["north"].fault = None
    assert hearts.beat() == [True, True, True]
    assert hearts.pulses["north"].fault == ""


def test_a_card_that_is_written_just_now_is_a_fault_that_is_shown_and_passes(
    hearts: Hearts, sites: FoundedSites
) -> None:
    """The beats ended for the life of the daemon, without a word: nobody caught what was wrong with the file."""
    card = sites.root / "north" / "founders" / "east.json"
    for content in (b"", b'{"site": "ea'):
        card.write_bytes(content)
        assert hearts.beat() == [False, True, True]
        assert hearts.pulses["north"].fault.startswith("CO-F501: ")
    card.unlink()
    assert hearts.beat() == [True, True, True]
    assert hearts.pulses["north"].fault == ""


def test_a_clock_that_is_set_back_keeps_no_site_silent(hearts: Hearts) -> None:
    """A machine whose clock was a year ahead at its start: until that year was over it said nothing more."""
    right = hearts.seconds
    hearts.seconds = right + 365 * 86_400
    hearts.beat()
    hearts.seconds = right
    hearts.beat()
    hearts.beat()
    assert [sorted(p.log.newest) for p in hearts.pulses.values()] == [["north", "south", "west"]] * 3
    assert {beat.time for p in hearts.pulses.values() for beat in p.log.newest.values()} == {int(right)}


def test_a_newcomer_says_nothing_before_it_has_its_seat(hearts: Hearts) -> None:
    west, listed = hearts.pulses["west"], hearts.pulses["west"].look()
    west.look = lambda: Members([site for site in listed.sites if site.name != "west"], 7)
    hearts.beat()
    hearts.beat()
    assert sorted(hearts.pulses["north"].log.newest) == ["north", "south"]
    west.look = lambda: listed
    hearts.beat()
    hearts.beat()
    assert [sorted(p.log.newest) for p in hearts.pulses.values()] == [["north", "south", "west"]] * 3


# The matrix


def make(sites: FoundedSites, *beats: Heartbeat, now: float = NOW, refused: tuple[NamedRefusal, ...] = ()) -> list[str]:
    """What is wrong, by the matrix of these heartbeats."""
    signed = [b.sign(sites.keys(b.site)) for b in beats]
    return [f"{t.site}: {t.what}" for t in make_matrix(sites.chain.ledger(None).sites(), signed, refused, now).troubles]


def whole() -> dict[str, Heartbeat]:
    """The heartbeats of a network in which nothing is wrong."""
    return {name: beat(name) for name in ("north", "south", "west")}


def test_a_network_in_order_has_no_trouble(sites: FoundedSites) -> None:
    assert make(sites, *whole().values()) == []


def test_who_spoke_before_the_last_blocks_came_is_not_behind(sites: FoundedSites) -> None:
    older = {"time": NOW - 119, "head": 26}
    assert make(sites, *(whole() | {"west": beat("west", **older)}).values()) == []
    stands_still = whole() | {"west": beat("west", time=NOW + 1, head=26)}
    assert make(sites, *stands_still.values()) == ["west: its chain is 24 blocks behind"]


@pytest.mark.parametrize(
    ("changes", "trouble"),
    [
        ({"time": NOW - SILENT_SECONDS - 1}, "west: its last heartbeat is 401 s old"),
        ({"chain_peers": ("south",)}, "west: does not see north on the chain"),
        ({"swarm_peers": ("north",)}, "west: does not see south in the swarm"),
        ({"chain_peers": (), "swarm_peers": ("south",)}, "west: does not see north at all"),
        (
            {"swarm_peers": (), "swarm_key": NEW},
            f"west: does not see north in the swarm: their swarm keys differ ({NEW[:8]}, {OLD[:8]})",
        ),
        (
            {"time": NOW - SILENT_SECONDS - 1, "swarm_key": NEW},
            f"west: its last heartbeat is 401 s old, of another swarm key ({NEW[:8]}) than is used now ({OLD[:8]})",
        ),
        ({"head": 30}, "west: its chain is 20 blocks behind"),
        ({"version": "0.2.0"}, "?: the daemons are of several versions (0.2.0: west; 0.3.0: north, south)"),
    ],
)
def test_each_trouble_is_named_with_its_site(changes: dict[str, object], trouble: str, sites: FoundedSites) -> None:
    assert trouble in make(sites, *(whole() | {"west": beat("west", **changes)}).values())


@pytest.mark.parametrize(
    ("fields", "cell"),
    [
        ({"chain_peers": None, "swarm_peers": None}, "?"),
        ({"chain_peers": (), "chain_unknown": ("north", "west")}, "both"),
        ({"chain_peers": (), "chain_unknown": ("north",), "swarm_peers": ()}, "chain"),
        ({"chain_peers": (), "chain_unknown": ("north",), "swarm_unknown": ("north",)}, "?"),
    ],
)
def test_a_site_that_cannot_tell_raises_no_alarm(fields: dict[str, object], cell: str, sites: FoundedSites) -> None:
    beats = whole() | {"south": beat("south", **fields)}
    signed = [b.sign(sites.keys(b.site)) for b in beats.values()]
    rows = {row.site: row for row in make_matrix(sites.chain.ledger(None).sites(), signed, (), NOW).rows}
    assert rows["south"].sees["north"] == cell


def test_a_rekey_that_one_site_has_not_taken_over_blames_no_firewall(sites: FoundedSites) -> None:
    beats = whole() | {"west": beat("west", swarm_peers=(), swarm_key=NEW)}
    signed = [b.sign(sites.keys(b.site)) for b in beats.values()]
    troubles = make_matrix(sites.chain.ledger(None).sites(), signed, (), NOW).troubles
    assert [(t.site, "coterie network rekey" in t.cure, "firewall" in t.cure) for t in troubles] == [
        ("west", True, False),
        ("west", True, False),
    ]


def test_a_silent_site_is_one_trouble_and_not_one_for_each_of_the_others(sites: FoundedSites) -> None:
    beats = [beat("north", chain_peers=("south",), swarm_peers=("south",)), beat("south")]
    assert make(sites, *beats) == ["west: no heartbeat was heard"]


def test_a_daemon_that_lies_about_another_site_is_found_out(sites: FoundedSites) -> None:
    listed = sites.chain.ledger(None).sites()
    lie = beat("south", head=10**6).sign(sites.keys("north"))
    signed = [b.sign(sites.keys(b.site)) for b in (beat("north"), beat("west"))]
    matrix = make_matrix(listed, [*signed, lie], (), NOW)
    assert [(t.site, t.what) for t in matrix.troubles] == [("south", "no heartbeat was heard")]


def test_refusals_of_the_last_minutes_are_troubles(sites: FoundedSites) -> None:
    refused = (NamedRefusal("south", "forged", 3, NOW - 60), NamedRefusal("west", "too old", 9, NOW - 7200))
    troubles = make(sites, *whole().values(), refused=refused)
    assert troubles == ["south: 3 heartbeats under the name of south were refused: forged"]


@pytest.mark.parametrize("answer", [None, [], {}, {"heartbeats": [1], "refused": [], "fault": ""}, {"heartbeats": 1}])
def test_an_answer_of_another_daemon_is_refused(answer: object) -> None:
    with pytest.raises(ConfigError) as refused:
        read_answer(answer)
    assert refused.value.code == "CO-F519"


def test_what_a_daemon_answers_comes_back_as_it_was_signed(hearts: Hearts) -> None:
    hearts.beat()
    pulse = hearts.pulses["west"]
    beats, refused, fault = read_answer(json.loads(json.dumps(pulse.as_dict())))
    assert ({b.site: b for b in beats}, refused, fault) == (pulse.log.newest, (), "")


# Kubo's side


class GossipServer(KuboServer):
    """A Kubo whose subscribers hear what a test wants."""

    heard: bytes = b""

    def answer(self, command: str, query: dict[str, str], body: bytes | None) -> tuple[int, bytes]:
        if command == "pubsub/sub":
            return 200, self.heard
        if command == "pubsub/pub" and body is None:
            return 400, b"no body"
        return super().answer(command, query, body)


def test_lines_that_are_no_messages_are_left_out() -> None:
    server = GossipServer()
    with serve_kubo(server) as kubo:
        gossip = KuboGossip(KuboBlobs(kubo.url), "room")
        lines = [
            b'{"data": "uaGVsbG8"}',
            b"{",
            b"[]",
            b'{"data": 3}',
            b'{"data": "z123"}',
            b'{"data": "u!"}',
            b'{"data": "uaG',
        ]
        server.heard = b"\n".join(lines)
        assert b"hello" in gossip.listen(1.0)
        assert len(gossip.listen(1.0)) <= 2


def test_a_store_that_is_away_or_refuses_is_a_fault_with_a_code() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ChainError):
        KuboGossip(KuboBlobs(url), "room").listen(1.0)
    with serve_kubo(KuboServer(token="secret")) as kubo, pytest.raises(StoreFault) as refused:
        KuboGossip(KuboBlobs(kubo.url, "wrong"), "room").publish(b"x")
    assert refused.value.code == "CO-C207"


def test_keys_of_another_site_sign_no_heartbeat_of_this_one(sites: FoundedSites) -> None:
    keys: SiteKeys = sites.keys("north")
    assert beat().sign(keys).signer == keys.address
    assert replace(sites.chain.ledger(None).sites()[1]).address != keys.address
