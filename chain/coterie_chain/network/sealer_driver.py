"""What wakes a site's own sealer: looks at its node over the administrator's socket, and carries out `sealer_turns`.

Theory of operation. One step is one look and what follows from it:

    state      event                             next state
    unknown    the node answers who it is        driving
    driving    the node answers                  driving
    any        the node does not answer          unknown; reported once in each outage, tried again ever more rarely
    any        not three sealers                 unknown; reported once, and the miner stays on: no sleep
    any        the daemon ends                   the miner is started, as without this driver

Invariant: nothing but this site's own node is asked, and no fault of it ends the daemon.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Event as Flag
from typing import Any

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.ethereum.decode import parse_quantity
from coterie_chain.network.greeting import AdminSocket, greet_peers
from coterie_chain.network.programs.ipc import ask_all
from coterie_chain.network.sealer_turns import (
    HEARTBEAT_SECONDS,
    LATE_HEARTBEAT_SECONDS,
    PROVEN_SEALERS,
    HeadFacts,
    Observation,
    Phase,
    SealerCommand,
    SealerRules,
    SealerState,
    count_majority,
    decide,
)
from coterie_chain.retry import Backoff, RetryPolicy

# Seconds between two looks, asleep and otherwise.
ASLEEP_POLL, AWAKE_POLL = 0.05, 0.02
_OUTAGE = RetryPolicy(first=0.2, longest=10.0)
# Transactions that wait so long on one block show a chain that stands still.
STANDSTILL_SECONDS = 120.0
_NUDGE_GAS = 21_000
# More than the base fee of a chain that stands still can be: it falls to 7 wei.
_NUDGE_FEES = {"maxFeePerGas": "0x41", "maxPriorityFeePerGas": "0x1"}
# What an answer of another form than Geth's raises where it is read.
_GARBLED = (AttributeError, IndexError, KeyError, TypeError, ValueError)


class SealerDriver:
    """Drives one sealer of a sleeping chain.

    `confirmations` blocks follow each block with a transaction; `peers` are the enodes that the node's configuration
    lists. `notice` hears of each outage once, `clock` is the wall clock in seconds since 1970; a chain of another
    number of `sealers` never sleeps.
    """

    def __init__(
        self,
        ask: AdminSocket,
        *,
        confirmations: int,
        peers: Sequence[str] = (),
        notice: Callable[[LedgerUnreachable], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        heartbeat: float = HEARTBEAT_SECONDS,
        sealers: int = PROVEN_SEALERS,
    ) -> None:
        self._peers, self._sealers = tuple(peers), sealers
        self._ask, self._notice, self._clock = ask, notice, clock
        self._confirmations, self._heartbeat = confirmations, heartbeat
        self._rules: SealerRules | None = None
        self._state = SealerState()
        self._head: HeadFacts | None = None
        self._backoff = Backoff(_OUTAGE)
        self._outage = ""
        self._waits_on = ""
        self._waits_since: float | None = None

    @property
    def phase(self) -> Phase:
        """The state of the sealer."""
        return self._state.phase

    @property
    def well(self) -> bool:
        """Whether transactions do not wait for long, and the heartbeat is not missed. An old block is no fault."""
        now = self._clock()
        waiting = self._waits_since is not None and now - self._waits_since > STANDSTILL_SECONDS
        beat = self._head is None or now - self._head.time < self._heartbeat + LATE_HEARTBEAT_SECONDS
        return beat and not waiting

    def run(self, stop: Flag) -> None:
        """Drive until `stop` is set; then the sealer seals as it would without a driver."""
        while not stop.wait(self.step()):
            pass
        self.release()

    def step(self) -> float:
        """Look once and do what follows; returns the seconds until the next look."""
        try:
            self._drive()
        except LedgerUnreachable as error:
            self._report(error)
            return self._backoff.next_pause()
        except _GARBLED as error:
            cause = f"{type(error).__name__} {error}"
            message = f"The chain node's answers to this site's sealer cannot be read ({cause}). Check its version."
            self._report(LedgerUnreachable("CO-C303", message))
            return self._backoff.next_pause()
        self._outage = ""
        self._backoff.reset()
        return ASLEEP_POLL if self._state.phase == Phase.ASLEEP else AWAKE_POLL

    def release(self) -> None:
        """Start the miner for good."""
        try:
            self._ask([("miner_start", ())])
        except LedgerUnreachable as error:
            self._report(error)

    def _report(self, error: LedgerUnreachable) -> None:
        if error.code != self._outage:
            self._notice(error)
        self._outage = error.code
        # The node may be another one when it is back: it may have been started again, with its miner on.
        self._rules, self._head, self._state = None, None, SealerState()

    def _drive(self) -> None:
        rules = self._rules or self._identify()
        self._rules = rules
        seen = self._look()
        if len(seen.head.signers) != self._sealers:
            if not seen.mining:
                self._ask([("miner_start", ())])
            message = f"The chain has {len(seen.head.signers)} sealers, and sleeping is safe with {self._sealers} alone"
            raise LedgerUnreachable(
                "CO-C338", f"{message}. This site's sealer stays awake. Remove `sleep` from [chain] in node.toml."
            )
        self._note_waiting(seen)
        self._state, commands = decide(rules, self._state, seen, self._clock())
        for command in commands:
            self._carry_out(command, rules)

    def _identify(self) -> SealerRules:
        coinbase, info = self._ask([("eth_coinbase", ()), ("admin_nodeInfo", ())])
        try:
            period = int(info["protocols"]["eth"]["config"]["clique"]["period"])
            return SealerRules(str(coinbase).lower(), period, self._heartbeat)
        except (KeyError, TypeError):
            raise LedgerUnreachable(
                "CO-C338", "The chain node seals no Clique chain. Remove `sleep` from [chain] in node.toml."
            ) from None

    def _look(self) -> Observation:
        newest, pool, mining, peers = self._ask(
            [
                ("eth_getBlockByNumber", ("latest", False)),
                ("txpool_status", ()),
                ("eth_mining", ()),
                ("net_peerCount", ()),
            ]
        )
        if self._head is None or self._head.hash != newest["hash"]:
            self._head = self._read_head(newest)
        return Observation(self._head, parse_quantity(pool["pending"]), bool(mining), parse_quantity(peers))

    def _read_head(self, newest: dict[str, Any]) -> HeadFacts:
        """What depends on the newest block: sealers, and the blocks below it that count for confirmations and beat."""
        number = parse_quantity(newest["number"])
        (snapshot,) = self._ask([("clique_getSnapshot", (newest["number"],))])
        signers = tuple(sorted(str(who).lower() for who in snapshot["signers"]))
        beats = count_majority(len(signers))
        lowest = max(number - max(self._confirmations, beats) + 1, 0)
        blocks = [*self._ask([("eth_getBlockByNumber", (hex(n), False)) for n in range(lowest, number)]), newest]
        confirming = blocks[len(blocks) - min(self._confirmations, len(blocks)) :]
        return HeadFacts(
            number,
            str(newest["hash"]),
            parse_quantity(newest["timestamp"]),
            signers,
            tuple((int(at), str(who).lower()) for at, who in snapshot["recents"].items()),
            any(block["transactions"] for block in confirming),
            parse_quantity(blocks[max(len(blocks) - beats, 0)]["timestamp"]),
        )

    def _note_waiting(self, seen: Observation) -> None:
        """Keep since when transactions wait on the same head."""
        if not seen.pending:
            self._waits_since = None
        elif self._waits_since is None or self._waits_on != seen.head.hash:
            self._waits_since = self._clock()
        self._waits_on = seen.head.hash

    def _carry_out(self, command: SealerCommand, rules: SealerRules) -> None:
        if command == SealerCommand.STOP:
            self._ask([("miner_stop", ())])
        elif command == SealerCommand.START:
            self._ask([("miner_start", ())])
        elif command == SealerCommand.NUDGE:
            self._nudge(rules.sealer)
        else:
            greet_peers(self._ask, self._peers)

    def _nudge(self, sealer: str) -> None:
        """Send a transfer of nothing from the sealer to itself: it reaches every pool, whatever the others hold."""
        transfer = {"from": sealer, "to": sealer, "value": "0x0", "gas": hex(_NUDGE_GAS), **_NUDGE_FEES}
        try:
            self._ask([("eth_sendTransaction", (transfer,))])
        except LedgerUnreachable as error:
            if error.code != "CO-C302":
                raise
            self._notice(error)  # a sealer without wei has no nudge; the other cures go on


def open_socket(path: Path) -> AdminSocket:
    """The socket of a node on this machine."""
    return partial(ask_all, path)
