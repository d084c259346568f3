"""Thirty-six faults, planted one by one: the doctor names each in one row that fails, with what to do about it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support.chain.anvil import find_binary, run_anvil
from support.node.fault_world import PUBLIC, FaultWorld, open_world
from support.node.founded_sites import make_first_sites

from coterie_chain.ethereum.network import Network
from coterie_chain.keys.private_files import replace_private
from coterie_chain.network.deploy import deploy
from coterie_chain.network.programs.kubo import create_swarm_key
from coterie_chain.network.swarm import Kubo
from coterie_node.network.checks import machine_checks
from coterie_node.network.checks.check_result import CheckResult
from coterie_node.network.checks.ledger_checks import check_lost_journal, examine_seat
from coterie_node.network.founding import FounderCard
from coterie_node.network.guided_founding import OWN_CARD
from coterie_node.site.watch.health import Health

HERE = version("coterie")
PAGE = Path(__file__).parents[3] / "docs" / "doctor.md"


@pytest.fixture(scope="module")
def chain() -> Iterator[tuple[str, Network]]:
    """A chain with the Catalog of three sites, and where it is."""
    program = find_binary()
    assert program is not None
    root, _ = make_first_sites()
    cards = [FounderCard.read(root / site / OWN_CARD) for site in ("north", "south", "west")]
    with run_anvil(program) as anvil:
        yield anvil.url, deploy(anvil.url, [card.entry(k) for k, card in enumerate(cards, 1)])


@pytest.fixture
def world(tmp_path: Path, chain: tuple[str, Network]) -> Iterator[FaultWorld]:
    """A site in which nothing is wrong."""
    with open_world(tmp_path, *chain) as world:
        yield world


@dataclass(frozen=True)
class Fault:
    """What is planted, which row of the doctor finds it, and words of the remedy."""

    name: str
    plant: Callable[[FaultWorld], Any]
    check: str
    words: str


def forget_records(world: FaultWorld) -> CheckResult:
    """The ledger has three records of this site, and there is no journal."""
    ledger = world.sites.ledger("north")
    head = ledger.heads()["north"]

    class Recorded:
        def heads(self) -> object:
            return {"north": replace(head, seq=3)}

    return check_lost_journal(world.sites.home("north"), Recorded())  # type: ignore[arg-type]


def revoke_seat(world: FaultWorld) -> CheckResult:
    """The other sites took this one's seat away."""
    for member in ("south", "west"):
        world.sites.ledger(member).revoke("north")
    return examine_seat(world.sites.home("north"), world.sites.keys("north"), world.sites.ledger("south"))


def change_swarm_key(world: FaultWorld) -> None:
    """A swarm's key of its own, with which no other store talks to this one."""
    Kubo(world.root / "kubo").join(create_swarm_key())
    world.kubo.peers = ()


def damage(name: str, text: str = "garbage\n") -> Callable[[FaultWorld], object]:
    """A private file that holds something else."""
    return lambda world: replace_private(world.root / name, text)


def remove(name: str) -> Callable[[FaultWorld], object]:
    """A file that is gone."""
    return lambda world: (world.root / name).unlink()


def open_to_all(name: str, mode: int = 0o644) -> Callable[[FaultWorld], object]:
    """A file or folder that others may read."""
    return lambda world: (world.root / name).chmod(mode)


def change(old: str, new: str) -> Callable[[FaultWorld], object]:
    """A wrong setting."""
    return lambda world: world.change(old, new)


def be(health: Health) -> Callable[[FaultWorld], object]:
    """A daemon that says something else of itself."""
    return lambda world: setattr(world, "health", health)


def age(seconds: float) -> Callable[[FaultWorld], object]:
    """The newest block, against this machine's clock."""
    return lambda world: setattr(world.geth, "age", seconds)


FAULTS = [
    Fault("the folder is open to others", open_to_all(".", 0o755), "folder", "chmod 700"),
    Fault("the passphrase is open to others", open_to_all("passphrase"), "key", "chmod 600"),
    Fault("the passphrase is another one", damage("passphrase", "wrong\n"), "key", "Put the one that was there"),
    Fault("a key file is gone", remove("keys/operator.json"), "key", "CO-C101"),
    Fault("the API's token is gone", remove("api.token"), "API token", "CO-C101"),
    Fault(
        "the chain's port is another one", lambda w: w.change(f":{w.geth.port}?", ":9?"), "chain", "Check that it runs"
    ),
    Fault("the chain's token is another one", damage("geth/jwt.hex", "ab" * 32), "chain", "token"),
    Fault("the chain node is stopped", lambda w: w.geth_stack.close(), "chain", "CO-C301"),
    Fault(
        "the store's port is another one", lambda w: w.change(w.kubo.url[7:], "127.0.0.1:9"), "store", "Is it running"
    ),
    Fault("the store's token is another one", damage("kubo/token", "other\n"), "store", "CO-C207"),
    Fault("the store is stopped", lambda w: w.kubo_stack.close(), "store", "Is it running"),
    Fault(
        "the chain has another genesis",
        lambda w: setattr(w.geth, "genesis", "0x" + "ab" * 32),
        "chain",
        "another chain",
    ),
    Fault(
        "there is no Catalog at the address", lambda w: w.change_network(catalog="0x" + "12" * 20), "chain", "Catalog"
    ),
    Fault("the site has joined no network", remove("network.json"), "chain", "coterie join"),
    Fault("too few confirmations", change("confirmations = 2", "confirmations = 0"), "finality", "confirmations = 2"),
    Fault("the journal is damaged", damage("journal.sqlite", "garbage\n" * 1000), "journal", "CO-C321"),
    Fault("a typo in node.toml", change("confirmations =", "confirmation ="), "node.toml", "there is no such setting"),
    Fault("the disk is full", lambda _: None, "disk", "Make room"),
    Fault("node.toml names another site", change('site = "north"', 'site = "south"'), "seat", "other keys"),
    Fault("the Catalog has no such site", change('site = "north"', 'site = "nobody"'), "seat", "coterie site admit"),
    Fault("the clock is ahead", age(600.0), "clock", "NTP"),
    Fault("the swarm's key is another one", change_swarm_key, "swarm peers", "fingerprint here"),
    Fault("the cable is pulled", lambda w: w.pull_cable(), "chain peers", "cable"),
    Fault("the file of rows is gone", remove("data.csv"), "rows", "Put the file there"),
    Fault("the package that reads rows is missing", lambda _: None, "rows", "coterie[site]"),
    Fault("the journal is gone", forget_records, "journal of records", "coterie restore"),
    Fault(
        "[talk] listens where this machine is not",
        change("# [talk]\n# listen", '[talk]\nlisten = "203.0.113.7:7401"\n# listen'),
        "talk",
        "no such address",
    ),
    Fault("the seat is revoked", revoke_seat, "seat", "under another name"),
    Fault("the chain node has another key", lambda w: w.take_from("south", "geth/nodekey"), "card", "enode's key"),
    Fault("the sealer is another one", lambda w: w.take_from("south", "geth/keystore/sealer.json"), "card", "sealer"),
    Fault(
        "the store is another peer", lambda w: w.take_from("south", "kubo/identity.json"), "card", "peer of the store"
    ),
    Fault("the daemon is of another version", be(Health("north", "0.0.7")), "daemon", "start the daemon again"),
    Fault("another site's daemon has the port", be(Health("south", HERE)), "daemon", "the same port"),
    Fault(
        "the daemon sees no blocks", be(Health("north", HERE, ("no block for 76 s",))), "daemon", "no block for 76 s"
    ),
    Fault("the swarm is open to anybody", lambda w: w.greet_with(PUBLIC), "swarm", "LIBP2P_FORCE_PNET"),
    Fault("the file of the swarm's key is damaged", damage("kubo/repo/swarm.key"), "swarm key", "Ask another site"),
    Fault("the clock is behind", age(-600.0), "clock", "Set this machine's clock"),
]
# One of each kind of seam; the sweep of all is for the long tests.
SHORT = {
    *("the passphrase is open to others", "the chain's token is another one", "the store is stopped"),
    *("too few confirmations", "the swarm's key is another one", "the cable is pulled", "the clock is behind"),
}


def mark(fault: Fault) -> Any:
    """A cell of the sweep."""
    return pytest.param(fault, id=fault.name, marks=[] if fault.name in SHORT else [pytest.mark.long])


def test_a_site_in_order_has_no_row_that_fails(world: FaultWorld) -> None:
    rows = world.examine()
    assert [row for row in rows.values() if row.well is False] == []
    for name in ("key", "rows", "daemon", "store", "swarm", "card", "chain", "finality", "seat"):
        assert rows[name].well, name
    for name in ("chain peers", "swarm peers"):
        assert rows[name].found == "2; seen: south, west"
    assert rows["ports of others"].found == "4 of 4 answer"


@pytest.mark.parametrize("fault", [mark(fault) for fault in FAULTS])
def test_a_planted_fault_is_found_with_its_remedy(
    fault: Fault, world: FaultWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault.check == "disk":
        usage = shutil.disk_usage(world.root)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=20 << 20))
    if "package" in fault.name:
        monkeypatch.setattr(machine_checks, "find_arrow_version", lambda: "none")
    planted = fault.plant(world)
    row = planted if isinstance(planted, CheckResult) else world.examine()[fault.check]
    assert row.well is False
    assert fault.words in f"{row.found} {row.cure}"
    assert row.cure


def test_the_page_lists_every_fault_with_its_row() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    listed = {cells[0].strip(): cells[1].strip(" `") for cells in (line.strip("|").split("|") for line in lines)}
    assert {fault.name: fault.check for fault in FAULTS}.items() <= listed.items()
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) == 37
