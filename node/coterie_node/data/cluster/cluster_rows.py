"""A site's rows on a cluster, as learners, snapshot and gate see them: sums of blocks, leaves, and no row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, TypeVar

from coterie_learners.study.rows import Block, CodedRows, Codes
from coterie_node.data.cluster import spans
from coterie_node.data.cluster.answers import check_leaves, check_list
from coterie_node.data.cluster.connection import Cluster, ObjectAtWorker
from coterie_node.data.cluster.parts import PartJob
from coterie_node.data.cluster.spans import Span
from coterie_node.data.commitment import RUN

Made = TypeVar("Made")


@dataclass(frozen=True)
class ClusterData:
    """Complete rows that the workers read in each pass, in blocks of `size` rows, the last of fewer."""

    cluster: Cluster = field(repr=False)
    job: PartJob = field(repr=False)
    n: int
    size: int
    missing: Mapping[str, int]
    spans: Sequence[Span] = field(repr=False)

    @property
    def runs(self) -> int:
        """Runs of rows that the snapshot hashes, in each block but the last."""
        return -(-self.size // RUN)

    @property
    def whole(self) -> Span:
        """All rows."""
        return Span(0, tuple(cut for span in self.spans for cut in span.cuts))

    def start_beside(self, make: Callable[..., Any], *arguments: object) -> ObjectAtWorker:
        """make(raw rows, *arguments) as an object at one worker, which has all raw rows in few bytes."""
        missing = dict(self.missing)
        return self.cluster.start_object(spans.make_beside, self.job, missing, self.whole, make, *arguments)

    def _over_spans(self, make: Callable[..., Any], work: Callable[[int, Any], Made]) -> Iterator[Made]:
        """What work makes of each block, and of the block's number, in order."""
        submit = self.cluster.submit
        tasks = (partial(submit, make, self.job, work, self.size, span) for span in self.spans)
        with closing(self.cluster.read_in_order(f"{self.job.site}: sums", tasks, len(self.spans))) as answers:
            for span, answer in zip(self.spans, answers, strict=True):
                yield from check_list(self.cluster.origin, span, answer, -(-span.n // self.size))

    def _hash_leaves(self, make: Callable[..., Any], work: Callable[[int, Any], list[bytes]]) -> list[bytes]:
        leaves = [leaf for block in self._over_spans(make, work) for leaf in block]
        full, rest = divmod(self.n, self.size)
        return check_leaves(self.cluster.origin, leaves, full * self.runs - (-rest // RUN))

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
        return self._over_spans(spans.over_blocks, partial(_drop_number, work))

    def hash_leaves(self, salt: bytes) -> list[bytes]:
        """The leaves of the snapshot, hashed at the workers."""
        return self._hash_leaves(spans.over_blocks, partial(spans.hash_block, salt, self.runs))


@dataclass(frozen=True)
class ClusterCodes(ClusterData):
    """Rows as the variables' values."""

    def codes(self) -> Iterator[Codes]:
        """DataError (CO-D184): rows stay where they are."""
        self._refuse()

    def over_codes(self, work: Callable[[Codes], Made]) -> Iterator[Made]:
        """What work makes of each block, computed at the workers."""
        return self._over_spans(spans.over_codes, partial(_drop_number, work))

    def together(self, work: Callable[[CodedRows], Made]) -> Made:
        """What work makes of all values, at one worker."""
        out: Made = self.cluster.read(self.cluster.submit(spans.together, self.job, work, self.whole))
        return out

    def hash_leaves(self, salt: bytes) -> list[bytes]:
        """The leaves of the snapshot, hashed at the workers."""
        return self._hash_leaves(spans.over_codes, partial(spans.hash_codes, salt, self.runs))


def _drop_number(work: Callable[[Any], Made], number: int, block: Any) -> Made:
    return work(block)
