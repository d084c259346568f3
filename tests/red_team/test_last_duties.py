"""At each duty of each learner a member withholds, garbles, seals wrongly or goes: no study is left without an end.

A study is completed and all honest sites have the result, or it has ended and the ledger names the member, and no
honest one. It waits only where it says so: for the member alone, or until the member posts again what it withholds.
A site's word about a payload that only it can open ends the study in its own name.
"""

from __future__ import annotations

import pytest
from support.lanes import later, one_of_each
from support.node.worlds import World, until
from support.red_team.last_duties import MAKERS, OPEN_DEEDS, SEALED_DEEDS, DutyStory, list_duties, make_world

from coterie_chain.ledger.protocol import State
from coterie_learners.core.registry import list_learners
from coterie_node.audit.bundle import read_payloads
from coterie_node.audit.replay import replay
from coterie_node.run.endings import find_end
from coterie_node.run.reasons import Reason

SEALED = ("vertigo", "valoris", "valoris aggregated", "secure_lasso")


def list_stories(learner: str, silence: str, deed: str, count: int = 3, *, hurries: bool = True) -> list[DutyStory]:
    """One story for each of the first duties and of the last ones of a learner at which the deed can be done."""
    duties = list_duties(learner, silence, count)
    chosen = dict.fromkeys((*duties[:3], *duties[-5:]))
    return [
        DutyStory(duty, silence, deed, hurries=hurries, count=count)
        for duty in chosen
        if duty.sealed or deed in OPEN_DEEDS
    ]


def check_end(story: DutyStory) -> None:
    """What holds at the end of every story."""
    view, named = story.world.view(), story.list_named()
    assert set(named) <= {story.liar}
    if view.state == State.COMPLETED:
        assert story.list_readers_with_a_result() == set(story.honest)
    elif view.state == State.ABORTED:
        (end,) = (event for event in story.list_events() if event.name == "StudyAborted")
        assert story.liar in (end.site, *named)
    else:
        assert (view.state, story.silence) == (State.RUNNING, "wait")
        assert view.open is not None
        absent = set(view.open.posters) - set(view.open.posted)
        assert story.liar in named or absent == {story.liar} or story.waits_for_the_liar


KINDS = [
    (learner, silence, deed)
    for learner in MAKERS
    for silence in ("abort", "wait")
    for deed in (SEALED_DEEDS if learner in SEALED else OPEN_DEEDS)
]


@pytest.mark.parametrize(("learner", "silence", "deed"), one_of_each(KINDS, lambda kind: kind[0]))
def test_a_member_that_hurries_on_leaves_no_study_without_an_end(learner: str, silence: str, deed: str) -> None:
    for story in list_stories(learner, silence, deed):
        check_end(story.play())


@pytest.mark.parametrize("silence", ["abort", "wait"])
def test_of_two_sites_the_one_that_cannot_read_ends_the_study_or_knows_the_other_one_by_name(silence: str) -> None:
    (duty,) = (duty for duty in list_duties("cola", silence, 2) if duty.topic == "table")
    story = DutyStory(duty, silence, "withholds", count=2).play()
    verdict = replay(story.world.ledger(), story.world.blobs, story.world.number).verdict
    assert story.awaited == {story.liar}
    if silence == "abort":
        end = find_end(story.world.ledger(), story.world.number)
        assert end is not None
        assert (end.reason, end.culprit) == (Reason.UNAVAILABLE, story.liar)
    else:
        # Known and open (decision 36): completed, unread by one of the two, whose replay and status name the other.
        assert story.world.view().state == State.COMPLETED
        assert story.list_readers_with_a_result() == set()
        assert (verdict.intact, verdict.site, verdict.topic) == (False, story.liar, "table")


EXCLUDING = ("glore", "cola", "secure_cola masks", "secure_cola bfv", "survival_curves")


@pytest.mark.parametrize(
    ("learner", "deed"),
    one_of_each([(learner, deed) for learner in EXCLUDING for deed in OPEN_DEEDS], lambda kind: kind[0]),
)
@pytest.mark.parametrize("hurries", [False, True])
def test_a_study_of_four_that_excludes_ends_as_well(learner: str, deed: str, hurries: bool) -> None:
    for story in list_stories(learner, "exclude", deed, 4, hurries=hurries):
        check_end(story.play())


@pytest.mark.parametrize("learner", ["secure_glm", *later("secure_lasso")])
def test_who_posts_another_result_than_was_opened_together_is_named(learner: str) -> None:
    (duty,) = (duty for duty in list_duties(learner, "abort") if duty.topic == "fit")
    story = DutyStory(duty, "abort", "posts another result").play()
    check_end(story)
    end = find_end(story.world.ledger(), story.world.number)
    assert end is not None
    assert (end.reason, end.culprit) == (Reason.BAD_PAYLOAD, story.liar)


def test_every_learner_ends_with_a_step_that_nobody_reads() -> None:
    assert {name.split()[0] for name in MAKERS} == set(list_learners())
    for learner in MAKERS:
        assert list_duties(learner, "wait")[-1].topic == "conclusion"


@pytest.mark.parametrize("deed", ["withholds", "misstates"])
@pytest.mark.parametrize("learner", ["valoris", "cola"])
def test_what_is_behind_the_conclusion_spoils_neither_replay_nor_bundle(learner: str, deed: str) -> None:
    world = DutyStory(list_duties(learner, "wait")[-1], "wait", deed).play().world
    assert world.view().state == State.COMPLETED
    assert replay(world.ledger(), world.blobs, world.number).verdict.intact
    assert len(list(read_payloads(world.ledger(), world.blobs, world.number))) == len(world.records()) - 1


# False claims


def stop_before_the_end(learner: str, silence: str, count: int = 3) -> World:
    """A study whose last step is open; nobody has posted there."""
    world = make_world(learner, silence, count)
    last = list_duties(learner, silence, count)[-1].position
    crew = list(world.crew().values())
    while (open_ := world.view().open) is not None and open_.position < last:
        for runner in crew:
            if (now := world.view().open) is not None and now.position < last:
                runner.turn()
    return world


@pytest.mark.parametrize(("learner", "silence"), [("glore", "exclude"), ("cola", "wait"), ("vertigo", "abort")])
def test_one_site_that_claims_that_it_cannot_read_the_last_post_stops_nobody(learner: str, silence: str) -> None:
    world = stop_before_the_end(learner, silence, 4 if silence == "exclude" else 3)
    post = world.records()[-1].post
    poster, claimant = world.records()[-1].site, next(s for s in world.study.sites if s != world.records()[-1].site)
    world.ledger(claimant).report_unavailable(world.number, post.position, post.attempt, poster, Reason.BAD_PAYLOAD)
    world.ledger(claimant).abort(world.number, Reason.BAD_PAYLOAD, poster)
    assert world.view().state == State.RUNNING
    crew = {name: runner for name, runner in world.crew().items() if name != claimant}
    while world.view().state == State.RUNNING:
        moves = [runner.turn() for runner in crew.values()]
        if not any(moves):
            world.late()
    assert world.view().state == State.COMPLETED
    assert world.events("StepReopened") == world.events("SiteExcluded") == []


def test_a_reader_s_word_about_what_only_it_can_open_ends_the_study_in_its_own_name() -> None:
    world = stop_before_the_end("valoris", "wait")
    reader = world.ledger("south")
    reader.abort(world.number, Reason.BAD_PAYLOAD, "north")
    assert world.view().state == State.RUNNING
    reader.abort(world.number, Reason.BAD_PAYLOAD)
    end = find_end(world.ledger(), world.number)
    assert end is not None
    assert (end.site, end.culprit, end.blamed) == ("south", "", "north")
    assert "By its word, which no other site has confirmed, the site at fault is north." in end.describe("it")


@pytest.mark.parametrize("learner", ["valoris", *later("secure_glm")])
def test_a_reader_that_never_says_that_it_has_read_ends_the_study_in_its_own_name(learner: str) -> None:
    world = stop_before_the_end(learner, "abort")
    silent, *others = world.study.sites
    crew = world.crew(others)
    until(lambda: (open_ := world.view().open) is not None and set(open_.posted) == set(others), crew.values())
    world.late()
    until(lambda: world.view().state == State.ABORTED, crew.values())
    end = find_end(world.ledger(), world.number)
    assert end is not None
    assert (end.reason, end.culprit) == (Reason.SILENT_SITE, silent)
