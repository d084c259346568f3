"""Several files written so that a crash leaves each as it was or as it shall be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

# Files that are flushed side by side; a disk answers many flushes almost as fast as one.
WRITERS = 8


def write_durably(contents: Mapping[Path, bytes]) -> None:
    """Write files of mode 0600, all on the disk when this returns; one program at a time. OSError if it cannot be."""
    folders = {place.parent for place in contents}
    try:
        for folder in folders:
            make_private_folder(folder)
        for aside, place in _write_aside(contents):
            aside.replace(place)
        for folder in folders:
            _sync_folder(folder)
    except OSError:
        for place in contents:
            with suppress(OSError):
                _place_aside(place).unlink()
        raise


def make_private_folder(folder: Path) -> None:
    """Make a folder and those above it, of mode 0700, each flushed to the disk as an entry of the one above."""
    if folder.is_dir():
        return
    make_private_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    _sync_folder(folder.parent)


def _place_aside(place: Path) -> Path:
    return place.with_name(f".{place.name}.part")


def _write_aside(contents: Mapping[Path, bytes]) -> list[tuple[Path, Path]]:
    """Write files beside their places, flushed to the disk; each with its place."""
    if len(contents) == 1:
        return [(_write_file(*item), item[0]) for item in contents.items()]
    from concurrent.futures import ThreadPoolExecutor  # commands that lock a folder write no files side by side

    with ThreadPoolExecutor(WRITERS) as pool:
        return list(zip(pool.map(_write_file, contents, contents.values()), contents, strict=True))


def _write_file(place: Path, content: bytes) -> Path:
    aside = _place_aside(place)
    aside.unlink(missing_ok=True)  # of a crash, or a link to elsewhere
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
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
