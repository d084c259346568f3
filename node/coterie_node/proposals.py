"""What a site's people propose, on its way to the ledger. What is wrong with one proposal holds up nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from dataclasses import dataclass

from coterie_chain.blobs import BlobStore
from coterie_chain.errors import ChainError
from coterie_chain.ledger import Ahead, Ledger, Terms
from coterie_learners.errors import LearnerError
from coterie_node.decisions import Decision, DecisionFolder
from coterie_node.errors import NodeError
from coterie_node.participant import Node, snapshot_of
from coterie_node.studies import terms_of

# Seconds until a proposal with which something is wrong is tried again.
AGAIN = 60.0


@dataclass
class Proposal:
    """One proposal that the ledger does not show yet: what will be sent, or what keeps it."""

    move: tuple[Terms, bytes] | None = None
    fault: str = ""
    again_at: float = -math.inf


class Proposals:
    """`node_of` checks a study's document and this site's rows for it; `tell` is told of each fault once."""

    def __init__(
        self,
        decisions: DecisionFolder,
        ledger: Ledger,
        ahead: Ahead | None,
        blobs: BlobStore,
        clock: Callable[[], float],
        node_of: Callable[[bytes, Decision], Node],
        tell: Callable[[str, Exception | None], None],
    ) -> None:
        self._decisions, self._ledger, self._ahead, self._blobs = decisions, ledger, ahead, blobs
        self._clock, self._node_of, self._tell = clock, node_of, tell
        self._open: dict[str, Proposal] = {}

    def beat(self, known: Set[str]) -> None:
        """Send what is new, and see to it that what was sent gets into a block; `known` are hashes on the ledger.

        Raises what keeps the ledger out of reach.
        """
        for decision in self._decisions.newest():
            if decision.action != "propose":
                continue
            if decision.study in known:
                self._open.pop(decision.study, None)
                continue
            one = self._open.setdefault(decision.study, Proposal())
            if self._clock() >= one.again_at:
                self._try(one, decision)

    def _try(self, one: Proposal, decision: Decision) -> None:
        try:
            self._propose(one, decision)
        except (ChainError, LearnerError, NodeError) as error:
            if isinstance(error, ChainError) and error.retry:
                raise
            if str(error) != one.fault:
                self._tell(decision.study, error)
            one.move, one.fault, one.again_at = None, str(error), self._clock() + AGAIN

    def _propose(self, one: Proposal, decision: Decision) -> None:
        if one.move is None:
            document = self._decisions.document(bytes.fromhex(decision.study)).read_bytes()
            node = self._node_of(document, decision)
            self._blobs.put(document)
            one.move = terms_of(node.study), snapshot_of(node)
            self._tell(decision.study, None)
        if self._ahead is not None:
            self._ahead.submit_proposal(*one.move)
        else:
            self._ledger.propose(*one.move)
