"""Who did what, when: every entry of the ledger as a row, for people and for machines."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.node.worlds import World, cohort, run_past_a_skip_and_an_exclusion, sweep
from typer.testing import CliRunner

from coterie_chain.errors import LedgerMismatch
from coterie_chain.ledger.protocol import Event, Record
from coterie_node.audit.history import ENTRY_COLUMNS, HistoryEntry, to_history_entry
from coterie_node.audit.index import HistoryIndex, HistoryQuery
from coterie_node.audit.tables import write_csv, write_json, write_parquet, write_text
from coterie_node.cli.main import app
from coterie_node.errors import AuditFailed, ConfigError
from coterie_node.run.reasons import Reason


@cache
def eventful() -> World:
    """A masked study with an exclusion and a skip, and a second one that was aborted."""
    world = run_past_a_skip_and_an_exclusion()
    other = world.join(world.view().terms)
    for name in ("south", "east", "west"):
        world.ledger(name).abort(other, Reason.OPERATOR)
    return world


def lines(**wanted: object) -> list[HistoryEntry]:
    with HistoryIndex() as index:
        index.refresh(eventful().ledger())
        return list(index.lines(HistoryQuery(**wanted)))  # type: ignore[arg-type]


def as_csv(entries: list[HistoryEntry]) -> str:
    out = io.StringIO()
    write_csv(entries, out)
    return out.getvalue()


def as_text(entries: list[HistoryEntry]) -> str:
    out = io.StringIO()
    write_text(lambda: entries, out)
    return out.getvalue()


def test_every_entry_is_a_line_in_the_order_of_the_ledger() -> None:
    world = eventful()
    assert len(lines()) == len(world.chain.log)
    assert [line.block for line in lines()] == [e.block for e in world.chain.log]
    assert {line.what for line in lines()} == {
        "SiteAdmitted",
        "StudyProposed",
        "StudyJoined",
        "StudyStarted",
        "Recorded",
        "ExclusionVoted",
        "SiteExcluded",
        "ServerSkipped",
        "StudyCompleted",
        "AbortVoted",
        "StudyAborted",
    }


def test_a_record_says_where_what_and_how_large() -> None:
    record = next(r for r in reversed(eventful().records("server")) if r.post.converged)
    assert to_history_entry(record) == HistoryEntry(
        block=record.block,
        time=datetime.fromtimestamp(record.time, UTC).isoformat().replace("+00:00", "Z"),
        study=1,
        site=record.site,
        what="Recorded",
        kind="server",
        round=record.round,
        position=record.post.position,
        attempt=0,
        cid=record.post.cid,
        sha256=record.post.sha256.hex(),
        size=record.post.size,
        details=f"record {record.seq}, converged",
        tx="",
    )


def test_an_event_says_what_happened_in_words() -> None:
    (aborted,) = lines(kind="StudyAborted")
    assert (aborted.study, aborted.site, aborted.details) == (2, "west", "reason=its people stopped it")
    (skipped,) = lines(kind="ServerSkipped")
    assert (skipped.position, skipped.attempt, skipped.details) == (1, 0, "server=south")
    (excluded,) = lines(kind="SiteExcluded")
    assert (excluded.position, excluded.attempt, excluded.details) == (0, 0, "silent=north")


def test_keys_of_sites_are_listed_without_what_nobody_reads() -> None:
    admitted = lines(kind="SiteAdmitted")
    assert [line.site for line in admitted] == list(eventful().study.sites)
    assert all("key=0x" in line.details and "sealing" not in line.details for line in admitted)


def test_an_unknown_reason_is_named_by_its_number() -> None:
    line = to_history_entry(Event("StudyPaused", 1, "north", (("reason", 77),), 3, 0, "0xab"))
    assert (line.details, line.time, line.tx) == ("reason=reason 77", "1970-01-01T00:00:00Z", "0xab")


@pytest.mark.parametrize(
    ("wanted", "check"),
    [
        ({"study": 2}, lambda line: line.study == 2),
        ({"site": "east"}, lambda line: line.site == "east"),
        ({"kind": "each"}, lambda line: line.kind == "each"),
        ({"kind": "server"}, lambda line: line.kind == "server"),
        ({"kind": "Recorded"}, lambda line: line.what == "Recorded"),
        ({"round": 1}, lambda line: line.round == 1),
        ({"study": 1, "site": "west", "kind": "each", "round": 0}, lambda line: line.attempt in (0, 1)),
    ],
)
def test_lines_can_be_chosen_by_study_site_kind_and_round(wanted: dict[str, object], check: object) -> None:
    chosen = lines(**wanted)
    assert chosen
    assert chosen == [line for line in lines() if line in chosen]
    assert all(check(line) for line in chosen)  # type: ignore[operator]
    assert len(chosen) < len(lines())


def test_every_line_that_fits_is_chosen() -> None:
    records = [e for e in eventful().chain.log if isinstance(e, Record)]
    assert len(lines(kind="each")) == sum(r.kind == "each" for r in records)
    assert len(lines(site="south")) == sum(e.site == "south" for e in eventful().chain.log)


def test_steps_of_one_named_site_are_found_under_only() -> None:
    record = eventful().records()[0]
    line = to_history_entry(Record("west", 1, "only:west", 0, record.post, record.head, 1, 0, ""))
    assert line.kind == "only:west"


def test_csv_and_json_hold_the_same_as_the_lines() -> None:
    table = list(csv.DictReader(io.StringIO(as_csv(lines()))))
    assert list(table[0]) == list(HistoryEntry.__dataclass_fields__)
    for row, line in zip(table, lines(), strict=True):
        assert row == {k: "" if v is None else str(v) for k, v in line.as_dict().items()}
    assert json.loads(json.dumps([line.as_dict() for line in lines()])) == [line.as_dict() for line in lines()]


def test_no_cell_of_the_csv_is_a_formula() -> None:
    values = [cell for row in csv.reader(io.StringIO(as_csv(lines()))) for cell in row]
    assert [value for value in values if value[:1] in "=+-@\t\r" and value] == []


def test_text_is_aligned_and_shows_what_a_person_looks_for() -> None:
    text = as_text(lines())
    head, *body = text.splitlines()
    assert head.split() == [
        "block",
        "time",
        "study",
        "site",
        "what",
        "step",
        "round",
        "bytes",
        "cid",
        "/",
        "details",
        "verdict",
    ]
    assert len(body) == len(lines())
    assert {line[head.index("what") :].split()[0] for line in body} == {line.what for line in lines()}
    served = next(line for line in body if " server " in line and "Recorded" in line)
    assert "1.1 server" in served
    assert "bafkrei" in served


def test_an_empty_history_is_a_head_alone() -> None:
    assert len(as_text([]).splitlines()) == 1
    assert as_csv([]).splitlines() == [",".join(HistoryEntry.__dataclass_fields__)]


# The index


@pytest.fixture
def history_index(tmp_path: Path) -> Iterator[HistoryIndex]:
    """An index in a file."""
    with HistoryIndex(tmp_path / "history.sqlite") as index:
        index.refresh(eventful().ledger())
        yield index


def test_lines_can_be_chosen_by_time() -> None:
    every = lines()
    middle = every[len(every) // 2].time
    before, after = lines(until=middle), lines(since=middle)
    assert before
    assert after
    assert [*before, *after] == every
    assert all(line.time < middle for line in before)


def test_pages_put_together_are_the_whole(history_index: HistoryIndex) -> None:
    asked = HistoryQuery(study=1)
    pages = [list(history_index.lines(asked, first, 7)) for first in range(0, history_index.count(asked), 7)]
    assert [line for page in pages for line in page] == list(history_index.lines(asked))
    assert max(map(len, pages)) == 7
    assert list(history_index.pages(asked, 7)) == pages


def test_an_index_follows_every_hash_chain_to_the_heads_on_the_ledger(history_index: HistoryIndex) -> None:
    heads = eventful().ledger().heads()
    assert history_index.heads() == heads
    assert history_index.check(heads) == len(eventful().records()) == history_index.check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "UPDATE entries SET cid = (SELECT cid FROM entries WHERE what = 'Recorded' AND site = 'east' LIMIT 1)",
            "extend",
        ),
        ("UPDATE entries SET size = size + 1", "extend"),
        ("UPDATE entries SET sha256 = 'zz'", "extend"),
        ("UPDATE entries SET seq = 99", "extend"),
        ("UPDATE entries SET site = 'nobody'", "extend"),
        ("DELETE FROM entries", "hash chain on the ledger has"),
    ],
)
def test_a_record_changed_in_the_index_is_found_with_its_site_and_mended(
    history_index: HistoryIndex, change: str, message: str
) -> None:
    last = "id = (SELECT max(id) FROM entries WHERE what = 'Recorded' AND site = 'south')"
    before = list(history_index.lines(HistoryQuery()))
    history_index._db.execute(f"{change} WHERE {last}")
    with pytest.raises(AuditFailed, match=message) as caught:
        history_index.check()
    assert (caught.value.code, caught.value.site in ("south", "nobody")) == ("CO-A108", True)
    history_index.refresh(eventful().ledger())
    assert list(history_index.lines(HistoryQuery())) == before


def test_an_event_changed_in_the_index_is_mended_by_the_ledger(history_index: HistoryIndex) -> None:
    before = list(history_index.lines(HistoryQuery()))
    history_index._db.execute("UPDATE entries SET what = 'StudyJoined' WHERE what = 'ServerSkipped'")
    assert list(history_index.lines(HistoryQuery())) != before
    history_index.refresh(eventful().ledger())
    assert list(history_index.lines(HistoryQuery())) == before


def test_an_index_is_opened_again_and_knows_what_is_new(tmp_path: Path) -> None:
    world = cohort(3)
    with HistoryIndex(tmp_path / "i.sqlite") as index:
        assert index.refresh(world.ledger()) == len(world.chain.log)
    sweep(world.crew().values())
    with HistoryIndex(tmp_path / "i.sqlite") as index:
        assert index.count(HistoryQuery()) < len(world.chain.log)
        index.refresh(world.ledger())
        assert index.count(HistoryQuery(kind="server")) == len(world.records("server"))


def test_a_ledger_that_breaks_its_rules_is_not_indexed(history_index: HistoryIndex) -> None:
    world = cohort(3)
    sweep(world.crew().values())
    del world.chain.log[-3]
    with pytest.raises(LedgerMismatch):
        history_index.refresh(world.ledger())


def test_a_file_of_something_else_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, and long enough to be looked at as one")
    with pytest.raises(ConfigError, match="cannot be used as an index"):
        HistoryIndex(tmp_path / "text")
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
        other.execute("CREATE TABLE patients (name)")
        other.commit()
    with pytest.raises(ConfigError, match="something else"):
        HistoryIndex(tmp_path / "other.sqlite")


def test_json_and_parquet_hold_the_same_as_the_lines(tmp_path: Path) -> None:
    out = io.StringIO()
    write_json(lines(), out)
    assert json.loads(out.getvalue()) == [line.as_dict() for line in lines()]
    write_parquet(lines(), tmp_path / "history.parquet")
    table = pq.read_table(tmp_path / "history.parquet")
    assert table.column_names == list(ENTRY_COLUMNS)
    assert table.to_pylist() == [line.as_dict() for line in lines()]
    empty = io.StringIO()
    write_json([], empty)
    assert json.loads(empty.getvalue()) == []


def test_hostile_names_are_harmless_in_every_shape() -> None:
    """Members can vote in any 32 bytes as a site's name, on a ledger that is not bound by a study's rules for names."""
    names = ("=cmd|'/c calc'!A1", "\x1b[31mred", "@SUM(1)", "+1", "-1", "\u202eevil", "a\nb")
    entries = [
        HistoryEntry(1, "2026-01-01T00:00:00Z", 0, name, "SiteAdmitted", details=f"name={name}") for name in names
    ]
    text, table = as_text(entries), list(csv.reader(io.StringIO(as_csv(entries))))
    assert len(text.splitlines()) == 1 + len(names)
    assert not set(text) & {"\x1b", "\u202e"}
    cells = [cell for row in table for cell in row]
    assert [c for c in cells if c[:1] in ("=", "+", "-", "@")] == []
    assert not any("\x1b" in c or "\n" in c for c in cells)


@pytest.mark.parametrize("study", ["3", "9" * 19, "9" * 5000, "1e3", "-1", "\u0661\u0661", "deadbeef"])
def test_an_index_without_this_study_names_it(history_index: HistoryIndex, study: str) -> None:
    with pytest.raises(ConfigError, match="has no study") as error:
        history_index.find_study(study)
    assert error.value.code == "CO-F304"
    assert history_index.find_study("1") == 1


@pytest.mark.parametrize("words", [["--round", "9" * 20], ["--first", "9" * 20], ["--limit", "9" * 20]])
def test_numbers_beyond_an_index_are_wrong_options(words: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["audit", "history", "--index", str(tmp_path / "i"), *words])
    assert done.exit_code == 2
    assert "less than or equal to" in done.output


def test_a_missing_index_without_a_ledger_is_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "history.sqlite"
    with pytest.raises(ConfigError, match="There is no index") as error:
        app(["audit", "history", "--index", str(missing)], standalone_mode=False)
    assert error.value.code == "CO-F206"
    assert not missing.exists()
