"""A founding that was interrupted, or whose chain stands still, goes on by itself; a second copy is refused."""

from __future__ import annotations

import json
import os
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark import ParameterSet
from support.chain.anvil import AnvilClient
from support.node.founded_sites import FoundedSites

from coterie_chain.errors import LedgerMismatch, LedgerUnreachable
from coterie_chain.ethereum.network import discover
from coterie_chain.keys.private_files import read_private
from coterie_chain.network import deploy as deployment
from coterie_chain.network import greeting
from coterie_chain.network.deploy import deploy
from coterie_chain.network.devnet import Anvil
from coterie_node.cli.site.init import make_node
from coterie_node.errors import ConfigError
from coterie_node.network import guided_founding
from coterie_node.network.founding import make_keys, propose_addresses
from coterie_node.network.guided_founding import FOUNDING, FoundingPlan, await_network, greet_meanwhile, write_plan
from coterie_node.network.site_ports import SitePorts
from coterie_node.network.site_programs import SitePrograms
from coterie_node.site.config import CONFIG
from coterie_node.site.folder import find_node

PEER = "enode://aa@10.0.0.2:30303"


class Killed(BaseException):
    """The process ends here, as by a power cut or Ctrl-C."""


@contextmanager
def kill_at_write(monkeypatch: pytest.MonkeyPatch, which: int) -> Iterator[None]:
    """The process ends when it has written the `which`-th file and has not given it its name."""
    flush, count = os.fsync, 0

    def flush_or_die(handle: int) -> None:
        nonlocal count
        count += 1
        if count > which:
            raise Killed
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr("coterie_chain.keys.private_files.os.fsync", flush_or_die)
        yield


def list_writes(count: int, fast: int) -> list[ParameterSet]:
    """So many places at which a process may end; the fast suite looks at one."""
    return [pytest.param(which, marks=[] if which == fast else pytest.mark.long) for which in range(count)]


@pytest.mark.parametrize("which", list_writes(10, fast=1))
def test_keys_that_a_command_was_cut_short_of_are_made_by_the_next_one(
    which: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who pressed Ctrl-C while the keys were made had a folder with which no command went on."""
    folder = tmp_path / "north"
    folder.mkdir()
    with pytest.raises(Killed), kill_at_write(monkeypatch, which):
        make_keys(folder, "north", "10.0.0.1", "10.0.0.1", scrypt=1 << 12)
    card = make_keys(folder, "north", "10.0.0.1", "10.0.0.1", scrypt=1 << 12)
    assert make_keys(folder, "north", "10.0.0.1", "10.0.0.1", scrypt=1 << 12) == card
    make_node(folder, "north", "data.csv", propose_addresses(folder), 9464)
    assert find_node(folder).load_keys().address == card.operator


@pytest.mark.parametrize("which", list_writes(5, fast=2))
def test_a_node_whose_making_was_cut_short_is_made_by_the_next_command(
    which: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "north"
    own = propose_addresses(folder)
    with pytest.raises(Killed), kill_at_write(monkeypatch, which):
        make_node(folder, "north", "data.csv", own, 9464, scrypt=1 << 12)
    keys = make_node(folder, "north", "data.csv", own, 9464, scrypt=1 << 12)
    home = find_node(folder)
    assert home.load_keys().address == keys.address
    assert read_private(home.path(home.config.api.token_file), "token")
    with pytest.raises(ConfigError, match="never replaces another"):
        make_node(folder, "north", "data.csv", own, 9464)


@contextmanager
def run_stalled_sealer(path: Path, asked: list[str], greeted: threading.Event) -> Iterator[None]:
    """The administrator's socket of a sealer that has sealed the first block and waits for others."""
    peer = {"enode": PEER, "network": {"inbound": False}}
    answers: dict[str, Any] = {"eth_blockNumber": "0x1", "eth_mining": True, "admin_peers": [peer]}

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            requests = json.loads(self.request.recv(1 << 16))
            asked.extend(r["method"] for r in requests)
            replies = [{"id": r["id"], "result": answers.get(r["method"], True)} for r in requests]
            self.request.sendall(json.dumps(replies).encode())
            if any(r["method"] == "admin_addPeer" for r in requests):
                greeted.set()
            self.request.recv(1)

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield
        server.shutdown()


def test_a_sealer_greets_its_peers_while_the_network_is_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sealers that had each sealed the first block alone waited until the deployment was given up."""
    monkeypatch.setattr(greeting, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(greeting, "FIRST_WAIT", 0.02)
    folder, asked, greeted = FoundedSites(tmp_path).root / "north", list[str](), threading.Event()
    with run_stalled_sealer(folder / "geth" / "geth.ipc", asked, greeted):
        with greet_meanwhile(folder):
            assert greeted.wait(30.0)
        count = len(asked)
        assert {"admin_removePeer", "admin_addPeer"} <= set(asked)
    assert len(asked) == count


def test_the_first_founder_s_repeated_command_leaves_founding_json_and_its_fingerprint(tmp_path: Path) -> None:
    """The other sites have the file, and its fingerprint was read to them by telephone."""
    sites = FoundedSites(tmp_path)
    folder = sites.root / "north"
    first = write_plan(folder, sites.cards, sleep=False)
    text = (folder / FOUNDING).read_text()
    assert write_plan(folder, sites.cards, sleep=False).fingerprint == first.fingerprint
    assert (folder / FOUNDING).read_text() == text


def test_a_founding_json_of_other_cards_or_a_damaged_one_is_written_again(tmp_path: Path) -> None:
    sites = FoundedSites(tmp_path)
    folder = sites.root / "north"
    first = write_plan(folder, sites.cards, sleep=False)
    two = write_plan(folder, sites.cards[:2], sleep=False)
    assert [card.site for card in two.cards] == ["north", "south"]
    (folder / FOUNDING).write_text("{")
    again = write_plan(folder, sites.cards, sleep=False)
    assert [card.site for card in again.cards] == ["north", "south", "west"]
    assert first.fingerprint != again.fingerprint


@pytest.mark.parametrize("program", ["geth", "kubo"])
def test_a_site_does_not_start_where_another_copy_of_it_answers(program: str, tmp_path: Path) -> None:
    """The command ended with 0: the other copy's programs answered, and this daemon ran on them with the same keys."""
    folder = FoundedSites(tmp_path).root / "north"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ports = SitePorts(rpc=port, store=1) if program == "geth" else SitePorts(rpc=1, store=port)
        ports.write(folder)
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port} \({program}\)") as refused:
            SitePrograms(folder).start()
    assert refused.value.code == "CO-F505"
    assert all(service.pid is None for service in SitePrograms(folder).services().values())


def test_the_daemon_has_its_own_name_for_only(tmp_path: Path) -> None:
    programs = SitePrograms(FoundedSites(tmp_path).root / "north")
    (programs.folder / "network.json").write_text("{}")
    programs.stop("daemon")
    with pytest.raises(ConfigError, match=r"geth, kubo, node \(the daemon\)"):
        programs.stop("chain")


def test_a_founding_json_that_is_not_there_is_said_to_come_from_the_first_founder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file.*Check its path\. The first founder writes it\."):
        FoundingPlan.load(tmp_path / "founding.json")


@pytest.fixture
def founder(tmp_path: Path) -> Iterator[tuple[Path, FoundingPlan, AnvilClient]]:
    """The first founder's folder and plan, on a development chain of its own that makes blocks when it is told to."""
    sites = FoundedSites(tmp_path)
    folder = sites.root / "north"
    with Anvil(options=("--no-mining",)) as anvil, closing(AnvilClient(anvil.url)) as client:
        settings = (folder / CONFIG).read_text()
        (folder / CONFIG).write_text(re.sub(r"(?m)^url = \"http:.*$", f'url = "{anvil.url}"', settings, count=1))
        yield folder, write_plan(folder, sites.cards, sleep=False), client


@pytest.mark.anvil
def test_a_repeated_command_waits_for_the_deployment_of_the_first_one_and_makes_no_second_catalog(
    founder: tuple[Path, FoundingPlan, AnvilClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the sealers stood still for two minutes, each command deployed one more, and nobody found the only one."""
    folder, plan, anvil = founder
    monkeypatch.setattr(guided_founding, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(deployment, "DEPLOYMENT_TIMEOUT", 0.2)
    anvil.rpc("anvil_mine", "0x1")
    with pytest.raises(LedgerUnreachable, match="No block took the deployment") as stalled:
        await_network(folder, plan, deploys=True, seconds=60.0)
    assert stalled.value.code == "CO-C304"
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        anvil.rpc("anvil_mine", "0x3")

    network = await_network(folder, plan, deploys=True, seconds=60.0, tell=tell)
    assert "wait for a block" in said[0]
    assert discover(anvil.url) == replace(network, founders=())


@pytest.mark.anvil
@pytest.mark.parametrize("deploys", [True, False])
def test_several_catalogs_are_said_at_once_and_no_further_one_is_made(
    founder: tuple[Path, FoundingPlan, AnvilClient], deploys: bool
) -> None:
    """It read as no Catalog yet: who deploys made a third, and the others waited an hour."""
    folder, plan, anvil = founder
    anvil.rpc("evm_setAutomine", True)
    for _ in range(2):
        deploy(anvil.url, [card.card().entry(number) for number, card in enumerate(plan.cards, start=1)])
    said: list[str] = []
    with pytest.raises(LedgerMismatch, match="holds 2 Catalogs") as refused:
        await_network(folder, plan, deploys=deploys, seconds=60.0, tell=said.append)
    assert (refused.value.code, said) == ("CO-C316", [])
