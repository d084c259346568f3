"""Where the log lies: named blobs that are durable once they are written. A dict is the twin in memory."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from coterie_chain.errors import StoreFault

# Files that are flushed side by side; a disk answers many flushes almost as fast as one.
WRITERS = 8
# A folder that changed less than this (nanoseconds) ago may change again without another time of its last change.
_SETTLED_NS = 2_000_000_000


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
    """The names in a folder, in order, as of a state of it: its inode and the time of its last change."""

    names: tuple[str, ...]
    state: tuple[int, int] | None


@dataclass(frozen=True)
class FolderStorage:
    """Blobs as files of one folder, readable by this user only (0600, folders 0700).

    A folder is listed again only when something else than this object changed it. What another program does in the very
    moment of a write here, between two ticks of the disk's clock, is seen at the next change.
    """

    root: Path
    _listed: dict[str, Listing] = field(default_factory=dict, init=False, compare=False, repr=False)
    _writing: threading.Lock = field(default_factory=threading.Lock, init=False, compare=False, repr=False)

    def __getitem__(self, name: str) -> bytes:
        """The blob; KeyError if there is none, StoreFault if it cannot be read."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None
        except OSError as error:
            raise self._fault(error) from None

    def __setitem__(self, name: str, content: bytes) -> None:
        """Write aside, flush to the disk, then rename, so that a crash leaves the old blob or the new one."""
        self.update({name: content})

    def update(self, blobs: Mapping[str, bytes], /) -> None:
        """The same for several blobs: their flushes wait for the disk side by side, and each folder is flushed once."""
        with self._writing:
            listed = tuple(self._listed.items())
            current = {name for name, listing in listed if listing.state == _read_state(self.root / name)}
            self._write({self.root / name: content for name, content in blobs.items()})
            self._add_listed(blobs, current)

    def _write(self, places: Mapping[Path, bytes]) -> None:
        folders = {place.parent for place in places}
        try:
            for folder in folders:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for aside, place in _write_aside(places):
                aside.replace(place)
            for folder in folders:
                _sync_folder(folder)
        except OSError as error:
            raise self._fault(error) from None

    def _add_listed(self, names: Iterable[str], current: Collection[str]) -> None:
        """Add what was written to the listings that were current before."""
        written: dict[str, set[str]] = {}
        for name in names:
            written.setdefault(name.rpartition("/")[0], set()).add(name)
        for folder in written.keys() & current:
            former = self._listed[folder].names
            come = written[folder].difference(former)
            listed = tuple(sorted([*former, *come])) if come else former
            self._listed[folder] = Listing(listed, _read_state(self.root / folder))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (self.root / name).is_file()

    def __iter__(self) -> Iterator[str]:
        try:
            return iter(sorted(_list_files(str(self.root))))
        except OSError as error:
            raise self._fault(error) from None

    def list_folder(self, folder: str) -> tuple[str, ...]:
        """The names in one folder, in order; the same object until they change. StoreFault if it cannot be read."""
        with self._writing:
            return self._list(folder)

    def _list(self, folder: str) -> tuple[str, ...]:
        kept, state = self._listed.get(folder), _read_state(self.root / folder)
        if kept is not None and state is not None and kept.state == state:
            return kept.names
        try:
            names = tuple(sorted(_list_files(str(self.root / folder), f"{folder}/")))
        except OSError as error:
            raise self._fault(error) from None
        if kept is not None and kept.names == names:
            names = kept.names
        settled = state is not None and time.time_ns() - state[1] > _SETTLED_NS
        self._listed[folder] = Listing(names, state if settled else None)
        return names

    def _fault(self, error: OSError) -> StoreFault:
        message = f"The privacy log in {self.root} cannot be used: {error.strerror or error}"
        return StoreFault("CO-C204", f"{message}. Check the free space, and that this user may write there.")


def list_names(storage: LogStorage, folder: str) -> tuple[str, ...]:
    """The names that begin with a folder's name and /, in order; other folders are not looked into."""
    prefix = f"{folder}/"
    if not isinstance(storage, FolderStorage):
        return tuple(sorted([name for name in storage if name.startswith(prefix)]))
    return storage.list_folder(folder)


def _read_state(folder: Path) -> tuple[int, int] | None:
    """Inode and time of the last change (nanoseconds) of a folder; None without it."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _list_files(folder: str, prefix: str = "") -> Iterator[str]:
    """Names of all files below a folder, except those that a writer has not finished; none without the folder."""
    for entry in os.scandir(folder) if os.path.isdir(folder) else ():
        name = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _list_files(entry.path, name + "/")
        elif entry.is_file() and not name.endswith(".part"):
            yield name


def _write_aside(contents: Mapping[Path, bytes]) -> list[tuple[Path, Path]]:
    """Write files beside their places, flushed to the disk; each with its place."""
    if len(contents) == 1:
        return [(_write_file(*item), item[0]) for item in contents.items()]
    with ThreadPoolExecutor(WRITERS) as pool:
        return list(zip(pool.map(_write_file, contents, contents.values()), contents, strict=True))


def _write_file(place: Path, content: bytes) -> Path:
    aside = place.with_name(place.name + ".part")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return aside


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
