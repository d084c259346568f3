"""Which events were seen, and what waits to be sent: a private file, so that a restart neither forgets nor repeats.

    seen      every event that ever was, by its key; one that can pass leaves the table when it has passed
    waiting   one row for each notice and way, until the way has taken it or its time is over

The first look of a node fills `seen` with the results that are there already: nobody wants a notice of each.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coterie_node.notices.events import PASSING, Notice, NoticeKind

OUTBOX = "notices.sqlite"
# A notice that no try could deliver is given up after a day.
LIFETIME_SECONDS = 86_400.0
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 3600.0
MAX_WAITING = 1000


@dataclass(frozen=True)
class Waiting:
    """One notice on its way: since when, when to try next, and how often it was tried."""

    row: int
    notice: Notice
    since: float
    next_at: float
    tries: int


class Outbox:
    """The state of one node's notices."""

    def __init__(self, path: Path) -> None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._base = sqlite3.connect(path, check_same_thread=False)
        self._base.execute(
            "CREATE TABLE IF NOT EXISTS seen (key TEXT PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL)"
        )
        self._base.execute("CREATE INDEX IF NOT EXISTS seen_by_kind ON seen (kind)")
        self._base.execute(
            "CREATE TABLE IF NOT EXISTS waiting (row INTEGER PRIMARY KEY, way TEXT NOT NULL, notice TEXT NOT NULL, "
            "since REAL NOT NULL, next_at REAL NOT NULL, tries INTEGER NOT NULL)"
        )
        self._base.commit()

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def take(self, standing: Sequence[Notice], ways: Iterable[str], now: float) -> int:
        """Note what stands now; new events wait for each way. Returns how many are new."""
        first_look = self._base.execute("SELECT 1 FROM seen LIMIT 1").fetchone() is None
        keys = {notice.key for notice in standing}
        passed = [key for key in self._list_passing() if key not in keys]
        news = list({n.key: n for n in standing if not self._is_seen(n.key)}.values())
        sent = [n for n in news if not (first_look and n.kind is NoticeKind.RESULT)]
        rows = [(way, json.dumps(n.as_dict()), now, now) for n in sent for way in ways]
        with self._base:
            self._base.executemany("DELETE FROM seen WHERE key = ?", [(key,) for key in passed])
            marks = [(n.key, n.kind.value, now) for n in news] + ([("first look", "", now)] if first_look else [])
            self._base.executemany("INSERT INTO seen VALUES (?, ?, ?)", marks)
            sql = "INSERT INTO waiting (way, notice, since, next_at, tries) VALUES (?, ?, ?, ?, 0)"
            self._base.executemany(sql, rows[: max(MAX_WAITING - self._count(), 0)])
        return len(sent)

    def list_waiting(self, way: str) -> list[Waiting]:
        """What waits for a way, the oldest first."""
        sql = "SELECT row, notice, since, next_at, tries FROM waiting WHERE way = ? ORDER BY row"
        return [Waiting(row, _read(text), *rest) for row, text, *rest in self._base.execute(sql, (way,))]

    def settle(self, waiting: Iterable[Waiting]) -> None:
        """A way has taken these."""
        with self._base:
            self._base.executemany("DELETE FROM waiting WHERE row = ?", [(item.row,) for item in waiting])

    def delay(self, waiting: Iterable[Waiting], now: float) -> list[Waiting]:
        """A way failed: try these later; returns those whose time is over, which are given up."""
        items = list(waiting)
        over = [item for item in items if now - item.since >= LIFETIME_SECONDS]
        self.settle(over)
        pauses = [(now + min(_FIRST_PAUSE * 2.0**item.tries, _LONGEST_PAUSE), item.row) for item in items]
        with self._base:
            self._base.executemany("UPDATE waiting SET next_at = ?, tries = tries + 1 WHERE row = ?", pauses)
        return over

    def _list_passing(self) -> list[str]:
        """The events seen that can pass; of the others there is one for each study that ever ended."""
        marks = ", ".join("?" * len(PASSING))
        query = f"SELECT key FROM seen WHERE kind IN ({marks})"
        return [key for (key,) in self._base.execute(query, [kind.value for kind in PASSING])]

    def _is_seen(self, key: str) -> bool:
        return self._base.execute("SELECT 1 FROM seen WHERE key = ?", (key,)).fetchone() is not None

    def _count(self) -> int:
        (count,) = self._base.execute("SELECT COUNT(*) FROM waiting").fetchone()
        return int(count)


def _read(text: str) -> Notice:
    values = json.loads(text)
    return Notice(**{**values, "kind": NoticeKind(values["kind"])})
