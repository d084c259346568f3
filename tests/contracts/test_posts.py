"""Posts: turns, slots, rounds, skips and exclusions, and what a Model keeps. Every move runs on the rules too."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from support.chain.anvil import ANVIL_CHAIN_ID
from support.chain.contracts import CATALOG, MODEL
from support.chain.twins import (
    GLORE_SCHEDULE,
    ContractAndRules,
    Schedule,
    catch_refusal,
    derive_address,
    name_events,
    next_digest,
)

from coterie_chain.ledger import motions
from coterie_chain.ledger.protocol import ZERO, Silence, State
from coterie_chain.ledger.record_chain import compute_genesis_head, compute_next_head, flatten_post, format_cid
from coterie_chain.ledger.rules import MAX_SIZE
from coterie_chain.ledger.study_state import EACH, SERVER
from coterie_chain.store.cid import DAG_PB, RAW

pytestmark = pytest.mark.anvil

ANA, BOB, CYD, DAN, STRANGER = (derive_address(name) for name in ("ana", "bob", "cyd", "dan", "stranger"))
_HASH = next_digest("study")


def start_study(
    net: ContractAndRules,
    schedule: Schedule = GLORE_SCHEDULE,
    order: tuple[int, ...] = (1, 2, 3),
    silence: int = Silence.EXCLUDE,
    least: int = 1,
) -> ContractAndRules:
    """Let the sites of `order` start a study; its steps have a minute each."""
    study = net.propose(net.read_key(order[0]), _HASH, order, schedule, 3, 60, silence, least)[0].args["study"]
    for site in order[1:]:
        net.join(net.read_key(site), study, _HASH)
    return net


@pytest.fixture
def glore(net: ContractAndRules) -> ContractAndRules:
    """Study 1 runs with ana, bob and cyd: each, then the server, for at most three rounds."""
    return start_study(net)


def pass_deadline(net: ContractAndRules) -> ContractAndRules:
    """Let the open step's deadline pass."""
    net.wait(61)
    return net


# What a record leaves behind


def test_a_record_is_kept_whole_in_the_event(glore: ContractAndRules) -> None:
    post = glore.draft(1, 2)
    logs = glore.record(BOB, 2, post)
    assert name_events(logs) == ["Recorded"]
    assert logs[0].emitter == glore.contracts.models[2]
    head = compute_next_head(compute_genesis_head(glore.contracts.address, ANVIL_CHAIN_ID, 2), 1, EACH, 0, post)
    step = {"study": 1, "position": 0, "seq": 1, "kind": EACH, "round": 0}
    assert logs[0].args == {**step, "post": flatten_post(post), "head": head}


def test_a_model_answers_for_each_slot(glore: ContractAndRules) -> None:
    post = glore.draft(1, 2)
    glore.record(BOB, 2, post)
    slot = keccak(encode(["uint64", "uint32", "uint16"], [1, 0, 0]))
    assert glore.contracts.model(2, "shaAt", slot) == post.sha256
    assert glore.contracts.model(1, "shaAt", slot) == ZERO


def test_the_hash_chain_of_every_site_follows_from_its_records(glore: ContractAndRules) -> None:
    while glore.rules.studies[1].state == State.RUNNING:
        glore.complete_step(1)
        glore.check_chains()
    assert [glore.contracts.model(site, "next") for site in (1, 2, 3, 4)] == [5, 5, 5, 1]


# Turns and phases


def test_the_server_rotates_in_the_study_s_order(net: ContractAndRules) -> None:
    start_study(net, order=(3, 1, 2))
    servers: list[int] = []
    while net.rules.studies[1].state == State.RUNNING:
        servers += net.rules.studies[1].posters() if net.rules.studies[1].kind() == SERVER else ()
        net.complete_step(1)
    assert servers == [3, 1, 2]


def test_the_last_post_of_the_schedule_completes_the_study(net: ContractAndRules) -> None:
    start_study(net, ((), (), (2,)))
    logs = net.post(1, 2)
    assert name_events(logs) == ["StudyCompleted", "Recorded"]
    assert logs[0].args == {"study": 1}


def test_a_converged_server_post_ends_the_loop_and_the_closing_follows(net: ContractAndRules) -> None:
    start_study(net, ((SERVER,), (EACH, SERVER), (EACH,)))
    net.complete_step(1, converged=True)
    net.complete_step(1, converged=True)
    assert net.rules.studies[1].done is False
    net.complete_step(1, converged=True)
    assert (net.rules.studies[1].phase, net.rules.studies[1].done) == (2, True)
    net.complete_step(1)
    assert net.rules.studies[1].state == State.COMPLETED


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        (((EACH,), (), ()), 1),
        (((), (), (SERVER, SERVER)), 2),
        (((2, EACH, SERVER), (), (3,)), 4),
        (((EACH,), (1, 2), (EACH,)), 1 + 3 * 2 + 1),
        (((), (EACH,), ()), 3),
    ],
)
def test_phases_may_be_empty_and_a_loop_runs_its_rounds(net: ContractAndRules, schedule: Schedule, steps: int) -> None:
    start_study(net, schedule)
    for _ in range(steps):
        assert net.rules.studies[1].state == State.RUNNING
        net.complete_step(1)
    assert net.rules.studies[1].state == State.COMPLETED


def test_only_the_site_named_posts_at_its_step(net: ContractAndRules) -> None:
    start_study(net, ((2,), (EACH, SERVER), ()))
    assert catch_refusal(net.post, 1, 1) == ("NotYourTurn", 2)
    net.post(1, 2)
    assert net.rules.studies[1].basis == net.contracts.logs[-1].args["post"][7]


def test_only_the_server_posts_at_its_step(glore: ContractAndRules) -> None:
    glore.complete_step(1)
    assert catch_refusal(glore.post, 1, 2) == ("NotYourTurn", 1)
    assert catch_refusal(glore.post, 1, 4) == ("NotYourTurn", 1)


# Refusals


def test_nobody_posts_through_another_site_s_model(glore: ContractAndRules) -> None:
    for sender in (BOB, DAN, STRANGER):
        assert catch_refusal(glore.record, sender, 1, glore.draft(1, 1)) == ("NotOwner",)


def test_a_revoked_site_an_old_key_and_a_key_newer_than_the_proposal_post_nothing(glore: ContractAndRules) -> None:
    glore.offer(BOB, STRANGER, next_digest("new"))
    glore.accept(STRANGER, 2)
    assert catch_refusal(glore.record, BOB, 2, glore.draft(1, 2)) == ("NotOwner",)
    assert catch_refusal(glore.record, STRANGER, 2, glore.draft(1, 2)) == ("SeatChanged",)
    start_study(glore)
    glore.record(STRANGER, 2, glore.draft(2, 2))
    for voter in (ANA, STRANGER, DAN):
        glore.revoke(voter, 3)
    assert catch_refusal(glore.post, 1, 3) == ("NotOwner",)


def test_a_majority_that_takes_a_seat_does_not_post_as_that_site(glore: ContractAndRules) -> None:
    for voter in (ANA, BOB, DAN):
        glore.recover(voter, 3, STRANGER, next_digest("new"))
    assert catch_refusal(glore.record, STRANGER, 3, glore.draft(1, 3)) == ("SeatChanged",)


def test_only_a_site_s_own_model_reports_to_the_catalog(glore: ContractAndRules) -> None:
    post = flatten_post(glore.draft(1, 1))
    for sender in (ANA, STRANGER, glore.contracts.models[2]):
        assert catch_refusal(glore.contracts.move, sender, "onPost", 1, ANA, post) == ("NotModel",)
    assert catch_refusal(glore.contracts.move, ANA, "onPost", 9, ANA, post) == ("NotModel",)


def test_a_post_names_a_payload(glore: ContractAndRules) -> None:
    assert catch_refusal(glore.post, 1, 1, sha256=ZERO) == ("EmptyPost",)
    assert catch_refusal(glore.post, 1, 1, cid=format_cid(RAW, ZERO)) == ("EmptyPost",)


@pytest.mark.parametrize("codec", [0x00, 0x54, 0x71, 0x99, 0xFF])
def test_a_post_has_a_codec_that_stores_know(glore: ContractAndRules, codec: int) -> None:
    assert catch_refusal(glore.post, 1, 1, cid=format_cid(codec, next_digest("cid"))) == ("BadPayload",)


def test_a_payload_has_a_size_within_bounds(glore: ContractAndRules) -> None:
    for size in (0, MAX_SIZE + 1, (1 << 40) - 1):
        assert catch_refusal(glore.post, 1, 1, size=size) == ("BadPayload",)
    glore.post(1, 1, size=MAX_SIZE)
    glore.post(1, 2, size=1, cid=format_cid(DAG_PB, next_digest("cid")))


def test_a_study_that_does_not_run_takes_no_posts(glore: ContractAndRules) -> None:
    draft = glore.draft(1, 1)
    assert catch_refusal(glore.post, 1, 1, study=9) == ("BadState", State.NONE)
    glore.propose(ANA, _HASH, (1, 2))
    assert catch_refusal(glore.post, 2, 1) == ("BadState", State.PROPOSED)
    glore.pause(ANA, 1)
    assert catch_refusal(glore.record, ANA, 1, draft) == ("BadState", State.PAUSED)


@pytest.mark.parametrize(("position", "attempt"), [(1, 0), (0, 1), (7, 7)])
def test_a_post_names_the_open_step(glore: ContractAndRules, position: int, attempt: int) -> None:
    assert catch_refusal(glore.post, 1, 1, position=position, attempt=attempt) == ("WrongStep", 0, 0)


def test_a_step_that_is_over_takes_no_more_posts(glore: ContractAndRules) -> None:
    draft = glore.draft(1, 1)
    glore.complete_step(1)
    assert catch_refusal(glore.record, ANA, 1, draft) == ("WrongStep", 1, 0)


def test_a_post_builds_on_the_last_server_post(glore: ContractAndRules) -> None:
    assert catch_refusal(glore.post, 1, 1, basis=next_digest("guess")) == ("BasisMismatch", "0x" + _HASH.hex())
    glore.complete_step(1)
    glore.complete_step(1)
    served = glore.rules.studies[1].basis
    assert served != _HASH
    assert catch_refusal(glore.post, 1, 1, basis=_HASH) == ("BasisMismatch", "0x" + served.hex())


def test_a_site_posts_once_in_a_slot(glore: ContractAndRules) -> None:
    glore.post(1, 1)
    assert catch_refusal(glore.post, 1, 1) == ("Overwrite",)


def test_a_site_outside_the_study_posts_nothing(glore: ContractAndRules) -> None:
    assert catch_refusal(glore.post, 1, 4) == ("NotParticipant",)


# A silent server


def test_a_silent_server_is_skipped_and_the_next_site_serves(glore: ContractAndRules) -> None:
    glore.complete_step(1)
    logs = pass_deadline(glore).skip(CYD, 1)
    assert (name_events(logs), logs[0].args) == (
        ["ServerSkipped"],
        {"study": 1, "by": 3, "position": 1, "attempt": 0, "server": 1},
    )
    assert catch_refusal(glore.post, 1, 1) == ("NotYourTurn", 2)
    glore.post(1, 2)


def test_a_skip_voids_the_silent_server_s_attempt(glore: ContractAndRules) -> None:
    glore.complete_step(1)
    draft = glore.draft(1, 1)
    pass_deadline(glore).skip(BOB, 1)
    assert catch_refusal(glore.record, ANA, 1, draft) == ("WrongStep", 1, 1)


def test_skips_go_round_until_somebody_serves(glore: ContractAndRules) -> None:
    glore.complete_step(1)
    for silent in (1, 2, 3, 1):
        assert pass_deadline(glore).skip(BOB, 1)[0].args["server"] == silent
    glore.post(1, 2)


def test_a_server_has_until_its_deadline(glore: ContractAndRules) -> None:
    glore.complete_step(1)
    deadline = glore.rules.studies[1].deadline
    glore.wait(deadline - glore.contracts.now - 1)
    assert catch_refusal(glore.skip, BOB, 1) == ("NotYet", deadline)
    glore.skip(BOB, 1)


def test_only_a_participant_skips_a_server_in_a_running_study(glore: ContractAndRules) -> None:
    assert catch_refusal(pass_deadline(glore).skip, ANA, 1) == ("NotAServerStep",)
    glore.complete_step(1)
    pass_deadline(glore)
    assert catch_refusal(glore.skip, STRANGER, 1) == ("NotSite",)
    assert catch_refusal(glore.skip, DAN, 1) == ("NotParticipant",)
    glore.pause(ANA, 1)
    assert catch_refusal(glore.skip, ANA, 1) == ("BadState", State.PAUSED)


# A silent site


def test_a_majority_excludes_a_silent_site_and_the_step_begins_again(glore: ContractAndRules) -> None:
    glore.post(1, 1)
    pass_deadline(glore)
    assert name_events(glore.exclude(ANA, 1, 3)) == ["ExclusionVoted"]
    logs = glore.exclude(BOB, 1, 3)
    assert name_events(logs) == ["ExclusionVoted", "SiteExcluded"]
    step = {"study": 1, "position": 0, "attempt": 0, "site": 3}
    assert [log.args for log in logs] == [{**step, "by": 2, "motion": motions.hash_exclusion(1, 0, 0, 3)}, step]
    assert catch_refusal(glore.post, 1, 3) == ("NotParticipant",)
    assert catch_refusal(glore.pause, CYD, 1) == ("NotParticipant",)
    glore.complete_step(1)
    glore.complete_step(1)


def test_the_turn_passes_over_an_excluded_site(net: ContractAndRules) -> None:
    start_study(net, order=(1, 2, 3, 4))
    pass_deadline(net)
    for voter in (ANA, CYD):
        net.exclude(voter, 1, 2)
    servers: list[int] = []
    while net.rules.studies[1].state == State.RUNNING:
        servers += net.rules.studies[1].posters() if net.rules.studies[1].kind() == SERVER else ()
        net.complete_step(1)
    assert servers == [1, 3, 4]


def test_votes_on_an_exclusion_end_with_the_attempt(net: ContractAndRules) -> None:
    start_study(net, order=(1, 2, 3, 4))
    pass_deadline(net)
    net.exclude(ANA, 1, 4)
    for voter in (ANA, BOB):
        net.exclude(voter, 1, 3)
    pass_deadline(net)
    assert name_events(net.exclude(ANA, 1, 4)) == ["ExclusionVoted"]


def test_a_site_votes_once_on_an_exclusion(glore: ContractAndRules) -> None:
    pass_deadline(glore).exclude(ANA, 1, 3)
    assert catch_refusal(glore.exclude, ANA, 1, 3) == ("AlreadyVoted",)


@pytest.mark.parametrize("silence", [Silence.WAIT, Silence.ABORT])
def test_a_study_excludes_only_if_its_terms_say_so(net: ContractAndRules, silence: Silence) -> None:
    start_study(net, silence=silence)
    assert catch_refusal(pass_deadline(net).exclude, ANA, 1, 3) == ("NotAllowed",)


def test_sites_are_excluded_at_an_each_step_only(glore: ContractAndRules) -> None:
    glore.complete_step(1)
    assert catch_refusal(pass_deadline(glore).exclude, ANA, 1, 3) == ("NotAnEachStep",)


def test_a_site_has_until_its_deadline(glore: ContractAndRules) -> None:
    deadline = glore.rules.studies[1].deadline
    glore.wait(deadline - glore.contracts.now - 1)
    assert catch_refusal(glore.exclude, ANA, 1, 3) == ("NotYet", deadline)
    glore.exclude(ANA, 1, 3)


@pytest.mark.parametrize("site", [0, 3, 4, 200, EACH])
def test_a_site_that_posted_or_takes_no_part_is_not_silent(glore: ContractAndRules, site: int) -> None:
    glore.post(1, 3)
    assert catch_refusal(pass_deadline(glore).exclude, ANA, 1, site) == ("NotSilent",)


def test_a_site_cannot_vote_to_exclude_itself(glore: ContractAndRules) -> None:
    assert catch_refusal(pass_deadline(glore).exclude, ANA, 1, 1) == ("NotSilent",)


def test_a_site_that_the_schedule_names_is_not_excluded(net: ContractAndRules) -> None:
    start_study(net, ((), (EACH, SERVER), (EACH, 3)))
    pass_deadline(net)
    assert catch_refusal(net.exclude, ANA, 1, 3) == ("SiteNeeded", 3)
    net.exclude(ANA, 1, 2)


def test_nobody_is_excluded_below_the_least_number_of_sites(net: ContractAndRules) -> None:
    start_study(net, order=(1, 2, 3, 4), least=3)
    pass_deadline(net)
    for voter in (ANA, CYD):
        net.exclude(voter, 1, 2)
    pass_deadline(net)
    assert catch_refusal(net.exclude, ANA, 1, 3) == ("SiteNeeded", 3)


def test_two_of_four_exclude_two_silent_sites_one_after_the_other(net: ContractAndRules) -> None:
    start_study(net, order=(1, 2, 3, 4))
    for silent in (3, 4):
        pass_deadline(net)
        net.exclude(ANA, 1, silent)
        net.exclude(BOB, 1, silent)
    net.complete_step(1)
    assert net.rules.studies[1].active == {1, 2}


def test_a_site_that_is_gone_is_excluded_by_one_vote_and_skipped_without_delay(net: ContractAndRules) -> None:
    start_study(net, order=(1, 2, 3, 4))
    net.offer(ANA, STRANGER, next_digest("new"))
    net.accept(STRANGER, 1)
    for voter in (STRANGER, BOB, CYD):
        net.revoke(voter, 4)
    assert name_events(net.exclude(BOB, 1, 4)) == ["ExclusionVoted", "SiteExcluded"]
    assert name_events(net.exclude(CYD, 1, 1)) == ["ExclusionVoted", "SiteExcluded"]
    net.complete_step(1)
    assert net.rules.studies[1].server() == 2


def test_a_server_that_is_gone_is_skipped_without_delay(glore: ContractAndRules) -> None:
    glore.complete_step(1)
    glore.offer(ANA, STRANGER, next_digest("new"))
    glore.accept(STRANGER, 1)
    assert glore.skip(BOB, 1)[0].args["server"] == 1
    assert glore.rules.studies[1].server() == 2


# Posts that the others cannot use


def test_a_withheld_post_takes_its_site_out_and_the_step_begins_again_over_the_others(net: ContractAndRules) -> None:
    start_study(net, order=(1, 2, 3, 4), least=3)
    net.complete_step(1)
    assert name_events(net.unavailable(ANA, 1, 0, 0, 4)) == ["UnavailabilityVoted"]
    logs = net.unavailable(BOB, 1, 0, 0, 4)
    assert name_events(logs) == ["UnavailabilityVoted", "SiteExcluded"]
    step = {"study": 1, "position": 0, "attempt": 0, "site": 4}
    motion = motions.hash_unavailability(1, 0, 0, 4)
    assert [log.args for log in logs] == [{**step, "by": 2, "reason": 4, "motion": motion}, step]
    assert (net.rules.studies[1].position, net.rules.studies[1].attempt) == (0, 1)
    while net.rules.studies[1].state == State.RUNNING:
        net.complete_step(1)
    assert net.rules.studies[1].active == {1, 2, 3}


def test_a_withheld_post_is_waited_for_where_the_study_waits(net: ContractAndRules) -> None:
    start_study(net, silence=Silence.WAIT)
    net.complete_step(1)
    net.unavailable(ANA, 1, 0, 0, 3)
    logs = net.unavailable(BOB, 1, 0, 0, 3)
    step = {"study": 1, "position": 0, "attempt": 0, "site": 3}
    assert (name_events(logs), logs[1].args) == (["UnavailabilityVoted", "StepReopened"], step)
    net.complete_step(1)
    assert (net.rules.studies[1].position, net.rules.studies[1].attempt) == (1, 1)


def test_a_withheld_post_ends_a_study_that_says_so_with_the_culprit_s_name(net: ContractAndRules) -> None:
    start_study(net, silence=Silence.ABORT)
    net.complete_step(1)
    net.unavailable(ANA, 1, 0, 0, 3)
    logs = net.unavailable(BOB, 1, 0, 0, 3)
    end = {"study": 1, "by": 2, "reason": 4, "culprit": 3}
    assert (name_events(logs), logs[1].args) == (["UnavailabilityVoted", "StudyAborted"], end)


def test_with_too_few_sites_a_withheld_post_is_waited_for(net: ContractAndRules) -> None:
    start_study(net, least=3)
    net.complete_step(1)
    net.unavailable(ANA, 1, 0, 0, 3)
    assert name_events(net.unavailable(BOB, 1, 0, 0, 3)) == ["UnavailabilityVoted", "StepReopened"]


@pytest.mark.parametrize("silence", list(Silence))
def test_a_server_whose_post_cannot_be_used_loses_its_turn_under_every_rule(
    net: ContractAndRules, silence: Silence
) -> None:
    start_study(net, silence=silence)
    net.complete_step(1)
    net.complete_step(1)
    assert net.rules.studies[1].basis != _HASH
    net.unavailable(BOB, 1, 1, 0, 1)
    assert name_events(net.unavailable(CYD, 1, 1, 0, 1)) == ["UnavailabilityVoted", "StepReopened"]
    s = net.rules.studies[1]
    assert (s.position, s.attempt, s.server(), s.basis) == (1, 1, 2, _HASH)
    net.complete_step(1)
    assert net.rules.studies[1].attempt == 1


def test_attempts_never_repeat_when_a_study_goes_back_again(net: ContractAndRules) -> None:
    start_study(net, silence=Silence.WAIT)
    slots = set()
    for _ in range(3):
        net.complete_step(1)
        s = net.rules.studies[1]
        slots.add((1, s.attempt))
        net.unavailable(ANA, 1, 0, s.attempt, 3)
        net.unavailable(BOB, 1, 0, s.attempt, 3)
        slots.add((0, net.rules.studies[1].attempt))
    assert len(slots) == 6
    net.complete_step(1)
    net.check_chains()


def test_a_post_at_the_open_step_can_be_unusable_too(glore: ContractAndRules) -> None:
    glore.post(1, 3)
    glore.unavailable(ANA, 1, 0, 0, 3)
    glore.unavailable(BOB, 1, 0, 0, 3)
    assert glore.rules.studies[1].active == {1, 2}
    glore.complete_step(1)


def test_an_unusable_post_is_one_that_is_there_at_the_open_step_or_the_last(glore: ContractAndRules) -> None:
    assert catch_refusal(glore.unavailable, ANA, 1, 0, 0, 3) == ("NotPosted",)
    glore.complete_step(1)
    for site in (1, 4, 0, 200):
        assert catch_refusal(glore.unavailable, ANA, 1, 0, 0, site) == ("NotPosted",)
    for position, attempt in ((0, 1), (2, 0), ((1 << 32) - 1, 0), (1, 1)):
        assert catch_refusal(glore.unavailable, ANA, 1, position, attempt, 3) == ("WrongStep", 1, 0)
    glore.complete_step(1)
    assert catch_refusal(glore.unavailable, ANA, 1, 0, 0, 3) == ("WrongStep", 2, 0)
    for by, error in ((STRANGER, "NotSite"), (DAN, "NotParticipant")):
        assert catch_refusal(glore.unavailable, by, 1, 1, 0, 1) == (error,)
    assert name_events(glore.unavailable(BOB, 1, 1, 0, 1)) == ["UnavailabilityVoted"]
    assert catch_refusal(glore.unavailable, BOB, 1, 1, 0, 1) == ("AlreadyVoted",)
    glore.pause(ANA, 1)
    assert catch_refusal(glore.unavailable, CYD, 1, 1, 0, 1) == ("BadState", State.PAUSED)


def test_only_a_participant_excludes_in_a_running_study(glore: ContractAndRules) -> None:
    pass_deadline(glore)
    assert catch_refusal(glore.exclude, STRANGER, 1, 3) == ("NotSite",)
    assert catch_refusal(glore.exclude, DAN, 1, 3) == ("NotParticipant",)
    glore.pause(ANA, 1)
    assert catch_refusal(glore.exclude, ANA, 1, 3) == ("BadState", State.PAUSED)


# Nothing else


def test_the_contracts_have_no_other_moves_than_the_ones_tested() -> None:
    membership = {"admit", "revoke", "recover", "offer", "accept", "succeed", "withdraw"}
    studies = {"propose", "join", "decline", "onPost", "skip", "exclude", "unavailable"}
    studies |= {"dispute", "pause", "resume", "abort", "supersede", "attest"}
    views = {"VERSION", "successor", "siteCount", "seat", "offered", "siteOf", "votes", "studyCount", "terms", "status"}
    assert set(CATALOG.functions) == membership | studies | views
    assert set(MODEL.functions) == {"record", "catalog", "site", "next", "head", "shaAt"}
