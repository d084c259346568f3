"""Tables of Python in place of files: the same rows give the same bytes on the ledger, whatever brings them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc
import pytest
from support.lanes import later

import coterie
from coterie_chain.store.protocol import MemoryBlobs
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError
from coterie_learners.study.document import Study
from coterie_node.data.load import load_site
from coterie_node.data.tables.frame import FrameAddress
from coterie_node.run.simulate import simulate

SITES = ("north", "south", "west")
TEXT = """
name = "frames"
sites = ["north", "south", "west"]
patient = "pid"
formula = "died ~ age + ward + late"
learner = { name = "glore", aggregation = "plain" }
rows = { missing = "drop" }
[cohort]
where = "age >= 20 and admission >= 2020-01-01"
[derive]
late = "month(admission) > 6"
[variables]
died = { type = "binary" }
age = { type = "number", range = [0, 110] }
ward = { type = "category", levels = ["a", "b"] }
admission = { type = "date", range = [2019-01-01, 2023-12-31] }
"""
MAKERS: Mapping[str, Callable[[Path], Any]] = {
    "pandas": lambda path: pd.read_csv(path, parse_dates=["admission"]),
    "pandas with categories": lambda path: pd.read_csv(path, dtype={"ward": "category", "died": "Int8"}),
    "polars": lambda path: pl.read_csv(path, try_parse_dates=True),
    "arrow": lambda path: pc.read_csv(path),
    "duckdb": lambda path: duckdb.connect().read_csv(str(path)),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("frames")
    out = {}
    for seed, site in enumerate(SITES):
        rng, n = np.random.default_rng(seed), 240
        ages = [f"{age:.1f}" for age in rng.uniform(15, 95, n)]
        ages[5] = ""
        days = np.datetime64("2019-06-01") + rng.integers(0, 1200, n)
        columns = [[f"{site}{k}" for k in range(n)], rng.integers(0, 2, n), ages, rng.choice(["a", "b"], n), days]
        out[site] = folder / f"{site}.csv"
        lines = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
        out[site].write_text("\n".join(["pid,died,age,ward,admission", *lines]) + "\n")
    return out


def list_blobs(addresses: Mapping[str, Any]) -> dict[str, bytes]:
    """All blocks that a study of plain sums stores, over these rows: of masked ones each run has keys of its own."""
    study = complete_study(Study.from_toml(TEXT))
    data = {}
    for site, address in addresses.items():
        loaded = load_site(address, study, site)
        assert loaded is not None
        data[site] = loaded.rows
    world, *_ = simulate(study, data)
    assert isinstance(world.blobs, MemoryBlobs)
    return world.blobs.blocks


@pytest.mark.parametrize("maker", ["pandas", "polars", *later("pandas with categories", "arrow", "duckdb")])
def test_the_same_rows_give_the_same_bytes(files: dict[str, Path], maker: str) -> None:
    expected = list_blobs(files)
    assert len(expected) > 3
    frames = {site: FrameAddress(MAKERS[maker](path)) for site, path in files.items()}
    assert list_blobs(frames) == expected


def test_simulate_takes_a_frame_for_one_site_and_files_for_the_others(files: dict[str, Path]) -> None:
    study = coterie.Study.from_toml(TEXT)
    mixed = coterie.simulate(complete_study(study), {**files, "north": pd.read_csv(files["north"])})
    plain = coterie.simulate(complete_study(study), files)
    assert np.array_equal(mixed.params, plain.params)
    assert mixed.as_dict()["rows"]["north"]["flow"]["read"] == 240


def test_a_frame_that_lacks_a_column_or_has_mixed_values_is_refused(files: dict[str, Path]) -> None:
    frame = pd.read_csv(files["north"])
    study = complete_study(Study.from_toml(TEXT))
    with pytest.raises(DataError, match=r"a DataFrame of Python.*'ward'") as missing:
        load_site(FrameAddress(frame.drop(columns="ward")), study, "north")
    assert missing.value.code == "CO-D106"
    frame["ward"] = pd.Series([*["a"] * 239, 7], dtype=object)
    with pytest.raises(DataError) as mixed:
        load_site(FrameAddress(frame), study, "north")
    assert mixed.value.code == "CO-D111"


def test_two_sites_with_the_same_frame_are_refused(files: dict[str, Path]) -> None:
    table = pc.read_csv(files["north"])
    assert isinstance(table, pa.Table)
    with pytest.raises(DataError) as caught:
        coterie.simulate(complete_study(Study.from_toml(TEXT)), {**files, "north": table, "south": table})
    assert caught.value.code == "CO-D124"
