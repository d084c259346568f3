"""A connection to a node that fails, hides and lies on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.ethereum.rpc import AnswerTooLong, NodeRefused, Request, Rpc


class FlakyRpc(Rpc):
    """Counts what is asked; `before` and `after` see each request and may raise or change the answer."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked: Counter[str] = Counter()
        self.last: tuple[str, object] = ("", None)
        self.before: Callable[[str, Sequence[object]], None] = lambda method, params: None
        self.after: Callable[[str, Any], Any] = lambda method, answer: answer

    def call(self, method: str, *params: object) -> Any:
        self.asked[method] += 1
        self.last = (method, params[0] if params else None)
        self.before(method, params)
        return self.after(method, super().call(method, *params))

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        return [self.call(method, *params) for method, params in requests]

    def batch_early(self, requests: Sequence[Request]) -> dict[int, Any]:
        answers = {}
        for place, (method, params) in enumerate(requests):
            with suppress(NodeRefused, AnswerTooLong):
                answers[place] = self.call(method, *params)
        return answers

    def cut_before(self, method: str) -> None:
        """The line goes dead just before the node hears such a request."""

        def cut(asked: str, params: Sequence[object]) -> None:
            if asked == method:
                raise LedgerUnreachable("CO-C301", "cut before")

        self.before = cut

    def cut_after(self, method: str) -> None:
        """The line goes dead just after the node did as asked."""

        def cut(asked: str, answer: Any) -> Any:
            if asked == method:
                raise LedgerUnreachable("CO-C301", "cut after")
            return answer

        self.after = cut

    def restore(self) -> None:
        """The line works again."""
        self.before = lambda method, params: None
        self.after = lambda method, answer: answer
