"""Studies of the Catalog: from proposal to end, but for the posts. Every move runs on the rules too."""

from __future__ import annotations

import pytest
from support.chain.twins import ContractAndRules, Schedule, catch_refusal, derive_address, name_events, next_digest

from coterie_chain.ledger.protocol import ZERO, Silence, State
from coterie_chain.ledger.rules import EACH, SERVER

pytestmark = pytest.mark.anvil

ANA, BOB, CYD, DAN, STRANGER = (derive_address(name) for name in ("ana", "bob", "cyd", "dan", "stranger"))
_HASH = next_digest("study")
ORDER = (2, 1, 3)


@pytest.fixture
def started(net: ContractAndRules) -> ContractAndRules:
    """Study 1 runs with bob, ana and cyd."""
    net.propose(ANA, _HASH, ORDER)
    net.join(BOB, 1, _HASH)
    net.join(CYD, 1, _HASH)
    return net


@pytest.fixture
def completed(started: ContractAndRules) -> ContractAndRules:
    """Study 1 is over after one round."""
    started.complete_step(1)
    started.complete_step(1, converged=True)
    assert started.rules.studies[1].state == State.COMPLETED
    return started


# Proposing


def test_a_proposal_is_on_record_word_for_word_and_joins_its_proposer(net: ContractAndRules) -> None:
    logs = net.propose(ANA, _HASH, ORDER, ((SERVER,), (EACH, 3), ()), 7, 90, Silence.EXCLUDE)
    assert name_events(logs) == ["StudyProposed", "StudyJoined"]
    words = tuple(bytes(w).ljust(32, b"\0") for w in ((SERVER,), (EACH, 3), ()))
    terms = {"hash": _HASH, "order": bytes(ORDER), "schedule": words, "maxRounds": 7, "timeout": 90, "silence": 1}
    assert logs[0].args == {"study": 1, "by": 1, **terms}
    assert logs[1].args == {"study": 1, "by": 1, "snapshot": bytes(32)}


def test_a_study_of_one_site_starts_when_it_is_proposed(net: ContractAndRules) -> None:
    assert name_events(net.propose(ANA, _HASH, (1,))) == ["StudyProposed", "StudyJoined", "StudyStarted"]


def test_studies_are_numbered_from_one(net: ContractAndRules) -> None:
    for study in (1, 2, 3):
        assert net.propose(ANA, _HASH, ORDER)[0].args["study"] == study


def test_a_phase_may_have_32_steps(net: ContractAndRules) -> None:
    net.propose(ANA, _HASH, (1,), ((1,) * 32, (), ()))
    for _ in range(32):
        net.complete_step(1)
    assert net.rules.studies[1].state == State.COMPLETED


def test_a_stranger_proposes_nothing(net: ContractAndRules) -> None:
    assert catch_refusal(net.propose, STRANGER, _HASH, ORDER) == ("NotSite",)


@pytest.mark.parametrize(
    "terms",
    [
        {"hash": ZERO},
        {"hash": _HASH, "max_rounds": 0},
        {"hash": _HASH, "timeout": 0},
        {"hash": _HASH, "silence": 3},
    ],
)
def test_terms_are_not_zero_nor_out_of_range(net: ContractAndRules, terms: dict[str, object]) -> None:
    assert catch_refusal(net.propose, ANA, order=ORDER, **terms) == ("BadTerms",)


@pytest.mark.parametrize("order", [(), (1, 2, 1), (1, 5), (0, 1), (1, EACH), (1, SERVER)])
def test_an_order_names_each_active_site_at_most_once(net: ContractAndRules, order: tuple[int, ...]) -> None:
    assert catch_refusal(net.propose, ANA, _HASH, order) == ("BadOrder",)


def test_an_order_names_no_revoked_site(net: ContractAndRules) -> None:
    for voter in (ANA, BOB, CYD):
        net.revoke(voter, 4)
    assert catch_refusal(net.propose, ANA, _HASH, (1, 4)) == ("BadOrder",)


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
def test_a_schedule_has_steps_without_gaps_and_names_participants_only(
    net: ContractAndRules, schedule: Schedule
) -> None:
    assert catch_refusal(net.propose, ANA, _HASH, ORDER, schedule) == ("BadSchedule",)


def test_a_phase_of_33_steps_does_not_exist_for_the_rules_either(net: ContractAndRules) -> None:
    def propose() -> None:
        net.rules.propose(ANA, _HASH, ORDER, ((EACH,) * 33, (), ()), 1, 1, Silence.WAIT, 0)

    assert catch_refusal(propose) == ("BadSchedule",)


def test_only_a_participant_proposes(net: ContractAndRules) -> None:
    assert catch_refusal(net.propose, DAN, _HASH, ORDER) == ("NotParticipant",)


# Joining


def test_a_study_starts_with_the_last_participant_that_joins(net: ContractAndRules) -> None:
    net.propose(ANA, _HASH, ORDER)
    assert name_events(net.join(CYD, 1, _HASH)) == ["StudyJoined"]
    logs = net.join(BOB, 1, _HASH)
    assert name_events(logs) == ["StudyJoined", "StudyStarted"]
    assert [log.args for log in logs] == [{"study": 1, "by": 2, "snapshot": bytes(32)}, {"study": 1}]


def test_joining_repeats_the_hash_that_was_approved(net: ContractAndRules) -> None:
    net.propose(ANA, _HASH, ORDER)
    assert catch_refusal(net.join, BOB, 1, next_digest("another study")) == ("HashMismatch",)


def test_the_rows_that_a_site_commits_to_are_on_record(net: ContractAndRules) -> None:
    proposed = net.propose(ANA, _HASH, ORDER, snapshot=next_digest("ana's rows"))
    joined = net.join(BOB, 1, _HASH, next_digest("bob's rows"))
    assert [logs[-1].args["snapshot"] for logs in (proposed, joined)] == [
        next_digest("ana's rows"),
        next_digest("bob's rows"),
    ]


def test_a_site_joins_once(net: ContractAndRules) -> None:
    net.propose(ANA, _HASH, ORDER)
    assert catch_refusal(net.join, ANA, 1, _HASH) == ("AlreadyVoted",)


def test_only_participants_join(net: ContractAndRules) -> None:
    net.propose(ANA, _HASH, ORDER)
    assert catch_refusal(net.join, STRANGER, 1, _HASH) == ("NotSite",)
    assert catch_refusal(net.join, DAN, 1, _HASH) == ("NotParticipant",)
    assert catch_refusal(net.join, ANA, 2, _HASH) == ("NotParticipant",)


def test_nobody_joins_a_study_that_runs(started: ContractAndRules) -> None:
    assert catch_refusal(started.join, ANA, 1, _HASH) == ("BadState", State.RUNNING)


# Pausing and resuming


def test_any_participant_pauses_and_a_majority_resumes(started: ContractAndRules) -> None:
    logs = started.pause(ANA, 1)
    assert (name_events(logs), logs[0].args) == (["StudyPaused"], {"study": 1, "by": 1, "reason": 7})
    assert name_events(started.resume(ANA, 1)) == ["ResumeVoted"]
    logs = started.resume(BOB, 1)
    assert name_events(logs) == ["ResumeVoted", "StudyResumed"]
    assert [log.args for log in logs] == [{"study": 1, "by": 2}, {"study": 1}]


def test_a_pause_keeps_what_was_posted_and_resuming_restarts_the_clock(started: ContractAndRules) -> None:
    started.post(1, 1)
    before = started.rules.studies[1].deadline
    started.pause(ANA, 1)
    started.wait(500)
    started.resume(ANA, 1)
    started.resume(BOB, 1)
    assert started.rules.studies[1].deadline >= before + 500
    assert catch_refusal(started.post, 1, 1) == ("Overwrite",)


def test_a_study_can_be_paused_and_resumed_again(started: ContractAndRules) -> None:
    for _ in range(2):
        started.pause(BOB, 1)
        started.resume(BOB, 1)
        assert catch_refusal(started.resume, BOB, 1) == ("AlreadyVoted",)
        started.resume(CYD, 1)
    assert started.rules.studies[1].state == State.RUNNING


def test_only_participants_of_a_running_study_pause_it(started: ContractAndRules) -> None:
    assert catch_refusal(started.pause, STRANGER, 1) == ("NotSite",)
    assert catch_refusal(started.pause, DAN, 1) == ("NotParticipant",)
    started.pause(ANA, 1)
    assert catch_refusal(started.pause, BOB, 1) == ("BadState", State.PAUSED)


def test_only_participants_of_a_paused_study_resume_it(started: ContractAndRules) -> None:
    assert catch_refusal(started.resume, ANA, 1) == ("BadState", State.RUNNING)
    started.pause(ANA, 1)
    assert catch_refusal(started.resume, STRANGER, 1) == ("NotSite",)
    assert catch_refusal(started.resume, DAN, 1) == ("NotParticipant",)


# Disputing


def test_a_dispute_pauses_with_both_digests_on_record(started: ContractAndRules) -> None:
    started.complete_step(1)
    started.complete_step(1)
    logs = started.dispute(CYD, 1, 1)
    digests = {"posted": next_digest("posted"), "recomputed": next_digest("recomputed")}
    assert (name_events(logs), logs[0].args) == (["Disputed"], {"study": 1, "by": 3, "position": 1, **digests})
    assert started.rules.studies[1].state == State.PAUSED


def test_a_step_that_is_not_over_cannot_be_disputed(started: ContractAndRules) -> None:
    started.complete_step(1)
    assert catch_refusal(started.dispute, ANA, 1, 1) == ("WrongStep", 1, 0)


def test_a_completed_study_can_be_disputed_and_stays_completed_when_resumed(completed: ContractAndRules) -> None:
    completed.dispute(ANA, 1, 1)
    completed.resume(ANA, 1)
    completed.resume(BOB, 1)
    assert completed.rules.studies[1].state == State.COMPLETED


def test_only_participants_of_a_study_that_ran_dispute(started: ContractAndRules) -> None:
    started.propose(ANA, _HASH, ORDER)
    assert catch_refusal(started.dispute, ANA, 2, 0) == ("BadState", State.PROPOSED)
    assert catch_refusal(started.dispute, STRANGER, 1, 0) == ("NotSite",)
    assert catch_refusal(started.dispute, DAN, 1, 0) == ("NotParticipant",)


# Aborting


def test_any_participant_ends_a_study_that_has_not_ended(started: ContractAndRules) -> None:
    logs = started.abort(CYD, 1)
    assert (name_events(logs), logs[0].args) == (["StudyAborted"], {"study": 1, "by": 3, "reason": 9})
    assert catch_refusal(started.abort, ANA, 1) == ("BadState", State.ABORTED)
    assert catch_refusal(started.post, 1, 1) == ("BadState", State.ABORTED)


def test_a_proposed_or_paused_study_can_be_aborted(started: ContractAndRules) -> None:
    started.propose(ANA, _HASH, ORDER)
    started.abort(BOB, 2)
    started.pause(ANA, 1)
    started.abort(ANA, 1)


def test_a_completed_study_cannot_be_aborted(completed: ContractAndRules) -> None:
    assert catch_refusal(completed.abort, ANA, 1) == ("BadState", State.COMPLETED)


def test_only_participants_abort(started: ContractAndRules) -> None:
    assert catch_refusal(started.abort, STRANGER, 1) == ("NotSite",)
    assert catch_refusal(started.abort, DAN, 1) == ("NotParticipant",)


def test_a_revoked_site_has_no_say_in_its_studies(started: ContractAndRules) -> None:
    for voter in (ANA, BOB, DAN):
        started.revoke(voter, 3)
    for move in (started.pause, started.abort, started.resume, started.skip):
        assert catch_refusal(move, CYD, 1) == ("NotSite",)
