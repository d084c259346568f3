"""One site's attendance: faults of the network are borne wherever they come, within its patience."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coterie_chain.errors import LedgerMismatch, LedgerUnreachable
from coterie_chain.retry import RetryPolicy
from coterie_node.run.runner import Runner
from coterie_node.run.supervisor import Supervisor


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def never() -> Runner:
    raise LedgerUnreachable("CO-C301", "The node does not answer.")


def refuse_wait(seconds: float) -> None:
    raise LedgerUnreachable("CO-C301", "The node does not answer.")


def test_a_node_that_goes_while_a_site_waits_for_news_is_borne() -> None:
    supervisor = Supervisor(never, Clock(), RetryPolicy(first=0.0))
    waited: list[float] = []
    supervisor.pause(waited.append, 0.5)
    assert (waited, supervisor.fault) == ([0.5], None)
    supervisor.pause(refuse_wait, 0.5)
    assert supervisor.fault is not None
    assert supervisor.resume_at <= 0.0
    assert not supervisor.tick()


def pause_until_error(supervisor: Supervisor) -> None:
    supervisor.pause(refuse_wait, 0.5)


def tick_until_error(supervisor: Supervisor) -> None:
    supervisor.tick()


@pytest.mark.parametrize("place", [pause_until_error, tick_until_error])
def test_what_outlasts_the_patience_ends_the_attendance_from_either_place(place: Callable[[Supervisor], None]) -> None:
    clock = Clock()
    supervisor = Supervisor(never, clock, RetryPolicy(limit=120.0, first=0.0))
    clock.seconds += 119.0
    place(supervisor)
    supervisor.fault = None
    clock.seconds += 2.0
    with pytest.raises(LedgerUnreachable):
        place(supervisor)


def test_what_no_waiting_mends_is_not_borne() -> None:
    def replaced(seconds: float) -> None:
        raise LedgerMismatch("CO-C314", "The chain was replaced.")

    with pytest.raises(LedgerMismatch):
        Supervisor(never, Clock()).pause(replaced, 0.5)
