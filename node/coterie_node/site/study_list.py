"""The studies of this site, and which of them the daemon looks at in one round.

A study is watched from the moment when this site's people decide about it until it is over. Any member can propose
studies that name this site, so that the others are only looked at a few at a time: the cost of a round does not grow
with their number. They are looked at nevertheless, because the status says how each ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice

from coterie_node.site.study_task import StudyTask

# Studies without a decision of this site that are looked at in one round.
IDLE_LOOKS = 8


class StudyList:
    """All studies that name this site, by number; open ones are either watched or idle."""

    def __init__(self) -> None:
        self.tasks: dict[int, StudyTask] = {}
        self._watched: dict[int, StudyTask] = {}
        self._idle: dict[int, StudyTask] = {}
        self._decisions: Mapping[bytes, int] = {}
        self._proposed: Counter[tuple[str, bytes]] = Counter()
        self._numbers: dict[bytes, set[int]] = {}
        self._displaced: list[StudyTask] = []

    def add(self, task: StudyTask) -> None:
        """Take a study in; one that had the number before a reorganisation is forgotten."""
        before = self.tasks.get(task.number)
        if before is not None:
            self._proposed[before.proposer, before.hash] -= 1
            self._displaced.append(before)
            self._numbers.get(before.hash, set()).discard(before.number)
        self._numbers.setdefault(task.hash, set()).add(task.number)
        self._proposed[task.proposer, task.hash] += 1
        self.tasks[task.number] = task
        self._watch(task)

    def has(self, proposer: str, hash: bytes) -> bool:
        """Whether a site has proposed the document of this hash."""
        return self._proposed[proposer, hash] > 0

    def take_displaced(self) -> list[StudyTask]:
        """The studies whose numbers others have got since the last call, as after a reorganisation."""
        displaced, self._displaced = self._displaced, []
        return displaced

    def list_twins(self, task: StudyTask) -> list[int]:
        """The other studies with the document of this one: an approval is for one of them."""
        return sorted(self._numbers.get(task.hash, set()) - {task.number}) if any(task.hash) else []

    def _watch(self, task: StudyTask) -> None:
        self._idle.pop(task.number, None)
        self._watched[task.number] = task

    def set_aside(self, task: StudyTask) -> None:
        """Look at a study seldom, because no decision of this site concerns it."""
        if self._watched.pop(task.number, None) is not None:
            self._idle[task.number] = task

    def list_watched(self) -> tuple[StudyTask, ...]:
        """The open studies that this site's people decided about, and those not looked at yet."""
        self._watched = {number: task for number, task in self._watched.items() if not task.over}
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
            task = self._idle.pop(number)
            if not task.over:
                self._idle[number] = task  # at the end of the queue
                yield task
