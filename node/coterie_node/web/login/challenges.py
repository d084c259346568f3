"""What the page asked a browser and waits for: each question is of one session, for a while, and is answered once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from coterie_node.errors import ConfigError

Question = TypeVar("Question")
ANSWER_SECONDS, MOST_QUESTIONS = 300.0, 1024


class Challenges(Generic[Question]):
    """The open questions, by the session and the purpose; a new one takes the place of the old one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._questions: dict[tuple[str, str], tuple[float, Question]] = {}
        self._lock = threading.Lock()

    def ask(self, session: str, purpose: str, question: Question) -> Question:
        """Keep a question; the oldest gives way if there are too many."""
        with self._lock:
            self._questions.pop((session, purpose), None)
            while len(self._questions) >= MOST_QUESTIONS:
                del self._questions[next(iter(self._questions))]
            self._questions[session, purpose] = (self._clock(), question)
        return question

    def find(self, session: str, purpose: str) -> Question | None:
        """The question if it is open, which it stays."""
        with self._lock:
            asked, question = self._questions.get((session, purpose), (-ANSWER_SECONDS, None))
        return question if self._clock() - asked <= ANSWER_SECONDS else None

    def read(self, session: str, purpose: str) -> Question:
        """The question, which stays open; ConfigError (CO-F442) if none is."""
        return self._require(self.find(session, purpose))

    def take(self, session: str, purpose: str) -> Question:
        """The question, which is gone then; ConfigError (CO-F442) if none is open."""
        with self._lock:
            asked, question = self._questions.pop((session, purpose), (-ANSWER_SECONDS, None))
        return self._require(question if self._clock() - asked <= ANSWER_SECONDS else None)

    def _require(self, question: Question | None) -> Question:
        if question is None:
            message = "The page waited too long for this answer, or it was given already"
            raise ConfigError("CO-F442", f"{message}. Open the page again.")
        return question
