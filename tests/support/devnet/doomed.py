"""A site's process that kills or stops itself at a point of a step: `doomed.py POINT TOPIC SIGNAL take-part --at ...`.

The product has no such hooks; they are put around its functions here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from coterie_chain.ethereum.writer import Writer
from coterie_learners.core.protocol import Machine
from coterie_node.cli import main
from coterie_node.run.codec import PayloadCodec
from coterie_node.run.runner import Runner
from coterie_node.site import participant

CALLS_INTO_A_COMPUTATION = 5
# Steps that open the pool's counts before the first sums.
OPENING = 3
kill_signal = signal.SIGKILL


def stop_process() -> None:
    """End as in a power cut, or stand still."""
    os.kill(os.getpid(), kill_signal)


def read_topic(machine: Machine) -> str:
    return machine.awaits.topic if machine.awaits else ""


def kill_before(owner: Any, name: str, matches: Callable[..., bool]) -> None:
    """Die instead of a call."""
    original = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if matches(*args, **kwargs):
            stop_process()
        return original(*args, **kwargs)

    setattr(owner, name, wrapper)


def kill_after(owner: Any, name: str, matches: Callable[..., bool]) -> None:
    """Die when a call has done its work."""
    original = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if matches(*args, **kwargs):
            stop_process()
        return result

    setattr(owner, name, wrapper)


def kill_inside(owner: Any, name: str, matches: Callable[..., bool]) -> None:
    """Die in the middle of a call."""
    original = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls_left = CALLS_INTO_A_COMPUTATION

        def count(frame: object, event: str, what: object) -> None:
            nonlocal calls_left
            calls_left -= event == "call"
            if calls_left == 0:
                stop_process()

        if matches(*args, **kwargs):
            sys.setprofile(count)
        return original(*args, **kwargs)

    setattr(owner, name, wrapper)


def compute_position(topic: str) -> int:
    """Where a step of GLORE stands in its study: those that open the pool, then each and server, round after round."""
    kind, _, turn = topic.partition("/")
    return OPENING + 2 * int(turn) + (kind == "model")


def install_kill_point(point: str, topic: str) -> None:
    """Put the death where it is wanted, on the plain path and on that of a site which goes on ahead."""

    def is_drafting(machine: Machine, *_: Any) -> bool:
        return read_topic(machine) == topic

    def is_storing(runner: Runner, *_: Any) -> bool:
        return read_topic(runner.machine) == topic

    def is_recording(writer: Writer, tx: Any, *_: Any) -> bool:
        return str(tx.purpose).startswith("record ") and tx.purpose.split("/")[1] == str(compute_position(topic))

    def is_reading(codec: PayloadCodec, step: Any, *_: Any) -> bool:
        return bool(step.topic == topic)

    points: dict[str, Callable[[], None]] = {
        "before compute": lambda: kill_before(Machine, "draft", is_drafting),
        "during compute": lambda: kill_inside(Machine, "draft", is_drafting),
        "after compute": lambda: kill_before(Runner, "_store", is_storing),
        "after storing": lambda: kill_after(Runner, "_store", is_storing),
        "after sending": lambda: kill_after(Writer, "_deliver", is_recording),
        "after receipt": lambda: kill_before(Writer, "_note_mined", is_recording),
        "before reading": lambda: kill_before(PayloadCodec, "read", is_reading),
        "at the end": lambda: kill_before(participant, "report", lambda *_: True),
    }
    points[point]()


if __name__ == "__main__":
    install_kill_point(*sys.argv[1:3])
    kill_signal = signal.Signals[sys.argv[3]]
    sys.argv[1:] = sys.argv[4:]
    main.main()
