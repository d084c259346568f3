"""Who did what, when: every entry of the ledger as a row, for people and for machines."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from functools import cache

import pytest
from node.worlds import World, cohort, sweep, until

from coterie_chain.ledger import Event, Record
from coterie_node.history import Line, as_csv, as_text, history, line_of
from coterie_node.reasons import Reason


@cache
def eventful() -> World:
    """A masked study with an exclusion and a skip, and a second one that was aborted."""
    world = cohort(4, aggregation="masked", silent_site="exclude")
    crew = world.crew()
    rest = [crew[name] for name in ("south", "east", "west")]
    sweep(rest)
    world.late()
    until(lambda: (o := world.view().open) is not None and o.kind == "server", rest)
    sweep([crew["east"], crew["west"]])
    world.late()
    sweep(rest)
    other = world.join(world.view().terms)
    world.ledger("west").abort(other, Reason.OPERATOR)
    return world


def lines(**wanted: object) -> list[Line]:
    return list(history(eventful().ledger(), **wanted))  # type: ignore[arg-type]


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
        "StudyAborted",
    }


def test_a_record_says_where_what_and_how_large() -> None:
    record = eventful().records("server")[-1]
    assert line_of(record) == Line(
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


def test_keys_of_sites_are_told_without_what_nobody_reads() -> None:
    admitted = lines(kind="SiteAdmitted")
    assert [line.site for line in admitted] == list(eventful().study.sites)
    assert all("key=0x" in line.details and "sealing" not in line.details for line in admitted)


def test_an_unknown_reason_is_told_by_its_number() -> None:
    line = line_of(Event("StudyPaused", 1, "north", (("reason", 77),), 3, 0, "0xab"))
    assert (line.details, line.time, line.tx) == ("reason=reason 77", "1970-01-01T00:00:00Z", "0xab")


@pytest.mark.parametrize(
    ("wanted", "check"),
    [
        ({"study": 2}, lambda line: line.study == 2),
        ({"site": "east"}, lambda line: line.site == "east"),
        ({"kind": "each"}, lambda line: line.kind == "each"),
        ({"kind": "server"}, lambda line: line.kind == "server"),
        ({"kind": "Recorded"}, lambda line: line.what == "Recorded"),
        ({"turn": 1}, lambda line: line.round == 1),
        ({"study": 1, "site": "west", "kind": "each", "turn": 0}, lambda line: line.attempt in (0, 1)),
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
    line = line_of(Record("west", 1, "only:west", 0, record.post, record.head, 1, 0, ""))
    assert line.kind == "only:west"


def test_csv_and_json_hold_the_same_as_the_lines() -> None:
    table = list(csv.DictReader(io.StringIO(as_csv(lines()))))
    assert list(table[0]) == list(Line.__dataclass_fields__)
    for row, line in zip(table, lines(), strict=True):
        assert row == {k: "" if v is None else str(v) for k, v in line.as_dict().items()}
    assert json.loads(json.dumps([line.as_dict() for line in lines()])) == [line.as_dict() for line in lines()]


def test_no_cell_of_the_csv_is_a_formula() -> None:
    values = [cell for row in csv.reader(io.StringIO(as_csv(lines()))) for cell in row]
    assert [value for value in values if value[:1] in "=+-@\t\r" and value] == []


def test_text_is_aligned_and_shows_what_a_person_looks_for() -> None:
    shown = as_text(lines())
    head, *body = shown.splitlines()
    assert head.split() == ["block", "time", "study", "site", "what", "step", "round", "bytes", "cid", "/", "details"]
    assert len(body) == len(lines())
    assert {line[head.index("what") :].split()[0] for line in body} == {line.what for line in lines()}
    served = next(line for line in body if " server " in line and "Recorded" in line)
    assert "1.1 server" in served
    assert "bafkrei" in served


def test_an_empty_history_is_a_head_alone() -> None:
    assert len(as_text([]).splitlines()) == 1
    assert as_csv([]).splitlines() == [",".join(Line.__dataclass_fields__)]
