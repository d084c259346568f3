"""A site's process that kills or stops itself at a point of a step: `doomed.py POINT TOPIC SIGNAL take-part --at ...`.

The product has no such hooks; they are put around its functions here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from coterie_chain.writer import Writer
from coterie_learners.protocol import Machine
from coterie_node import cli, participant
from coterie_node.letters import Desk
from coterie_node.runner import Runner

CALLS_INTO_A_COMPUTATION = 5
ending = signal.SIGKILL


def die() -> None:
    """End as in a power cut, or stand still."""
    os.kill(os.getpid(), ending)


def topic_of(machine: Machine) -> str:
    return machine.awaits.topic if machine.awaits else ""


def before(owner: Any, name: str, meant: Callable[..., bool]) -> None:
    """Die instead of a call."""
    whole = getattr(owner, name)

    def doomed(*args: Any, **more: Any) -> Any:
        if meant(*args, **more):
            die()
        return whole(*args, **more)

    setattr(owner, name, doomed)


def after(owner: Any, name: str, meant: Callable[..., bool]) -> None:
    """Die when a call has done its work."""
    whole = getattr(owner, name)

    def doomed(*args: Any, **more: Any) -> Any:
        result = whole(*args, **more)
        if meant(*args, **more):
            die()
        return result

    setattr(owner, name, doomed)


def inside(owner: Any, name: str, meant: Callable[..., bool]) -> None:
    """Die in the middle of a call."""
    whole = getattr(owner, name)

    def doomed(*args: Any, **more: Any) -> Any:
        left = CALLS_INTO_A_COMPUTATION

        def count(frame: object, event: str, what: object) -> None:
            nonlocal left
            left -= event == "call"
            if left == 0:
                die()

        if meant(*args, **more):
            sys.setprofile(count)
        return whole(*args, **more)

    setattr(owner, name, doomed)


def position_of(topic: str) -> int:
    """Where a step of GLORE stands in its study: each and server, round after round."""
    kind, _, turn = topic.partition("/")
    return 2 * int(turn) + (kind == "model")


def doom(point: str, topic: str) -> None:
    """Put the death where it is wanted, on the plain path and on that of a site which goes on ahead."""

    def drafting(machine: Machine, *_: Any) -> bool:
        return topic_of(machine) == topic

    def storing(runner: Runner, *_: Any) -> bool:
        return topic_of(runner.machine) == topic

    def recording(writer: Writer, tx: Any, *_: Any) -> bool:
        return str(tx.purpose).startswith("record ") and tx.purpose.split("/")[1] == str(position_of(topic))

    def reading(desk: Desk, step: Any, *_: Any) -> bool:
        return bool(step.topic == topic)

    points: dict[str, Callable[[], None]] = {
        "before compute": lambda: before(Machine, "draft", drafting),
        "during compute": lambda: inside(Machine, "draft", drafting),
        "after compute": lambda: before(Runner, "_store", storing),
        "after storing": lambda: after(Runner, "_store", storing),
        "after sending": lambda: after(Writer, "_deliver", recording),
        "after receipt": lambda: before(Writer, "_mined", recording),
        "before reading": lambda: before(Desk, "read", reading),
        "at the end": lambda: before(participant, "report", lambda *_: True),
    }
    points[point]()


if __name__ == "__main__":
    doom(*sys.argv[1:3])
    ending = signal.Signals[sys.argv[3]]
    sys.argv[1:] = sys.argv[4:]
    cli.main()
