"""Whether the site still lists a person with the same roles: one look for all live parts that this person follows."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from coterie_node.persons.roles import Person

# Seconds for which an answer holds, and persons that are kept.
HOLDS_SECONDS, MOST_PERSONS = 0.5, 256


class PersonWatch:
    """Looks at the accounts in a thread; `refresh` gives a person as the site lists them now, or None."""

    def __init__(self, refresh: Callable[[Person], Person | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._refresh, self._clock = refresh, clock
        self._answers: dict[Person, tuple[float, Future[bool]]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="persons")

    def start(self, person: Person) -> Future[bool]:
        """Whether a person is listed as before; one event loop calls this."""
        now = self._clock()
        kept = self._answers.get(person)
        if kept is None or now - kept[0] >= HOLDS_SECONDS:
            if len(self._answers) >= MOST_PERSONS:
                self._answers.clear()
            kept = self._answers[person] = now, self._pool.submit(self._is_same, person)
        return kept[1]

    def _is_same(self, person: Person) -> bool:
        return self._refresh(person) == person
