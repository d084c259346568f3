"""The memory twin finds the records of a step where they stand, also in a log that was changed behind its back."""

from __future__ import annotations

from dataclasses import replace

from coterie_chain.ledger.memory import RecordPlaces
from coterie_chain.ledger.protocol import Event, Post, Record


def record(position: int, study: int = 1, site: str = "north") -> Record:
    return Record(site, 1, "each", 0, Post(study, position, 0, "", bytes(32), 1, False, bytes(32)), bytes(32), 1, 0, "")


def test_records_are_found_as_a_search_of_the_whole_log_finds_them() -> None:
    places, log = RecordPlaces(), list[Record | Event]()
    for position, study in [(0, 1), (0, 2), (1, 1), (0, 1), (1, 2), (1, 1)]:
        log.append(record(position, study))
        log.append(Event("StudyPaused", study, "north", (), 1, 0, ""))
        assert places.find(log, 1, 0) == search(log, 1, 0)
        assert places.find(log, 2, 1) == search(log, 2, 1)


def test_a_log_with_an_entry_changed_inserted_or_taken_away_is_searched_anew() -> None:
    places, log = RecordPlaces(), list[Record | Event]([record(0), record(1), record(0, site="south")])
    assert len(places.find(log, 1, 0)) == 2
    log[0] = replace(record(0), seq=7)
    assert places.find(log, 1, 0) == search(log, 1, 0)
    log.insert(0, Event("ServerSkipped", 1, "east", (), 0, 0, ""))
    assert places.find(log, 1, 0) == search(log, 1, 0)
    del log[1]
    assert places.find(log, 1, 0) == search(log, 1, 0)
    log = log[:1]
    assert places.find(log, 1, 0) == search(log, 1, 0) == []


def search(log: list[Record | Event], study: int, position: int) -> list[Record]:
    return [e for e in log if isinstance(e, Record) and (e.post.study, e.post.position) == (study, position)]
