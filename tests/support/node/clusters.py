"""A small Dask cluster in this process, and parts of rows for it."""

from __future__ import annotations

import csv
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def start_cluster(processes: bool = False, security: Any = None) -> Iterator[Any]:
    """A scheduler and two workers of one thread each."""
    make: Any = distributed.LocalCluster
    with make(
        n_workers=2,
        threads_per_worker=1,
        processes=processes,
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
        security=security,
        protocol="tls://" if security else None,
        host="127.0.0.1" if security else None,
    ) as cluster:
        yield cluster
        gc.collect()  # clients end before their scheduler


def write_parts(path: Path, folder: Path, ends: Sequence[int]) -> None:
    """The rows of a CSV as Parquet parts that end at these rows and at the last one, numbers as numbers."""
    with path.open(encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    folder.mkdir()
    starts = [0, *ends]
    for number, (start, end) in enumerate(zip(starts, [*ends, len(rows)], strict=True)):
        columns = {name: _read_column([row[j] for row in rows[start:end]]) for j, name in enumerate(header)}
        pq.write_table(pa.table(columns), folder / f"part-{number:03d}.parquet")


def _read_column(texts: list[str]) -> pa.Array[Any]:
    try:
        numbers = np.array([float(text) if text else np.nan for text in texts])
    except ValueError:
        return pa.array([text or None for text in texts], pa.string())
    return pa.array(numbers, pa.float64(), from_pandas=True)


def write_mapping(folder: Path, scheduler: str, parts: Path, more: str = "") -> Path:
    """A mapping of parts whose columns have the study's names."""
    path = folder / f"{parts.name}.mapping.toml"
    path.write_text(f'[dask]\nscheduler = "{scheduler}"\nfiles = "{parts}/*.parquet"\nseconds = 60\n{more}')
    return path
