"""Sends notices beside the daemon: its step hands over what stands now and goes on, whatever happens here.

What does not fit into the queue is dropped, because the next look has it again. A way that fails delays itself alone.
"""

from __future__ import annotations

import hashlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from coterie_node.errors import CoterieError
from coterie_node.notices.events import Notice, NoticeKind
from coterie_node.notices.outbox import Outbox, Waiting
from coterie_node.notices.senders import Sender
from coterie_node.notices.settings import NoticesPart, read_hours

QUEUE_LOOKS = 8
_POLL_SECONDS = 1.0
# Longer than a way takes for one delivery.
JOIN_SECONDS = 45.0
Report = Callable[[str, Exception | None], None]


class Notifier:
    """The notices of one node. `report` gets the name of a way, and its error or None once it works again."""

    def __init__(
        self,
        part: NoticesPart,
        outbox: Outbox,
        senders: Sequence[Sender],
        clock: Callable[[], float] = time.time,
        report: Report = lambda way, error: None,
    ) -> None:
        self._part, self._outbox, self._senders, self._clock, self._report = part, outbox, senders, clock, report
        self._looks: queue.Queue[tuple[Notice, ...]] = queue.Queue(QUEUE_LOOKS)
        self._stop, self._failing = threading.Event(), dict[str, str]()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(JOIN_SECONDS)

    def observe(self, standing: Sequence[Notice]) -> bool:
        """Hand over what stands now; False if the queue is full and the look is dropped. It never waits."""
        try:
            self._looks.put_nowait(tuple(standing))
        except queue.Full:
            return False
        return True

    def work(self, standing: Sequence[Notice] | None = None) -> None:
        """Note what stands, if there was a look, and send what is due."""
        if standing is not None:
            kinds = set(self._part.kinds)
            names = [sender.name for sender in self._senders]
            self._outbox.take([notice for notice in standing if notice.kind in kinds], names, self._clock())
        for sender in self._senders:
            self._deliver(sender)

    def _run(self) -> None:
        lost: tuple[Notice, ...] = ()
        while not self._stop.is_set():
            try:
                standing = (*lost, *self._looks.get(timeout=_POLL_SECONDS))
            except queue.Empty:
                standing = None
            try:
                self.work(standing)
                lost = lost if standing is None else ()
            except sqlite3.Error as error:  # a full disk; the log has more about it
                # Each result is handed over once; what else stands comes again with the next look.
                results = tuple(notice for notice in standing or () if notice.kind is NoticeKind.RESULT)
                lost = lost if standing is None else results
                self._note("state", error)

    def _deliver(self, sender: Sender) -> None:
        due = self._list_due(sender.name)
        if not due:
            return
        keys = "\n".join(item.notice.key for item in due)
        delivery = hashlib.sha256(f"{sender.name}\n{keys}".encode()).hexdigest()[:32]
        try:
            sender.send(delivery, [item.notice for item in due])
        except (*CoterieError, OSError) as error:
            self._note(sender.name, error)
            self._outbox.delay(due, self._clock())
            return
        self._outbox.settle(due)
        self._note(sender.name, None)

    def _list_due(self, way: str) -> list[Waiting]:
        """What to send now: urgent notices, and outside quiet hours the others once the oldest is old enough."""
        now = self._clock()
        items = [item for item in self._outbox.list_waiting(way) if item.next_at <= now]
        urgent = [item for item in items if item.notice.kind in self._part.urgent]
        if is_quiet_hour(self._part.quiet, datetime.fromtimestamp(now)):
            return urgent
        ripe = bool(items) and now - items[0].since >= 60.0 * self._part.digest_minutes
        return items if ripe else urgent

    def _note(self, way: str, error: Exception | None) -> None:
        """Report a way's first failure of a kind, and its return."""
        text = "" if error is None else str(error)
        if self._failing.get(way, "") != text:
            self._failing[way] = text
            self._report(way, error)


def is_quiet_hour(quiet: str, moment: datetime) -> bool:
    """Whether a moment is in quiet hours; these may go over midnight."""
    hours = read_hours(quiet)
    if len(hours) != 2 or hours[0] == hours[1]:
        return False
    begin, end = hours
    now = moment.time()
    return begin <= now < end if begin < end else now >= begin or now < end
