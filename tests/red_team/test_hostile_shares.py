"""Hostile messages in a Secure GLM: ten variants of each kind of message that a party or a supplier sends.

An honest site ends with a result or with an error that has a code; it never crashes, waits without end, or opens what
the study does not disclose. A wrong share of the right form spoils the result and is noticed only where it is opened.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from typing import cast

import numpy as np
import pytest
from support.learners.glm_studies import rows_cohort
from support.node.worlds import World

from coterie_learners.errors import LearnerError, SessionLost
from coterie_learners.secure_glm.secure_glm import SECURE_GLM
from coterie_learners.secure_glm.shared_newton import FIELD_BITS
from coterie_learners.shares.field import PrimeField
from coterie_learners.study.rows import Rows
from coterie_node.errors import NodeError
from coterie_node.peers.interactive_session import MemoryTransport, SessionChannel

FIELD = PrimeField(FIELD_BITS)
PATIENTS, HOSPITALS, PARTY, SUPPLIER = 60, 4, "s1", "s3"
ELEMENT = FIELD.width
# What is sent, by its size, for four hospitals with 15 rows each and one column: a row is two elements.
KINDS = {
    "greeting": 48,
    "number of rows": 8,
    "shares of its rows": 15 * 2 * ELEMENT,
    "one number": ELEMENT,
    "digits of variances": 13 * ELEMENT,
    "bits of a comparison of variances": 832,
    "three numbers": 3 * ELEMENT,
    "a matrix under masks": 4 * ELEMENT,
    "bits of one comparison": 114,
    "two numbers": 2 * ELEMENT,
    "a number of each row": PATIENTS * ELEMENT,
    "bits of a number of each row": 1140,
    "two numbers of each row": 2 * PATIENTS * ELEMENT,
    "three numbers of each row": 3 * PATIENTS * ELEMENT,
    "bits of three numbers of each row": 3420,
    "bits of the stopping rule": 140,
    "result for a supplier": 272,
    "closing statement": 208,
}
OF_SUPPLIER = ("greeting", "number of rows", "shares of its rows", "closing statement")

Variant = Callable[[bytes, bytes], bytes]
# What is sent in place of a message, from it and from the last one that this site sent before.
VARIANTS: dict[str, Variant] = {
    "nothing": lambda data, before: b"",
    "a byte less": lambda data, before: data[:-1],
    "a byte more": lambda data, before: data + b"\0",
    "a megabyte": lambda data, before: bytes(1 << 20),
    "zeros": lambda data, before: bytes(len(data)),
    "ones": lambda data, before: b"\xff" * len(data),
    "the prime": lambda data, before: (FIELD.p.to_bytes(ELEMENT, "little") * (len(data) // ELEMENT + 1))[: len(data)],
    "another bit": lambda data, before: bytes([data[0] ^ 1]) + data[1:],
    "random bytes": lambda data, before: np.random.default_rng(1).bytes(len(data)),
    "the message before": lambda data, before: before,
}


PAUSE = 0.05
OTHER_LENGTHS = ("nothing", "a byte less", "a byte more", "a megabyte")


class HostileTransport(MemoryTransport):
    """Queues in which one site sends a variant of its first message of one size."""

    def __init__(self, sender: str, size: int, variant: Variant) -> None:
        super().__init__(60.0)
        self.gone: set[str] = set()
        self.sender, self.size, self.variant = sender, size, variant
        self.sent: list[int] = []
        self.changed = False

    def channel(self, me: str, session: Hashable, parties: Sequence[str]) -> SessionChannel:
        inner = super().channel(me, session, parties)

        def receive(sender: str) -> bytes:
            """As over TLS: a site that waits for a site that has left hears of it at once."""
            messages = self.between(session, sender, me)
            for _ in range(round(self.seconds / PAUSE)):
                left = sender in self.gone
                with suppress(queue.Empty):
                    return messages.get(timeout=PAUSE)
                if left:
                    break
            raise SessionLost("CO-P601", f"{sender} sent nothing to {me}. Ask that site.", sender)

        inner.receive, inner.close = receive, lambda: self.gone.add(me)  # type: ignore[method-assign]
        if me == self.sender:
            pass_on, before = inner.send, [b""]

            def send(to: str, data: bytes) -> None:
                self.sent.append(len(data))
                hit = len(data) == self.size and not self.changed
                self.changed |= hit
                pass_on(to, self.variant(data, before[0]) if hit else data)
                before[0] = data

            inner.send = send  # type: ignore[method-assign]
        return inner


def run_study(hub: HostileTransport) -> dict[str, str]:
    """How each site ends: the code of its error, or "result"."""
    c = rows_cohort(n=PATIENTS, m=1, hospitals=HOSPITALS, seed=3, check_every=4)
    w = World(c.study, cast("dict[str, Rows]", dict(c.data)), SECURE_GLM.script)
    w.hub = hub
    crew, ends = w.crew(), dict[str, str]()
    while len(ends) < len(crew):
        talking = any(r.talking for n, r in crew.items() if n not in ends)
        for name, runner in crew.items():
            if name in ends:
                continue
            try:
                runner.turn()
            except (LearnerError, NodeError) as error:
                ends[name] = error.code
            if runner.done:
                ends[name] = "result"
        if (
            set(ends) - {hub.sender}
            and set(ends.values()) - {"result"}
            and not talking
            and not any(r.talking for n, r in crew.items() if n not in ends)
        ):
            break  # whoever has not spoken waits on the ledger for one that ended
    return ends


def list_attacks() -> Iterator[tuple[str, str, str]]:
    """Sender, kind and variant."""
    for sender, kinds in ((PARTY, tuple(KINDS)), (SUPPLIER, OF_SUPPLIER)):
        for kind in kinds:
            for variant in VARIANTS:
                yield sender, kind, variant


def choose_attacks() -> list[object]:
    """A few in `make test`; two of each kind in `make test-long`; all where COTERIE_WHOLE_GRID is set."""
    everything = list(list_attacks())
    if os.environ.get("COTERIE_WHOLE_GRID"):
        return list(everything)
    few = everything[::94]
    long = [attack for k, attack in enumerate(everything) if k % 10 in (k // 10 % 10, (k // 10 + 7) % 10)]
    return [*few, *(pytest.param(*a, marks=pytest.mark.long) for a in long if a not in few)]


@pytest.mark.parametrize(("sender", "kind", "variant"), choose_attacks())
def test_a_hostile_message_ends_a_study_with_a_code_or_changes_its_result(sender: str, kind: str, variant: str) -> None:
    hub = HostileTransport(sender, KINDS[kind], VARIANTS[variant])
    ends = run_study(hub)
    assert hub.changed
    honest = {name: end for name, end in ends.items() if name != sender}
    assert honest
    assert all(end == "result" or end.startswith("CO-") for end in honest.values())
    if variant not in OTHER_LENGTHS:
        return
    if kind == "closing statement":
        # The result is open by then. Its receiver says that digests differ; the ledger ends the study.
        assert "CO-P644" in honest.values()
    else:
        assert "result" not in honest.values()
        assert {"CO-P641", "CO-P601", "CO-P645"} & set(ends.values())


@pytest.mark.long
def test_the_kinds_are_all_that_a_party_and_a_supplier_send() -> None:
    for sender, kinds in ((PARTY, tuple(KINDS)), (SUPPLIER, OF_SUPPLIER)):
        hub = HostileTransport(sender, -1, VARIANTS["zeros"])
        assert set(run_study(hub).values()) == {"result"}
        assert set(hub.sent) == {KINDS[kind] for kind in kinds}
