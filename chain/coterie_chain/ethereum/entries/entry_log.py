"""The entries of a network as far as they were read, with the block up to which they were: a seam with a memory twin.

A log proves nothing and decides nothing. It holds what the follower read from the chain, and the follower compares the
blocks of the log with the chain's before it goes on from there. A log that is gone is read again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Protocol

from coterie_chain.ledger.protocol import Event, Record, get_study_number, select_proposals

Entry = Record | Event


@dataclass(frozen=True)
class Tip:
    """The block up to which the history is read."""

    number: int
    hash: str
    parent: str
    time: int


@dataclass(frozen=True)
class Extent:
    """How far a log reaches: its last block, hashes of blocks by number, names and Models of the sites by id."""

    tip: Tip | None = None
    landmarks: Mapping[int, str] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    models: Mapping[str, int] = field(default_factory=dict)


class EntryLog(Protocol):
    """Entries in chain order. Each change happens as a whole, together with the place that belongs to it."""

    @property
    def place(self) -> Extent:
        """How far the log reaches."""

    def extend(self, entries: Sequence[Entry], place: Extent) -> None:
        """Append entries; StoreFault if the log cannot be written."""

    def drop_above(self, block: int, place: Extent) -> None:
        """Forget the entries of all blocks above this one."""

    def clear(self) -> None:
        """Forget everything."""

    def read(self, study: int | None = None) -> Iterator[Entry]:
        """All entries as of now, or those of one study (0: of the membership), in chain order."""

    def list_after(self, count: int) -> tuple[Entry, ...]:
        """All entries but the first `count`, in chain order."""

    def list_records(self, study: int, position: int) -> tuple[Record, ...]:
        """The records of a step, of all attempts."""

    def list_proposals(self, after: int) -> tuple[Event, ...]:
        """The proposals of studies with a number above `after`, in their order."""

    def count_records(self) -> dict[str, int]:
        """The number of each site's last record."""

    def count_events(self, names: Sequence[str], until: int) -> int:
        """How many events of the blocks up to `until` have one of these names."""


class MemoryEntryLog:
    """A log that ends with its process."""

    def __init__(self) -> None:
        self.clear()

    @property
    def place(self) -> Extent:
        """How far the log reaches."""
        return self._place

    def clear(self) -> None:
        """Forget everything."""
        self._entries: list[Entry] = []
        self._steps: defaultdict[tuple[int, int], list[Record]] = defaultdict(list)
        self._place = Extent()

    def extend(self, entries: Sequence[Entry], place: Extent) -> None:
        """Append entries."""
        self._entries.extend(entries)
        for entry in entries:
            if isinstance(entry, Record):
                self._steps[entry.post.study, entry.post.position].append(entry)
        self._place = place

    def drop_above(self, block: int, place: Extent) -> None:
        """Forget the entries of all blocks above this one."""
        remaining = list(takewhile(lambda entry: entry.block <= block, self._entries))
        self.clear()
        self.extend(remaining, place)

    def read(self, study: int | None = None) -> Iterator[Entry]:
        """All entries as of now, or those of one study."""
        return (entry for entry in tuple(self._entries) if study is None or study == get_study_number(entry))

    def list_after(self, count: int) -> tuple[Entry, ...]:
        """All entries but the first `count`."""
        return tuple(self._entries[count:])

    def list_records(self, study: int, position: int) -> tuple[Record, ...]:
        """The records of a step, of all attempts."""
        return tuple(self._steps.get((study, position), ()))

    def list_proposals(self, after: int) -> tuple[Event, ...]:
        """The proposals of studies with a number above `after`."""
        return select_proposals(self._entries, after)

    def count_records(self) -> dict[str, int]:
        """The number of each site's last record."""
        return {entry.site: entry.seq for entry in self._entries if isinstance(entry, Record)}

    def count_events(self, names: Sequence[str], until: int) -> int:
        """How many events of the blocks up to `until` have one of these names."""
        return sum(isinstance(e, Event) and e.name in names and e.block <= until for e in self._entries)
