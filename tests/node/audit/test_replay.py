"""Replay: PASS for an honest record, FAIL with the first bad step for each way to cheat."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.learners import cohorts
from support.node.worlds import (
    World,
    cohort,
    collinear_world,
    run_past_a_skip_and_an_exclusion,
    separated_world,
    sweep,
    tiny_world,
    until,
)
from support.red_team.last_duties import make_world

from coterie_chain.ledger.protocol import Event, Head, Record, State
from coterie_chain.ledger.record_chain import compute_next_head
from coterie_chain.ledger.study_state import SERVER
from coterie_chain.store.cid import compute_raw_cid
from coterie_learners.errors import LearnerError
from coterie_learners.glore.glore import GLORE
from coterie_learners.study.document import Study
from coterie_node.audit.bundle import read_payloads
from coterie_node.audit.replay import Replay, Verdict, replay
from coterie_node.audit.result import replay_line
from coterie_node.run.codec import pack
from coterie_node.run.reasons import Reason
from coterie_node.run.study_files import study_terms


def done(**options: Any) -> World:
    """A completed study of three sites."""
    world = cohort(3, **options)
    sweep(world.crew().values())
    assert world.view().state == State.COMPLETED
    return world


def replay_world(world: World, **options: Any) -> Replay:
    return replay(world.ledger(), world.blobs, world.number, **options)


def check_failure(world: World, code: str = "", **options: Any) -> Verdict:
    verdict = replay_world(world, **options).verdict
    assert (verdict.verdict, verdict.grade) == ("FAIL", "none")
    assert verdict.problem
    assert code in ("", verdict.code)
    return verdict


def place(world: World, position: int, site: str) -> int:
    """Where in the log a record stands."""
    log = world.chain.log
    return next(k for k, e in enumerate(log) if isinstance(e, Record) and (e.post.position, e.site) == (position, site))


def rewrite_record(world: World, where: int, **changes: Any) -> None:
    """Change a record of the log and nothing else."""
    record = world.chain.log[where]
    assert isinstance(record, Record)
    world.chain.log[where] = replace(record, **changes)


# Honest records


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
def test_an_honest_study_passes_with_the_same_bits(aggregation: str) -> None:
    world = done(aggregation=aggregation)
    audit = replay_world(world)
    verdict, fit = audit.verdict, world.rerun("north")
    servers = len(world.records("server")) - 1  # there is nothing to compute at the conclusion
    assert (verdict.verdict, verdict.grade, verdict.outcome) == ("PASS", "identical", "converged")
    assert (verdict.steps, verdict.unchecked, verdict.max_difference) == (servers, 0, 0.0)
    assert verdict.records == len(world.records()) == 4 * servers + 1
    assert audit.study == world.study
    assert audit.fit.estimates.tobytes() == fit.estimates.tobytes()
    assert audit.fit.covariance.tobytes() == fit.covariance.tobytes()


def test_a_verdict_has_the_stable_json_keys() -> None:
    plain = replay_world(done()).verdict.as_dict()
    assert list(plain) == [
        "verdict",
        "grade",
        "steps",
        "max_difference",
        "records",
        "unchecked",
        "outcome",
        "problem",
        "code",
        "site",
        "topic",
        "unsealed",
        "recomputed",
    ]
    assert plain["recomputed"] == {"server_steps": plain["steps"], "of": plain["steps"]}
    assert json.loads(json.dumps(plain)) == plain


def test_every_step_of_a_replay_is_reported() -> None:
    topics: list[str] = []
    replay_world(done(), observe=lambda p: topics.append(p.topic))
    assert topics[:3] == ["stats/0", "model/0", "stats/1"]
    assert [topic.split("/")[0] for topic in topics[-4:]] == ["model", "stats", "model", "conclusion"]


def test_a_study_with_a_skip_and_an_exclusion_passes() -> None:
    world = run_past_a_skip_and_an_exclusion()
    assert len(world.events("ServerSkipped")) == len(world.events("SiteExcluded")) == 1
    audit = replay_world(world)
    assert audit.verdict.verdict == "PASS"
    (gone,) = (dict(e.details)["silent"] for e in world.events("SiteExcluded"))
    assert audit.contributors == tuple(name for name in world.study.sites if name != gone)


def test_several_studies_on_one_ledger_are_judged_each_by_itself() -> None:
    world = done()
    other_world = make_other_world(world)
    assert replay_world(world).verdict.verdict == "PASS"
    assert replay_world(other_world).verdict.verdict == "PASS"


def make_other_world(world: World) -> World:
    """A second study of the same sites, on the same ledger and in the same store, run to its end."""
    study = cohorts.study(ridge=0.25)
    other_world = World(study, cohorts.split(study, cohorts.draw(90)))
    other_world.chain, other_world.blobs = world.chain, world.blobs
    other_world.blobs.put(study.document)
    other_world.number = other_world.join(study_terms(study))
    sweep(other_world.crew().values())
    return other_world


# Honest studies without a fit


@pytest.mark.parametrize(
    ("make", "outcome"),
    [
        (separated_world, "Separation: The outcome is separated"),
        (collinear_world, "Collinear: The column crp"),
        (tiny_world, "StudyError: 6 rows at all sites"),
        (lambda: cohort(3, max_rounds=2), "NotConverged: No convergence in 2 rounds"),
    ],
)
def test_a_study_without_a_fit_passes_and_says_how_it_ended(make: Callable[[], World], outcome: str) -> None:
    world = make()
    for runner in world.crew().values():
        with pytest.raises(LearnerError):
            sweep([runner, *world.crew().values()])
    audit = replay_world(world)
    assert (audit.verdict.verdict, audit.verdict.grade) == ("PASS", "identical")
    assert audit.verdict.outcome.startswith(outcome)
    assert audit.fit is None


def test_a_study_that_still_runs_or_was_stopped_passes_as_far_as_it_came() -> None:
    world = cohort(3)
    crew = world.crew()
    until(lambda: len(world.records()) == 9, crew.values())
    verdict = replay_world(world).verdict
    assert (verdict.verdict, verdict.outcome, verdict.steps) == ("PASS", "running", 2)
    world.ledger("east").pause(world.number, Reason.OPERATOR)
    assert replay_world(world).verdict.outcome == "paused"
    world.ledger("east").abort(world.number, Reason.OPERATOR)
    assert "east ended study 1 at position 4: its people stopped it" in replay_world(world).verdict.outcome


# Payloads


@pytest.mark.parametrize(("position", "site", "topic"), [(0, "south", "stats/0"), (3, "south", "model/1")])
def test_a_byte_flipped_in_the_store_is_found_with_site_and_topic(position: int, site: str, topic: str) -> None:
    world = done()
    record = next(r for r in world.records() if (r.post.position, r.site) == (position, site))
    block = bytearray(world.blobs.blocks[record.post.cid])
    block[len(block) // 2] ^= 4
    world.blobs.blocks[record.post.cid] = bytes(block)
    verdict = check_failure(world)
    assert (verdict.site, verdict.topic) == (site, topic)


def test_a_payload_that_no_store_holds_any_more_fails() -> None:
    world = done()
    record = world.records()[4]
    del world.blobs.blocks[record.post.cid]
    assert record.post.cid in check_failure(world).problem


def wrong_by(amount: float, position: int = 1) -> World:
    """A study in which a server's post was off, at sites which let that pass."""
    world = cohort(3)
    crew = world.crew(tolerance=1.0)
    until(lambda: (o := world.view().open) is not None and o.position == position, crew.values())
    open_ = world.view().open
    assert open_ is not None
    world.forge(open_.posters[0], lambda p: p["beta"].__setitem__(2, p["beta"][2] + amount))
    sweep(crew.values())
    assert world.view().state == State.COMPLETED
    return world


@pytest.mark.parametrize(("position", "site", "topic"), [(1, "north", "model/0"), (5, "east", "model/2")])
def test_a_server_post_off_by_a_millionth_is_named_with_the_difference(position: int, site: str, topic: str) -> None:
    verdict = check_failure(wrong_by(1e-6, position), "CO-P201")
    assert (verdict.site, verdict.topic) == (site, topic)
    assert verdict.max_difference == pytest.approx(1e-6, rel=1e-6)
    assert verdict.steps == (position + 1) // 2


def test_a_server_post_off_by_one_bit_is_named() -> None:
    world = cohort(3)
    crew = world.crew(tolerance=1.0)
    until(lambda: (o := world.view().open) is not None and o.position == 1, crew.values())
    world.forge("north", lambda p: p["beta"].__setitem__(2, np.nextafter(p["beta"][2], 9)))
    sweep(crew.values())
    assert check_failure(world, "CO-P201").topic == "model/0"


def test_within_a_tolerance_the_grade_says_so_and_the_largest_difference_is_reported() -> None:
    world = wrong_by(1e-6)
    verdict = replay_world(world, tolerance=1e-5).verdict
    assert (verdict.verdict, verdict.grade) == ("PASS", "within tolerance")
    assert verdict.max_difference == pytest.approx(1e-6, rel=1e-6)
    assert check_failure(world, tolerance=1e-7).site == "north"


def test_a_tolerance_does_not_lower_the_grade_of_an_honest_study() -> None:
    assert replay_world(done(), tolerance=1.0).verdict.grade == "identical"


def test_a_bad_payload_that_ended_a_study_is_named() -> None:
    world = cohort(3, aggregation="plain")
    world.forge("south", lambda p: p["score"].__setitem__(0, np.nan))
    for runner in world.crew().values():
        with pytest.raises(LearnerError):
            sweep([runner, *(r for n, r in world.crew().items() if n != "south")])
    verdict = check_failure(world, "CO-P107")
    assert (verdict.site, verdict.topic) == ("south", "stats/0")


def test_a_disputed_post_is_named() -> None:
    world = cohort(3)
    crew = world.crew()
    until(lambda: (o := world.view().open) is not None and o.position == 1, crew.values())
    world.forge("north", lambda p: p["beta"].__setitem__(0, 0.5))
    with pytest.raises(LearnerError):
        sweep(crew.values())
    assert world.view().state == State.PAUSED
    verdict = check_failure(world, "CO-P201")
    assert (verdict.site, verdict.topic) == ("north", "model/0")


@pytest.mark.parametrize("spoil", ["flipped", "missing"])
def test_a_payload_that_a_skip_or_an_exclusion_left_behind_is_checked_too(spoil: str) -> None:
    """Altered bytes fail. A payload that its site no longer serves is a remark: else any site could spoil the audit."""
    world = cohort(4, aggregation="masked", silent_site="exclude")
    crew = world.crew(("north", "south", "east"))
    sweep(crew.values())
    world.late()
    sweep(crew.values())
    left = next(r for r in world.records() if (r.post.attempt, r.site) == (0, "south"))
    assert replay_world(world).verdict.verdict == "PASS"
    words = "superseded payload of south (position 0, attempt 0)"
    if spoil == "missing":
        del world.blobs.blocks[left.post.cid]
        audit = replay_world(world)
        assert audit.verdict.verdict == "PASS"
        assert [words in remark for remark in audit.remarks] == [True]
        assert len(list(read_payloads(world.ledger(), world.blobs, world.number))) == len(world.records()) - 1
        return
    world.blobs.blocks[left.post.cid] = world.blobs.blocks[left.post.cid][:-1] + b"\0"
    verdict = check_failure(world)
    assert verdict.site == "south"
    assert words in verdict.problem


# The ledger's entries


def test_a_record_swapped_for_one_of_another_study_is_found() -> None:
    world = done()
    other_world = make_other_world(world)
    mine = place(world, 0, "south")
    foreign = next(r for r in other_world.records() if (r.post.position, r.site) == (0, "south"))
    world.chain.log[mine] = foreign
    verdict = check_failure(world, "CO-C340")
    assert "of south (study 2, position 0" in verdict.problem


def test_a_payload_swapped_in_the_ledger_for_one_of_another_study_is_found() -> None:
    world = done()
    foreign = next(r for r in make_other_world(world).records() if (r.post.position, r.site) == (0, "south"))
    rewrite_record(world, place(world, 0, "south"), post=replace(foreign.post, study=1, basis=world.study.hash))
    assert "hash chain" in check_failure(world, "CO-C340").problem


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda r: {"post": replace(r.post, sha256=b"\1" * 32)}, "hash chain"),
        (lambda r: {"post": replace(r.post, cid=compute_raw_cid(b"other"))}, "hash chain"),
        (lambda r: {"post": replace(r.post, size=r.post.size + 1)}, "hash chain"),
        (lambda r: {"post": replace(r.post, attempt=1)}, "WrongStep"),
        (lambda r: {"post": replace(r.post, position=7)}, "WrongStep"),
        (lambda r: {"post": replace(r.post, basis=b"\1" * 32)}, "BasisMismatch"),
        (lambda r: {"kind": "server"}, "kind"),
        (lambda r: {"round": 3}, "round"),
        (lambda r: {"seq": 9}, "sequence number"),
        (lambda r: {"head": b"\1" * 32}, "hash chain"),
        (lambda r: {"site": "east"}, ""),
        (lambda r: {"site": "nobody"}, ""),
    ],
)
def test_a_record_changed_in_any_part_is_found_at_its_place(change: Callable[[Record], Any], word: str) -> None:
    world = done()
    where = place(world, 2, "south")
    record = world.chain.log[where]
    assert isinstance(record, Record)
    rewrite_record(world, where, **change(record))
    assert word in check_failure(world, "CO-C340").problem


def test_a_server_record_out_of_turn_is_found() -> None:
    """A chain that lets the wrong site serve: log, hash chain and heads agree with each other, the rules do not."""
    world = done()
    where = place(world, 1, "north")
    record = world.chain.log[where]
    assert isinstance(record, Record)
    before = next(e for e in reversed(world.chain.log[:where]) if isinstance(e, Record) and e.site == "south")
    head = compute_next_head(before.head, 2, SERVER, 0, record.post)
    rewrite_record(world, where, site="south", seq=2, head=head)
    assert "NotYourTurn" in check_failure(world, "CO-C340").problem


def test_a_dropped_last_record_is_found() -> None:
    world = done()
    log = world.chain.log
    last = max(k for k, e in enumerate(log) if isinstance(e, Record))
    del log[last]
    assert "the record that completes the study must follow" in check_failure(world, "CO-C340").problem


def test_records_dropped_with_the_event_of_completion_are_found_by_their_sites_head() -> None:
    world = done()
    log = world.chain.log
    last = max(k for k, e in enumerate(log) if isinstance(e, Record))
    site = log[last].site
    world.chain.log = [e for k, e in enumerate(log) if k != last and getattr(e, "name", "") != "StudyCompleted"]
    verdict = check_failure(world, "CO-A103")
    assert verdict.site == site


def test_records_dropped_with_their_heads_are_found_by_the_state_of_the_study() -> None:
    world = done()
    log = world.chain.log
    last = max(k for k, e in enumerate(log) if isinstance(e, Record))
    record = log[last]
    assert isinstance(record, Record)
    world.chain.log = [e for k, e in enumerate(log) if k != last and getattr(e, "name", "") != "StudyCompleted"]
    number = world.study.sites.index(record.site) + 1
    earlier = [e for e in world.chain.log if isinstance(e, Record) and e.site == record.site][-1]
    world.chain.heads[number] = Head(world.chain.heads[number].genesis, earlier.seq, earlier.head)
    assert "does not lead to its state" in check_failure(world, "CO-A104").problem


def test_two_entries_in_another_order_are_found() -> None:
    world = done()
    log = world.chain.log
    first, second = place(world, 1, "north"), place(world, 2, "north")
    log[first], log[second] = log[second], log[first]
    assert "north" in check_failure(world, "CO-C340").problem


def test_two_posts_of_one_step_in_another_order_are_no_fault() -> None:
    """Sites post in any order; what each site did, and what came of it, is the same."""
    world = done()
    log = world.chain.log
    first, second = place(world, 2, "north"), place(world, 2, "south")
    log[first], log[second] = log[second], log[first]
    assert replay_world(world).verdict.verdict == "PASS"


def test_a_vote_that_was_never_cast_is_found() -> None:
    world = done()
    where = place(world, 3, "south")
    world.chain.log.insert(where, Event("ServerSkipped", 1, "east", (("position", 3),), 0, 0, ""))
    assert "ServerSkipped by east" in check_failure(world, "CO-C340").problem


# The study's document


def test_a_changed_document_is_found() -> None:
    world = done()
    cid = compute_raw_cid(world.study.document)
    world.blobs.blocks[cid] = world.study.document.replace(b'"ridge":0.0', b'"ridge":9.0')
    assert cid in check_failure(world).problem


def test_a_missing_document_fails() -> None:
    world = done()
    del world.blobs.blocks[compute_raw_cid(world.study.document)]
    audit = replay_world(world)
    assert (audit.verdict.verdict, audit.study, audit.fit) == ("FAIL", None, None)


def test_a_document_that_is_no_study_fails() -> None:
    world = done()
    junk = b'{"name":"not a study"}'
    world.blobs.put(junk)
    world.chain.rules.studies[1].hash = hashlib.sha256(junk).digest()
    assert check_failure(world, "CO-S102")


def test_a_study_of_another_version_of_its_learner_is_not_checked_and_never_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = done()
    pinned = GLORE.version
    monkeypatch.setattr("coterie_learners.glore.glore.GLORE", replace(GLORE, version="99"))
    verdict = replay_world(world).verdict
    assert (verdict.verdict, verdict.code, verdict.status, verdict.intact) == ("NOT CHECKED", "CO-S402", 26, False)
    assert (verdict.steps, verdict.records) == (0, len(world.records()))
    assert f"pins glore {pinned}, and this installation has 99" in verdict.problem
    assert replay_line(verdict).startswith("Replay: NOT CHECKED [CO-S402] The study pins glore")


def test_an_encrypted_study_is_not_checked_without_the_library_and_fails_where_its_record_does_not_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = make_world("secure_cola bfv", "wait")
    sweep(world.crew().values())
    assert replay_world(world).verdict.verdict == "PASS"
    monkeypatch.setattr("coterie_learners.cola.encryption.find_spec", lambda name: None)
    verdict = replay_world(world).verdict
    assert (verdict.verdict, verdict.code, verdict.status, verdict.intact) == ("NOT CHECKED", "CO-S406", 26, False)
    assert (verdict.steps, verdict.records) == (0, len(world.records()))
    assert "not whole" in verdict.problem
    assert "Install coterie[he]" in verdict.problem
    at = place(world, 0, world.study.sites[0])
    record = world.chain.log[at]
    assert isinstance(record, Record)
    world.chain.log[at] = replace(record, post=replace(record.post, sha256=bytes(32)))
    assert check_failure(world).site == world.study.sites[0]


def test_a_record_that_does_not_hold_fails_whatever_version_of_the_learner_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = done()
    monkeypatch.setattr("coterie_learners.glore.glore.GLORE", replace(GLORE, version="99"))
    at = place(world, 0, world.study.sites[0])
    record = world.chain.log[at]
    assert isinstance(record, Record)
    world.chain.log[at] = replace(record, post=replace(record.post, sha256=bytes(32)))
    assert check_failure(world).site == world.study.sites[0]


def test_a_document_that_names_another_version_than_the_one_proposed_fails() -> None:
    world = done()
    other_world = Study.model_validate(
        {**world.study.model_dump(), "learner": {**world.study.learner.model_dump(), "version": "0"}}
    )
    world.blobs.put(other_world.document)
    world.chain.rules.studies[1].hash = other_world.hash
    check_failure(world)


@pytest.mark.parametrize(
    ("field", "value"), [("max_rounds", 99), ("timeout", 61), ("order", (2, 1, 3)), ("schedule", ((), (0xFF,), ()))]
)
def test_terms_on_the_ledger_that_are_not_the_documents_are_found(field: str, value: Any) -> None:
    world = done()
    setattr(world.chain.rules.studies[1], field, value)
    assert check_failure(world, "CO-A102").problem.startswith("The ledger's terms of study 1")


def test_a_payload_of_an_honest_site_posted_again_in_a_later_round_is_found() -> None:
    """The stamp binds a payload to its step: an old round cannot be served again."""
    world = cohort(3)
    crew = world.crew()
    until(lambda: (o := world.view().open) is not None and o.position == 2, crew.values())
    old = next(r for r in world.records() if (r.post.position, r.site) == (0, "south"))
    world.post("south", world.blobs.get(old.post.cid))
    with pytest.raises(LearnerError):
        sweep([crew["north"], crew["east"]])
    verdict = check_failure(world, "CO-P110")
    assert (verdict.site, verdict.topic) == ("south", "stats/1")


def test_a_server_that_signs_another_sites_stamp_is_found() -> None:
    world = cohort(3)
    crew = world.crew()
    until(lambda: (o := world.view().open) is not None and o.position == 1, crew.values())
    runner, step, open_ = world.catch_up("north")
    world.post("north", pack(world.study, step, "south", 0, runner.machine.draft(open_.parties, 0)))
    with pytest.raises(LearnerError):
        sweep(crew.values())
    assert check_failure(world, "CO-P110").site == "north"
