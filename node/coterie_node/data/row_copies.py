"""Checked copies of a site's rows, typed, so that a file is read as text once and not again at each step.

A copy belongs to one study. Its key is made of everything that the checks depend on: the bytes of the file and its
kind, the study, the site, the patients who object, and the version of the program. It is used only if its key and
the SHA-256 of its content fit, if nobody but the owner can reach it, and if its values pass the study's declarations
once more. In every other case it is removed, and the file is read and checked from the start. A copy is never needed:
who cannot write one goes on without.

    <study's hash>.rows    _MAGIC, key (32 bytes), SHA-256 of the rest (32 bytes), an Arrow stream of one record batch
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_chain.keys.private_files import OTHERS
from coterie_learners.study.design import Design
from coterie_learners.study.document import Variable
from coterie_node.data.arrow import find_arrow_version, pa
from coterie_node.data.coding import Coded, faults
from coterie_node.data.patients.site_rows import raw_of_codes
from coterie_node.data.streaming import width
from coterie_node.privacy.prints import RawRows

_MAGIC = b"coterie rows 2\0\0"
HEADER_BYTES = len(_MAGIC) + 64
# The program that reads and checks: a copy of another one does not count.
PROGRAM = (_MAGIC.hex(), version("coterie"), find_arrow_version(), np.__version__)
# Bytes of one copy, of all copies of a site, and of the disk that no copy takes from the journal and the results.
LARGEST, LARGEST_FOLDER, SPARE = 1 << 30, 4 << 30, 1 << 30
VALUE, IDENTIFIER, COUNTS = "value:", "identifier:", b"counts"


@dataclass(frozen=True)
class Contents:
    """What the first pass over a file leaves: the rows that it counted, the events, and the rows that can be used.

    `incomplete`: the identifying values of the rows that lack a value.
    """

    read: int
    events: int | None
    raw: RawRows
    incomplete: tuple[tuple[str, ...], ...] = ()


def make_key(design: Design, site: str, suffix: str, source: bytes, objectors: frozenset[str]) -> bytes:
    """The key (32 bytes) of a copy; `source` is the SHA-256 of the file, `suffix` the ending by which it is read."""
    parts = [*PROGRAM, design.study.hash.hex(), site, suffix, source.hex(), *sorted(objectors)]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


@dataclass(frozen=True)
class RowCopies:
    """The copies of one site, in a folder of mode 0700; `spare` bytes of the disk stay free."""

    root: Path
    spare: int = SPARE

    def path(self, study: bytes) -> Path:
        """The file of the copy for a study."""
        return self.root / f"{study.hex()}.rows"

    def find(self, design: Design, key: bytes) -> Contents | None:
        """The copy for a study, if there is one that passes every check; one that does not is removed."""
        path = self.path(design.study.hash)
        try:
            contents = _read(path, design, key)
        except (OSError, ValueError, LookupError, TypeError, pa.ArrowException):
            contents = None
        if contents is None:
            self.drop(design.study.hash)
        return contents

    def save(self, design: Design, key: bytes, contents: Contents) -> None:
        """Write the copy for a study in the place of an older one, if there is room for it."""
        path = self.path(design.study.hash)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            batch = _to_batch(design, contents)
            if not self._make_room(design.study.hash, batch.nbytes):
                return
            _write(aside, key, batch)
            aside.replace(path)
        except (OSError, pa.ArrowException):
            with suppress(OSError):
                aside.unlink()

    def drop(self, study: bytes) -> None:
        """Remove the copy for a study, if there is one, and what a process that was killed left of one."""
        with suppress(OSError):
            # No pattern: Python keeps each that it has seen for a long time.
            for path in [path for path in self.root.iterdir() if f"{study.hex()}.rows" in path.name]:
                path.unlink()

    def _make_room(self, study: bytes, size: int) -> bool:
        """Remove the oldest copies that would be too many with this one; False if there is no room for it."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.drop(study)
        if size > LARGEST or shutil.disk_usage(self.root).free < size + self.spare:
            return False
        copies = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in self.root.iterdir())
        total = size + sum(bytes_used for _, bytes_used, _ in copies)
        for _, bytes_used, path in copies:
            if total <= LARGEST_FOLDER:
                break
            path.unlink()
            total -= bytes_used
        return True


class _HashingFile(io.RawIOBase):
    """A file to write to that knows the SHA-256 of what went into it."""

    def __init__(self, handle: int) -> None:
        self._file = os.fdopen(handle, "wb")
        self._digest = hashlib.sha256()
        self._file.write(bytes(HEADER_BYTES))

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def finish(self, key: bytes) -> None:
        """Put the header in front."""
        self._file.seek(0)
        self._file.write(_MAGIC + key + self._digest.digest())

    def close(self) -> None:
        self._file.close()
        super().close()


def _write(path: Path, key: bytes, batch: pa.RecordBatch) -> None:
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with _HashingFile(handle) as file:
        with pa.ipc.new_stream(file, batch.schema) as stream:
            stream.write_batch(batch)
        file.finish(key)


def _read(path: Path, design: Design, key: bytes) -> Contents | None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        private = status.st_uid == os.getuid() and not status.st_mode & OTHERS
        if not private or not HEADER_BYTES < status.st_size <= LARGEST + (LARGEST >> 2):
            return None
        header = file.read(HEADER_BYTES)
        if not header.startswith(_MAGIC + key):
            return None
        # Read and not mapped: what is hashed here is what is used, whatever becomes of the file.
        content = file.read(LARGEST + (LARGEST >> 2))
    if hashlib.sha256(content).digest() != header[-32:]:
        return None
    with pa.ipc.open_stream(pa.py_buffer(content)) as stream:
        contents = _from_batch(design, stream.read_next_batch())
    return contents if _passes(design, contents) else None


def _to_batch(design: Design, contents: Contents) -> pa.RecordBatch:
    arrays: dict[str, pa.Array[Any]] = {VALUE + name: pa.array(v) for name, v in contents.raw.values.items()}
    for name, texts in zip(design.identifier, _list_identifiers(contents.raw), strict=False):
        arrays[IDENTIFIER + name] = pa.array(texts, pa.large_string())
    counts = {
        "read": contents.read,
        "events": contents.events,
        "missing": dict(contents.raw.lacking),
        "incomplete": contents.incomplete,
    }
    batch = pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))
    return batch.replace_schema_metadata({COUNTS: json.dumps(counts).encode()})


def _list_identifiers(raw: RawRows) -> Iterator[Sequence[str]]:
    """The identifiers column by column; none where rows are taken for patients."""
    if raw.identifiers is not None:
        yield from zip(*raw.identifiers, strict=True)


def _from_batch(design: Design, batch: pa.RecordBatch) -> Contents:
    counts = json.loads((batch.schema.metadata or {})[COUNTS])
    values = {name: batch.column(VALUE + name).to_numpy() for name in design.read}
    columns = [batch.column(IDENTIFIER + name).to_pylist() for name in design.identifier]
    identifiers = list(zip(*columns, strict=True)) if columns else None
    raw = raw_of_codes(design.study, [values], identifiers, counts["missing"])
    return Contents(counts["read"], counts["events"], raw, tuple(tuple(row) for row in counts["incomplete"]))


def _passes(design: Design, contents: Contents) -> bool:
    """Whether a copy's values are as the study declares them, and enough of them."""
    variables = design.study.variables
    fits = all(_is_valid(values, variables[name]) for name, values in contents.raw.values.items())
    return fits and max(design.study.rows.minimum, 1) <= contents.raw.n <= contents.read


def _is_valid(values: NDArray[Any], variable: Variable) -> bool:
    if values.dtype not in (width(variable), np.dtype(np.float64)) or not np.all(np.isfinite(values)):
        return False
    if variable.type == "category":
        return bool(np.all((values >= 0) & (values < len(variable.levels)) & (values == np.floor(values))))
    coded = Coded(values, np.zeros(len(values), dtype=np.bool_))
    return not any(mask.any() for _, mask in faults(coded, variable))
