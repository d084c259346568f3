"""The studies of this site, and which of them the daemon looks at in one round.

A study is watched from the moment when this site's people decide about it until it is over. Any member can propose
studies that name this site. So the daemon looks at only a few of the others in each round, and the cost of a round does
not grow with their number. It looks at them because the status says how each ended.

A study that is over leaves memory: its status is on the disk, and is read by its number. So the memory of a daemon does
not grow with its past studies.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from coterie_node.site.study_task import StudyTask, TaskState

# Studies without a decision of this site that are looked at in one round.
IDLE_LOOKS = 8


class EndedStudies:
    """Studies that are over, in a file without a name that ends with the process: a restart finds them again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # another thread reads the status
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.execute(
            "CREATE TABLE ended (number INTEGER PRIMARY KEY, hash BLOB, proposer TEXT, state TEXT, posted INTEGER, "
            "name TEXT, ending TEXT, losses TEXT)"
        )
        self._base.execute("CREATE INDEX by_hash ON ended (hash)")

    def put(self, task: StudyTask) -> None:
        """Keep a study that is over, in place of one with its number."""
        row = (task.number, task.hash, task.proposer, task.phase, task.posted, task.name, task.ending)
        self._ask("INSERT OR REPLACE INTO ended VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *row, json.dumps(task.losses))

    def remove(self, number: int) -> None:
        """Forget the study of this number, if it is here."""
        self._ask("DELETE FROM ended WHERE number = ?", number)

    def find(self, number: int) -> StudyTask | None:
        """The study of this number, if it is here."""
        rows = self._ask("SELECT * FROM ended WHERE number = ?", number)
        return _make_task(rows[0]) if rows else None

    def list_numbers(self) -> list[int]:
        """The numbers of all."""
        return [number for (number,) in self._ask("SELECT number FROM ended")]

    def list_same(self, hash: bytes) -> list[tuple[int, str]]:
        """The numbers and proposers of those with the document of this hash."""
        return self._ask("SELECT number, proposer FROM ended WHERE hash = ?", hash)

    def count_states(self) -> Counter[TaskState]:
        """How many ended in each state."""
        rows = self._ask("SELECT state, count(*) FROM ended GROUP BY state")
        return Counter({TaskState(state): count for state, count in rows})

    def sum_posted(self) -> int:
        """Bytes of the payloads that this site posted in them."""
        ((total,),) = self._ask("SELECT coalesce(sum(posted), 0) FROM ended")
        return int(total)

    def _ask(self, query: str, *values: object) -> list[Any]:
        with self._lock:
            return self._base.execute(query, values).fetchall()


def _make_task(row: tuple[Any, ...]) -> StudyTask:
    number, hash, proposer, state, posted, name, ending, losses = row
    task = StudyTask(number, hash, proposer)
    task.state, task.posted, task.name, task.ending = TaskState(state), posted, name, ending
    task.losses = tuple(json.loads(losses))
    return task


class AllStudies(Mapping[int, StudyTask]):
    """All studies by number: those that go on are the daemon's own objects, the others are read from the disk."""

    def __init__(self, going: dict[int, StudyTask], ended: EndedStudies) -> None:
        self._going, self._ended = going, ended

    def __getitem__(self, number: int) -> StudyTask:
        # A study is put among the ended ones before it leaves the others: a thread that looks meanwhile finds it.
        found = self._going.get(number) or self._ended.find(number)
        if found is None:
            raise KeyError(number)
        return found

    def __iter__(self) -> Iterator[int]:
        return iter(sorted({*self._going.copy(), *self._ended.list_numbers()}))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class StudyList:
    """All studies that name this site, by number; open ones are either watched or idle."""

    def __init__(self) -> None:
        self.going: dict[int, StudyTask] = {}
        self.ended = EndedStudies()
        self.tasks = AllStudies(self.going, self.ended)
        # Those of which people get a notice that they do not have yet.
        self.just_ended: dict[int, StudyTask] = {}
        self._watched: dict[int, StudyTask] = {}
        self._idle: dict[int, StudyTask] = {}
        self._decisions: Mapping[bytes, int] = {}
        self._displaced: list[StudyTask] = []

    def add(self, task: StudyTask) -> None:
        """Take a study in; one that had the number before a reorganisation is forgotten."""
        before = self.tasks.get(task.number)
        if before is not None:
            self._displaced.append(before)
            self.ended.remove(task.number)
            self._idle.pop(task.number, None)
            self.just_ended.pop(task.number, None)
        self.going[task.number] = task
        self._watch(task)
        if task.over:
            self.retire(task)

    def retire(self, task: StudyTask) -> None:
        """Let a study that is over leave memory; a study whose number another one has taken is forgotten already."""
        if self.going.get(task.number) is not task:
            return
        self.ended.put(task)
        for place in (self.going, self._watched, self._idle):
            if task.number in place:
                del place[task.number]

    def has(self, proposer: str, hash: bytes) -> bool:
        """Whether a site has proposed the document of this hash."""
        going = any(task.proposer == proposer and task.hash == hash for task in self.going.values())
        return going or any(other == proposer for _, other in self.ended.list_same(hash))

    def take_displaced(self) -> list[StudyTask]:
        """The studies whose numbers went to others since the last call, as after a reorganisation."""
        displaced, self._displaced = self._displaced, []
        return displaced

    def list_twins(self, task: StudyTask) -> list[int]:
        """The other studies with the document of this one: an approval is for one of them."""
        if not any(task.hash):
            return []
        going = {number for number, other in self.going.copy().items() if other.hash == task.hash}
        ended = {number for number, _ in self.ended.list_same(task.hash)}
        return sorted((going | ended) - {task.number})

    def count_states(self) -> Counter[TaskState]:
        """How many studies are in each state."""
        return Counter(task.state for task in self.going.values()) + self.ended.count_states()

    def sum_posted(self) -> int:
        """Bytes of the payloads that this site posted."""
        return sum(task.posted for task in self.going.values()) + self.ended.sum_posted()

    def _watch(self, task: StudyTask) -> None:
        self._idle.pop(task.number, None)
        self._watched[task.number] = task

    def set_aside(self, task: StudyTask) -> None:
        """Look at a study seldom, because no decision of this site concerns it."""
        if self._watched.pop(task.number, None) is not None:
            self._idle[task.number] = task

    def list_watched(self) -> tuple[StudyTask, ...]:
        """The open studies that this site's people decided about, and those not looked at yet."""
        for task in [task for task in self._watched.values() if task.over]:
            self.retire(task)
        return tuple(self._watched.values())

    def due(self, decisions: Mapping[bytes, int]) -> Iterator[StudyTask]:
        """The studies of this round; `decisions` says how many there are about each hash.

        They are compared only where the object is another one than at the last call: it must not change.
        """
        if decisions is not self._decisions:
            changed = {hash for hash, count in decisions.items() if self._decisions.get(hash) != count}
            self._decisions = decisions
            for task in [task for task in self._idle.values() if task.hash in changed]:
                self._watch(task)
        yield from self.list_watched()
        for number in list(islice(self._idle, IDLE_LOOKS)):
            idle = self._idle.pop(number, None)
            if idle is None:
                continue
            if idle.over:
                self.retire(idle)
            else:
                self._idle[number] = idle  # at the end of the queue
                yield idle
