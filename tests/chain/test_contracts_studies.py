"""Studies of the Catalog: from proposal to end, but for the posts. Every move runs on the rules too."""

from __future__ import annotations

import pytest
from chain.twins import Schedule, Twins, digest, key, names, refused

from coterie_chain.ledger import ZERO, Silence, State
from coterie_chain.study_state import EACH, SERVER

pytestmark = pytest.mark.anvil

ANA, BOB, CYD, DAN, STRANGER = (key(name) for name in ("ana", "bob", "cyd", "dan", "stranger"))
HASH = digest("study")
ORDER = (2, 1, 3)


@pytest.fixture
def started(net: Twins) -> Twins:
    """Study 1 runs with bob, ana and cyd."""
    net.propose(ANA, HASH, ORDER)
    net.join(BOB, 1, HASH)
    net.join(CYD, 1, HASH)
    return net


@pytest.fixture
def completed(started: Twins) -> Twins:
    """Study 1 is over after one round."""
    started.complete_step(1)
    started.complete_step(1, converged=True)
    assert started.rules.studies[1].state == State.COMPLETED
    return started


# Proposing


def test_a_proposal_is_on_record_word_for_word_and_joins_its_proposer(net: Twins) -> None:
    logs = net.propose(ANA, HASH, ORDER, ((SERVER,), (EACH, 3), ()), 7, 90, Silence.EXCLUDE)
    assert names(logs) == ["StudyProposed", "StudyJoined"]
    words = tuple(bytes(w).ljust(32, b"\0") for w in ((SERVER,), (EACH, 3), ()))
    terms = {"hash": HASH, "order": bytes(ORDER), "schedule": words, "maxRounds": 7, "timeout": 90, "silence": 1}
    assert logs[0].args == {"study": 1, "by": 1, **terms}
    assert logs[1].args == {"study": 1, "by": 1, "snapshot": bytes(32)}


def test_a_study_of_one_site_starts_when_it_is_proposed(net: Twins) -> None:
    assert names(net.propose(ANA, HASH, (1,))) == ["StudyProposed", "StudyJoined", "StudyStarted"]


def test_studies_are_numbered_from_one(net: Twins) -> None:
    for study in (1, 2, 3):
        assert net.propose(ANA, HASH, ORDER)[0].args["study"] == study


def test_a_phase_may_have_32_steps(net: Twins) -> None:
    net.propose(ANA, HASH, (1,), ((1,) * 32, (), ()))
    for _ in range(32):
        net.complete_step(1)
    assert net.rules.studies[1].state == State.COMPLETED


def test_a_stranger_proposes_nothing(net: Twins) -> None:
    assert refused(net.propose, STRANGER, HASH, ORDER) == ("NotSite",)


@pytest.mark.parametrize(
    "terms",
    [
        {"hash": ZERO},
        {"hash": HASH, "max_rounds": 0},
        {"hash": HASH, "timeout": 0},
        {"hash": HASH, "silence": 3},
    ],
)
def test_terms_are_not_zero_nor_out_of_range(net: Twins, terms: dict[str, object]) -> None:
    assert refused(net.propose, ANA, order=ORDER, **terms) == ("BadTerms",)


@pytest.mark.parametrize("order", [(), (1, 2, 1), (1, 5), (0, 1), (1, EACH), (1, SERVER)])
def test_an_order_names_each_active_site_at_most_once(net: Twins, order: tuple[int, ...]) -> None:
    assert refused(net.propose, ANA, HASH, order) == ("BadOrder",)


def test_an_order_names_no_revoked_site(net: Twins) -> None:
    for voter in (ANA, BOB, CYD):
        net.revoke(voter, 4)
    assert refused(net.propose, ANA, HASH, (1, 4)) == ("BadOrder",)


@pytest.mark.parametrize(
    "schedule",
    [
        ((), (), ()),
        ((), (EACH, 4), ()),
        ((0, EACH), (SERVER,), ()),
        ((), (EACH, 0, SERVER), ()),
        ((), (SERVER,), (200,)),
    ],
)
def test_a_schedule_has_steps_without_gaps_and_names_participants_only(net: Twins, schedule: Schedule) -> None:
    assert refused(net.propose, ANA, HASH, ORDER, schedule) == ("BadSchedule",)


def test_a_phase_of_33_steps_does_not_exist_for_the_rules_either(net: Twins) -> None:
    def propose() -> None:
        net.rules.propose(ANA, HASH, ORDER, ((EACH,) * 33, (), ()), 1, 1, Silence.WAIT, 0)

    assert refused(propose) == ("BadSchedule",)


def test_only_a_participant_proposes(net: Twins) -> None:
    assert refused(net.propose, DAN, HASH, ORDER) == ("NotParticipant",)


# Joining


def test_a_study_starts_with_the_last_participant_that_joins(net: Twins) -> None:
    net.propose(ANA, HASH, ORDER)
    assert names(net.join(CYD, 1, HASH)) == ["StudyJoined"]
    logs = net.join(BOB, 1, HASH)
    assert names(logs) == ["StudyJoined", "StudyStarted"]
    assert [log.args for log in logs] == [{"study": 1, "by": 2, "snapshot": bytes(32)}, {"study": 1}]


def test_joining_repeats_the_hash_that_was_approved(net: Twins) -> None:
    net.propose(ANA, HASH, ORDER)
    assert refused(net.join, BOB, 1, digest("another study")) == ("HashMismatch",)


def test_the_rows_that_a_site_commits_to_are_on_record(net: Twins) -> None:
    proposed = net.propose(ANA, HASH, ORDER, snapshot=digest("ana's rows"))
    joined = net.join(BOB, 1, HASH, digest("bob's rows"))
    assert [logs[-1].args["snapshot"] for logs in (proposed, joined)] == [digest("ana's rows"), digest("bob's rows")]


def test_a_site_joins_once(net: Twins) -> None:
    net.propose(ANA, HASH, ORDER)
    assert refused(net.join, ANA, 1, HASH) == ("AlreadyVoted",)


def test_only_participants_join(net: Twins) -> None:
    net.propose(ANA, HASH, ORDER)
    assert refused(net.join, STRANGER, 1, HASH) == ("NotSite",)
    assert refused(net.join, DAN, 1, HASH) == ("NotParticipant",)
    assert refused(net.join, ANA, 2, HASH) == ("NotParticipant",)


def test_nobody_joins_a_study_that_runs(started: Twins) -> None:
    assert refused(started.join, ANA, 1, HASH) == ("BadState", State.RUNNING)


# Pausing and resuming


def test_any_participant_pauses_and_a_majority_resumes(started: Twins) -> None:
    logs = started.pause(ANA, 1)
    assert (names(logs), logs[0].args) == (["StudyPaused"], {"study": 1, "by": 1, "reason": 7})
    assert names(started.resume(ANA, 1)) == ["ResumeVoted"]
    logs = started.resume(BOB, 1)
    assert names(logs) == ["ResumeVoted", "StudyResumed"]
    assert [log.args for log in logs] == [{"study": 1, "by": 2}, {"study": 1}]


def test_a_pause_keeps_what_was_posted_and_resuming_restarts_the_clock(started: Twins) -> None:
    started.post(1, 1)
    before = started.rules.studies[1].deadline
    started.pause(ANA, 1)
    started.wait(500)
    started.resume(ANA, 1)
    started.resume(BOB, 1)
    assert started.rules.studies[1].deadline >= before + 500
    assert refused(started.post, 1, 1) == ("Overwrite",)


def test_a_study_can_be_paused_and_resumed_again(started: Twins) -> None:
    for _ in range(2):
        started.pause(BOB, 1)
        started.resume(BOB, 1)
        assert refused(started.resume, BOB, 1) == ("AlreadyVoted",)
        started.resume(CYD, 1)
    assert started.rules.studies[1].state == State.RUNNING


def test_only_participants_of_a_running_study_pause_it(started: Twins) -> None:
    assert refused(started.pause, STRANGER, 1) == ("NotSite",)
    assert refused(started.pause, DAN, 1) == ("NotParticipant",)
    started.pause(ANA, 1)
    assert refused(started.pause, BOB, 1) == ("BadState", State.PAUSED)


def test_only_participants_of_a_paused_study_resume_it(started: Twins) -> None:
    assert refused(started.resume, ANA, 1) == ("BadState", State.RUNNING)
    started.pause(ANA, 1)
    assert refused(started.resume, STRANGER, 1) == ("NotSite",)
    assert refused(started.resume, DAN, 1) == ("NotParticipant",)


# Disputing


def test_a_dispute_pauses_with_both_digests_on_record(started: Twins) -> None:
    started.complete_step(1)
    started.complete_step(1)
    logs = started.dispute(CYD, 1, 1)
    digests = {"posted": digest("posted"), "recomputed": digest("recomputed")}
    assert (names(logs), logs[0].args) == (["Disputed"], {"study": 1, "by": 3, "position": 1, **digests})
    assert started.rules.studies[1].state == State.PAUSED


def test_a_step_that_is_not_over_cannot_be_disputed(started: Twins) -> None:
    started.complete_step(1)
    assert refused(started.dispute, ANA, 1, 1) == ("WrongStep", 1, 0)


def test_a_completed_study_can_be_disputed_and_stays_completed_when_resumed(completed: Twins) -> None:
    completed.dispute(ANA, 1, 1)
    completed.resume(ANA, 1)
    completed.resume(BOB, 1)
    assert completed.rules.studies[1].state == State.COMPLETED


def test_only_participants_of_a_study_that_ran_dispute(started: Twins) -> None:
    started.propose(ANA, HASH, ORDER)
    assert refused(started.dispute, ANA, 2, 0) == ("BadState", State.PROPOSED)
    assert refused(started.dispute, STRANGER, 1, 0) == ("NotSite",)
    assert refused(started.dispute, DAN, 1, 0) == ("NotParticipant",)


# Aborting


def test_any_participant_ends_a_study_that_has_not_ended(started: Twins) -> None:
    logs = started.abort(CYD, 1)
    assert (names(logs), logs[0].args) == (["StudyAborted"], {"study": 1, "by": 3, "reason": 9})
    assert refused(started.abort, ANA, 1) == ("BadState", State.ABORTED)
    assert refused(started.post, 1, 1) == ("BadState", State.ABORTED)


def test_a_proposed_or_paused_study_can_be_aborted(started: Twins) -> None:
    started.propose(ANA, HASH, ORDER)
    started.abort(BOB, 2)
    started.pause(ANA, 1)
    started.abort(ANA, 1)


def test_a_completed_study_cannot_be_aborted(completed: Twins) -> None:
    assert refused(completed.abort, ANA, 1) == ("BadState", State.COMPLETED)


def test_only_participants_abort(started: Twins) -> None:
    assert refused(started.abort, STRANGER, 1) == ("NotSite",)
    assert refused(started.abort, DAN, 1) == ("NotParticipant",)


def test_a_revoked_site_has_no_say_in_its_studies(started: Twins) -> None:
    for voter in (ANA, BOB, DAN):
        started.revoke(voter, 3)
    for move in (started.pause, started.abort, started.resume, started.skip):
        assert refused(move, CYD, 1) == ("NotSite",)
