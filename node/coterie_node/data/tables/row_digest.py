"""SHA-256 of a query's rows while they are read, whatever the batches in which they come."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from coterie_node.data.arrow import pa, pc
from coterie_node.data.arrow_values import Values, read_doubles, read_mask


class RowDigest:
    """The digest of rows that a driver gives as values of Python, in batches of a fixed size."""

    def __init__(self, header: Sequence[str]) -> None:
        self._total = hashlib.sha256(json.dumps(header).encode())

    def add(self, rows: bytes) -> None:
        """Take in a batch."""
        self._total.update(rows)

    def finish(self) -> bytes:
        """The digest (32 bytes)."""
        return self._total.digest()


class ColumnDigest:
    """The digest of columns of doubles and texts, each column by itself, so that it does not matter where batches end.

    A column has a digest of its values' bytes (of texts in UTF-8), and one of what each row has: 0 for a missing value,
    1 for a number, 2 and more for the length of a text.
    """

    def __init__(self, header: Sequence[str]) -> None:
        self._header = header
        self._values = {name: hashlib.sha256() for name in header}
        self._kinds = {name: hashlib.sha256() for name in header}

    def add(self, columns: Mapping[str, Values]) -> None:
        """Take in the next rows of all columns."""
        for name in self._header:
            column = columns[name]
            missing = read_mask(pc.is_null(column))
            if pa.types.is_floating(column.type):
                numbers = np.where(missing, 0.0, read_doubles(column))
                self._values[name].update(numbers.tobytes())
                kinds = np.where(missing, 0, 1)
            else:
                text: Any = pc.fill_null(cast(Any, column), "")
                _, ends, content = text.buffers()
                places = np.frombuffer(memoryview(ends or b""), np.int32)[text.offset : text.offset + len(text) + 1]
                if len(places):
                    self._values[name].update(memoryview(content or b"")[places[0] : places[-1]])
                kinds = np.where(missing, 0, np.diff(places) + 2)
            self._kinds[name].update(kinds.astype("<i8").tobytes())

    def finish(self) -> bytes:
        """The digest (32 bytes)."""
        total = hashlib.sha256(b"coterie columns\0" + json.dumps(self._header).encode())
        for name in self._header:
            total.update(self._values[name].digest() + self._kinds[name].digest())
        return total.digest()
