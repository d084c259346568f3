"""Rows from files: the same numbers that others read, the same blocks in memory and streamed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coterie_learners.errors import DataError
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Rows, block_size, join_blocks
from coterie_node.data import load
from coterie_node.data.coding import Coded
from coterie_node.data.files import parquet_file
from coterie_node.data.load import MemoryRows, Summary, load_rows
from coterie_node.data.source import Batch
from coterie_node.data.streaming import code_columns

VARIABLES = """
[variables.dead]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
[variables.visits]
type = "count"
range = [0, 50]
[variables.sex]
type = "category"
levels = ["male", "female"]
[variables.exposure]
type = "number"
range = [-5, 5]
"""


def design(formula: str = "dead ~ age + visits + sex", rows: str = "", variables: str = VARIABLES) -> Design:
    head = f'name = "s"\nsites = ["north"]\nformula = "{formula}"\nlearner = {{name = "glore"}}\nrows = {{{rows}}}\n'
    return Design(Study.from_toml(head + variables))


def table(n: int, seed: int = 1, missing: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "note": rng.choice(["a,b", 'say "x"', "line\nbreak", "plain"], n),
            "sex": rng.choice(["male", "female"], n),
            "age": rng.uniform(0, 120, n),
            "dead": rng.integers(0, 2, n).astype(np.int8),
            "visits": rng.integers(0, 50, n),
            "exposure": rng.normal(size=n).clip(-5, 5),
        }
    )
    if missing:
        for name in ("sex", "age", "visits"):
            frame[name] = frame[name].mask(rng.random(n) < missing)
    return frame


def pool_frames(frame: pd.DataFrame, of: Design) -> np.ndarray:
    """The design in the variables' own units, from pandas' own reading."""
    levels = of.study.variables["sex"].levels
    codes = {"sex": frame["sex"].map({level: float(k) for k, level in enumerate(levels)}).to_numpy(np.float64)}
    numbers = {name: frame[name].to_numpy(np.float64) for name in ("dead", "age", "visits", "exposure")}
    return of.block(codes | numbers).x


def sums(rows: Rows) -> list[bytes]:
    """Of each block: the cross-products, to the bit."""
    return [(b.x.T @ b.x).tobytes() + (b.x.T @ b.y).tobytes() + b.y.tobytes() for b in rows.blocks()]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


PLAIN = "sex,age,dead,visits\nmale,50.5,0,1\nfemale,61,1,2\nmale,70,0,4\nfemale,49,1,3\nmale,33.25,1,0\n"


def test_csv_equals_pandas_reading(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    table(3000).to_csv(path, index=False)
    rows = load_rows(path, design(), "north")
    frame = pd.read_csv(path, converters={"age": float, "exposure": float})
    assert rows.n == len(frame) == 3000
    assert join_blocks(rows).x.tobytes() == np.ascontiguousarray(pool_frames(frame, design())).tobytes()
    assert rows.events == frame["dead"].sum()


def test_parquet_equals_pandas_reading(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table(3000).astype({"sex": "category"}).to_parquet(path)
    rows = load_rows(path, design(), "north")
    np.testing.assert_array_equal(
        join_blocks(rows).x, pool_frames(pd.read_parquet(path).astype({"sex": str}), design())
    )


@pytest.mark.parametrize(
    "raw",
    [
        PLAIN.encode(),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.rstrip().encode(),
        PLAIN.replace("\n", "\n\n").encode(),
        b"\n\n" + PLAIN.encode() + b"\n\n",
        "\n".join(",".join(f'"{f}"' for f in line.split(",")) for line in PLAIN.split()).encode(),
        "\n".join(f'{line},"a ""b"",\nc"' for line in PLAIN.split()).encode(),
        "\n".join(f'"new\nline",{line}' for line in PLAIN.split()).encode(),
        "\n".join(f"{line},5\" {k}' caf\u00e9" for k, line in enumerate(PLAIN.split())).encode(),
        PLAIN.replace("\n", ",caf\u00e9\n").replace("caf\u00e9", "note", 1).encode("latin-1"),
        PLAIN.replace("50.5", "+50.50").replace("33.25", "3325e-2").replace(",0,", ",0.0,").encode(),
    ],
    ids=[
        *("plain", "bom", "crlf", "bom-crlf", "cr", "no-final-newline", "blank-lines", "blank-ends", "quoted"),
        *("quoted-newline", "quoted-header-newline", "lone-quote", "latin1-unread", "spellings"),
    ],
)
def test_spellings_of_one_csv_give_the_same_rows(tmp_path: Path, raw: bytes) -> None:
    want = join_blocks(load_rows(write(tmp_path / "plain.csv", PLAIN), design(), "north"))
    got = join_blocks(load_rows(write(tmp_path / "other.CSV", raw), design(), "north"))
    assert got.x.tobytes() == want.x.tobytes()
    assert got.y.tolist() == [0, 1, 0, 1, 1]


def test_only_the_columns_of_the_study_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    frame = table(50)
    frame["age.years"] = "x"
    frame["when"] = pd.Timestamp("2020-01-01")
    frame.to_parquet(path)
    assert load_rows(path, design("dead ~ age"), "north").n == 50


def test_complete_cases_are_counted_per_variable(tmp_path: Path) -> None:
    frame = table(2000, missing=0.1)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_csv(tmp_path / "na.csv", index=False, na_rep="NA")
    frame.to_parquet(tmp_path / "rows.parquet")
    complete = frame.dropna()
    for name in ("rows.csv", "na.csv", "rows.parquet"):
        rows = load_rows(tmp_path / name, design(rows='missing = "drop"'), "north")
        assert rows.summary == Summary(
            "north",
            name,
            read=2000,
            used=len(complete),
            missing={"dead": 0} | {v: int(frame[v].isna().sum()) for v in ("age", "visits", "sex")},
            events=int(complete["dead"].sum()),
            streamed=False,
        )
        assert rows.dropped == rows.summary.dropped == 2000 - len(complete)
        np.testing.assert_array_equal(join_blocks(rows).x, pool_frames(complete, design()))


def test_a_count_has_no_events_and_an_offset_is_kept(tmp_path: Path) -> None:
    frame = table(100)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    rows = load_rows(tmp_path / "rows.csv", design("visits ~ age + offset(exposure)"), "north")
    assert rows.events is None
    offset = join_blocks(rows).offset
    assert offset is not None
    np.testing.assert_array_equal(offset, frame["exposure"])


def streamed(path: Path, of: Design, monkeypatch: pytest.MonkeyPatch) -> MemoryRows:
    monkeypatch.setattr(load, "IN_MEMORY", 0)
    # A batch size that divides nothing, so that blocks straddle batches.
    monkeypatch.setattr(parquet_file, "BATCH_ROWS", 1009)
    rows = load_rows(path, of, "north")
    assert rows.summary.streamed
    return rows


@pytest.mark.parametrize("formula", ["dead ~ age + visits + sex", "visits ~ age*sex + age^2 + offset(exposure)"])
@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_streaming_equals_memory_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, formula: str, missing: float
) -> None:
    frame = table(60_000, missing=missing)
    frame.to_parquet(tmp_path / "rows.parquet", row_group_size=7001)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    of = design(formula, 'missing = "drop"')
    monkeypatch.setattr("coterie_node.data.streaming.block_size", lambda p: 777)
    monkeypatch.setattr("coterie_learners.study.rows.block_size", lambda p: 777)
    loads = [load_rows(tmp_path / name, of, "north") for name in ("rows.csv", "rows.parquet")]
    second = streamed(tmp_path / "rows.parquet", of, monkeypatch)
    want = sums(loads[0])
    assert len(want) == -(-second.n // 777)
    assert sums(loads[1]) == sums(second) == sums(second) == want
    assert second.summary.missing == loads[1].summary.missing == loads[0].summary.missing


def test_two_hundred_thousand_rows_are_cut_in_cache_sized_blocks(tmp_path: Path) -> None:
    frame = table(200_000).drop(columns="note")
    pa.csv.write_csv(pa.Table.from_pandas(frame), tmp_path / "rows.csv")
    rows = load_rows(tmp_path / "rows.csv", design(), "north")
    size = block_size(4)
    assert [len(b) for b in rows.blocks()] == [size] * (200_000 // size) + [200_000 % size]
    assert all(b.x.flags.f_contiguous or b.x.strides[0] == 8 for b in rows.blocks())
    np.testing.assert_array_equal(join_blocks(rows).x, pool_frames(frame, design()))


def test_a_streamed_file_that_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    table(5000).to_parquet(path)
    rows = streamed(path, design(), monkeypatch)
    list(rows.blocks())
    os.utime(path, ns=(0, 0))
    with pytest.raises(DataError, match="changed since it was checked") as caught:
        list(rows.blocks())
    assert caught.value.code == "CO-D130"
    path.unlink()
    with pytest.raises(DataError) as caught:
        list(rows.blocks())
    assert caught.value.code == "CO-D101"


@pytest.mark.parametrize("n", [4000, 6000])
def test_a_file_replaced_under_the_same_time_and_size_is_detected_by_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    path = tmp_path / "rows.parquet"
    table(5000).to_parquet(path)
    rows = streamed(path, design(), monkeypatch)
    table(n).to_parquet(path)
    monkeypatch.setattr("coterie_node.data.streaming.check_unchanged", lambda origin, before: None)
    with pytest.raises(DataError) as caught:
        list(rows.blocks())
    assert caught.value.code == "CO-D130"


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "rows.csv", PLAIN)

    def touched(batch: Batch, of: Design) -> dict[str, Coded]:
        os.utime(path, ns=(0, 0))
        return code_columns(batch, of)

    monkeypatch.setattr(load, "code_columns", touched)
    with pytest.raises(DataError) as caught:
        load_rows(path, design(), "north")
    assert caught.value.code == "CO-D130"


def test_blocks_may_be_left_half_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    table(5000).to_parquet(path)
    rows = streamed(path, design(), monkeypatch)
    passes = rows.blocks()
    next(passes)
    passes.close()  # type: ignore[attr-defined]
    assert sum(len(b) for b in rows.blocks()) == rows.n


def test_allowed_constants_and_collinear_columns_pass(tmp_path: Path) -> None:
    frame = table(40)
    frame["sex"] = "male"
    frame["dead"] = 1
    frame["visits"] = 3
    frame.to_csv(tmp_path / "rows.csv", index=False)
    rows = load_rows(tmp_path / "rows.csv", design(rows='constant = "allow"'), "north")
    assert rows.n == rows.events == 40
    frame["exposure"] = frame["age"] / 120
    frame.to_csv(tmp_path / "rows.csv", index=False)
    of = design("visits ~ age + exposure", 'constant = "allow", collinear = "allow"')
    assert load_rows(tmp_path / "rows.csv", of, "north").n == 40


def test_a_constant_offset_and_a_level_without_rows_are_no_fault(tmp_path: Path) -> None:
    frame = table(40)
    frame["exposure"] = 1.0
    frame["smoker"] = np.where(np.arange(40) % 2 == 0, "never", "former")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    text = VARIABLES + '[variables.smoker]\ntype = "category"\nlevels = ["never", "former", "current"]\n'
    of = design("visits ~ smoker*age + offset(exposure)", variables=text)
    assert load_rows(tmp_path / "rows.csv", of, "north").n == 40


def test_parquet_that_pyarrow_wrote_with_small_types_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    columns = {
        "dead": pa.array([True, False, True, False, True]),
        "age": pa.array([1, 2, 3, 5, 4], pa.uint8()),
        "visits": pa.array([1.0, 2.0, 3.0, 9.0, 5.0], pa.float32()),
        "sex": pa.array(["male", "female", "male", "male", "female"], pa.large_string()),
    }
    pq.write_table(pa.table(columns), path)
    block = join_blocks(load_rows(path, design(), "north"))
    assert block.y.tolist() == [1, 0, 1, 0, 1]
    assert block.x[:, 1].tolist() == [1, 2, 3, 5, 4]
    assert block.x[:, 3].tolist() == [0, 1, 0, 0, 1]
