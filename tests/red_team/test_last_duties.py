"""At each duty of each learner a member withholds, garbles, seals wrongly or goes: no study is left without an end.

A study is completed and all honest sites have the result, or it has ended and the ledger names the member, and no
honest one. It waits only where it says so: for the member alone, or until the member posts again what it withholds. A site's word about a payload that only it
can open ends the study in its own name.
"""

from __future__ import annotations

import pytest
from support.lanes import one_of_each
from support.red_team.last_duties import MAKERS, OPEN_DEEDS, SEALED_DEEDS, DutyStory, list_duties

from coterie_chain.ledger.protocol import State

SEALED = ("vertigo", "valoris", "valoris aggregated", "secure_lasso")


def list_stories(learner: str, silence: str, deed: str, count: int = 3) -> list[DutyStory]:
    """One story for each of the first duties and of the last ones of a learner at which the deed can be done."""
    duties = list_duties(learner, silence, count)
    chosen = dict.fromkeys((*duties[:3], *duties[-5:]))
    return [DutyStory(duty, silence, deed, count=count) for duty in chosen if duty.sealed or deed in OPEN_DEEDS]


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
        assert story.liar in named or set(view.open.posters) - set(view.open.posted) == {story.liar}


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
