"""What the pages read of a site: its folder, its store, and the ledger as one thread follows it for all visitors.

    ledger --the new entries of a block--> snapshot (views and entries of all studies, members) --> every page

A page never asks the chain itself, so a hundred viewers cost the chain node and the daemon what one does. Nothing here
writes.
"""

from __future__ import annotations

import operator
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from coterie_chain.errors import ChainError
from coterie_chain.ledger.protocol import (
    Event,
    Ledger,
    Mark,
    Record,
    SiteEntry,
    State,
    StudyView,
    get_study_number,
)
from coterie_chain.store.protocol import BlobStore
from coterie_learners.study.document import Study
from coterie_node.errors import ConfigError
from coterie_node.run.study_files import study_on_ledger
from coterie_node.site.folder import SiteFolder
from coterie_node.web.live.posts import PostReader
from coterie_node.web.live.shared_access import share

Kept = TypeVar("Kept")
Entries = tuple[Record | Event, ...]
# Seconds between two looks at the chain, and documents that are kept.
FOLLOW_SECONDS = 0.3
# ... and between two questions for the ledger's time, while blocks come and while none comes.
BLOCK_TIME_SECONDS, TIME_SECONDS = 1.0, 10.0
MOST_DOCUMENTS = 200
# Folders of the site in which the daemon and commands leave what pages show.
WATCHED = ("decisions", "releases", "results", "faults", "ballots")


@dataclass(frozen=True)
class StudyLook:
    """A study as of one block: its view, and its entries in the order of the ledger."""

    view: StudyView
    entries: Entries

    @property
    def is_over(self) -> bool:
        """Whether it has ended, with a result or without."""
        return self.view.state in (State.COMPLETED, State.ABORTED)


@dataclass(frozen=True)
class SiteSnapshot:
    """The ledger as of one block: `now` is its time; `problem` says why there is no newer one, empty if all is well."""

    block: int = -1
    now: int = 0
    sites: tuple[SiteEntry, ...] = ()
    studies: Mapping[int, StudyLook] = field(default_factory=dict)
    members: Entries = ()
    problem: str = ""


class SiteReader:
    """One site for reading. `newest` is the number of the newest block; a reader without blocks looks each time."""

    def __init__(
        self, folder: SiteFolder, ledger: Ledger, blobs: BlobStore, newest: Callable[[], int] | None = None
    ) -> None:
        self.folder, self.ledger, self.blobs = share(folder, ledger, blobs), ledger, blobs
        self.posts, self.decisions = PostReader(blobs), folder.decisions
        self._kept: dict[str, tuple[tuple[object, ...], Any]] = {}
        self._stamp: tuple[int, ...] = ()
        self._newest = newest
        self._snapshot = SiteSnapshot()
        self._lock = threading.RLock()
        self._follows = False
        self._mark, self._time_at = Mark(), -TIME_SECONDS
        self._documents: OrderedDict[bytes, Study] = OrderedDict()
        self.version = 0

    @property
    def name(self) -> str:
        """The site's name."""
        return self.folder.name

    def read(self) -> SiteSnapshot:
        """The newest snapshot."""
        if not self._follows:
            self.look()
        return self._snapshot

    def look(self) -> None:
        """Read what is new on the ledger; if it is out of reach, the old snapshot stays and says so."""
        with self._lock:
            self._look_at_folder()
            try:
                self._refresh()
            except ChainError as error:
                if self._snapshot.problem != error.message:
                    self._snapshot = replace(self._snapshot, problem=error.message)
                    self.version += 1

    @contextmanager
    def follow(self) -> Iterator[None]:
        """Follow the ledger in a thread meanwhile."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,), name="reader", daemon=True)
        self.look()
        self._follows = True
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self._follows = False

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(FOLLOW_SECONDS):
            self.look()

    def _look_at_folder(self) -> None:
        """Count it as a change if decisions, releases, results or faults of this site are others than before."""
        root = self.folder.root
        places = [root / name for name in WATCHED]
        places += sorted((root / "releases").glob("*/"))
        stamp = tuple(map(_read_change_time, places))
        if stamp != self._stamp:
            self._stamp = stamp
            self.version += 1

    def _refresh(self) -> None:
        block = -1 if self._newest is None else self._newest()
        old = self._snapshot
        if block == old.block and self._newest is not None and not old.problem:
            self._snapshot = replace(old, now=self._read_time(TIME_SECONDS))
            return
        with self.ledger.read_at_one_block():
            mark, new = self.ledger.read_new(self._mark)
            is_cut = mark.branch != self._mark.branch
            base = SiteSnapshot(now=old.now) if is_cut else old
            self._snapshot = replace(
                self._add(base, new) if new else base, block=block, now=self._read_time(BLOCK_TIME_SECONDS), problem=""
            )
            self._mark = mark
        if new or is_cut or old.problem:
            self.version += 1

    def _read_time(self, longest: float) -> int:
        """The ledger's time; the one that was read last, if that was less than so many seconds ago."""
        now = time.monotonic()
        if self._newest is not None and now < self._time_at + longest:
            return self._snapshot.now
        read = self.ledger.now()
        self._time_at = now
        return read

    def _add(self, old: SiteSnapshot, new: Entries) -> SiteSnapshot:
        """A snapshot with more entries. Views are asked for of their studies; of all that go on, if members change."""
        added: dict[int, list[Record | Event]] = {}
        for entry in new:
            added.setdefault(get_study_number(entry), []).append(entry)
        changed = tuple(added.pop(0, ()))
        going_on = {number for number, look in old.studies.items() if not look.is_over} if changed else set()
        studies = dict(old.studies)
        for number in sorted(going_on | set(added)):
            known = studies[number].entries if number in studies else ()
            studies[number] = StudyLook(self.ledger.view(number), (*known, *added.get(number, ())))
        sites = self.ledger.sites() if changed else old.sites
        return replace(old, sites=sites, studies=studies, members=old.members + changed)

    def find(self, number: int) -> StudyLook:
        """A study by its number; ConfigError (CO-F304) if the ledger has none."""
        studies = self.read().studies
        if number not in studies:
            message = f"There is no study {number} on this ledger; it has {len(studies)}"
            raise ConfigError("CO-F304", f"{message}. The list of studies has them all.")
        return studies[number]

    def read_document(self, view: StudyView) -> Study:
        """A study's document, checked against its hash; ChainError or StudyError if it cannot be read."""
        with self._lock:
            known = self._documents.get(view.terms.hash)
        if known is not None:
            return known
        study = study_on_ledger(view, self.blobs)
        with self._lock:
            self._documents[view.terms.hash] = study
            while len(self._documents) > MOST_DOCUMENTS:
                self._documents.popitem(last=False)
        return study

    def keep(
        self,
        name: str,
        basis: tuple[object, ...],
        make: Callable[[], Kept],
        is_final: Callable[[Kept], bool] = lambda _: True,
    ) -> Kept:
        """What was made under a name, made again where one of the objects that it is made from is another one.

        What is not final is made each time.
        """
        kept = self._kept.get(name)
        if kept is not None and len(kept[0]) == len(basis) and all(map(operator.is_, kept[0], basis)):
            value: Kept = kept[1]
            return value
        value = make()
        if is_final(value):
            self._kept[name] = basis, value
        return value

    def close(self) -> None:
        """Close the ledger, where it can be."""
        with suppress(AttributeError):
            self.ledger.close()  # type: ignore[attr-defined]


def _read_change_time(place: Path) -> int:
    """When a folder changed last; 0 for one that is not there, or not any more: the daemon removes what is decided."""
    try:
        return place.stat().st_mtime_ns
    except OSError:
        return 0
