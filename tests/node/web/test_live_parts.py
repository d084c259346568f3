"""A viewer of a live part is sent the whole part first, then what is another; and the page asks for what is new."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from support.node.pages import PageHouse

from coterie_chain.ledger.protocol import Mark
from coterie_node.persons.roles import Person, Role
from coterie_node.web.access import Visit
from coterie_node.web.live.live_part import LivePart
from coterie_node.web.live.part_cache import PartCache
from coterie_node.web.live.person_watch import PersonWatch
from coterie_node.web.live.site_reader import SiteReader
from coterie_node.web.live.stream import stream_part
from coterie_node.web.pages.studies import render_list

READ = frozenset({"read"})


@pytest.fixture
def house(tmp_path: Path) -> Iterator[PageHouse]:
    with PageHouse(tmp_path / "nodes") as house:
        yield house


def piece(name: str, text: str) -> str:
    return f"<!--piece {name}--><li id={name}>{text}</li><!--/piece-->"


def apply(shown: str, changes: str) -> str:
    """What stands on a page after changes, as the script does it: kept elements are taken from what stands there."""

    def take(match: re.Match[str]) -> str:
        begin = shown.index(f"<li id={match[1]}>")
        end = shown.index("</li>", shown.index(f"<li id={match[2]}>")) + len("</li>")
        assert begin < end
        assert not re.search("</?ul>", shown[begin:end]), "a range ends in the list in which it begins"
        return shown[begin:end]

    return re.sub(r'<template data-keep="(\S+) (\S+)"></template>', take, changes)


def make_list(rng: random.Random, texts: dict[str, int]) -> str:
    """Two lists with some of the pieces in them."""
    names = rng.sample(sorted(texts), rng.randint(0, len(texts)))
    at = rng.randint(0, len(names))
    lists = ["\n".join(piece(name, f"{name} {texts[name]}") for name in part) for part in (names[:at], names[at:])]
    return f"<h2>{rng.randint(0, 2)}</h2><ul>\n{lists[0]}\n</ul>\n<ul>\n{lists[1]}\n</ul>"


def test_changes_make_the_new_part_of_the_old_one_whatever_comes_goes_moves_or_is_written_anew() -> None:
    rng, texts = random.Random(3), {f"s-{k}": 0 for k in range(8)}
    shown, last = "", None
    for _ in range(400):
        texts[rng.choice(sorted(texts))] += rng.randint(0, 1)
        part = LivePart(make_list(rng, texts))
        changes = part.write_changes(last)
        shown = apply(shown, changes) if changes else shown
        assert shown == part.html
        last = part


def test_of_a_long_list_only_what_changed_is_sent() -> None:
    pieces = {f"s-{k}": piece(f"s-{k}", "a study with a long name") for k in range(1000)}
    old = LivePart("<ul>" + "\n".join(pieces.values()) + "</ul>")
    new = LivePart("<ul>" + "\n".join((pieces | {"s-500": piece("s-500", "x")}).values()) + "</ul>")
    assert new.write_changes(None) == new.html
    assert "piece" not in new.html
    assert new.write_changes(old) == (
        '<ul><template data-keep="s-0 s-499"></template>\n<li id=s-500>x</li>\n'
        '<template data-keep="s-501 s-999"></template></ul>'
    )
    assert LivePart(new.html).write_changes(new) == ""


def test_a_part_is_rendered_once_for_all_viewers_with_the_same_roles() -> None:
    cache, made = PartCache(), []

    def make() -> str:
        made.append(1)
        return "<p>part</p>"

    parts = {cache.start("one", READ, (1, 1), make).result() for _ in range(100)}
    assert (len(made), len(parts)) == (1, 1)
    cache.start("one", READ | {"release"}, (1, 1), make).result()
    cache.start("one", READ, (2, 1), make).result()
    assert len(made) == 3


def test_a_rendering_that_failed_is_tried_again() -> None:
    cache, outcomes = PartCache(), iter(["", "<p>part</p>"])

    def make() -> str:
        outcome = next(outcomes)
        if not outcome:
            raise OSError("the disk is full")
        return outcome

    with pytest.raises(OSError, match="full"):
        cache.start("one", READ, (1,), make).result()
    assert cache.start("one", READ, (1,), make).result().html == "<p>part</p>"


def test_one_look_at_the_accounts_is_for_all_parts_of_a_person_and_holds_for_half_a_second() -> None:
    ada, now, looks = Person("ada", "Ada", frozenset({Role.READ})), [0.0], []
    listed: list[Person | None] = [ada]

    def refresh(person: Person) -> Person | None:
        looks.append(person)
        return listed[0]

    watch = PersonWatch(refresh, lambda: now[0])
    assert all(watch.start(ada).result() for _ in range(100))
    listed[0] = Person("ada", "Ada", frozenset())
    assert len(looks) == 1
    now[0] = 0.5
    assert not watch.start(ada).result()
    assert len(looks) == 2


async def read_events(house: PageHouse, tmp_path: Path) -> list[str]:
    """The first events of a list of studies: one study, a second one, and the second one declined."""
    session = house.sessions.begin(house.accounts.persons["ada"])
    visit = Visit(Request({"type": "http"}), session, house.services)
    response: Any = stream_part(visit, "studies", lambda services, _: render_list(services))
    stream = response.body_iterator
    events = [await anext(stream)]
    await asyncio.to_thread(house.propose, tmp_path, "second")
    events.append(await anext(stream))
    house.services.jobs.start("nothing", "ada", lambda: None)  # another version, of which the list shows nothing
    await asyncio.to_thread(house.propose, tmp_path, "third")
    events.append(await anext(stream))
    await stream.aclose()
    response._places.leave("ada")
    return events


def test_a_viewer_of_the_list_is_sent_the_study_that_changed_and_no_other(house: PageHouse, tmp_path: Path) -> None:
    house.propose(tmp_path, "first")
    first, second, third = asyncio.run(read_events(house, tmp_path))
    assert 'id="study-1"' in first
    assert "data-keep" not in first
    assert 'id="study-2"' in second
    assert 'data-keep="study-1 study-1"' in second
    assert 'id="study-1"' not in second
    assert 'id="study-3"' in third
    assert 'data-keep="study-2 study-1"' in third


def test_a_run_s_page_is_the_same_whether_a_viewer_follows_it_or_not(house: PageHouse, tmp_path: Path) -> None:
    house.run(tmp_path)
    client = house.browser("ada")
    before = client.get("/studies/1/run").text
    house.sessions.looks = 1
    event = client.get("/live/studies/1/run").text
    house.sessions.looks = None
    assert event.startswith("event: part\ndata: ")
    assert client.get("/studies/1/run").text == before
    assert "data: " not in before


class CountingLedger:
    """A ledger that counts what it is asked; on another branch once a test says so."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.branch, self.asked = inner, 0, Counter[str]()

    def read_new(self, mark: Mark) -> Any:
        known = mark.count if mark.branch == self.branch else 0
        new, entries = self.inner.read_new(Mark(0, known))
        self.asked["entries"] += len(entries)
        return Mark(self.branch, new.count), entries

    def __getattr__(self, name: str) -> Any:
        self.asked[name] += 1
        return getattr(self.inner, name)


def test_after_a_block_the_page_asks_for_what_is_new_and_for_the_studies_in_it(
    house: PageHouse, tmp_path: Path
) -> None:
    network = house.network
    ledger: Any = CountingLedger(network.chain.ledger(None))
    reader = SiteReader(network.homes["north"], ledger, network.blobs, lambda: len(network.chain.log))
    house.run(tmp_path, "first")
    house.propose(tmp_path, "second")
    reader.look()
    version, old = reader.version, len(network.chain.log)
    ledger.asked.clear()
    house.propose(tmp_path, "third")
    reader.look()
    assert ledger.asked.pop("now", 1) == 1  # at most: once a second
    assert ledger.asked == {"read_at_one_block": 1, "entries": len(network.chain.log) - old, "view": 1}
    assert reader.version > version
    fresh = house.reader.read()
    assert reader.read().studies == fresh.studies
    assert (reader.read().sites, reader.read().members) == (fresh.sites, fresh.members)
    ledger.asked.clear()
    reader.look()
    assert ledger.asked.pop("now", 1) == 1
    assert not ledger.asked


def test_after_a_reorganisation_the_page_shows_the_other_branch(house: PageHouse, tmp_path: Path) -> None:
    ledger: Any = CountingLedger(house.network.chain.ledger(None))
    reader = SiteReader(house.network.homes["north"], ledger, house.network.blobs)
    for name in ("first", "second"):
        house.propose(tmp_path, name)
    assert list(reader.read().studies) == [1, 2]
    version = reader.version
    with PageHouse(tmp_path / "others") as other:
        other.propose(tmp_path, "second")
        ledger.inner, ledger.branch = other.reader.ledger, 1
        assert reader.read().studies == other.reader.read().studies
        assert reader.read().members == other.reader.read().members
    assert reader.version > version
