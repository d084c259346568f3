"""Studies of the Catalog: from proposal to end, but for the posts. Every move runs on the rules too."""

from __future__ import annotations

import pytest
from support.chain.twins import (
    NO_JOINING,
    REASON,
    RECOMPUTED,
    ContractAndRules,
    Schedule,
    catch_refusal,
    derive_address,
    name_events,
    next_digest,
)

from coterie_chain.ledger import motions
from coterie_chain.ledger.protocol import ZERO, Silence, State
from coterie_chain.ledger.rules import MAX_OPEN, PAUSE_TIME, PROPOSAL_TIME, Moment
from coterie_chain.ledger.study_state import EACH, SERVER, Proposal

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
    logs = net.propose(ANA, _HASH, ORDER, ((SERVER,), (EACH, 3), ()), 7, 90, Silence.EXCLUDE, 2)
    assert name_events(logs) == ["StudyProposed", "StudyJoined"]
    words = tuple(bytes(w).ljust(32, b"\0") for w in ((SERVER,), (EACH, 3), ()))
    assert logs[0].args == {"study": 1, "by": 1, "terms": (_HASH, bytes(ORDER), words, 7, 90, 1, 2)}
    assert logs[1].args == {"study": 1, "by": 1, "joining": NO_JOINING}


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
        {"hash": _HASH, "timeout": 59},
        {"hash": _HASH, "timeout": 30 * 86400 + 1},
        {"hash": _HASH, "silence": 3},
        {"hash": _HASH, "least": 0},
        {"hash": _HASH, "least": 4},
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
        net.rules.propose(ANA, Proposal(_HASH, ORDER, ((EACH,) * 33, (), ()), 1, 60, Silence.WAIT), Moment(0, 0))

    assert catch_refusal(propose) == ("BadSchedule",)


def test_only_a_participant_proposes(net: ContractAndRules) -> None:
    assert catch_refusal(net.propose, DAN, _HASH, ORDER) == ("NotParticipant",)


# Joining


def test_a_study_starts_with_the_last_participant_that_joins(net: ContractAndRules) -> None:
    net.propose(ANA, _HASH, ORDER)
    assert name_events(net.join(CYD, 1, _HASH)) == ["StudyJoined"]
    logs = net.join(BOB, 1, _HASH)
    assert name_events(logs) == ["StudyJoined", "StudyStarted"]
    assert [log.args for log in logs] == [{"study": 1, "by": 2, "joining": NO_JOINING}, {"study": 1}]


def test_joining_repeats_the_hash_that_was_approved(net: ContractAndRules) -> None:
    net.propose(ANA, _HASH, ORDER)
    assert catch_refusal(net.join, BOB, 1, next_digest("another study")) == ("HashMismatch",)


def test_the_rows_approvals_and_release_that_a_site_commits_to_are_on_record(net: ContractAndRules) -> None:
    ours, theirs = (
        (next_digest("ana's rows"), next_digest("signatures"), 1_002_003),
        (next_digest("bob's rows"), ZERO, 0),
    )
    proposed = net.propose(ANA, _HASH, ORDER, joining=ours)
    joined = net.join(BOB, 1, _HASH, theirs)
    assert [logs[-1].args["joining"] for logs in (proposed, joined)] == [ours, theirs]


def test_a_proposal_can_be_joined_for_thirty_days(net: ContractAndRules) -> None:
    net.propose(ANA, _HASH, ORDER)
    deadline = net.rules.studies[1].deadline
    net.wait(deadline - net.contracts.now - 1)
    net.join(BOB, 1, _HASH)
    assert catch_refusal(net.join, CYD, 1, _HASH) == ("Expired", deadline)


def test_a_site_has_at_most_sixteen_open_proposals(net: ContractAndRules) -> None:
    for k in range(MAX_OPEN):
        net.propose(ANA, next_digest("study", k), ORDER)
    assert catch_refusal(net.propose, ANA, _HASH, ORDER) == ("TooManyProposals",)
    net.propose(BOB, _HASH, ORDER)
    net.decline(CYD, 7)
    net.propose(ANA, _HASH, ORDER)
    assert catch_refusal(net.propose, ANA, _HASH, ORDER) == ("TooManyProposals",)
    net.wait(PROPOSAL_TIME)
    net.propose(ANA, _HASH, ORDER)


def test_a_study_that_has_started_is_no_open_proposal(net: ContractAndRules) -> None:
    for k in range(MAX_OPEN + 1):
        net.propose(ANA, next_digest("study", k), (1,))


def test_a_participant_declines_many_proposals_at_once(net: ContractAndRules) -> None:
    for _ in range(3):
        net.propose(ANA, _HASH, ORDER)
    logs = net.decline(BOB, 3, 1)
    assert name_events(logs) == ["StudyDeclined", "StudyDeclined"]
    assert [log.args for log in logs] == [{"study": study, "by": 2, "reason": 2} for study in (3, 1)]
    assert [net.rules.studies[study].state for study in (1, 2, 3)] == [State.ABORTED, State.PROPOSED, State.ABORTED]


def test_a_proposer_withdraws_its_proposal(net: ContractAndRules) -> None:
    net.propose(ANA, _HASH, ORDER)
    net.decline(ANA, 1)
    assert catch_refusal(net.join, BOB, 1, _HASH) == ("BadState", State.ABORTED)


def test_all_proposals_of_a_list_are_declined_or_none(started: ContractAndRules) -> None:
    started.propose(ANA, _HASH, ORDER)
    assert catch_refusal(started.decline, ANA) == ("BadTerms",)
    assert catch_refusal(started.decline, BOB, 2, 2) == ("BadState", State.ABORTED)
    assert catch_refusal(started.decline, BOB, 2, 1) == ("BadState", State.RUNNING)
    assert catch_refusal(started.decline, DAN, 2) == ("NotParticipant",)
    assert catch_refusal(started.decline, STRANGER, 2) == ("NotSite",)
    assert started.rules.studies[2].state == State.PROPOSED


def test_a_key_that_changed_since_the_proposal_does_not_join(net: ContractAndRules) -> None:
    net.propose(ANA, _HASH, ORDER)
    net.offer(BOB, STRANGER, next_digest("new"))
    net.accept(STRANGER, 2)
    assert catch_refusal(net.join, STRANGER, 1, _HASH) == ("SeatChanged",)
    net.propose(ANA, _HASH, ORDER)
    net.join(STRANGER, 2, _HASH)


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
    assert [log.args for log in logs] == [{"study": 1, "by": 2, "motion": motions.hash_resumption(1)}, {"study": 1}]


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
    for by in (BOB, ANA):
        started.pause(by, 1)
        started.resume(BOB, 1)
        assert catch_refusal(started.resume, BOB, 1) == ("AlreadyVoted",)
        started.resume(CYD, 1)
    assert started.rules.studies[1].state == State.RUNNING


def test_a_site_pauses_a_study_once_at_a_position(started: ContractAndRules) -> None:
    started.pause(BOB, 1)
    for by in (ANA, CYD):
        started.resume(by, 1)
    assert catch_refusal(started.pause, BOB, 1) == ("AlreadyVoted",)
    started.complete_step(1)
    started.pause(BOB, 1)


def test_after_seven_days_one_participant_resumes(started: ContractAndRules) -> None:
    started.pause(BOB, 1)
    started.resume(CYD, 1)
    started.wait(PAUSE_TIME - 2)
    assert catch_refusal(started.resume, CYD, 1) == ("AlreadyVoted",)
    assert name_events(started.resume(CYD, 1)) == ["ResumeVoted", "StudyResumed"]
    started.pause(ANA, 1)
    assert name_events(started.resume(CYD, 1)) == ["ResumeVoted"]


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
    logs = started.dispute(CYD, 1, 1, site=2)
    digests = {"posted": next_digest("payload", 1, 1, 0, 2), "recomputed": RECOMPUTED}
    step = {"position": 1, "attempt": 0, "site": 2}
    assert (name_events(logs), logs[0].args) == (["Disputed"], {"study": 1, "by": 3, **step, **digests})
    assert started.rules.studies[1].state == State.PAUSED


@pytest.mark.parametrize(("position", "attempt", "site"), [(0, 0, 4), (1, 0, 1), (1, 1, 2), (1, 0, 0), (1, 0, 200)])
def test_a_dispute_names_a_post_that_is_there(
    started: ContractAndRules, position: int, attempt: int, site: int
) -> None:
    started.complete_step(1)
    started.complete_step(1)
    assert catch_refusal(started.dispute, CYD, 1, position, attempt, site) == ("NotPosted",)


def test_a_dispute_names_another_digest_than_the_one_posted(started: ContractAndRules) -> None:
    started.complete_step(1)
    started.complete_step(1)
    for recomputed in (ZERO, next_digest("payload", 1, 1, 0, 2)):
        assert catch_refusal(started.dispute, CYD, 1, 1, 0, 2, recomputed) == ("NotPosted",)


def test_a_site_disputes_once_at_a_position(started: ContractAndRules) -> None:
    started.complete_step(1)
    started.complete_step(1)
    started.dispute(CYD, 1, 1, site=2)
    for by in (ANA, BOB):
        started.resume(by, 1)
    assert catch_refusal(started.dispute, CYD, 1, 1, 0, 2) == ("AlreadyVoted",)
    started.dispute(BOB, 1, 1, site=2)


def test_a_step_that_is_not_over_cannot_be_disputed(started: ContractAndRules) -> None:
    started.complete_step(1)
    assert catch_refusal(started.dispute, ANA, 1, 1) == ("WrongStep", 1, 0)


def test_a_completed_study_can_be_disputed_and_stays_completed(completed: ContractAndRules) -> None:
    assert name_events(completed.dispute(ANA, 1, 1, site=2)) == ["Disputed"]
    assert completed.rules.studies[1].state == State.COMPLETED
    assert catch_refusal(completed.resume, ANA, 1) == ("BadState", State.COMPLETED)
    assert catch_refusal(completed.dispute, ANA, 1, 1, 0, 2) == ("AlreadyVoted",)


def test_only_participants_of_a_study_that_ran_dispute(started: ContractAndRules) -> None:
    started.propose(ANA, _HASH, ORDER)
    assert catch_refusal(started.dispute, ANA, 2, 0) == ("BadState", State.PROPOSED)
    assert catch_refusal(started.dispute, STRANGER, 1, 0) == ("NotSite",)
    assert catch_refusal(started.dispute, DAN, 1, 0) == ("NotParticipant",)


# Aborting


def test_any_participant_ends_a_study_that_has_not_ended(started: ContractAndRules) -> None:
    logs = started.abort(CYD, 1)
    assert (name_events(logs), logs[0].args) == (["StudyAborted"], {"study": 1, "by": 3, "reason": 9, "culprit": 0})
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


def start_excluding(net: ContractAndRules, order: tuple[int, ...] = (1, 2, 3, 4), least: int = 2) -> ContractAndRules:
    """Let sites start a study that goes on without silent sites."""
    net.propose(net.read_key(order[0]), _HASH, order, silence=Silence.EXCLUDE, least=least)
    for site in order[1:]:
        net.join(net.read_key(site), 1, _HASH)
    return net


def test_a_site_that_leaves_a_study_that_excludes_is_gone_and_the_others_go_on(net: ContractAndRules) -> None:
    start_excluding(net).post(1, 1)
    logs = net.abort(BOB, 1, 2)
    step = {"position": 0, "attempt": 0}
    assert (name_events(logs), logs[0].args) == (["SiteLeft"], {"study": 1, "by": 2, "reason": 9, **step})
    assert catch_refusal(net.abort, BOB, 1, 2) == ("NotParticipant",)
    net.complete_step(1)
    net.complete_step(1)
    assert net.rules.studies[1].active == {1, 3, 4}


def test_a_site_leaves_while_a_study_is_paused_and_the_pause_keeps_its_end(net: ContractAndRules) -> None:
    start_excluding(net).pause(ANA, 1)
    deadline = net.rules.studies[1].deadline
    net.abort(BOB, 1, 2)
    assert (net.rules.studies[1].state, net.rules.studies[1].deadline) == (State.PAUSED, deadline)


def test_a_leaving_ends_a_study_that_cannot_go_on_and_names_who_left(net: ContractAndRules) -> None:
    start_excluding(net, (1, 2, 3), least=3)
    logs = net.abort(BOB, 1, 2)
    assert (name_events(logs), logs[0].args["culprit"]) == (["StudyAborted"], 2)


def test_in_a_study_that_excludes_a_majority_ends_it(net: ContractAndRules) -> None:
    start_excluding(net)
    assert name_events(net.abort(ANA, 1)) == ["AbortVoted"]
    assert name_events(net.abort(BOB, 1)) == ["AbortVoted"]
    logs = net.abort(CYD, 1)
    assert name_events(logs) == ["AbortVoted", "StudyAborted"]
    vote = {"study": 1, "by": 3, "reason": 9, "culprit": 0}
    assert [log.args for log in logs] == [{**vote, "motion": motions.hash_abortion(1, 9, 0)}, vote]


def test_a_culprit_is_named_by_a_majority_of_the_others(started: ContractAndRules) -> None:
    assert name_events(started.abort(ANA, 1, 3)) == ["AbortVoted"]
    assert catch_refusal(started.abort, ANA, 1, 3) == ("AlreadyVoted",)
    assert catch_refusal(started.abort, ANA, 1, 4) == ("UnknownSite",)
    logs = started.abort(BOB, 1, 3)
    assert (name_events(logs), logs[1].args["culprit"]) == (["AbortVoted", "StudyAborted"], 3)


@pytest.mark.parametrize("silence", [Silence.WAIT, Silence.ABORT])
def test_one_participant_ends_a_study_that_cannot_go_on_without_a_silent_site(
    net: ContractAndRules, silence: Silence
) -> None:
    net.propose(ANA, _HASH, ORDER, silence=silence)
    net.join(BOB, 1, _HASH)
    net.join(CYD, 1, _HASH)
    net.post(1, 1)
    net.wait(61)
    assert name_events(net.abort(BOB, 1, 1)) == ["AbortVoted"]
    logs = net.abort(ANA, 1, 3)
    assert (name_events(logs), logs[0].args["culprit"]) == (["StudyAborted"], 3)


def test_one_participant_ends_a_study_whose_named_site_is_silent(net: ContractAndRules) -> None:
    net.propose(ANA, _HASH, ORDER, ((3,), (EACH,), ()), silence=Silence.EXCLUDE)
    net.join(BOB, 1, _HASH)
    net.join(CYD, 1, _HASH)
    assert name_events(net.abort(ANA, 1, 3)) == ["AbortVoted"]
    net.wait(61)
    assert name_events(net.abort(BOB, 1, 3)) == ["StudyAborted"]


# Votes in a study


def test_a_seat_whose_key_changed_takes_no_further_part(started: ContractAndRules) -> None:
    started.pause(ANA, 1)
    started.resume(CYD, 1)
    started.offer(CYD, STRANGER, next_digest("new"))
    started.accept(STRANGER, 3)
    for move in (started.resume, started.abort):
        assert catch_refusal(move, STRANGER, 1) == ("SeatChanged",)
    assert name_events(started.resume(ANA, 1)) == ["ResumeVoted"]
    assert name_events(started.resume(BOB, 1)) == ["ResumeVoted", "StudyResumed"]
    for move in (started.pause, started.skip):
        assert catch_refusal(move, STRANGER, 1) == ("SeatChanged",)


def test_the_votes_of_two_are_a_majority_once_the_third_is_gone(net: ContractAndRules) -> None:
    start_excluding(net, (1, 2, 3, 4))
    net.pause(ANA, 1)
    for by in (ANA, BOB):
        net.resume(by, 1)
    for voter in (ANA, BOB, CYD):
        net.revoke(voter, 4)
    assert name_events(net.resume(ANA, 1)) == ["ResumeVoted", "StudyResumed"]


# After the end


def test_the_proposer_alone_supersedes_a_completed_study_once(completed: ContractAndRules) -> None:
    completed.propose(BOB, _HASH, ORDER)
    logs = completed.supersede(ANA, 1, 2)
    assert name_events(logs) == ["SupersessionVoted", "StudySuperseded"]
    assert logs[1].args == {"study": 1, "successor": 2, "reason": REASON}
    assert catch_refusal(completed.supersede, ANA, 1, 2) == ("AlreadyVoted",)
    assert completed.rules.studies[1].state == State.COMPLETED


def test_a_majority_supersedes_a_completed_study(completed: ContractAndRules) -> None:
    assert name_events(completed.supersede(BOB, 1)) == ["SupersessionVoted"]
    assert catch_refusal(completed.supersede, BOB, 1) == ("AlreadyVoted",)
    assert name_events(completed.supersede(CYD, 1)) == ["SupersessionVoted", "StudySuperseded"]


@pytest.mark.parametrize(("successor", "reason"), [(1, REASON), (2, REASON), (0, ZERO)])
def test_a_study_is_superseded_by_another_that_exists_for_a_reason(
    completed: ContractAndRules, successor: int, reason: bytes
) -> None:
    assert catch_refusal(completed.supersede, ANA, 1, successor, reason) == ("BadTerms",)


def test_only_participants_supersede_and_attest_ended_studies(completed: ContractAndRules) -> None:
    rows = next_digest("rows")
    assert completed.attest(BOB, 1, rows)[0].args == {"study": 1, "by": 2, "snapshot": rows, "verdict": 1}
    assert catch_refusal(completed.attest, BOB, 1, ZERO) == ("BadTerms",)
    for move in (completed.supersede, completed.attest):
        assert catch_refusal(move, DAN, 1, 0 if move == completed.supersede else rows) == ("NotParticipant",)
    completed.propose(ANA, _HASH, ORDER)
    assert catch_refusal(completed.supersede, ANA, 2) == ("BadState", State.PROPOSED)
    assert catch_refusal(completed.attest, ANA, 2, rows) == ("BadState", State.PROPOSED)
    completed.abort(ANA, 2)
    completed.attest(BOB, 2, rows)


def test_a_changed_key_still_speaks_for_its_site_after_the_end(completed: ContractAndRules) -> None:
    completed.offer(BOB, STRANGER, next_digest("new"))
    completed.accept(STRANGER, 2)
    completed.attest(STRANGER, 1, next_digest("rows"))
    completed.dispute(STRANGER, 1, 1, site=2)
