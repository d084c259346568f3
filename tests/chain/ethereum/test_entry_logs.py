"""What was read from the chain is the same in memory and in a file, and a file that is not whole is read again."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from support.chain.anvil import AnvilClient
from support.chain.bench import AnvilBench, Sites
from support.chain.flaky import FlakyRpc

from coterie_chain.errors import StoreFault
from coterie_chain.ethereum.entries.entry_file import EntryFile
from coterie_chain.ethereum.entries.entry_log import Entry, EntryLog, Extent, MemoryEntryLog, Tip
from coterie_chain.ethereum.follower import ChainFollower
from coterie_chain.ledger.protocol import Event, Post, Record
from coterie_chain.network.devnet import Anvil
from coterie_chain.store.cid import compute_raw_cid

SCOPE = "31337/0xgenesis/0xcatalog"
SITES = ("north", "süd")


def make_entries(blocks: range, seed: int, numbers: dict[str, int]) -> list[Entry]:
    """Some entries of every kind for each block."""
    rng, entries = random.Random(seed), list[Entry]()
    for block in blocks:
        study, site = rng.randint(1, 3), rng.choice(SITES)
        numbers[site] = numbers.get(site, 0) + 1
        payload = rng.randbytes(8)
        cid = compute_raw_cid(payload)
        post = Post(study, rng.randint(0, 2), 0, str(cid), rng.randbytes(32), 8, rng.random() < 0.5, rng.randbytes(32))
        entries.append(Event("StudyProposed", block, site, (("hash", "0x00"), ("least", 1)), block, 5, f"0x{block}"))
        entries.append(Event("SiteAdmitted", 0, site, (("name", "süd"),), block, 5, f"0x{block}"))
        entries.append(Record(site, numbers[site], "each", 1, post, rng.randbytes(32), block, 5, f"0x{block}"))
    return entries


def make_place(block: int) -> Extent:
    return Extent(Tip(block, f"0x{block}", "0x0", 9), {block: f"0x{block}"}, {1: "süd"}, {"0xab": 1})


def look(log: EntryLog) -> list[object]:
    """Everything that a log says."""
    steps = [log.list_records(study, position) for study in range(5) for position in range(3)]
    studies = [list(log.read(study)) for study in range(5)]
    counts = [log.count_events(["SiteAdmitted", "StudyProposed"], until) for until in (0, 4, 99)]
    after = [log.list_after(count) for count in (0, 7, 99)]
    assert after[0] == tuple(log.read())
    return [log.place, after, steps, studies, log.list_proposals(4), log.count_records(), counts]


def fill(log: EntryLog) -> None:
    """Two pages, a reorganisation, and a third page."""
    numbers: dict[str, int] = {}
    log.extend(make_entries(range(1, 6), 1, numbers), make_place(5))
    log.extend(make_entries(range(6, 9), 2, dict(numbers)), make_place(8))
    log.drop_above(5, make_place(5))
    log.extend(make_entries(range(6, 12), 3, numbers), make_place(11))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


def test_a_file_says_what_memory_says_also_after_it_is_opened_again(path: Path) -> None:
    memory, file = MemoryEntryLog(), EntryFile(path, SCOPE)
    for log in (memory, file):
        fill(log)
    assert look(file) == look(memory)
    file.close()
    with closing(EntryFile(path, SCOPE)) as again:
        assert look(again) == look(memory)
        again.clear()
        assert look(again) == look(MemoryEntryLog())
    assert path.stat().st_mode & 0o777 == 0o600


def alter(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute(statement).rowcount > 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = replace(body, '\"each\"', '\"server\"') WHERE id = 3",
        "UPDATE entries SET study = 2 WHERE id = 1",
        "UPDATE entries SET place = 7 WHERE id = 6",
        "DELETE FROM entries WHERE id = (SELECT max(id) FROM entries)",
        "DELETE FROM entries WHERE id = 2",
        "UPDATE about SET value = replace(value, '0x11', '0x12') WHERE name = 'place'",
        "UPDATE about SET value = '0' WHERE name = 'format'",
        "DELETE FROM about WHERE name = 'seal'",
    ],
)
def test_a_file_that_is_not_whole_is_emptied(path: Path, statement: str) -> None:
    file = EntryFile(path, SCOPE)
    fill(file)
    file.close()
    alter(path, statement)
    with closing(EntryFile(path, SCOPE)) as again:
        assert look(again) == look(MemoryEntryLog())


def test_a_file_of_another_network_or_of_no_database_is_emptied(path: Path) -> None:
    file = EntryFile(path, SCOPE)
    fill(file)
    file.close()
    with closing(EntryFile(path, SCOPE + "0")) as other:
        assert list(other.read()) == []
    path.write_bytes(b"no database" * 1000)
    with closing(EntryFile(path, SCOPE)) as again:
        fill(again)
        assert again.place == make_place(11)


def test_a_reader_of_all_sees_the_file_as_of_its_first_entry(path: Path) -> None:
    with closing(EntryFile(path, SCOPE)) as file:
        fill(file)
        entries = file.read()
        first = next(entries)
        file.clear()
        assert len([first, *entries]) == 33


def test_a_folder_that_cannot_be_used_is_a_fault_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreFault, match="cannot be used"):
        EntryFile(tmp_path / "none" / "history.sqlite", SCOPE)


# With a chain


@pytest.fixture
def chain() -> Iterator[tuple[FlakyRpc, Sites, AnvilBench]]:
    with Anvil() as anvil, FlakyRpc(anvil.url) as rpc:
        bench = AnvilBench(AnvilClient(anvil.url))
        yield rpc, Sites(bench), bench
        bench.close()


@pytest.mark.anvil
def test_a_follower_goes_on_from_its_file_and_reads_no_old_block_again(
    chain: tuple[FlakyRpc, Sites, AnvilBench], path: Path
) -> None:
    rpc, sites, bench = chain
    study = sites.start()
    sites.step(study)
    with closing(EntryFile(path, SCOPE)) as file:
        before = ChainFollower(rpc, bench.network, log=file)
        read_until = before.sync().number
    sites.step(study)
    asked: list[int] = []
    rpc.before = lambda method, params: asked.extend(
        [int(params[0]["fromBlock"], 16)] if method == "eth_getLogs" else []  # type: ignore[index]
    )
    reference = ChainFollower(rpc, bench.network)
    reference.sync()
    asked.clear()
    with closing(EntryFile(path, SCOPE)) as file:
        after = ChainFollower(rpc, bench.network, log=file)
        after.sync()
        assert after.entries == reference.entries
        assert after.decoder.names == reference.decoder.names
        assert after.decoder.models == reference.decoder.models
    assert min(asked) == read_until + 1


@pytest.mark.anvil
def test_a_file_that_shares_no_block_with_the_chain_is_read_again(
    chain: tuple[FlakyRpc, Sites, AnvilBench], path: Path
) -> None:
    rpc, sites, bench = chain
    sites.step(sites.start())
    reference = ChainFollower(rpc, bench.network)
    reference.sync()
    with closing(EntryFile(path, SCOPE)) as file:
        ChainFollower(rpc, bench.network, log=file).sync()
        strange = dict.fromkeys(file.place.landmarks, "0x" + "77" * 32)
        tip = file.place.tip
        assert tip is not None
        file.extend((), replace(file.place, landmarks=strange, tip=replace(tip, hash="0x" + "77" * 32)))
        after = ChainFollower(rpc, bench.network, log=file)
        after.sync()
        assert after.entries == reference.entries


@pytest.mark.anvil
def test_a_reorganisation_takes_its_entries_out_of_the_file(
    chain: tuple[FlakyRpc, Sites, AnvilBench], path: Path
) -> None:
    rpc, sites, bench = chain
    study = sites.start()
    with closing(EntryFile(path, SCOPE)) as file:
        follower = ChainFollower(rpc, bench.network, log=file)
        follower.sync()
        snapshot = rpc.call("evm_snapshot")
        sites.step(study)
        follower.sync()
        longer = len(follower.entries)
        assert rpc.call("evm_revert", snapshot)
        rpc.call("anvil_mine", "0x9")
        follower.sync()
        assert len(follower.entries) < longer
    with closing(EntryFile(path, SCOPE)) as again:
        reference = ChainFollower(rpc, bench.network)
        reference.sync()
        assert tuple(again.read()) == reference.entries
