"""A whole study in one process: any number of sites, one model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.learners import cohorts, pooled

from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import Record, State
from coterie_learners.core import payload as pay
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import derive_pad
from coterie_learners.errors import StudyError
from coterie_learners.study.document import Study
from coterie_node.audit.replay import replay
from coterie_node.run.follower import Progress
from coterie_node.run.simulate import PairSecrets, World, simulate

CODES = cohorts.draw(120)


def last_post(world: World) -> Payload:
    """The arrays of the last server post that counts: the very last one concludes the study."""
    record = [e for e in world.chain.log if isinstance(e, Record) and e.kind == "server"][-2]
    return pay.decode(pay.unpack(world.blobs.get(record.post.cid)))[1]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20])
def test_any_number_of_sites_gives_the_pooled_model(count: int) -> None:
    study = cohorts.study(count=count)
    world, runners, seconds = simulate(study, cohorts.split(study, CODES))
    want = pooled.fit(study, CODES)
    fits = [runner.machine.result for runner in runners.values()]
    np.testing.assert_allclose(fits[0].estimates, want.estimates, rtol=0, atol=1e-10)
    np.testing.assert_allclose(fits[0].std_errors, want.std_errors, rtol=0, atol=1e-9)
    assert {fit.estimates.tobytes() for fit in fits} == {fits[0].estimates.tobytes()}
    assert world.ledger().view(world.number).state == State.COMPLETED
    assert seconds > 0
    # Three sites and more are masked by default: nobody sees a site's sums.
    first = next(e for e in world.chain.log if isinstance(e, Record))
    posted = pay.decode(pay.unpack(world.blobs.get(first.post.cid)))[1]
    assert set(posted) == ({"masked"} if count >= 3 else {"score", "information", "deviance", "n", "outcome"})


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
def test_the_order_of_sites_does_not_change_one_bit_of_the_last_server_post(aggregation: str) -> None:
    study = cohorts.study(count=5, aggregation=aggregation)
    rows = cohorts.split(study, CODES, [5, 60, 11, 40, 4])
    posts = []
    for order in (study.sites, study.sites[::-1], tuple(sorted(study.sites))):
        of = Study.model_validate({**study.model_dump(), "sites": order})
        posts.append(pay.canonical(last_post(simulate(of, rows)[0])))
    assert posts[0] == posts[1] == posts[2]


def test_the_sites_of_one_process_share_the_pads_that_each_derives_alone() -> None:
    north, south = (SiteKeys.of(bytes([k]) * 32, bytes([k + 1]) * 32) for k in (1, 3))
    pairs, alone = PairSecrets(), north.derive_shared_secret(south.sealing)
    for _ in range(2):  # also after a site that starts again has asked once more
        assert pairs.share(north, south.sealing) == pairs.share(south, north.sealing) == alone
        for label in ("one", "two"):
            own, peer = (pairs.derive(alone, label, 48) for _ in range(2))
            assert own == peer == derive_pad(alone, label, 48)
    assert pairs.derive(alone, "one", 48) != pairs.derive(alone, "two", 48)


def test_keys_are_fresh_in_every_simulation_and_the_model_is_the_same() -> None:
    study = cohorts.study()
    (first_world, first, _), (two, second, _) = (simulate(study, cohorts.split(study, CODES)) for _ in range(2))
    assert {k.address for k in first_world.keys.values()}.isdisjoint(k.address for k in two.keys.values())
    assert pay.canonical(last_post(first_world)) == pay.canonical(last_post(two))
    assert first["north"].machine.result.estimates.tobytes() == second["north"].machine.result.estimates.tobytes()


def test_a_simulated_study_replays() -> None:
    study = cohorts.study()
    world, runners, _ = simulate(study, cohorts.split(study, CODES))
    replayed = replay(world.ledger(), world.blobs, world.number)
    assert (replayed.verdict.verdict, replayed.verdict.grade) == ("PASS", "identical")
    assert replayed.fit.estimates.tobytes() == runners["east"].machine.result.estimates.tobytes()


def test_every_step_is_reported_once() -> None:
    progress_seen: list[Progress] = []
    study = cohorts.study()
    simulate(study, cohorts.split(study, CODES), progress_seen.append)
    assert [p.position for p in progress_seen] == list(range(len(progress_seen)))
    assert {p.sites for p in progress_seen if p.kind == "each"} == {study.sites}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("north", "south"), ["missing for east."]),
        (("north", "south", "east", "moon"), ["; data is given for moon, of which it takes none."]),
        (("North", "south", "east"), ["missing for north;", "given for North,"]),
        ((), ["missing for east, north, south"]),
    ],
)
def test_rows_for_other_sites_than_the_studys_are_refused_by_name(given: tuple[str, ...], words: list[str]) -> None:
    study = cohorts.study()
    rows = next(iter(cohorts.split(study, CODES).values()))
    with pytest.raises(StudyError) as caught:
        simulate(study, dict.fromkeys(given, rows))
    assert caught.value.code == "CO-S105"
    assert [word for word in words if word not in caught.value.message] == []


@pytest.mark.parametrize("back", [1, 2])
def test_another_record_at_either_of_the_last_two_steps_is_another_ledger(
    back: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = cohorts.study("died ~ age")
    _, runners, _ = simulate(of, cohorts.split(of, cohorts.draw(90)))
    runner = runners[of.sites[0]]
    assert runner.matches_ledger()
    read, changed = runner._ledger.read_finished, runner.position - back

    def read_other(study: int, position: int) -> tuple[Record, ...] | None:
        records = read(study, position)
        if position != changed or records is None:
            return records
        return (replace(records[0], head=bytes(32)), *records[1:])

    monkeypatch.setattr(runner._ledger, "read_finished", read_other)
    assert not runner.matches_ledger()
