"""OMOP definitions: the rows that pandas computes from the same tables, from DuckDB and from PostgreSQL alike."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from pydantic import ValidationError
from support.lanes import later
from support.node.mariadb import find_mariadb, start_mariadb
from support.node.omop_twin import Twin
from support.node.postgres import find_programs, start_postgres

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.data.commitment import make_snapshot
from coterie_node.data.load import load_site
from coterie_node.data.mapping.document import OmopSource, read_mapping
from coterie_node.data.mapping.words import describe_mapping
from coterie_node.data.omop.omop_table import DIALECTS, open_omop, write_query

EXAMPLE = Path(__file__).parents[3] / "examples" / "omop"
MAKE = runpy.run_path(str(EXAMPLE / "make.py"))
TABLES = MAKE["make_tables"](200)
TEXT = (
    (EXAMPLE / "study.toml")
    .read_text()
    .replace('"north", "south", "west"', '"north"')
    .replace("minimum = 20", "minimum = 1")
)
STUDY = complete_study(
    Study.from_toml(
        TEXT.replace('{ name = "glore" }', '{ name = "glore", aggregation = "plain", opening = "none" }').replace(
            'formula = "event ~ age + sex + diabetes"',
            'disclosure = { rows = 1, cell = 0 }\nformula = "event ~ age + charlson"',
        )
    )
)
CONCEPTS = {
    "stroke": {9_000_001, 9_000_002},
    "diabetes": {9_000_010},
    "mi": {9_000_020},
    "tumour": {9_000_030},
    "metastasis": {9_000_031},
    "statin": {9_000_040, 9_000_041},
    "lysis": {9_000_050},
    "creatinine": {9_000_060},
}


@pytest.fixture(scope="module")
def twin() -> Twin:
    frames = {}
    for name, columns in MAKE["COLUMNS"].items():
        frame = pd.DataFrame(
            TABLES.rows[name], columns=[column.split()[0] for column in columns.split(", ") if not column.endswith(")")]
        )
        for column in frame.columns:
            if column.endswith("_date"):
                frame[column] = pd.to_datetime(frame[column])
        frames[name] = frame
    return Twin(frames, CONCEPTS)


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The addresses of the same tables in both databases."""
    programs = find_programs()
    if programs is None:
        pytest.skip("cannot run here: Debian's postgresql is not installed")
    path = tmp_path_factory.mktemp("omop") / "hospital.duckdb"
    script = MAKE["write_script"](TABLES, "cdm")
    with duckdb.connect(str(path)) as base:
        base.execute(script)
    with start_postgres(programs) as server:
        server.run(script)
        yield {"duckdb": f"duckdb:///{path}", "postgresql": server.address}


pytestmark = pytest.mark.usefixtures("password")


def define(address: str, **changes: Any) -> OmopSource:
    """The example's definition on another database."""
    source = read_mapping(EXAMPLE / "north.mapping.toml", "north").omop
    assert source is not None
    variable = "HOSPITAL_PASSWORD" if address.startswith(("postgresql", "mariadb")) else ""
    plain = source.model_dump() | {"database": address, "password_variable": variable}
    return OmopSource.model_validate(plain | changes)


def read(source: OmopSource) -> pd.DataFrame:
    table = open_omop(source, Path(), "north")
    parts = [
        pd.DataFrame({name: values.to_pylist() for name, values in batch.items()})
        for batch in table.batches(table.header)
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize(
    ("first", "washout", "at_risk"),
    [
        (True, 180, (1, 365)),
        pytest.param(False, 30, (0, 90), marks=pytest.mark.long),
        pytest.param(False, 0, (30, 1000), marks=pytest.mark.long),
    ],
)
def test_rows_are_those_that_pandas_computes(
    databases: dict[str, str], twin: Twin, first: bool, washout: int, at_risk: tuple[int, int]
) -> None:
    source = define(databases["duckdb"])
    entry = source.entry.model_copy(update={"first": first, "washout": washout})
    assert source.outcome is not None
    outcome = source.outcome.model_copy(update={"days": at_risk})
    changes = {"entry": entry.model_dump(), "outcome": outcome.model_dump()}
    expected = twin.compute(first, washout, "2015-06-01", "2020-12-31", at_risk)
    assert len(expected) > 30
    assert 0 < expected.event.sum() < len(expected)
    assert expected.charlson.nunique() > 5
    for address in databases.values():
        rows = read(define(address, **changes))
        for name in expected.columns:
            ours = rows[name] if name in ("sex", "age_group") else pd.to_numeric(rows[name])
            pd.testing.assert_series_equal(ours, expected[name], check_dtype=False, check_exact=True)


@pytest.mark.parametrize("kind", ["duckdb", *later("postgresql")])
def test_a_cohort_table_gives_the_index_dates(databases: dict[str, str], kind: str) -> None:
    entry = {"cohort": 7, "washout": 0}
    rows = read(define(databases[kind], results="cdm", entry=entry, covariates={}, outcome=None))
    expected = sorted((row[1], row[2].isoformat()) for row in TABLES.rows["cohort"])
    assert [(int(a), b) for a, b in zip(rows.person_id, rows.index_date, strict=True)] == expected


@pytest.mark.long
def test_mariadb_gives_the_same_rows(databases: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    program = find_mariadb()
    if program is None:
        pytest.skip("cannot run here: Debian's mariadb-server is not installed")
    with start_mariadb(program) as server:
        server.run(MAKE["write_script"](TABLES, "cdm"))
        theirs = read(define(server.address.replace("/hospital", "/cdm")))
    ours = read(define(databases["duckdb"]))
    assert len(theirs) == len(ours) > 30
    for name in ours.columns:
        numbers = name not in ("sex", "age_group", "index_date")
        left, right = (pd.to_numeric(rows[name]) if numbers else rows[name] for rows in (theirs, ours))
        pd.testing.assert_series_equal(left, right, check_dtype=False, check_exact=True)


def test_an_omop_source_gives_what_the_csv_of_its_rows_gives(databases: dict[str, str], tmp_path: Path) -> None:
    text = (EXAMPLE / "north.mapping.toml").read_text()
    paths = []
    for kind, address in databases.items():
        paths.append(tmp_path / f"{kind}.toml")
        variable = 'password_variable = "HOSPITAL_PASSWORD"' if kind == "postgresql" else ""
        access = f'database = "{address}"\n{variable}'
        paths[-1].write_text(text.replace('database = "duckdb:///north.duckdb"', access))
    frame = read(define(databases["duckdb"]))
    whole = {"age": int, "diabetes": int, "charlson": int, "event": int}
    frame.astype(whole).to_csv(tmp_path / "plain.csv", index=False)
    fits = [analyse(STUDY, {"north": path}) for path in (*paths, tmp_path / "plain.csv")]
    assert len({fit.fit.estimates.tobytes() for fit in fits}) == 1
    assert len({str(fit.as_dict()["ledger"]["payload_bytes"]) for fit in fits}) == 1
    loaded = [load_site(path, STUDY, "north") for path in (*paths, tmp_path / "plain.csv")]
    snapshots = [make_snapshot(site, b"s" * 32) for site in loaded if site is not None]
    assert len(snapshots) == 3
    assert len({snapshot.root for snapshot in snapshots}) == 1
    assert set(snapshots[0].provenance) == {"mapping", "query", "server", "omop"}
    assert snapshots[0].provenance["omop"] == snapshots[1].provenance["omop"]


@pytest.mark.parametrize("kind", DIALECTS)
def test_a_definition_compiles_for_every_dialect_with_its_names_quoted_and_values_written(kind: str) -> None:
    query = write_query(define("duckdb:///x", cdm="Select"), kind)
    quoted = {"mariadb": "`Select`", "mssql": "[Select]"}.get(kind, '"Select"')
    assert f"FROM {quoted}.condition_occurrence" in query
    assert query.rstrip().endswith("ORDER BY members.person_id")
    assert "9000001" in query
    assert not any(mark in query for mark in (":param", "%(", "?", "[POSTCOMPILE"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cdm": "cdm; DROP TABLE person"}, "cdm"),
        ({"concepts": {"stroke": {"include": ["1) OR (1=1"]}}}, "include"),
        ({"concepts": {"stroke": {"include": []}}}, "include"),
        ({"concepts": {"a b": {"include": [1]}}}, "concepts"),
        ({"entry": {"concepts": "nothing"}}, "no concept set nothing"),
        ({"entry": {"concepts": "stroke", "cohort": 3}}, "one of them"),
        ({"covariates": {"x": {"kind": "sex", "levels": {8507: "m' OR '1"}}}}, "levels"),
        ({"covariates": {"x": {"kind": "drug", "concepts": "stroke", "days": [-10, 5]}}}, "after the index date"),
        ({"covariates": {"x": {"kind": "charlson", "groups": {"flu": "stroke"}}}}, "groups"),
        ({"covariates": {"event": {"kind": "age"}}}, "same name"),
        ({"outcome": {"kind": "death", "days": [10, 5]}}, "days"),
        ({"outcome": {"kind": "death", "concepts": "stroke"}}, "concepts"),
    ],
)
def test_a_definition_that_is_none_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        define("duckdb:///x", **changes)


def test_a_database_that_is_no_cdm_is_named_with_the_table(tmp_path: Path) -> None:
    duckdb.connect(str(tmp_path / "empty.duckdb")).close()
    with pytest.raises(DataError, match="condition_occurrence") as caught:
        open_omop(define(f"duckdb:///{tmp_path}/empty.duckdb"), tmp_path, "north")
    assert caught.value.code == "CO-D175"
    with pytest.raises(DataError, match="mongodb") as caught:
        open_omop(define("mongodb://x"), tmp_path, "north")
    assert caught.value.code == "CO-D174"


def test_people_read_which_cohort_a_definition_takes() -> None:
    mapping = read_mapping(EXAMPLE / "north.mapping.toml", "north")
    head = describe_mapping(mapping, ["age"])[0]
    assert "the first 'stroke'" in head
    assert define("duckdb:///x").digest[:16] in head
