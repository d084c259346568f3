"""The storage of the log: named blobs that are durable once they are written. A dict is the twin in memory."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

from coterie_chain.errors import StoreFault
from coterie_node.privacy.files.checked_blobs import mark_blob, open_blob
from coterie_node.privacy.files.durable_files import write_durably
from coterie_node.privacy.files.folder_lock import FolderLock, InUse

# A folder that changed less than this (nanoseconds) ago may change again without another time of its last change.
_SETTLED_NS = 2_000_000_000
# A part of a blob's name.
_NAME = re.compile(r"[A-Za-z0-9_-]+")


class LogStorage(Protocol):
    """Named blobs; a name has letters, digits and _, - and / between them. A written blob survives a crash, whole."""

    def __getitem__(self, name: str) -> bytes:
        """The blob; KeyError if there is none."""

    def __setitem__(self, name: str, content: bytes) -> None:
        """Write a blob, in place of one of this name; it is durable when this returns."""

    def update(self, blobs: Mapping[str, bytes], /) -> None:
        """Write several blobs, each as if alone; all are durable when this returns."""

    def __contains__(self, name: object) -> bool:
        """Whether there is a blob of this name."""

    def __iter__(self) -> Iterator[str]:
        """All names."""


@dataclass(frozen=True)
class Listing:
    """The names in a folder, in order, as of a state of it: its inode and the time of its last change.

    `settled`: another change would give another state. `seen`: how often somebody else's change was seen here.
    """

    names: tuple[str, ...]
    state: tuple[int, int] | None
    settled: bool = True
    seen: int = 0


@dataclass(frozen=True)
class FolderStorage:
    """Blobs as files of one folder, readable by this user only (0600, folders 0700), with a digest before each.

    A folder is listed again only when something else than this object changed it. Programs write one after another
    (`hold`), and each write gives its folder a time of its own, so that no write of another program is overlooked. What
    a tool that copies files does in the very moment of a write here is seen at the next change. Files with other names
    than a blob's are none of the log.
    """

    root: Path
    _listed: dict[str, Listing] = field(default_factory=dict, init=False, compare=False, repr=False)
    _lock: FolderLock = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """The lock lies in the folder itself."""
        object.__setattr__(self, "_lock", FolderLock(self.root))

    def __getitem__(self, name: str) -> bytes:
        """The blob; KeyError if there is none, StoreFault if it is damaged (CO-C214) or cannot be read (CO-C204)."""
        try:
            raw = (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise KeyError(name) from None
        except OSError as error:
            raise self._fault(error) from None
        content = open_blob(name, raw)
        if content is None:
            raise report_damage(f"{self.root / name}", "it was cut, changed or renamed")
        return content

    def __setitem__(self, name: str, content: bytes) -> None:
        """Write aside, flush to the disk, then rename, so that a crash leaves the old blob or the new one."""
        self.update({name: content})

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other programs from writing: what is read meanwhile stays. StoreFault (CO-C215) after two minutes."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._lock.hold())
            except InUse as error:
                message = f"The privacy log in {self.root} is in use: {error}"
                raise StoreFault("CO-C215", f"{message}. Wait until that program is done, or end it.") from None
            except OSError as error:
                raise self._fault(error) from None
            yield

    def update(self, blobs: Mapping[str, bytes], /) -> None:
        """The same for several blobs: their flushes wait for the disk side by side, and each folder is flushed once."""
        with self.hold():
            folders = {name.rpartition("/")[0] for name in blobs}
            before = {name: _read_state(self.root / name) for name in folders}
            try:
                write_durably({self.root / name: mark_blob(name, content) for name, content in blobs.items()})
            except OSError as error:
                raise self._fault(error) from None
            for name in folders:
                _stamp(self.root / name, before[name])
            self._add_listed(blobs, before)

    def _add_listed(self, names: Iterable[str], before: Mapping[str, tuple[int, int] | None]) -> None:
        """Add what was written to the listings that were current before."""
        written: dict[str, set[str]] = {}
        for name in names:
            written.setdefault(name.rpartition("/")[0], set()).add(name)
        for folder, come in written.items():
            kept = self._listed.get(folder)
            if kept is None or kept.state != before[folder]:
                continue
            new = come.difference(kept.names)
            listed = tuple(sorted([*kept.names, *new])) if new else kept.names
            self._listed[folder] = replace(kept, names=listed, state=_read_state(self.root / folder))

    def __contains__(self, name: object) -> bool:
        """Whether there is a blob of this name; StoreFault if the folder does not say."""
        try:
            return isinstance(name, str) and stat.S_ISREG((self.root / name).stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self._fault(error) from None

    def __iter__(self) -> Iterator[str]:
        try:
            return iter(sorted(_list_files(str(self.root))))
        except OSError as error:
            raise self._fault(error) from None

    def list_folder(self, folder: str) -> tuple[str, ...]:
        """The names in one folder, in order; the same object until they change. StoreFault if it cannot be read."""
        return self.look(folder).names

    def look(self, folder: str) -> Listing:
        """The names in one folder as of now, and how often it was seen that somebody else changed it."""
        kept, state = self._listed.get(folder), _read_state(self.root / folder)
        if kept is not None and state is not None and kept.settled and kept.state == state:
            return kept
        try:
            names = tuple(sorted(_list_files(str(self.root / folder), f"{folder}/")))
        except OSError as error:
            raise self._fault(error) from None
        if kept is not None and kept.names == names:
            names = kept.names
        same = kept is not None and kept.state == state and names is kept.names
        seen = 0 if kept is None else kept.seen + (not same)
        settled = state is None or abs(time.time_ns() - state[1]) > _SETTLED_NS
        self._listed[folder] = Listing(names, state, settled, seen)
        return self._listed[folder]

    def _fault(self, error: OSError) -> StoreFault:
        message = f"The privacy log in {self.root} cannot be used: {error.strerror or error}"
        return StoreFault("CO-C204", f"{message}. Check the free space, and that this user may write there.")


def report_damage(place: str, what: str) -> StoreFault:
    """The error for a blob that cannot be what was written."""
    message = f"The privacy log's file {place} is damaged: {what}"
    return StoreFault(
        "CO-C214",
        f"{message}. Put the folder `privacy` of one backup back, whole. If there is none, move this file away: then "
        "a person must approve every release.",
    )


_T = TypeVar("_T")


def read_blob(storage: LogStorage, name: str, make: Callable[[bytes], _T]) -> _T:
    """What a blob holds; KeyError if there is none, StoreFault (CO-C214) if it is no such thing."""
    raw = storage[name]
    try:
        return make(raw)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise report_damage(name, str(error)[:120] or type(error).__name__) from None


def list_names(storage: LogStorage, folder: str) -> tuple[str, ...]:
    """The names that begin with a folder's name and /, in order; other folders are not looked into."""
    prefix = f"{folder}/"
    if not isinstance(storage, FolderStorage):
        return tuple(sorted([name for name in storage if name.startswith(prefix)]))
    return storage.list_folder(folder)


def look_into(storage: LogStorage, folder: str) -> Listing:
    """The names in one folder, and how often it was seen that another program changed it: nobody else has a dict."""
    return storage.look(folder) if isinstance(storage, FolderStorage) else Listing(list_names(storage, folder), None)


def hold_storage(storage: LogStorage) -> AbstractContextManager[None]:
    """Keep other programs from writing."""
    return storage.hold() if isinstance(storage, FolderStorage) else nullcontext()


def _read_state(folder: Path) -> tuple[int, int] | None:
    """Inode and time of the last change (nanoseconds) of a folder; None without it."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _stamp(folder: Path, before: tuple[int, int] | None) -> None:
    """Give a folder that was written into a time of change that it never had, also within one tick of the clock."""
    now = _read_state(folder)
    if now is not None:
        with suppress(OSError):  # a disk without such times is listed at every look
            os.utime(folder, ns=(now[1], max(now[1], before[1] if before else 0) + 1))


def _list_files(folder: str, prefix: str = "") -> Iterator[str]:
    """Names of all blobs in a folder, and of the root's in its folders; none of files that are no blobs."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if not _NAME.fullmatch(entry.name):
            continue
        if entry.is_file():
            yield prefix + entry.name
        elif not prefix and entry.is_dir():
            yield from _list_files(entry.path, f"{entry.name}/")
