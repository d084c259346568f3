"""Where the log lies: named blobs that are durable once they are written. A dict is the twin in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from coterie_chain.errors import StoreFault

# Files that are flushed side by side; a disk answers many flushes almost as fast as one.
WRITERS = 8


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
class FolderStorage:
    """Blobs as files of one folder, readable by this user only (0600, folders 0700)."""

    root: Path

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
        places = {self.root / name: content for name, content in blobs.items()}
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

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (self.root / name).is_file()

    def __iter__(self) -> Iterator[str]:
        try:
            return iter(sorted(_list_files(str(self.root))))
        except OSError as error:
            raise self._fault(error) from None

    def list_folder(self, folder: str) -> list[str]:
        """The names below one folder; StoreFault if it cannot be read."""
        try:
            return list(_list_files(str(self.root / folder), f"{folder}/"))
        except OSError as error:
            raise self._fault(error) from None

    def _fault(self, error: OSError) -> StoreFault:
        message = f"The privacy log in {self.root} cannot be used: {error.strerror or error}"
        return StoreFault("CO-C204", f"{message}. Check the free space, and that this user may write there.")


def list_names(storage: LogStorage, folder: str) -> list[str]:
    """The names that begin with a folder's name and /, in order; other folders are not looked into."""
    prefix = f"{folder}/"
    if not isinstance(storage, FolderStorage):
        return sorted([name for name in storage if name.startswith(prefix)])
    return sorted(storage.list_folder(folder))


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
