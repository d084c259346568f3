"""Runners over the rules of the ledger: who serves, who is passed over, and how a study ends when somebody errs."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.learners import cohorts, pooled, shapes
from support.learners.cohorts import FULL, Codes
from support.learners.shapes import SCRIPT_CASES
from support.node.worlds import World, cohort, collinear_world, separated_world, sweep, tiny_world, until

from coterie_chain.errors import PostRejected
from coterie_chain.ledger.protocol import State
from coterie_chain.store.cid import DAG_PB, Cid
from coterie_learners.core import payload as pay
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Script, Site, Step, each
from coterie_learners.errors import (
    Collinear,
    DataError,
    LearnerError,
    NotConverged,
    ProtocolError,
    Separation,
    StudyError,
    WrongPost,
)
from coterie_learners.study.document import Schedule
from coterie_node.errors import StudyStopped
from coterie_node.run.codec import pack
from coterie_node.run.follower import Progress
from coterie_node.run.reasons import Reason
from coterie_node.run.runner import Runner


def finish(world: World, crew: dict[str, Runner]) -> dict[str, Any]:
    """Turns to the end; results by site."""
    sweep(crew.values())
    assert [name for name, r in crew.items() if not r.done] == []
    assert world.view().state == State.COMPLETED
    return {name: r.machine.result for name, r in crew.items()}


def collect_errors(crew: dict[str, Runner], *kinds: type[Exception]) -> dict[str, Any]:
    """The error with which each site ends."""
    collected: dict[str, Exception] = {}
    while len(collected) < len(crew):
        moved = False
        for name in [n for n in crew if n not in collected]:
            try:
                moved |= crew[name].turn()
            except kinds as error:
                collected[name], moved = error, True
        assert moved, f"only {sorted(collected)} had a message"
    return collected


def find_abort(world: World) -> tuple[str, Reason]:
    """Who ended the study, and why."""
    assert world.view().state == State.ABORTED
    (event,) = world.events("StudyAborted")
    return event.site, Reason(int(dict(event.details)["reason"]))


def at(world: World, position: int) -> Callable[[], bool]:
    def there() -> bool:
        open_ = world.view().open
        return open_ is not None and open_.position >= position

    return there


# The way to the end


@pytest.mark.parametrize("name", SCRIPT_CASES)
def test_each_shape_runs_over_the_ledger_and_replays_without_rows(name: str) -> None:
    shape = SCRIPT_CASES[name]
    world = World(shapes.study(tuple(shape.rows)), shape.rows, shape.script, shape.schedule)
    results = finish(world, world.crew())
    np.testing.assert_allclose(shape.pick(results), shape.truth, rtol=0, atol=1e-9)
    auditor = world.auditor()
    sweep([auditor])
    assert auditor.done
    assert auditor.machine.checked == len(world.records("server"))
    assert auditor.machine.difference == 0.0


def test_the_server_rotates_in_the_order_of_the_study() -> None:
    world = cohort(3)
    finish(world, world.crew())
    servers = [r.site for r in world.records("server")]
    assert servers == [world.study.sites[k % 3] for k in range(len(servers))]
    assert len(servers) > 3


def test_every_step_is_reported_once_in_order_with_its_figures() -> None:
    world, progress_seen = cohort(3), list[Progress]()
    runner = world.runner("north")
    runner._observe = progress_seen.append
    finish(world, {**world.crew(), "north": runner})
    assert [p.position for p in progress_seen] == list(range(len(progress_seen)))
    assert [p.topic for p in progress_seen[:4]] == ["stats/0", "model/0", "stats/1", "model/1"]
    assert [(p.kind, p.round, p.sites) for p in progress_seen[:2]] == [
        ("each", 0, world.study.sites),
        ("server", 0, ("north",)),
    ]
    assert progress_seen[0].figures == {}
    assert progress_seen[1].figures.keys().isdisjoint({"deviance", "null_deviance"})  # it looks at moments
    assert progress_seen[3].figures["deviance"] > 0
    assert {p.time for p in progress_seen} == {world.clock.seconds}


def test_what_was_posted_and_the_time_it_took_are_counted() -> None:
    world = cohort(3)
    crew = world.crew()
    finish(world, crew)
    for name, runner in crew.items():
        assert runner.payload_bytes == sum(r.post.size for r in world.records() if r.site == name)
        assert set(runner.seconds) == {"compute", "ledger", "store"}


def test_after_the_end_there_is_nothing_to_do() -> None:
    world = cohort(1, aggregation="plain")
    crew = world.crew()
    finish(world, crew)
    written = len(world.chain.log)
    assert not crew["north"].turn()
    assert len(world.chain.log) == written


def test_a_study_that_waits_for_a_site_to_join_waits() -> None:
    world = cohort(3)
    second = world.ledger("north").propose(replace(world.view().terms, hash=bytes(31) + b"1"))
    world.number = second
    assert not world.runner("north").turn()
    assert world.ledger().view(second).state == State.PROPOSED


def test_a_script_that_disagrees_with_the_schedule_ends_the_study_by_its_position() -> None:
    shape = SCRIPT_CASES["cola"]
    world = World(shapes.study(("a", "b", "c")), shape.rows, shape.script, Schedule(opening=("each", "each")))
    collected = collect_errors(world.crew(), ProtocolError, StudyStopped)
    assert "Position 1 is 'each' on the ledger but 'server' in the learner's script" in " ".join(
        map(str, collected.values())
    )
    assert find_abort(world)[1] == Reason.BAD_PAYLOAD


def test_a_schedule_that_ends_before_the_script_is_refused() -> None:
    shape = SCRIPT_CASES["cola"]
    world = World(shapes.study(("a", "b", "c")), shape.rows, shape.script, Schedule(opening=("each",)))
    collected = collect_errors(world.crew(), ProtocolError)
    assert {getattr(error, "code", "") for error in collected.values()} == {"CO-P115"}
    assert world.view().state == State.COMPLETED


# Silence


def test_a_silent_server_is_passed_over_after_its_deadline_by_the_next_site() -> None:
    world = cohort(3)
    crew = world.crew()
    until(at(world, 1), crew.values())
    others = {name: crew[name] for name in ("south", "east")}
    sweep(others.values())
    assert world.view().state == State.RUNNING
    assert world.events("ServerSkipped") == []
    world.late()
    sweep(others.values())
    (skipped,) = world.events("ServerSkipped")
    assert dict(skipped.details) == {"position": 1, "attempt": 0, "server": "north"}
    assert [(r.site, r.post.attempt) for r in world.records("server")] == [("south", 1)]
    results = finish(world, crew)
    undisturbed = cohort(3)
    want = finish(undisturbed, undisturbed.crew())["north"]
    assert all(fit.estimates.tobytes() == want.estimates.tobytes() for fit in results.values())


def test_a_site_that_is_waited_for_is_waited_for_however_long() -> None:
    world = cohort(3, silent_site="wait")
    crew = world.crew()
    others = [crew["north"], crew["south"]]
    sweep(others)
    for _ in range(3):
        world.late()
        sweep(others)
    assert world.view().state == State.RUNNING
    assert len(world.records()) == 2
    finish(world, crew)


def test_a_silent_site_ends_a_study_that_says_so_and_all_know_it() -> None:
    world = cohort(3, silent_site="abort")
    crew = world.crew()
    others = {name: crew[name] for name in ("north", "south")}
    sweep(others.values())
    world.late()
    collected = collect_errors(others, StudyStopped)
    assert find_abort(world) == ("north", Reason.SILENT_SITE)
    assert {str(error) for error in collected.values()} == {
        "north ended study 1 at position 0: a site stayed silent past the deadline. "
        "The site at fault is east. Nothing was published; see `coterie audit history`."
    }


def exclusion(world: World, silent: str, after: int) -> dict[str, Runner]:
    """Let a site fall silent once `after` steps are finished, and the others vote it out; returns all runners."""
    crew = world.crew()
    until(at(world, after), crew.values())
    others = [runner for name, runner in crew.items() if name != silent]
    sweep(others)
    world.late()
    sweep(others)
    return crew


def fit_of(result: Any) -> Fit:
    assert isinstance(result, Fit)
    return result


@pytest.mark.parametrize(
    ("formula", "options", "aggregation", "count"),
    [
        (f"died ~ {FULL}", {}, "plain", 3),
        (f"died ~ {FULL}", {}, "masked", 4),
        (f"visits ~ {FULL}", {"family": "poisson"}, "plain", 3),
        (f"score ~ {FULL}", {"family": "gaussian"}, "plain", 3),
        (f"score ~ {FULL}", {"family": "gaussian"}, "masked", 4),
    ],
)
@pytest.mark.parametrize("after", [0, 2])
def test_a_silent_site_is_excluded_and_the_fit_is_that_of_the_rest(
    formula: str, options: dict[str, Any], aggregation: str, count: int, after: int
) -> None:
    codes = cohorts.draw(60 * count)
    world = cohort(
        count, codes=codes, formula=formula, aggregation=aggregation, silent_site="exclude", tolerance=1e-8, **options
    )
    silent = world.study.sites[1]
    finish(world, exclusion(world, silent, after))
    assert [dict(e.details)["silent"] for e in world.events("SiteExcluded")] == [silent]
    rest = np.r_[0:60, 120 : 60 * count]
    kept_rows: Codes = {name: column[rest] for name, column in codes.items()}
    want = pooled.fit(world.study, kept_rows)
    fit = fit_of(world.rerun("north"))
    np.testing.assert_allclose(fit.estimates, want.estimates, rtol=0, atol=1e-8)
    np.testing.assert_allclose(fit.std_errors, want.std_errors, rtol=0, atol=1e-8)
    assert fit.n == len(rest)
    assert fit.log_likelihood == pytest.approx(want.log_likelihood, abs=1e-6)
    outcome = {"binomial": "died", "poisson": "visits"}.get(fit.family)
    assert fit.events == (None if outcome is None else int(kept_rows[outcome].sum()))
    assert fit.null_deviance == pytest.approx(want.null_deviance, abs=1e-6)


def test_an_excluded_site_follows_to_the_end_without_a_say() -> None:
    world = cohort(4, aggregation="masked", silent_site="exclude")
    crew = world.crew()
    until(at(world, 2), crew.values())
    others = [runner for name, runner in crew.items() if name != "south"]
    sweep(others)
    world.late()
    until(lambda: world.view().parties != world.study.sites, others)
    until(lambda: (o := world.view().open) is not None and o.kind == "server", others)
    world.late()
    written = len(world.chain.log)
    while crew["south"].turn():
        pass
    assert len(world.chain.log) == written
    sweep(crew.values())
    assert crew["south"].machine.result.estimates.tobytes() == crew["north"].machine.result.estimates.tobytes()


def test_a_masked_sum_that_would_hide_nothing_ends_the_study_instead() -> None:
    world = cohort(3, aggregation="masked", silent_site="exclude")
    crew = world.crew()
    until(at(world, 2), crew.values())
    others = {name: crew[name] for name in ("north", "east")}
    sweep(others.values())
    world.late()
    collected = collect_errors(others, Exception)
    assert {type(error) for error in collected.values()} == {StudyStopped}
    assert all("The site at fault is south" in str(error) for error in collected.values())
    assert find_abort(world)[1] == Reason.SILENT_SITE
    (aborted,) = world.events("StudyAborted")
    assert dict(aborted.details)["culprit"] == "south"
    assert world.events("SiteExcluded") == []
    assert [r for r in world.records() if r.post.attempt == 1] == []


# A server that errs

SERVER_STEP = Step("model/0", "server", lambda *_: {}, public=True)


def test_a_wrong_server_post_is_disputed_with_both_digests_and_the_study_pauses() -> None:
    world = cohort(3)
    crew = world.crew()
    until(at(world, 1), crew.values())
    wrong = world.forge("north", lambda p: p["beta"].__setitem__(1, p["beta"][1] + 1e-6))
    collected = collect_errors(crew, WrongPost)
    for error in collected.values():
        assert isinstance(error, WrongPost)
        assert (error.site, error.topic) == ("north", "model/0")
        assert error.difference == pytest.approx(1e-6, rel=1e-6)
    assert world.view().state == State.PAUSED
    (dispute,) = world.events("Disputed")
    right = {k: np.asarray(v) for k, v in next(iter(collected.values())).recomputed.items()}
    assert dict(dispute.details) == {
        "position": 1,
        "attempt": 0,
        "poster": "north",
        "posted": "0x" + wrong.post.sha256.hex(),
        "recomputed": "0x" + hashlib.sha256(pack(world.study, SERVER_STEP, "north", 0, right)).hexdigest(),
    }


@pytest.mark.parametrize("flag", [True, False])
def test_a_server_that_lies_about_the_end_is_found_out(flag: bool) -> None:
    """The contract ends the loop at the record's flag, so that the flag must be the payload's."""
    world = cohort(3)
    crew = world.crew()
    until(at(world, 1), crew.values())
    runner, step, open_ = world.catch_up("north")
    payload = dict(runner.machine.draft(open_.parties, 0))
    if not flag:
        payload["converged"] = np.bool_(True)
    world.post("north", pack(world.study, step, "north", 0, payload), converged=flag)
    collected = collect_errors(crew, ProtocolError)
    assert {(e.code, e.site, e.topic) for e in collected.values()} == {("CO-P116", "north", "model/0")}


# Payloads that nobody can use


def bomb() -> bytes:
    return pay.MAGIC + b"\x01" + (1 << 40).to_bytes(8, "little") + b"\x78\x9c" + bytes(100)


def store_as_node(world: World, junk: bytes) -> str:
    """The CID of junk as a node of a file: it has the right hash, and no payload is behind it."""
    cid = str(Cid(1, DAG_PB, hashlib.sha256(junk).digest()))
    world.blobs.blocks[cid] = junk
    return cid


BAD: dict[str, Callable[[World], object]] = {
    "not a number": lambda w: w.forge("south", lambda p: p["score"].__setitem__(0, np.nan)),
    "infinite": lambda w: w.forge("south", lambda p: p["score"].__setitem__(0, -np.inf)),
    "wrong shape": lambda w: w.forge("south", lambda p: p.update(score=np.ones(9))),
    "wrong type": lambda w: w.forge("south", lambda p: p.update(score=np.ones(6, np.int64))),
    "another name": lambda w: w.forge("south", lambda p: p.update(patients=np.ones(3))),
    "a field less": lambda w: w.forge("south", lambda p: p.pop("n")),
    "not positive semi-definite": lambda w: w.forge("south", lambda p: p.update(information=-p["information"])),
    "huge": lambda w: w.forge("south", lambda p: p.update(deviance=np.float64(1e300))),
    "more events than rows": lambda w: w.forge("south", lambda p: p.update(outcome=p["n"] + 1)),
    "another study": lambda w: w.forge("south", lambda p: None, study="ab" * 32),
    "another step": lambda w: w.forge("south", lambda p: None, topic="stats/1"),
    "another site": lambda w: w.forge("south", lambda p: None, site="east"),
    "pickle": lambda w: w.post("south", pickle.dumps({"score": [1.0]})),
    "bomb": lambda w: w.post("south", bomb()),
    "nothing much": lambda w: w.post("south", b"\0"),
    "other bytes than its size": lambda w: w.post("south", b"x", size=2),
    "more bytes than its size": lambda w: w.post("south", b"more than one", size=1),
    "a CID of a form that the block has not": lambda w: w.post("south", b"junk", cid=store_as_node(w, b"junk")),
    "another digest": lambda w: w.post("south", b"x", sha256=b"\1" * 32),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_payload_that_nobody_can_use_ends_the_study_and_every_site_names_its_poster(kind: str) -> None:
    world = cohort(3, aggregation="plain")
    BAD[kind](world)
    crew = world.crew(("north", "east"))
    collected = collect_errors(crew, ProtocolError)
    assert {(e.site, e.topic) for e in collected.values()} == {("south", "stats/0")}
    assert len({str(e) for e in collected.values()}) == 1
    site, reason = find_abort(world)
    assert (site in crew, reason) == (True, Reason.BAD_PAYLOAD)


def test_a_bad_server_payload_is_named_too() -> None:
    world = cohort(3)
    crew = world.crew()
    until(at(world, 1), crew.values())
    world.forge("north", lambda p: p["beta"].__setitem__(0, np.nan))
    collected = collect_errors(crew, ProtocolError)
    assert {(e.code, e.site, e.topic) for e in collected.values()} == {("CO-P107", "north", "model/0")}
    assert find_abort(world)[1] == Reason.BAD_PAYLOAD


# Nobody's fault


@pytest.mark.parametrize(
    ("make", "kind", "reason", "word"),
    [
        (separated_world, Separation, Reason.SEPARATION, "age grow without bound"),
        (collinear_world, Collinear, Reason.COLLINEAR, "crp is a combination of age"),
        (tiny_world, StudyError, Reason.UNFIT_STUDY, "6 rows at all sites together"),
    ],
)
def test_a_server_that_finds_no_fit_ends_the_study_and_every_site_says_why_in_the_same_words(
    make: Callable[[], World], kind: type[LearnerError], reason: Reason, word: str
) -> None:
    world = make()
    collected = collect_errors(world.crew(), kind)
    assert len({str(error) for error in collected.values()}) == 1
    assert word in str(collected["east"])
    site, cause = find_abort(world)
    assert cause == reason
    assert world.view().state == State.ABORTED
    server = world.study.sites[len(world.records("server")) % 3]
    assert site == server


def test_rounds_that_run_out_are_reported_by_every_site_and_no_fit_is_published() -> None:
    world = cohort(3, max_rounds=2)
    crew = world.crew()
    collected = collect_errors(crew, NotConverged)
    assert len({str(error) for error in collected.values()}) == 1
    assert world.view().state == State.ABORTED
    assert all(r.machine.result is None for r in crew.values())


def test_a_site_whose_own_rows_do_not_fit_reports_it_and_ends_nothing() -> None:
    """The study can go on once that site has corrected its rows."""

    def refuse(site: Site) -> Payload:
        raise DataError("CO-D301", f"A value of {site.name} does not fit.")

    def script(site: Site) -> Script:
        yield from each("table", refuse)

    shape = SCRIPT_CASES["cola"]
    world = World(shapes.study(tuple(shape.rows)), shape.rows, script, shape.schedule)
    with pytest.raises(DataError):
        world.runner("a").turn()
    assert world.view().state == State.RUNNING
    assert world.events("StudyAborted") == []


def test_a_study_that_its_people_stopped_says_who_and_that_nothing_was_published() -> None:
    world = cohort(3)
    crew = world.crew()
    until(at(world, 2), crew.values())
    world.ledger("east").abort(world.number, Reason.OPERATOR)
    collected = collect_errors(crew, StudyStopped)
    assert {str(e) for e in collected.values()} == {
        "east ended study 1 at position 2: its people stopped it. Nothing was published; see `coterie audit history`."
    }


def test_a_study_that_is_paused_waits_and_goes_on_when_most_sites_say_so() -> None:
    world = cohort(3)
    crew = world.crew()
    until(at(world, 2), crew.values())
    world.ledger("east").pause(world.number, Reason.OPERATOR)
    sweep(crew.values())
    assert world.view().state == State.PAUSED
    for name in ("north", "south"):
        world.ledger(name).resume(world.number)
    finish(world, crew)


# Two processes of one site, and moves that cross


def test_two_runners_with_one_key_write_each_record_once() -> None:
    world = cohort(3)
    twins = [*world.crew().values(), *world.crew().values()]
    sweep(twins)
    slots = [(r.post.position, r.post.attempt, r.site) for r in world.records()]
    assert len(slots) == len(set(slots))
    assert all(r.done for r in twins)


class Stale:
    """A ledger handle that shows an old view once, as a node that lags behind does."""

    def __init__(self, world: World, name: str) -> None:
        self._ledger = world.ledger(name)
        self.old = self._ledger.view(world.number)
        self.lags = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def view(self, study: int) -> Any:
        lags, self.lags = self.lags, False
        return self.old if lags else self._ledger.view(study)


def test_the_slower_of_two_runners_with_one_key_finds_its_record_there() -> None:
    world = cohort(3)
    slow = world.runner("north", ledger=Stale(world, "north"))
    crew = world.crew()
    assert crew["north"].turn()
    assert slow.turn()
    assert len(world.records()) == 1
    finish(world, crew)


def test_a_second_runner_with_one_key_and_other_rows_is_refused() -> None:
    world = cohort(3)
    crew = world.crew()
    world.rows = {**world.rows, "north": world.rows["east"]}
    slow = world.runner("north", ledger=Stale(world, "north"))
    assert crew["north"].turn()
    with pytest.raises(PostRejected, match="already posted"):
        slow.turn()
    assert len(world.records()) == 1
    finish(world, crew)


def test_a_post_that_comes_after_a_skip_is_let_go() -> None:
    world = cohort(3)
    crew = world.crew()
    until(at(world, 1), crew.values())
    stale = Stale(world, "north")
    lagging = world.runner("north", ledger=stale)
    while lagging.position < 1:
        lagging.turn()
    stale.lags = True
    world.late()
    until(lambda: bool(world.events("ServerSkipped")), [crew["south"]])
    assert not lagging.turn()
    assert world.records("server") == []
    finish(world, {**crew, "north": lagging})


def test_an_exclusion_that_another_site_was_faster_with_is_let_go() -> None:
    world = cohort(4, aggregation="masked", silent_site="exclude")
    crew = world.crew(("north", "south", "east"))
    sweep(crew.values())
    world.late()
    assert crew["north"].turn()
    assert not crew["north"].turn()
    assert len(world.events("ExclusionVoted")) == 1
    finish(world, crew)
