"""A new swarm's key for all: who has a seat opens it, a revoked site does not, and no old order comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.node.founded_sites import FoundedSites

from coterie_chain.network.programs.kubo import fingerprint_swarm_key
from coterie_node.errors import ConfigError
from coterie_node.network.founding import FOUNDERS
from coterie_node.network.membership.rekey import RekeyOrder, compare_peers, read_order_number, take_order, write_order

SCOPE, NOW = "20240/0x00/0x12", 1_800_000_000


@pytest.fixture
def sites(tmp_path: Path) -> FoundedSites:
    """Three sites that have founded a network."""
    return FoundedSites(tmp_path)


def order_key(sites: FoundedSites, by: str = "north", now: int = NOW) -> RekeyOrder:
    """A site's order, as it comes back from its file."""
    path = sites.root / "rekey.json"
    listed = sites.chain.ledger(None).sites()
    path.write_text(write_order(sites.home(by), sites.keys(by), SCOPE, listed, now).to_json())
    return RekeyOrder.load(path)


def take(sites: FoundedSites, site: str, order: RekeyOrder) -> None:
    """A site takes an order over."""
    take_order(sites.home(site), sites.keys(site), SCOPE, sites.chain.ledger(None).sites(), order, NOW)


def refuse(code: str, sites: FoundedSites, site: str, order: RekeyOrder) -> None:
    """The site's key stays as it is."""
    before = sites.swarm_key(site)
    with pytest.raises(ConfigError) as refused:
        take(sites, site, order)
    assert (refused.value.code, sites.swarm_key(site)) == (code, before)


def revoke_west(sites: FoundedSites) -> None:
    """The vote that takes west's seat away."""
    for member in ("north", "south"):
        sites.ledger(member).revoke("west")


def test_all_members_get_one_new_key_and_the_order_has_it_not_in_the_clear(sites: FoundedSites) -> None:
    before, order = sites.swarm_key("north"), order_key(sites)
    for site in ("north", "south", "west"):
        take(sites, site, order)
    (key,) = {sites.swarm_key(site) for site in ("north", "south", "west")}
    assert key != before
    assert fingerprint_swarm_key(key) == order.swarm_fingerprint
    assert key.split()[-1] not in order.to_json()


def test_a_revoked_site_gets_no_key_and_leaves_the_lists_of_peers(sites: FoundedSites) -> None:
    revoke_west(sites)
    order = order_key(sites)
    take(sites, "south", order)
    assert not (sites.root / "south" / FOUNDERS / "west.json").exists()
    assert sites.cards[2].enode not in (sites.root / "south" / "geth" / "config.toml").read_text()
    refuse("CO-F516", sites, "west", order)


def test_a_revoked_site_orders_no_key(sites: FoundedSites) -> None:
    order = order_key(sites, "west")
    revoke_west(sites)
    refuse("CO-F516", sites, "north", order)
    with pytest.raises(ConfigError):
        order_key(sites, "west")


@pytest.mark.parametrize("field", ["number", "swarm_key", "swarm_fingerprint", "issuer"])
def test_an_altered_order_is_refused(field: str, sites: FoundedSites) -> None:
    order, other = order_key(sites), order_key(sites, "south", NOW + 1)
    refuse("CO-F516", sites, "west", order.model_copy(update={field: getattr(other, field)}))


def test_an_order_of_another_network_is_refused(sites: FoundedSites) -> None:
    other = order_key(sites).model_copy(update={"network": "1/2/3"}).sign(sites.keys("north"))
    refuse("CO-F518", sites, "south", other)


def test_an_order_that_is_taken_over_does_not_come_back(sites: FoundedSites) -> None:
    first, second = order_key(sites), order_key(sites, "south", NOW + 5)
    take(sites, "west", first)
    take(sites, "west", second)
    refuse("CO-F517", sites, "west", first)
    refuse("CO-F517", sites, "west", second)
    assert read_order_number(sites.root / "west") == NOW + 5
    assert order_key(sites, "west", NOW).number == NOW + 6  # a clock behind orders no older key


def test_who_has_not_taken_it_over_is_named(sites: FoundedSites) -> None:
    listed = sites.chain.ledger(None).sites()
    takeover = compare_peers(sites.home("north"), listed, [sites.cards[2].peer])
    assert (takeover.seen, takeover.missing) == (("west",), ("south",))
    without_keys = [replace(site, peer=bytes(32)) for site in listed]
    assert compare_peers(sites.home("north"), without_keys, [sites.cards[2].peer]) == takeover
