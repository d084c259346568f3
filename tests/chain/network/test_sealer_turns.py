"""The table of moves of a sealer on a sleeping chain, row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coterie_chain.network.sealer_turns import (
    HeadFacts,
    Observation,
    Phase,
    SealerCommand,
    SealerRules,
    SealerState,
    compute_rank_pause,
    compute_wake_time,
    decide,
    list_turns,
)

A, B, C, D, E = (f"0x{i:040x}" for i in range(1, 6))
NOW = 1_700_000_000.0
# Block 9 of A: B (place 1 of 3) is in turn for block 10, then A and C in reverse, but A signed recently.
HEAD = HeadFacts(9, "0x9", int(NOW) - 60, (A, B, C), ((8, C), (9, A)), unconfirmed=False, beat_since=int(NOW) - 61)
REST = Observation(HEAD, pending=0, mining=False, peers=2)
WAITS = replace(REST, pending=1)
ASLEEP = SealerState(Phase.ASLEEP, "0x9")


def test_the_order_goes_backwards_from_the_sealer_in_turn_and_leaves_out_who_signed_recently() -> None:
    assert list_turns((C, A, B), (), 10) == (B, A, C)
    assert list_turns((A, B, C), ((9, A),), 10) == (B, C)
    assert list_turns((A, B, C), ((8, A),), 10) == (B, A, C)
    # of five sealers the last two are left out: block 11 is B's turn, then A, E, D, C
    assert list_turns((A, B, C, D, E), ((8, C), (9, E), (10, A)), 11) == (B, D, C)


@pytest.mark.parametrize(("sealers", "pause"), [(3, 1.7), (4, 2.2), (5, 2.2), (7, 2.7)])
def test_a_rank_waits_longer_than_cliques_random_wait_and_a_fetch(sealers: int, pause: float) -> None:
    assert compute_rank_pause(sealers) == pytest.approx(pause)


def test_the_sealer_in_turn_wakes_at_once_the_next_a_pause_later_and_a_recent_one_never() -> None:
    times = [compute_wake_time(SealerRules(name), HEAD, NOW) for name in (B, C, A)]
    assert times == [NOW, NOW + compute_rank_pause(3), None]


def test_a_rank_counts_from_the_second_in_which_a_block_can_be() -> None:
    young = replace(HEAD, time=int(NOW))
    assert compute_wake_time(SealerRules(C), young, NOW) == NOW + 1 + compute_rank_pause(3)


def test_a_node_that_starts_is_left_alone_until_it_has_a_peer_and_a_block() -> None:
    alone = replace(WAITS, peers=0, mining=True)
    assert decide(SealerRules(B), SealerState(), alone, NOW) == (SealerState(), ())
    empty = replace(REST, head=replace(HEAD, number=0), mining=True)
    assert decide(SealerRules(B), SealerState(), empty, NOW) == (SealerState(), ())
    state, commands = decide(SealerRules(B), SealerState(), replace(REST, mining=True), NOW)
    assert (state, commands) == (ASLEEP, (SealerCommand.STOP,))


def test_a_chain_at_rest_is_left_alone() -> None:
    assert decide(SealerRules(B), ASLEEP, REST, NOW) == (ASLEEP, ())


@pytest.mark.parametrize(
    "seen",
    [
        WAITS,
        replace(REST, head=replace(HEAD, unconfirmed=True)),
        replace(REST, head=replace(HEAD, beat_since=int(NOW) - 3600)),
    ],
    ids=["a transaction waits", "a block lacks confirmations", "the heartbeat is due"],
)
def test_the_sealer_in_turn_starts_when_a_block_is_wanted(seen: Observation) -> None:
    state, commands = decide(SealerRules(B), ASLEEP, seen, NOW)
    assert (state.phase, commands) == (Phase.AWAKE, (SealerCommand.START,))


def test_a_later_rank_waits_for_its_time() -> None:
    rules = SealerRules(C)
    state, commands = decide(rules, ASLEEP, WAITS, NOW)
    assert (state.phase, commands) == (Phase.WAITING, ())
    state, commands = decide(rules, state, WAITS, NOW + 1.69)
    assert (state.phase, commands) == (Phase.WAITING, ())
    state, commands = decide(rules, state, WAITS, NOW + 1.71)
    assert (state.phase, commands) == (Phase.AWAKE, (SealerCommand.START,))


def test_more_transactions_are_taken_into_the_block_only_while_it_waits_for_its_second() -> None:
    rules = SealerRules(B)
    early = replace(WAITS, head=replace(HEAD, time=int(NOW)))
    state, _ = decide(rules, ASLEEP, early, NOW + 0.2)
    more = replace(early, pending=2, mining=True)
    assert decide(rules, state, more, NOW + 0.5)[1] == (SealerCommand.STOP, SealerCommand.START)
    assert decide(rules, state, more, NOW + 0.95)[1] == ()


def test_a_block_that_does_not_come_is_tried_again_after_two_seconds() -> None:
    rules, sealing = SealerRules(B), replace(WAITS, mining=True)
    state, _ = decide(rules, ASLEEP, sealing, NOW)
    assert decide(rules, state, sealing, NOW + 1.9)[1] == ()
    assert decide(rules, state, sealing, NOW + 2.0)[1] == (SealerCommand.STOP, SealerCommand.START)


def test_a_new_head_ends_the_turn() -> None:
    state, _ = decide(SealerRules(B), ASLEEP, WAITS, NOW)
    after = HeadFacts(10, "0xa", int(NOW), (A, B, C), ((9, A), (10, B)), unconfirmed=True, beat_since=int(NOW) - 60)
    state, commands = decide(SealerRules(B), state, Observation(after, 0, mining=True, peers=2), NOW + 0.1)
    assert (state.phase, state.head, commands) == (Phase.WAITING, "0xa", (SealerCommand.STOP,))


def test_a_chain_that_stands_still_gets_one_nudge_and_then_ever_rarer_greetings() -> None:
    rules, seen, state = SealerRules(A), WAITS, ASLEEP  # A signed recently: it can only watch
    acts = []
    for tenth in range(600):
        state, commands = decide(rules, state, seen, NOW + tenth / 10)
        acts += [(tenth / 10, command) for command in commands]
    last_rank = compute_rank_pause(3)
    assert [command for _, command in acts] == [SealerCommand.NUDGE, SealerCommand.RECONNECT, SealerCommand.RECONNECT]
    assert [at - last_rank for at, _ in acts] == pytest.approx([1.5, 11.5, 51.5], abs=0.15)


def test_a_clock_that_is_set_back_makes_nobody_wait_for_the_old_time() -> None:
    state, _ = decide(SealerRules(C), ASLEEP, WAITS, NOW + 1000)
    state, _ = decide(SealerRules(C), state, WAITS, NOW)
    assert decide(SealerRules(C), state, WAITS, NOW + 1.71)[0].phase == Phase.AWAKE
