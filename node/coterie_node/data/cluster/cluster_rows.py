"""A site's rows on a cluster, as learners, snapshot and gate see them: sums of blocks, leaves, and no row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, TypeVar

from coterie_learners.study.rows import Block, CodedRows, Codes
from coterie_node.data.cluster import parts
from coterie_node.data.cluster.connection import Cluster, ObjectAtWorker
from coterie_node.data.cluster.parts import Cut, PartJob, PartSummary
from coterie_node.data.commitment import RUN

Made = TypeVar("Made")
# Blocks of a design matrix that a worker makes in one go.
BLOCKS = 8


@dataclass(frozen=True)
class GroupPlan:
    """Which rows of which parts make a group: (number of the part, cut), in order."""

    cuts: tuple[tuple[int, Cut], ...]


def plan_groups(summaries: Sequence[PartSummary], rows: int) -> Iterator[GroupPlan]:
    """Groups of exactly so many complete rows, the last of fewer, wherever the parts end."""
    pending: list[tuple[int, Cut]] = []
    room = rows
    for number, summary in enumerate(summaries):
        at = 0
        while at < summary.n:
            size = min(room, summary.n - at)
            pending.append((number, Cut(at, at + size, summary.digest)))
            at, room = at + size, room - size
            if not room:
                yield GroupPlan(tuple(pending))
                pending, room = [], rows
    if pending:
        yield GroupPlan(tuple(pending))


@dataclass(frozen=True)
class ClusterData:
    """Groups of complete rows at the workers, each of `size` rows times `blocks`, the last of fewer."""

    cluster: Cluster = field(repr=False)
    job: PartJob = field(repr=False)
    n: int
    size: int
    missing: Mapping[str, int]
    groups: Sequence[Any] = field(repr=False)

    @property
    def runs(self) -> int:
        """Runs of rows that the snapshot hashes, in each block but the last."""
        return -(-self.size // RUN)

    def start_beside(self, make: Callable[..., Any], *arguments: object) -> ObjectAtWorker:
        """make(raw rows, *arguments) as an object at one worker, which has all raw rows in few bytes."""
        raw = self.cluster.submit(parts.join_raw, self.job, dict(self.missing), *self.groups)
        return self.cluster.start_object(make, raw, *arguments)

    def _refuse(self) -> NoReturn:
        message = "Rows on a cluster do not leave it, and this step needs the rows themselves"
        todo = "Leave the option that asks for it out, or take part with a file or a query."
        raise self.cluster.origin.error("CO-D184", f"{message}. {todo}")


@dataclass(frozen=True)
class ClusterRows(ClusterData):
    """Rows of the design matrix."""

    def blocks(self) -> Iterator[Block]:
        """DataError (CO-D184): rows stay where they are."""
        self._refuse()

    def over_blocks(self, work: Callable[[Block], Made]) -> Iterator[Made]:
        """What work makes of each block, computed at the workers."""
        return self._number_blocks(partial(_drop_number, work))

    def hash_leaves(self, salt: bytes) -> list[bytes]:
        """The leaves of the snapshot, hashed at the workers."""
        leaves = self._number_blocks(partial(parts.hash_block, salt, self.runs))
        return [leaf for block in leaves for leaf in block]

    def _number_blocks(self, work: Callable[[int, Block], Made]) -> Iterator[Made]:
        submit = self.cluster.submit
        tasks = (
            partial(submit, parts.over_blocks, self.job, work, BLOCKS * k, self.size, group)
            for k, group in enumerate(self.groups)
        )
        for group in self.cluster.read_in_order(f"{self.job.site}: sums", tasks, len(self.groups)):
            yield from group


@dataclass(frozen=True)
class ClusterCodes(ClusterData):
    """Rows as the variables' values, a block a group."""

    def codes(self) -> Iterator[Codes]:
        """DataError (CO-D184): rows stay where they are."""
        self._refuse()

    def over_codes(self, work: Callable[[Codes], Made]) -> Iterator[Made]:
        """What work makes of each block, computed at the workers."""
        return self._number_blocks(partial(_drop_number, work))

    def together(self, work: Callable[[CodedRows], Made]) -> Made:
        """What work makes of all values, at one worker."""
        out: Made = self.cluster.read(self.cluster.submit(parts.together, self.job, work, *self.groups))
        return out

    def hash_leaves(self, salt: bytes) -> list[bytes]:
        """The leaves of the snapshot, hashed at the workers."""
        leaves = self._number_blocks(partial(parts.hash_codes, salt, self.runs))
        return [leaf for block in leaves for leaf in block]

    def _number_blocks(self, work: Callable[[int, Codes], Made]) -> Iterator[Made]:
        submit = self.cluster.submit
        tasks = (partial(submit, parts.over_codes, self.job, work, k, group) for k, group in enumerate(self.groups))
        return self.cluster.read_in_order(f"{self.job.site}: sums", tasks, len(self.groups))


def _drop_number(work: Callable[[Any], Made], number: int, block: Any) -> Made:
    return work(block)
