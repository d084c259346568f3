"""A member of a masked study withholds, garbles, lies or leaves at any step: the others complete, or end it by name."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

import numpy as np
import pytest
from support.lanes import one_of_each
from support.learners import cohorts, pooled, strata
from support.node.worlds import World, cohort, sweep, until

from coterie_chain.errors import ChainError
from coterie_chain.ledger.protocol import OpenStep, State
from coterie_chain.retry import RetryPolicy
from coterie_learners.cola.secure_cola import SECURE_COLA
from coterie_learners.errors import LearnerError
from coterie_learners.study.document import Study
from coterie_node.audit.publication import check_publication
from coterie_node.audit.replay import replay
from coterie_node.audit.result import numbers
from coterie_node.errors import NodeError
from coterie_node.run.reasons import Reason
from coterie_node.run.recorded_steps import list_contributors
from coterie_node.run.supervisor import Supervisor

ROWS = 45
FORMULA = "died ~ age + crp + male + stage"
TABLE = "died ~ male + smoker + stage"
EACH_DEEDS = ("leaves", "withholds", "garbles")
SERVER_DEEDS = (*EACH_DEEDS, "lies")
# As the daemon does: it tries again for as long as the study runs.
ENDLESS = RetryPolicy(limit=math.inf, first=0.5, longest=30.0)


@cache
def draw(learner: str, count: int) -> cohorts.Codes:
    return cohorts.draw(ROWS * count, seed=3) if learner == "glore" else strata.draw(ROWS * count)


def make_world(learner: str, silence: str, count: int = 4) -> World:
    """A masked study; `learner` is glore, or the scheme of secure-COLA-GLM."""
    codes = draw(learner, count)
    if learner == "glore":
        return cohort(count, codes=codes, formula=FORMULA, aggregation="masked", silent_site=silence, step_seconds=600)
    # The holder of the key serves no turn before its own steps are over.
    options: dict[str, Any] = {"holder": cohorts.NAMES[count - 1]} if learner == "bfv" else {}
    plain = strata.study(TABLE, count, "secure_cola", scheme=learner, **options)
    rules = {**plain.ledger.model_dump(), "silent_site": silence, "step_seconds": 600}
    study = Study.model_validate({**plain.model_dump(), "ledger": rules})
    return World(study, cast(Any, strata.split(study, codes)), SECURE_COLA.script)


@dataclass(frozen=True)
class Place:
    """One step of an undisturbed run: its position, its kind, and who posts there if it is not each site."""

    position: int
    kind: str
    poster: str


@cache
def list_places(learner: str, count: int = 4) -> tuple[Place, ...]:
    """The steps of an undisturbed run."""
    world = make_world(learner, "exclude", count)
    sweep(world.crew().values())
    assert world.view().state == State.COMPLETED
    return tuple({r.post.position: Place(r.post.position, r.kind, r.site) for r in world.records()}.values())


def list_deeds(learner: str, count: int = 4, own: bool = False) -> list[tuple[str, Place, str]]:
    """Every deed at every step of all sites and of servers, or at every step that is the holder's `own`."""
    return [
        (learner, place, deed)
        for place in list_places(learner, count)
        for deed in (SERVER_DEEDS if place.kind == "server" else EACH_DEEDS)
        if place.kind.startswith("only:") == own
    ]


def name_kind(case: tuple[str, Place, str]) -> tuple[str, str, str]:
    learner, place, deed = case
    return learner, place.kind, deed


def name_deed(value: object) -> str | None:
    return f"{value.position}-{value.kind}" if isinstance(value, Place) else None


class Story:
    """A study in which one site does its deed when a step opens, and is never seen again."""

    def __init__(self, world: World, place: Place, deed: str) -> None:
        self.world, self.place, self.deed = world, place, deed
        self.culprit = "south" if place.kind == "each" else place.poster
        self.others = [name for name in world.study.sites if name != self.culprit]
        self.crew = {name: Supervisor(partial(world.runner, name), world.clock, ENDLESS) for name in world.study.sites}
        self.stops: dict[str, Exception] = {}
        self.is_done = False

    def run(self, patience: int = 60) -> World:
        """Let all sites take turns on virtual time, until the study has ended or nobody's patience is left."""
        for _ in range(patience):
            moved = True
            while moved:
                moved = any(list(map(self._take_turn, self.world.study.sites)))
            if self.world.view().state in (State.COMPLETED, State.ABORTED):
                return self.world
            self.world.clock.seconds += 100
        return self.world

    def _take_turn(self, name: str) -> bool:
        open_ = self.world.view().open
        if not self.is_done and open_ is not None and self._is_time(open_):
            self._do_deed(open_)
        if name in self.stops or (self.is_done and name == self.culprit):
            return False
        try:
            return self.crew[name].tick()
        except (ChainError, LearnerError, NodeError) as error:
            self.stops[name] = error
            return False

    def _is_time(self, open_: OpenStep) -> bool:
        return open_.position == self.place.position and self.culprit in open_.posters

    def _do_deed(self, open_: OpenStep) -> None:
        self.is_done = True
        if self.deed == "withholds":
            record = self.world.forge(self.culprit, lambda payload: None)
            del self.world.blobs.blocks[record.post.cid]
        elif self.deed == "garbles":
            # A server that says so ends the loop of rounds.
            garbage = hashlib.sha256(b"garbage").digest() * 5
            self.world.post(self.culprit, garbage, converged=self.place.kind == "server")
        elif self.deed == "lies":
            self.world.forge(self.culprit, falsify)


def falsify(payload: dict[str, Any]) -> None:
    """Change the last bit, or the last byte, of one number; or add one."""
    if not payload:
        payload["nothing"] = np.zeros(1)
    name = next(n for n, a in sorted(payload.items()) if a.size and a.dtype.kind in "fu")
    changed = payload[name].reshape(-1)
    changed[-1] = np.nextafter(changed[-1], 9e9) if changed.dtype.kind == "f" else changed[-1] ^ 1
    payload[name] = changed.reshape(payload[name].shape)


def list_culprits(world: World) -> set[str]:
    """Each member that the ledger names: excluded, skipped, voted unusable, or at fault for the end."""
    keys = {"SiteExcluded": "silent", "ServerSkipped": "server", "StepReopened": "culprit", "StudyAborted": "culprit"}
    return {str(dict(e.details)[key]) for name, key in keys.items() for e in world.events(name)} - {""}


def list_excluded(world: World) -> list[str]:
    return [str(dict(e.details)["silent"]) for e in world.events("SiteExcluded")]


def keep_rows(world: World, learner: str, excluded: Iterable[str]) -> cohorts.Codes:
    """The rows of the sites that were left."""
    sites = world.study.sites
    kept = np.concatenate([np.arange(ROWS) + ROWS * sites.index(name) for name in sites if name not in set(excluded)])
    return {name: column[kept] for name, column in draw(learner, len(sites)).items()}


def fit_pooled(world: World, learner: str, rows: cohorts.Codes) -> np.ndarray[Any, Any]:
    if learner == "glore":
        return pooled.fit(world.study, rows).estimates
    return np.asarray(strata.pooled(world.study, rows, strata.matrix(rows)[:, :5]).params)


@pytest.mark.parametrize(
    ("learner", "place", "deed"),
    one_of_each(
        [*list_deeds("glore"), *list_deeds("masks"), *list_deeds("newton")[:10], *list_deeds("bfv")], name_kind
    ),
    ids=name_deed,
)
def test_four_sites_of_which_one_is_lost_at_any_step_complete_and_the_ledger_names_it(
    learner: str, place: Place, deed: str
) -> None:
    story = Story(make_world(learner, "exclude"), place, deed)
    world = story.run()
    assert (world.view().state, story.stops) == (State.COMPLETED, {})
    excluded = list_excluded(world)
    if place.kind == "each":
        assert excluded == [story.culprit]
    elif not is_harmless(learner, place, deed):
        assert story.culprit in list_culprits(world)
    assert set(excluded) <= {story.culprit}
    rows = keep_rows(world, learner, excluded)
    fits = [world.rerun(name) for name in story.others]
    for fit in fits:
        np.testing.assert_allclose(fit.estimates, fit_pooled(world, learner, rows), rtol=0, atol=1e-8)
        assert fit.n == len(rows["died"])
    assert len({fit.estimates.tobytes() + fit.covariance.tobytes() for fit in fits}) == 1
    auditor = world.auditor()
    sweep([auditor])
    assert (auditor.done, auditor.machine.difference) == (True, 0.0)


def is_harmless(learner: str, place: Place, deed: str) -> bool:
    """Whether a server's deed costs nobody anything: nobody reads its last post, and others compute what it withholds.

    Where all sites post once more, the server that withholds is missed and excluded there.
    """
    later = [other.kind for other in list_places(learner) if other.position > place.position]
    return deed != "leaves" and (not later or (deed == "withholds" and "each" not in later))


@pytest.mark.parametrize(("learner", "place", "deed"), list_deeds("bfv", own=True), ids=name_deed)
def test_a_study_cannot_go_on_without_the_holder_of_the_key_and_ends_with_its_name(
    learner: str, place: Place, deed: str
) -> None:
    story = Story(make_world(learner, "exclude"), place, deed)
    world = story.run()
    assert find_end(world) == (Reason.SILENT_SITE, story.culprit)


def test_a_holder_that_is_silent_among_the_others_ends_the_study_with_its_name() -> None:
    place = Place(1, "each", cohorts.NAMES[3])
    story = Story(make_world("bfv", "exclude"), place, "leaves")
    story.culprit = place.poster
    assert find_end(story.run()) == (Reason.SILENT_SITE, place.poster)


def find_end(world: World) -> tuple[Reason, str]:
    """Why a study was aborted, and whose fault that was."""
    assert world.view().state == State.ABORTED
    details = dict(world.events("StudyAborted")[-1].details)
    return Reason(int(details["reason"])), str(details["culprit"])


@pytest.mark.parametrize(
    ("learner", "place", "deed"),
    one_of_each(
        [case for case in [*list_deeds("glore", 3), *list_deeds("masks", 3)] if case[1].kind == "each"], name_kind
    ),
    ids=name_deed,
)
@pytest.mark.parametrize("silence", ["wait", "exclude", "abort"])
def test_three_sites_of_which_one_is_lost_wait_or_end_as_the_study_says_and_the_ledger_names_it(
    silence: str, learner: str, place: Place, deed: str
) -> None:
    story = Story(make_world(learner, silence, 3), place, deed)
    world = story.run()
    if silence == "exclude":  # people read of this before such a study is proposed (CO-S306)
        assert find_end(world) == (Reason.SILENT_SITE, story.culprit)
    elif silence == "abort" or deed == "garbles":
        reasons = {"leaves": Reason.SILENT_SITE, "withholds": Reason.UNAVAILABLE, "garbles": Reason.BAD_PAYLOAD}
        assert find_end(world) == (reasons[deed], story.culprit)
    else:
        view = world.view()
        assert (view.state, view.parties) == (State.RUNNING, world.study.sites)
        assert view.open is not None
        assert (view.open.position, set(view.open.parties) - set(view.open.posted)) == (place.position, {story.culprit})
        assert [dict(e.details)["culprit"] for e in world.events("StepReopened")] == [story.culprit] * (
            deed != "leaves"
        )


@pytest.mark.parametrize("learner", ["glore", "masks"])
def test_a_study_of_three_that_waits_goes_on_when_the_missing_site_is_back(learner: str) -> None:
    story = Story(make_world(learner, "wait", 3), list_places(learner, 3)[0], "withholds")
    world = story.run()
    sweep([world.runner("south")])
    sweep(world.crew().values())
    assert world.view().state == State.COMPLETED
    fit = world.rerun("north")
    rows = keep_rows(world, learner, [])
    np.testing.assert_allclose(fit.estimates, fit_pooled(world, learner, rows), rtol=0, atol=1e-8)


@pytest.mark.parametrize("after", ["last sums", "first sums"])
def test_the_rows_of_a_site_that_leaves_by_choice_are_in_the_result_if_it_leaves_after_the_last_sums(
    after: str,
) -> None:
    world = make_world("glore", "exclude")
    crew, others = world.crew(), ["north", "east", "west"]
    position = list_places("glore")[-2 if after == "last sums" else 1].position
    until(lambda: (open_ := world.view().open) is not None and open_.position == position, crew.values())
    world.ledger("south").abort(world.number, Reason.OPERATOR, "south")
    until(lambda: world.view().state == State.COMPLETED, [crew[name] for name in others])
    contributors = world.study.sites if after == "last sums" else ("north", "east", "west")
    assert set(list_contributors(world.view(), world.ledger().history(world.number))) == set(contributors)
    audit = replay(world.ledger(), world.blobs, world.number)
    assert (audit.verdict.verdict, audit.contributors) == ("PASS", contributors)
    published = numbers(audit.fit, contributors)
    assert check_publication(published, "result.json", audit).intact
    if after == "last sums":
        verdict = check_publication({**published, "sites": others}, "result.json", audit)
        assert (verdict.code, "number of sites" in verdict.problem) == ("CO-A110", True)
    assert world.view().parties == tuple(others)
    rows = keep_rows(world, "glore", set(world.study.sites) - set(contributors))
    np.testing.assert_allclose(world.rerun("north").estimates, fit_pooled(world, "glore", rows), rtol=0, atol=1e-8)
