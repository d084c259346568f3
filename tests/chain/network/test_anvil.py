"""Development chains start, keep what a caller asks them to keep, and leave nothing else."""

from __future__ import annotations

import gc
import json
import os
import time
from hashlib import sha256
from pathlib import Path

import pytest
from support.chain.bench import GLORE_TERMS, build_entry, derive_account

from coterie_chain.errors import LedgerMismatch, LedgerUnreachable, StoreFault
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.ledger.protocol import Post, Record, State, StudyView, Terms
from coterie_chain.network.deploy import Network, deploy
from coterie_chain.network.genesis import GAS_LIMIT
from coterie_chain.network.programs.anvil import BINARY, Anvil, find_anvil
from coterie_chain.store.cid import compute_raw_cid

pytestmark = pytest.mark.anvil
ALONE = Terms(GLORE_TERMS.hash, ("ana",), (), ("each",), (), max_rounds=40, timeout=60)


def play_rounds(network: Network, rounds: int) -> None:
    """A study of one site, some rounds long."""
    with EthereumLedger(network, derive_account("ana")) as ledger:
        study = ledger.propose(ALONE)
        for position in range(rounds):
            payload = f"{study}/{position}".encode()
            digest = sha256(payload).digest()
            ledger.record(Post(study, position, 0, compute_raw_cid(payload), digest, 9, False, GLORE_TERMS.hash))


def read_everything(url: str, network: Network) -> tuple[object, ...]:
    """All that a reader can see."""
    moved = Network(url, network.chain_id, network.catalog, network.genesis, network.block)
    with EthereumLedger(moved) as reader:
        view: StudyView = reader.view(1)
        return tuple(reader.history()), reader.heads(), reader.sites(), view


def test_a_kept_chain_reopens_with_everything(tmp_path: Path) -> None:
    state = tmp_path / "chain.json"
    with Anvil(state) as anvil:
        network = deploy(anvil.url, [build_entry("ana")])
        time.sleep(1.1)
        play_rounds(network, 40)
        before = read_everything(anvil.url, network)
        last = next(e for e in reversed(before[0]) if isinstance(e, Record))  # type: ignore[call-overload]
        with Rpc(anvil.url) as rpc:
            receipt = rpc.call("eth_getTransactionReceipt", last.tx)
    with Anvil(state) as reopened:
        assert read_everything(reopened.url, network) == before
        with Rpc(reopened.url) as rpc:
            assert rpc.call("eth_getTransactionReceipt", last.tx) == receipt
            assert abs(int(rpc.call("eth_getBlockByNumber", "pending", False)["timestamp"], 16) - time.time()) < 5
        play_rounds(Network(reopened.url, network.chain_id, network.catalog, network.genesis, network.block), 3)
        after = read_everything(reopened.url, network)
    for _ in range(3):
        with Anvil(state) as later:
            assert read_everything(later.url, network) == after
    assert [b["header"]["number"] for b in json.loads(state.read_text())["blocks"]].count("0x0") == 1
    assert after[0][: len(before[0])] == before[0]  # type: ignore[index,arg-type]


def test_a_frozen_chain_is_read_while_another_writes_it(tmp_path: Path) -> None:
    state = tmp_path / "chain.json"
    with Anvil(state) as anvil:
        network = deploy(anvil.url, [build_entry("ana")])
        play_rounds(network, 5)
        before = read_everything(anvil.url, network)
    digest = sha256(state.read_bytes()).digest()
    with Anvil(state, frozen=True) as first_chain, Anvil(state, frozen=True) as second_chain:
        play_rounds(Network(second_chain.url, network.chain_id, network.catalog, network.genesis, network.block), 3)
        assert read_everything(first_chain.url, network) == before
    assert sha256(state.read_bytes()).digest() == digest
    assert list(tmp_path.iterdir()) == [state]


def test_a_power_cut_costs_at_most_a_moment(tmp_path: Path) -> None:
    state = tmp_path / "chain.json"
    with Anvil(state) as anvil:
        network = deploy(anvil.url, [build_entry("ana")])
        play_rounds(network, 5)
        before = read_everything(anvil.url, network)
        time.sleep(1.5)
        anvil.kill()
    with Anvil(state) as reopened:
        assert read_everything(reopened.url, network) == before
    # a cut in the middle of a write costs all since the last start
    state.write_bytes(state.read_bytes()[:5000])
    with Anvil(state) as reopened:
        assert read_everything(reopened.url, network) == before


def test_a_chain_that_nobody_closed_ends_with_its_owner() -> None:
    anvil = Anvil()
    pid = anvil.pid
    del anvil
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_accounts_need_no_ether_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with Anvil() as anvil:
        network = deploy(anvil.url, [build_entry("ana")])
        play_rounds(network, 40)
        with Rpc(anvil.url) as rpc:
            assert rpc.call("eth_getBalance", derive_account("ana").address, "latest") == "0x0"
    assert not [f for f in tmp_path.rglob("*") if f.is_file()]
    with pytest.raises(ProcessLookupError):
        os.kill(anvil.pid, 0)


def test_a_chain_with_a_block_time_mines_by_the_clock() -> None:
    with Anvil(block_time=0.2) as anvil:
        network = deploy(anvil.url, [build_entry("ana")])
        play_rounds(network, 2)
        view = read_everything(anvil.url, network)[3]
        assert isinstance(view, StudyView)
        assert (view.state, view.open and view.open.position) == (State.RUNNING, 2)


def test_a_port_that_is_taken_is_said() -> None:
    with Anvil() as anvil:
        port = int(anvil.url.rsplit(":", 1)[1])
        with pytest.raises(LedgerUnreachable, match="is not free") as caught:
            Anvil(port=port)
        assert caught.value.code == "CO-C332"


def test_a_state_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "chain.json").write_text("not a chain")
    for frozen in (True, False):
        with pytest.raises(StoreFault, match="is damaged or something else") as caught:
            Anvil(tmp_path / "chain.json", frozen=frozen)
        assert caught.value.code == "CO-C331"
    (tmp_path / "chain.json").write_text("{}")
    with pytest.raises(LedgerUnreachable, match="Anvil ended"):
        Anvil(tmp_path / "chain.json")
    with pytest.raises(StoreFault, match="Cannot read the kept chain"):
        Anvil(tmp_path / "missing.json", frozen=True)


def test_the_binary_is_found_or_missed_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable = find_anvil()
    monkeypatch.setenv(BINARY, str(executable))
    assert find_anvil() == executable
    monkeypatch.setenv(BINARY, str(tmp_path / "nothing"))
    with pytest.raises(StoreFault, match="COTERIE_ANVIL does not name a program"):
        find_anvil()
    monkeypatch.delenv(BINARY)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("coterie_chain.network.programs.anvil._list_checkout_binaries", list)
    with pytest.raises(StoreFault, match="make setup") as caught:
        find_anvil()
    assert caught.value.code == "CO-C330"


def test_fifty_founders_fit_into_one_block_of_a_clique_chain_and_no_more() -> None:
    names = [f"site-{k}" for k in range(51)]
    with Anvil(options=("--gas-limit", str(GAS_LIMIT))) as anvil:
        network = deploy(anvil.url, map(build_entry, names[:50]))
        with EthereumLedger(network) as reader:
            assert [site.name for site in reader.sites()] == names[:50]
        with pytest.raises(LedgerMismatch, match="50 founders"):
            deploy(anvil.url, map(build_entry, names))
