"""A site's rows drawn by chance, and its log, as the tests of the privacy log use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_node.privacy.entries import Kind, ReleaseHead
from coterie_node.privacy.log import Candidate, PrivacyLog
from coterie_node.privacy.objections import Objection
from coterie_node.privacy.prints import RawRows

FLOOR = 5
Rows = NDArray[np.intp]


def draw_values(n: int, seed: int = 7) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "age": np.round(rng.uniform(30, 90, n), 1),
        "sex": rng.integers(0, 2, n).astype(float),
        "lab": np.round(rng.normal(size=n), 2),
        "died": (rng.random(n) < 0.3).astype(float),
        "relapse": (rng.random(n) < 0.3).astype(float),
    }


@dataclass
class Archive:
    """A site's whole file of 500 patients, and its log; a study takes some rows and columns of it."""

    identified: bool = True
    values: dict[str, NDArray[Any]] = field(default_factory=lambda: draw_values(500))
    log: PrivacyLog = field(default_factory=lambda: PrivacyLog(dict[str, bytes]()))
    count: int = 0

    def candidate(
        self,
        rows: Rows | Sequence[int],
        columns: Sequence[str] = ("died", "age", "sex"),
        kind: Kind = "plain",
        **more: Any,
    ) -> Candidate:
        at = np.asarray(rows)
        names = [f"P{i:05d}" for i in at] if self.identified else None
        raw = RawRows({c: self.values[c][at] for c in columns}, {}, names, more.pop("lacking", {}))
        self.count += 1
        fields: dict[str, Any] = {"study": f"s{self.count}", "parties": ("a", "b", "c"), **more}
        head = ReleaseHead(
            f"session-{self.count}", fields.pop("study"), "00", 0, 0, fields.pop("parties"), kind, raw.n, {}, **fields
        )
        return self.log.prepare(head, raw.prints(self.log.key))

    def judge(
        self, rows: Rows | Sequence[int], columns: Sequence[str] = ("died", "age", "sex"), **more: Any
    ) -> list[Objection]:
        return self.log.judge(self.candidate(rows, columns, **more), FLOOR)

    def release(self, rows: Rows | Sequence[int], columns: Sequence[str] = ("died", "age", "sex"), **more: Any) -> None:
        """Release rows that nothing speaks against."""
        candidate = self.candidate(rows, columns, **more)
        assert self.log.judge(candidate, FLOOR) == []
        self.log.write(candidate)

    def kinds(
        self, rows: Rows | Sequence[int], columns: Sequence[str] = ("died", "age", "sex"), **more: Any
    ) -> set[str]:
        return {objection.kind for objection in self.judge(rows, columns, **more)}
