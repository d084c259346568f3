"""One site's attendance: faults of the network are borne wherever they come, within its patience."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coterie_chain.errors import LedgerMismatch, LedgerUnreachable
from coterie_node.attendance import Attendance, Patience
from coterie_node.runner import Runner


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def never() -> Runner:
    raise LedgerUnreachable("CO-C301", "The node does not answer.")


def refused(seconds: float) -> None:
    raise LedgerUnreachable("CO-C301", "The node does not answer.")


def test_a_node_that_goes_while_a_site_waits_for_news_is_borne() -> None:
    attendance = Attendance(never, Clock(), Patience(first=0.0))
    waited: list[float] = []
    attendance.rest(waited.append, 0.5)
    assert (waited, attendance.fault) == ([0.5], None)
    attendance.rest(refused, 0.5)
    assert attendance.fault is not None
    assert attendance.resume_at <= 0.0
    assert not attendance.beat()


def resting(attendance: Attendance) -> None:
    attendance.rest(refused, 0.5)


def beating(attendance: Attendance) -> None:
    attendance.beat()


@pytest.mark.parametrize("place", [resting, beating])
def test_what_outlasts_the_patience_ends_the_attendance_from_either_place(place: Callable[[Attendance], None]) -> None:
    clock = Clock()
    attendance = Attendance(never, clock, Patience(limit=120.0, first=0.0))
    clock.seconds += 119.0
    place(attendance)
    attendance.fault = None
    clock.seconds += 2.0
    with pytest.raises(LedgerUnreachable):
        place(attendance)


def test_what_no_waiting_mends_is_not_borne() -> None:
    def replaced(seconds: float) -> None:
        raise LedgerMismatch("CO-C314", "The chain was replaced.")

    with pytest.raises(LedgerMismatch):
        Attendance(never, Clock()).rest(replaced, 0.5)
