"""The twin's own rules: one order for all, messages that are no moves, and a broker that loses messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from support.chain.bench import BENCH_FOUNDERS, GLORE_TERMS, BrokerBench, Sites, build_entry, derive_account

from coterie_chain.broker.broker_ledger import BrokerLedger
from coterie_chain.broker.message_log import MemoryBroker
from coterie_chain.broker.moves import MOVES, Move, decode_move
from coterie_chain.errors import LedgerUnreachable
from coterie_chain.ledger.protocol import Ledger, Post, Silence, SiteEntry

TERMS = replace(GLORE_TERMS, silence=Silence.EXCLUDE)
POST = Post(1, 2, 0, "cid", b"\x01" * 32, 9, False, b"\x02" * 32)


@pytest.mark.parametrize(
    "arguments", [(TERMS, b"\x00" * 32), (POST,), ((3, 4), 7), (SiteEntry(0, "dan", "0x1", b"\x03" * 32),), ("bob", "")]
)
def test_a_move_comes_back_as_it_was(arguments: tuple[object, ...]) -> None:
    move = Move("token", "0xabc", 5, "propose", arguments)
    assert decode_move(move.encode()) == move


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        b"[1, 2]",
        b"{}",
        b"[" * 100_000,
        json.dumps(["t", "0x", 1, "view", []]).encode(),
        json.dumps(["t", "0x", 1, "__class__", []]).encode(),
        json.dumps(["t", "0x", "soon", "skip", [1]]).encode(),
        json.dumps(["t", "0x", 1, "skip", 1]).encode(),
        json.dumps(["t", "0x", 1, "record", [{"Post": [1]}]]).encode(),
        json.dumps(["t", "0x", 1, "record", [{"Popen": ["ls"]}]]).encode(),
        json.dumps(["t", "0x", 1, "record", [{"bytes": "xy"}]]).encode(),
        json.dumps(["t", "0x", 1, "record", [{"bytes": "00", "Post": []}]]).encode(),
    ],
)
def test_a_message_that_is_no_move_is_none(message: bytes) -> None:
    assert decode_move(message) is None


def test_every_move_is_one_of_the_ledgers() -> None:
    assert all(callable(getattr(Ledger, name)) for name in MOVES)


def test_noise_on_the_log_moves_nothing() -> None:
    broker = MemoryBroker()
    sites = Sites(BrokerBench(broker.open))
    study = sites.start()
    before = list(sites["ana"].history())
    broker.open("moves").append(b"noise")
    assert list(sites["ana"].history()) == before
    sites.step(study)
    assert list(sites["ana"].history()) == list(sites["bob"].history()) != before


def test_sites_that_move_at_once_hold_one_history() -> None:
    sites = Sites(BrokerBench())
    ledgers = [sites[name] for name in BENCH_FOUNDERS]
    with ThreadPoolExecutor(3) as pool:
        numbers = list(pool.map(lambda ledger: [ledger.propose(GLORE_TERMS) for _ in range(4)], ledgers))
    assert sorted(number for some in numbers for number in some) == list(range(1, 13))
    histories = [list(ledger.history()) for ledger in ledgers]
    assert histories[0] == histories[1] == histories[2]


def test_a_broker_that_gives_nothing_back_is_named_in_time() -> None:
    class Silent:
        """Takes messages and gives none."""

        def append(self, message: bytes) -> None:
            """Lose the message."""

        def read(self, seconds: float) -> list[bytes]:
            """Nothing."""
            return []

        def close(self) -> None:
            """Nothing is open."""

    founders: Iterator[SiteEntry] = map(build_entry, BENCH_FOUNDERS)
    ledger = BrokerLedger(Silent(), founders, derive_account("ana").address, patience=0.01)
    with pytest.raises(LedgerUnreachable) as caught:
        ledger.propose(GLORE_TERMS)
    assert caught.value.code == "CO-C361"
