"""Greets a chain node's peers again when no block comes.

A Clique sealer that missed its peers' blocks waits for ever: it may not seal the next block ("signed recently"), and
only a greeting carries a peer's whole difficulty. Invariant: nothing but this site's own node is asked, and no fault of
it ends the daemon.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Event as Flag
from typing import Any, Protocol

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.network.programs.ipc import Question

LOOK_SECONDS = 5.0
# The first greeting after so many seconds without a block, each further one after twice as many.
FIRST_WAIT, LONGEST_WAIT = 30.0, 600.0


class AdminSocket(Protocol):
    """The node's administrator socket: `programs.ipc` of a real one."""

    def __call__(self, questions: Sequence[Question]) -> list[Any]:
        """The answers in order; LedgerUnreachable if the node is away or refuses."""


class StallWatch:
    """Looks at the newest block of a sealer whose chain does not sleep; `peers` are the enodes that its file lists.

    `clock` counts seconds from anywhere.
    """

    def __init__(
        self, ask: AdminSocket, *, peers: Sequence[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask, self._peers, self._clock = ask, tuple(peers), clock
        self._newest = ""
        self._next, self._wait = 0.0, FIRST_WAIT

    def run(self, stop: Flag) -> None:
        """Look every few seconds until `stop` is set."""
        while not stop.wait(LOOK_SECONDS):
            self.step()

    def step(self) -> bool:
        """Look once; whether the peers were greeted. A node that does not answer is another part's alarm."""
        try:
            newest, mining = self._ask([("eth_blockNumber", ()), ("eth_mining", ())])
            return bool(mining) and self._is_due(str(newest)) and greet_peers(self._ask, self._peers)
        except LedgerUnreachable:
            return False

    def _is_due(self, newest: str) -> bool:
        now = self._clock()
        if newest != self._newest:
            self._newest, self._wait = newest, FIRST_WAIT
            self._next = now + self._wait
        if now < self._next:
            return False
        self._wait = min(2 * self._wait, LONGEST_WAIT)
        self._next = now + self._wait
        return True


def greet_peers(ask: AdminSocket, peers: Sequence[str]) -> bool:
    """End the connection to every peer and call it again; False if there is no peer to call.

    A peer that called has no address of its own here, so the configuration's (`peers`) is taken.
    """
    (connected,) = ask([("admin_peers", ())])
    listed = {_read_id(enode): enode for enode in peers}
    called = {_read_id(str(peer["enode"])): str(peer["enode"]) for peer in connected if not peer["network"]["inbound"]}
    enodes = list((called | listed).values())
    if enodes:
        ask([("admin_removePeer", (enode,)) for enode in enodes])
        ask([("admin_addPeer", (enode,)) for enode in enodes])
    return bool(enodes)


def _read_id(enode: str) -> str:
    return enode.partition("@")[0]
