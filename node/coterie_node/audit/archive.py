"""Files of a bundle as a zip or a folder: written the same way each time, and read within bounds."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from coterie_node.data.findings import quote
from coterie_node.errors import AuditFailed, ConfigError

# Far above any study: 100 sites and 50 rounds are 5,200 files and 120 MB.
MOST_FILES = 200_000
MOST_BYTES = 1 << 30
LONGEST_NAME = 200
# What a zip may unpack to: its own bytes so many times, and an allowance. Headers of empty blocks shrink to a seventh.
MOST_RATIO = 10
ALLOWANCE = 1 << 26
# What zipfile raises for bytes that are no zip, and for a kind of zip that it cannot read.
BROKEN = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError, RuntimeError)
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_archive(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a bundle's files to a new zip (a path that ends in .zip) or a new folder."""
    if path.exists() and (path.is_file() or any(path.iterdir())):
        raise ConfigError("CO-F204", f"{path} exists, and a bundle never replaces a file or folder. Name another path.")
    try:
        _write_zip(path, files) if path.suffix == ".zip" else _write_folder(path, files)
    except OSError as error:
        raise ConfigError(
            "CO-F205", f"The bundle {path} cannot be written: {error.strerror or error}. Name another path."
        ) from None


def check_sizes(files: Mapping[str, bytes], limit: Callable[[str], int]) -> None:
    """AuditFailed (CO-A209) for files that `read_archive` with this `limit` would refuse."""
    sizes = {name: len(content) for name, content in files.items()}
    large = next((name for name, size in sizes.items() if size > limit(name)), "")
    if not large and len(sizes) <= MOST_FILES and sum(sizes.values()) <= MOST_BYTES:
        return
    bounds = f"{large} may have {limit(large)} bytes" if large else f"{MOST_FILES} files and {MOST_BYTES} bytes"
    what = f"{large} would have {sizes[large]} bytes" if large else f"{len(sizes)} files, {sum(sizes.values())} bytes"
    message = f"No reader would take this bundle: {what}; the limit is {bounds}. Nothing was written"
    raise AuditFailed("CO-A209", f"{message}. Replay the study at a node (coterie audit replay).")


def read_archive(path: Path, limit: Callable[[str], int]) -> dict[str, bytes]:
    """A bundle's files by name; `limit` says how many bytes a file of a name may have, 0 for one that has no place.

    AuditFailed (CO-A201) for a file without a place, and for too much of anything.
    """
    try:
        return _read_folder(path, limit) if path.is_dir() else _read_zip(path, limit)
    except BROKEN as error:
        raise _fault(f"{quote(path.name)} is neither a whole zip nor a folder: {error}") from None
    except OSError as error:
        raise ConfigError(
            "CO-F206", f"The bundle {path} cannot be read: {error.strerror or error}. Check its path and rights."
        ) from None


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    aside = path.with_name(f".{path.name}.part")
    try:
        _write_entries(aside, files, zipfile.ZIP_DEFLATED)
        if sum(map(len, files.values())) > _limit_unpacking(aside):
            # A member has filled blocks with what shrinks to nothing. A reader would take this zip for a bomb.
            _write_entries(aside, files, zipfile.ZIP_STORED)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _write_entries(path: Path, files: Mapping[str, bytes], kind: int) -> None:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr = kind, 0o644 << 16
            archive.writestr(entry, content)


def _limit_unpacking(path: Path) -> int:
    """Bytes to which a zip may unpack."""
    return min(MOST_BYTES, ALLOWANCE + MOST_RATIO * path.stat().st_size)


def _write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        place = path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def _read_zip(path: Path, limit: Callable[[str], int]) -> dict[str, bytes]:
    content: dict[str, bytes] = {}
    bytes_left = _limit_unpacking(path)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > MOST_FILES:
            raise _fault(f"it holds {len(entries)} files; the limit is {MOST_FILES}")
        for entry in entries:
            if entry.is_dir():
                continue
            most = _find_limit(entry.filename, limit, content)
            if entry.flag_bits & 1:
                raise _fault(f"{quote(entry.filename)} is encrypted")
            with archive.open(entry) as file:
                # The directory of a zip can lie about sizes, so the reading itself stops at the limit.
                content[entry.filename] = _read_bounded(file, entry.filename, min(most, bytes_left))
            bytes_left -= len(content[entry.filename])
    return content


def _read_folder(path: Path, limit: Callable[[str], int]) -> dict[str, bytes]:
    content: dict[str, bytes] = {}
    bytes_left = MOST_BYTES
    for place, name in _walk(path):
        most = _find_limit(name, limit, content)
        if len(content) >= MOST_FILES:
            raise _fault(f"it holds more than {MOST_FILES} files")
        with open(place, "rb", opener=_no_links) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _fault(f"{quote(name)} is not a plain file")
            content[name] = _read_bounded(file, name, min(most, bytes_left))
        bytes_left -= len(content[name])
    return content


def _walk(path: Path) -> Iterator[tuple[Path, str]]:
    for folder, _, names in os.walk(path, followlinks=False):
        for name in sorted(names):
            place = Path(folder, name)
            yield place, place.relative_to(path).as_posix()


def _no_links(path: str, _: int) -> int:
    return os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _read_bounded(file: IO[bytes], name: str, most: int) -> bytes:
    content = file.read(most + 1)
    if len(content) > most:
        raise _fault(f"{quote(name)} unpacks to more than the {most} bytes that are allowed here")
    return content


def _find_limit(name: str, limit: Callable[[str], int], content: Mapping[str, bytes]) -> int:
    most = 0 if len(name) > LONGEST_NAME else limit(name)
    if not most:
        raise _fault(f"it holds a file that no bundle has: {quote(name)}")
    if name in content:
        raise _fault(f"it holds {quote(name)} twice")
    return most


def _fault(cause: str) -> AuditFailed:
    return AuditFailed("CO-A201", f"The bundle cannot be read: {cause}. Ask for it again.")
