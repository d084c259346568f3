"""Checked rows aside in a nameless file, so that memory holds a batch of them and their source is read once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.study.rows import Codes
from coterie_node.data.findings import Origin


class RowSpool:
    """Batches of values in a file without a name, which nobody else can open and which ends with the process.

    It lies where temporary files do (TMPDIR). DataError (CO-D177) if there is no room for it.
    """

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._batches: list[tuple[int, dict[str, tuple[np.dtype[Any], int]]]] = []
        self._end = 0
        try:
            self._file = tempfile.TemporaryFile(prefix="coterie-rows-")  # noqa: SIM115
        except OSError as error:
            raise self._explain(error) from None

    def add(self, codes: Codes) -> None:
        """Write the next batch."""
        parts = {name: np.ascontiguousarray(values) for name, values in codes.items()}
        try:
            self._file.seek(self._end)
            for values in parts.values():
                self._file.write(values.tobytes())
            self._file.flush()
        except OSError as error:
            raise self._explain(error) from None
        self._batches.append((self._end, {name: (values.dtype, len(values)) for name, values in parts.items()}))
        self._end += sum(values.nbytes for values in parts.values())

    def batches(self) -> Iterator[Codes]:
        """The same batches in doubles; several readers do not disturb each other."""
        for start, columns in self._batches:
            at, batch = start, {}
            for name, (kind, count) in columns.items():
                batch[name] = self._read(at, kind, count)
                at += kind.itemsize * count
            yield batch

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()

    def _read(self, at: int, kind: np.dtype[Any], count: int) -> NDArray[np.float64]:
        try:
            content = os.pread(self._file.fileno(), kind.itemsize * count, at)
        except OSError as error:
            raise self._explain(error) from None
        return np.frombuffer(content, kind, count).astype(np.float64)

    def _explain(self, error: OSError) -> Exception:
        message = f"Its rows do not fit in memory, nor in {tempfile.gettempdir()}: {error.strerror or error}"
        return self._origin.error("CO-D177", f"{message}. Set TMPDIR to a folder with room for them.")
