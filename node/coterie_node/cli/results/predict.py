"""`coterie predict`: a published model on rows of this machine; nothing leaves it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from coterie_node.analysis.predict import PredictedRows, open_predictor, predict_rows
from coterie_node.audit.publication import read_published_model
from coterie_node.cli.options import ModelName
from coterie_node.data.arrow import arrow_csv, pa, pq
from coterie_node.data.installed_source import parse_rows_address
from coterie_node.errors import ConfigError


def predict_command(
    result: Annotated[Path, typer.Argument(help="A result as --json prints it.")],
    data: Annotated[str, typer.Option(help="FILE (CSV or Parquet) or ADDRESS with the model's covariates.")],
    out: Annotated[Path | None, typer.Option(help="New file, .csv or .parquet; without it CSV is printed.")] = None,
    row_id: Annotated[str, typer.Option("--id", help="Column of the file that names each row in the output.")] = "",
    model: ModelName = None,
    level: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Confidence level of the limits.")] = 0.95,
    at: Annotated[
        list[float] | None, typer.Option(help="Time for which survival is predicted; may be repeated.")
    ] = None,
) -> None:
    """Predict the outcome of rows with a published model: linear predictor, response, errors and limits.

    A Cox model predicts hazard ratios; with one baseline hazard for all sites also survival at the times --at.

    The rows need the covariates alone, with the levels and ranges that the study declares. A row that lacks a value
    has empty predictions. The output has a line for each row, so that it is as private as the rows are.
    """
    predictor = open_predictor(read_published_model(result, model), str(result), level, row_id, tuple(at or ()))
    rows = predict_rows(predictor, parse_rows_address(data), "here")
    _write((_make_table(batch, row_id) for batch in rows), out)


def _write(batches: Iterator[pa.Table], out: Path | None) -> None:
    """Write the predictions as they come; a new file is private, and is removed if a later row is refused."""
    if out is None:
        _write_tables(batches, sys.stdout.buffer, arrow_csv.CSVWriter)
        return
    try:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError("CO-F205", f"{out} cannot be written: {error.strerror}. Name a new file.") from None
    with ExitStack() as unfinished:
        unfinished.callback(out.unlink)
        with os.fdopen(handle, "wb") as file:
            _write_tables(batches, file, pq.ParquetWriter if out.suffix == ".parquet" else arrow_csv.CSVWriter)
        unfinished.pop_all()


def _write_tables(batches: Iterator[pa.Table], file: IO[bytes], writer: Callable[..., Any]) -> None:
    first = next(batches)
    with writer(file, first.schema) as output:
        for table in chain([first], batches):
            output.write_table(table)


def _make_table(rows: PredictedRows, name: str) -> pa.Table:
    """Predictions as columns, null where a row lacks a value; first what names each row."""
    labels = {name: pa.array(rows.labels, pa.string())} if name else {}
    return pa.table(labels | {key: pa.array(values, from_pandas=True) for key, values in rows.columns.items()})
