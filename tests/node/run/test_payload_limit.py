"""One limit for the bytes of a payload, measured at the site before anything of it is stored or recorded."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.learners import vertical
from support.node.worlds import World, cohort, sweep

from coterie_chain.ledger.protocol import Event, Record, State
from coterie_chain.store.protocol import MAX_BLOB
from coterie_learners.core.payload import MAX_RAW
from coterie_learners.errors import StudyError
from coterie_learners.vertical.vertigo import MAX_GRAM
from coterie_node.errors import PayloadTooLarge
from coterie_node.run.codec import MAX_PAYLOAD_BYTES
from coterie_node.run.reasons import Reason
from coterie_node.run.simulate import make_runner, make_world, run

CATALOG = Path(__file__).parents[3] / "contracts" / "src" / "Catalog.sol"


def limited(world: World, name: str, limit: int) -> None:
    """A runner of one site with a limit of its own takes turns to its end; PayloadTooLarge where that is passed."""
    runner = world.runner(name)
    runner._codec = runner._initial_codec = replace(runner._codec, limit=limit)
    sweep([runner])


def test_contract_store_reader_and_writer_have_one_limit() -> None:
    (power,) = re.findall(r"MAX_SIZE = 1 << (\d+);", CATALOG.read_text(encoding="utf-8"))
    assert {1 << int(power), MAX_BLOB, MAX_RAW, MAX_PAYLOAD_BYTES} == {1 << 27}


@pytest.mark.parametrize("silence", ["wait", "exclude", "abort"])
def test_a_payload_over_the_limit_is_neither_stored_nor_recorded_and_ends_the_study_with_its_reason(
    silence: str,
) -> None:
    world = cohort(1 if silence != "exclude" else 3, aggregation="plain", silent_site=silence)
    blocks = dict(world.blobs.blocks)
    with pytest.raises(PayloadTooLarge, match="a payload may have 100") as caught:
        limited(world, "north", 100)
    assert caught.value.code == "CO-R303"
    assert world.blobs.blocks == blocks
    assert world.records() == []
    ends = [e for e in world.chain.log if isinstance(e, Event) and e.name in ("StudyAborted", "SiteLeft")]
    assert [(e.site, int(dict(e.details)["reason"])) for e in ends] == [("north", Reason.PAYLOAD_TOO_LARGE)]


def test_a_payload_that_compresses_below_the_limit_is_still_refused() -> None:
    """A reader unpacks no more than the limit, so that its size before compression counts as well."""
    world = cohort(1, aggregation="plain", compression="zstd")
    with pytest.raises(PayloadTooLarge):
        limited(world, "north", 60)


def test_a_payload_at_the_limit_passes() -> None:
    world = cohort(1, aggregation="plain")
    sweep([world.runner("north")])
    largest = max(record.post.size for record in world.records())
    other = cohort(1, aggregation="plain")
    limited(other, "north", max(largest, 4096))
    assert other.view().state == State.COMPLETED


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_gram_matrix_of_7900_patients_is_refused_at_the_site_before_anything_of_it_is_recorded() -> None:
    """At full size. It needs 250 MB, of which the ledger takes 134; readers used to blame the honest site for it."""
    columns = {"north": ("died", "a1"), "south": ("b1",)}
    study = vertical.study(columns, exchange="gram", ridge=1.0)
    rows = vertical.split(study, vertical.draw(7900, columns_by_site=columns))
    world = make_world(study)
    runners = [make_runner(world, name, rows[name]) for name in study.sites]
    with pytest.raises(StudyError, match=rf"the limit is {MAX_GRAM} patients") as caught:
        run(runners)
    assert caught.value.code == "CO-N206"
    assert MAX_GRAM * (MAX_GRAM + 1) // 2 * 8 < MAX_PAYLOAD_BYTES
    sizes = [e.post.size for e in world.chain.log if isinstance(e, Record)]
    assert max(sizes) < 1 << 21  # the hashed identifiers, which were recorded before
    (end,) = (e for e in world.chain.log if isinstance(e, Event) and e.name == "StudyAborted")
    assert int(dict(end.details)["reason"]) == Reason.UNFIT_STUDY
