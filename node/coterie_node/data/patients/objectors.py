"""Patients who object: their rows are taken out of a site's file before anything else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coterie_learners.errors import StudyError
from coterie_learners.study.design import Design
from coterie_node.data.coding import as_text
from coterie_node.data.findings import FileOrigin, Origin
from coterie_node.data.source import Batch, RowSource

_MAX_BYTES = 256 << 20


def read_objectors(path: Path | None, design: Design, site: str) -> frozenset[str]:
    """The identifiers in a file with one on each line, a header being the identifying column's name; none without it.

    StudyError if the study does not say which column identifies patients, so that nobody could be left out.
    """
    if path is None:
        return frozenset()
    if len(design.identifier) != 1:
        message = (
            f"{site} leaves out patients who object, and the study {design.study.name!r} names no column of identifiers"
        )
        raise StudyError("CO-S505", f'{message}. Add patient = "..." to the study, or decline it.')
    origin = FileOrigin.of(site, path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise origin.error("CO-D102", f"It is larger than {_MAX_BYTES} bytes.")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise origin.error("CO-D102", f"{path} cannot be read: {error}. Check that this account may read it.") from None
    names = (line.strip().strip('"') for line in lines)
    return frozenset(name for name in names if name and name != design.identifier[0])


class WithoutObjectors:
    """A file without the rows of some patients; `excluded` counts those left out in the latest pass."""

    def __init__(self, source: RowSource, column: str, objectors: frozenset[str]) -> None:
        self._source = source
        self._column = column
        self._objectors = objectors
        self._places: list[NDArray[np.intp]] = []
        self.excluded = 0

    @property
    def origin(self) -> Origin:
        """Whose file it is."""
        return self._source.origin

    @property
    def rows(self) -> int | None:
        """At most so many rows, if the file declares it."""
        return self._source.rows

    def stamp(self) -> str:
        """When the file was written, as it is now."""
        return self._source.stamp()

    def digest(self) -> bytes:
        """SHA-256 of the whole file."""
        return self._source.digest()

    def batches(self) -> Iterator[Batch]:
        """The other patients' rows, batch by batch."""
        self._places, self.excluded, at = [], 0, 0
        for batch in self._source.batches():
            names = [text.strip() for text in as_text(batch[self._column])]
            keep = np.array([name not in self._objectors for name in names], dtype=bool)
            self._places.append(at + np.flatnonzero(keep))
            at += len(keep)
            self.excluded += int(np.count_nonzero(~keep))
            yield {name: values.filter(keep) for name, values in batch.items()} if not keep.all() else batch

    def places(self, rows: Sequence[int]) -> list[str]:
        """What to call these rows so that a person finds them."""
        place = np.concatenate(self._places)
        return self._source.places([int(place[row]) for row in rows])
