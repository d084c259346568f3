"""A study on files of this machine, to be run and kept as a demo is."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_node.data.coding import as_text
from coterie_node.data.installed_source import RowsAddress, SourceAddress
from coterie_node.data.load import open_file_rows
from coterie_node.data.mapping.words import is_mapping
from coterie_node.demo.cases.case import RunFiles
from coterie_node.errors import ConfigError
from coterie_node.run.study_files import load_study
from coterie_node.site.run_folder import CSV, PARQUET


def keep_files(study: Path, rows: Mapping[str, RowsAddress]) -> RunFiles:
    """The study of a TOML file on one file of rows a site; ConfigError (CO-F208) for what a folder cannot keep."""
    if study.suffix == ".json":
        raise ConfigError("CO-F208", f"{study} is JSON, and a run keeps its study as TOML. Name the TOML file.")
    files: dict[str, Path] = {}
    for site, address in rows.items():
        if isinstance(address, SourceAddress):
            message = f"The rows of {site} come from {address.name}, and a run keeps a copy of each site's file"
            raise ConfigError("CO-F208", f"{message}. Export them to CSV or Parquet.")
        files[site] = address
    text = study.read_text(encoding="utf-8")
    return RunFiles(lambda _: text, partial(_copy_files, load_study(study), files))


def _copy_files(study: Study, files: Mapping[str, Path], folder: Path, sites: Sequence[str]) -> Mapping[str, Path]:
    return {
        name: _write_converted(study, files[name], folder, name)
        if is_mapping(files[name])
        else _copy_private(files[name], folder / name)
        for name in sites
        if name in files
    }


def _write_converted(study: Study, mapping: Path, folder: Path, site: str) -> Path:
    """A copy of the rows that a mapping names, in the study's words, that only its owner may read."""
    target = folder / site / CSV
    source, _ = open_file_rows(mapping, Design(study, site), site)
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as copy:
        writer = csv.writer(copy, lineterminator="\n")
        for number, batch in enumerate(source.batches()):
            if not number:
                writer.writerow(batch)
            writer.writerows(zip(*map(as_text, batch.values()), strict=True))
    return target


def _copy_private(source: Path, folder: Path) -> Path:
    """A copy of a site's rows that only its owner may read."""
    target = folder / (PARQUET if source.suffix == ".parquet" else CSV)
    with source.open("rb") as rows:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as copy:
            shutil.copyfileobj(rows, copy)
    return target
