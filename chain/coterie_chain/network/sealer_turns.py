"""When a sealer of a sleeping Clique chain wakes: a state, what is seen of the node, and the time give the next moves.

A chain sleeps while no sealer seals. Each site's daemon wakes its own sealer, in the order of turns, when a block is
wanted: a transaction waits, a block with a transaction lacks confirmations, or the heartbeat of floor(N/2)+1 blocks an
hour is due. The transaction itself is the wake-up call, because gossip brings it to every pool. Nothing here asks
another site. `now` is the wall clock in seconds since 1970, as the headers count.

    state      the sealer     event                                              next state, commands
    ---------  -------------  -------------------------------------------------  ---------------------------------------
    starting   as Geth began  it has a peer and block 1                          asleep
    any        any            a new head                                         asleep; judged again at once
    any        any            no block is wanted                                 asleep; stop
    asleep     off            a block is wanted                                  waiting
    waiting    off            rank 0: at once; rank r: after r pauses            awake; start
    awake      on             more transactions wait, before the block's second  awake; stop, start: assembled again
    awake      on             no new head 2 s after its turn                     awake; stop, start: another random wait
    not asleep any            a transaction waits 1.5 s after the last rank      the same; nudge, once on each head
    not asleep any            no new head 10 s after that                        the same; reconnect, ever more rarely

Invariants. A sealer that signed one of the last floor(N/2) blocks never wakes: Clique would refuse its block. The order
goes backwards from the sealer in turn: forwards, one lost turn would put everybody out of turn from then on. The
pause between two ranks is longer than the longest random wait of Clique and the fetch of an announced block, so that a
later rank wakes only when the earlier one is down. A sealer starts again on the same head only while its block waits
for its second, or 2 s later: in between it might seal two blocks of one height. What is commanded follows from what is
seen, so that a lost command is sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

# Sealers for which sleeping was measured. Five that start at once have stood still for good (docs/decisions/34).
PROVEN_SEALERS = 3
HEARTBEAT_SECONDS = 3600.0
# A heartbeat that is late by so much shows a chain that stands still.
LATE_HEARTBEAT_SECONDS = 600.0
# Clique's longest random wait is this times floor(N/2)+1 (consensus/clique, wiggleTime); an announced block is fetched
# within 0.5 s (eth/fetcher), and 0.2 s are for the way.
_WIGGLE, _FETCH = 0.5, 0.7
ROLL_AGAIN_SECONDS, NUDGE_SECONDS, RECONNECT_SECONDS = 2.0, 1.5, 10.0
# Geth calls a peer again only 35 s after the last call (p2p/dial): a second greeting before that would cut it off.
RECONNECT_GROWTH = 5
# A block that is due in less than this is not assembled again.
_TOO_LATE = 0.1


class Phase(Enum):
    """What a sealer does now; the table above has the moves."""

    STARTING = "starting"
    ASLEEP = "asleep"
    WAITING = "waiting"
    AWAKE = "awake"


class SealerCommand(Enum):
    """What the node is asked to do."""

    STOP = "stop"
    START = "start"
    NUDGE = "nudge"
    RECONNECT = "reconnect"


@dataclass(frozen=True)
class HeadFacts:
    """What depends on the newest block alone.

    `time` in seconds since 1970; `signers` sorted; `recents` are the numbers of the last blocks and who signed them;
    `unconfirmed`: one of the last `confirmations` blocks has a transaction; `beat_since`: time of the block that is
    floor(N/2) blocks below the newest.
    """

    number: int
    hash: str
    time: int
    signers: tuple[str, ...]
    recents: tuple[tuple[int, str], ...]
    unconfirmed: bool
    beat_since: int


@dataclass(frozen=True)
class Observation:
    """One look at the node: its newest block, transactions that wait in its pool, whether it seals, and its peers."""

    head: HeadFacts
    pending: int
    mining: bool
    peers: int


@dataclass(frozen=True)
class SealerRules:
    """What does not change while the node runs: its sealer's address in lower case, the chain's period in seconds."""

    sealer: str
    period: int = 1
    heartbeat: float = HEARTBEAT_SECONDS


@dataclass(frozen=True)
class SealerState:
    """The state of a sealer: `head` is the newest block, `since` the time from which a block was wanted on top of it.

    `roused` is the time of the last start and `pending` the pool's size then.
    """

    phase: Phase = Phase.STARTING
    head: str = ""
    since: float | None = None
    roused: float = 0.0
    pending: int = 0
    nudged: bool = False
    reconnects: int = 0


def count_majority(sealers: int) -> int:
    """Blocks of as many different sealers confirm a block: floor(N/2)+1."""
    return sealers // 2 + 1


def compute_rank_pause(sealers: int) -> float:
    """Seconds between the wake-up times of two ranks."""
    return _WIGGLE * count_majority(sealers) + _FETCH


def list_turns(signers: Sequence[str], recents: Sequence[tuple[int, str]], number: int) -> tuple[str, ...]:
    """The sealers that may seal block `number`: first the one in turn, then backwards (Clique, snapshot.inturn)."""
    total, ordered = len(signers), sorted(signers)
    recent = {who for at, who in recents if at > number - count_majority(total)}
    turns = (ordered[(number - back) % total] for back in range(total))
    return tuple(who for who in turns if who not in recent)


def is_block_due(rules: SealerRules, seen: Observation, now: float) -> bool:
    """Whether the chain needs a block: for a transaction, for confirmations, or for the heartbeat."""
    return seen.pending > 0 or seen.head.unconfirmed or now - seen.head.beat_since >= rules.heartbeat


def compute_wake_time(rules: SealerRules, head: HeadFacts, since: float) -> float | None:
    """When this sealer starts on top of `head`, if a block is wanted since `since`; None if it signed recently."""
    turns = list_turns(head.signers, head.recents, head.number + 1)
    if rules.sealer not in turns:
        return None
    rank = turns.index(rules.sealer)
    return since if rank == 0 else _find_base(rules, head, since) + rank * compute_rank_pause(len(head.signers))


def decide(
    rules: SealerRules, state: SealerState, seen: Observation, now: float
) -> tuple[SealerState, tuple[SealerCommand, ...]]:
    """The next state and what the node is asked to do, in this order."""
    if state.phase == Phase.STARTING and not (seen.peers and seen.head.number):
        return state, ()
    if state.phase == Phase.STARTING or state.head != seen.head.hash:
        state = SealerState(Phase.ASLEEP, seen.head.hash)
    stop = (SealerCommand.STOP,) * seen.mining
    if not is_block_due(rules, seen, now):
        return SealerState(Phase.ASLEEP, seen.head.hash), stop
    # A clock that was set back must not make a sealer wait for its old time.
    since = now if state.since is None else min(state.since, now)
    state = replace(state, since=since)
    wake_time = compute_wake_time(rules, seen.head, since)
    if wake_time is None or now < wake_time:
        state, commands = replace(state, phase=Phase.WAITING), stop
    else:
        state, commands = _stay_awake(rules, state, seen, now)
    state, cures = _watch(rules, state, seen, now)
    return state, commands + cures


def _stay_awake(
    rules: SealerRules, state: SealerState, seen: Observation, now: float
) -> tuple[SealerState, tuple[SealerCommand, ...]]:
    """Start the sealer, or start it again where that makes a better block."""
    second = seen.head.time + rules.period
    grown = seen.pending > state.pending and now < second - _TOO_LATE
    lost = now - max(state.roused, second) >= ROLL_AGAIN_SECONDS
    if state.phase == Phase.AWAKE and not grown and not lost:
        return state, ()
    awake = replace(state, phase=Phase.AWAKE, roused=now, pending=seen.pending)
    return awake, (SealerCommand.STOP,) * seen.mining + (SealerCommand.START,)


def _watch(
    rules: SealerRules, state: SealerState, seen: Observation, now: float
) -> tuple[SealerState, tuple[SealerCommand, ...]]:
    """What helps a chain that stands still although all ranks had their time."""
    turns = list_turns(seen.head.signers, seen.head.recents, seen.head.number + 1)
    last_rank = max(len(turns) - 1, 0) * compute_rank_pause(len(seen.head.signers))
    stuck = now - _find_base(rules, seen.head, now if state.since is None else state.since) - last_rank
    if seen.pending and not state.nudged and stuck >= NUDGE_SECONDS:
        return replace(state, nudged=True), (SealerCommand.NUDGE,)
    if stuck >= NUDGE_SECONDS + RECONNECT_SECONDS * RECONNECT_GROWTH**state.reconnects:
        return replace(state, reconnects=state.reconnects + 1), (SealerCommand.RECONNECT,)
    return state, ()


def _find_base(rules: SealerRules, head: HeadFacts, since: float) -> float:
    """From when on a block could be on top of `head`."""
    return max(since, head.time + rules.period)
