"""The names in a folder of files, by what stands before the first dot, listed again only when the folder changes."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

# A folder whose last change is older than this (nanoseconds) shows each further change by another time: on a disk that
# writes whole seconds, and on one with a finer clock. That of Linux moves on every 10 ms at the slowest.
SETTLED_NS, FINE_SETTLED_NS = 2_000_000_000, 100_000_000
_MILLISECOND = 1_000_000


class FolderListing:
    """A folder's names by stem. A stem's set is the same object until one of its names comes or goes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # One attribute, replaced at once: several threads may read.
        self._kept: tuple[frozenset[str], Mapping[str, frozenset[str]], tuple[int, int] | None] = (
            frozenset(),
            {},
            None,
        )

    def read(self) -> Mapping[str, frozenset[str]]:
        """The names by stem; the same object until the folder changes, empty without the folder."""
        names, by_stem, read_at = self._kept
        try:
            state = self._root.stat()
            identity = state.st_ino, state.st_mtime_ns
            if identity == read_at:
                return by_stem
            newest = frozenset(os.listdir(self._root))
        except OSError:
            newest, identity, settled = frozenset(), (0, 0), False
        else:
            # One that changed a moment ago may change once more within the same tick of the disk's clock.
            settled = is_settled(state.st_mtime_ns, time.time_ns())
        by_stem = _sort_in(by_stem, newest - names, names - newest)
        self._kept = newest, by_stem, identity if settled else None
        return by_stem


def _sort_in(
    by_stem: Mapping[str, frozenset[str]], come: frozenset[str], gone: frozenset[str]
) -> Mapping[str, frozenset[str]]:
    """The names by stem with those that came and without those that went: the others are not looked at."""
    if not come and not gone:
        return by_stem
    out = dict(by_stem)
    for stem, names in _group(gone).items():
        out[stem] -= names
        if not out[stem]:
            del out[stem]
    for stem, names in _group(come).items():
        out[stem] = out.get(stem, frozenset()) | names
    return out


def is_settled(changed: int, now: int) -> bool:
    """Whether a further change would show by another time (nanoseconds) than this change's."""
    wait = SETTLED_NS if changed % _MILLISECOND == 0 else FINE_SETTLED_NS
    return now - changed > wait


def _group(names: Iterable[str]) -> Mapping[str, set[str]]:
    """The names by what stands before the first dot."""
    out: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        out[name.partition(".")[0]].add(name)
    return out
