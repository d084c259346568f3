"""A site's own columns, codes and units in the study's words: the same rows as a file that has them already."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.data.commitment import make_snapshot
from coterie_node.data.load import load_site, open_source
from coterie_node.data.mapping.document import SiteMapping, read_mapping
from coterie_node.data.mapping.words import describe_rows
from coterie_node.demo.kept_files import keep_files

STUDY = """
name = "mapped"
sites = ["north"]
formula = "death ~ age + sex"
patient = "pid"
rows = { missing = "drop", minimum = 1, constant = "allow", collinear = "allow" }
disclosure = { rows = 1, cell = 0 }
learner = { name = "glore", aggregation = "plain", opening = "none" }
[variables.death]
type = "binary"
[variables.age]
type = "number"
unit = "years"
range = [0, 120]
[variables.sex]
type = "category"
levels = ["female", "male"]
"""
RAW = """Bericht vom 1. Mai\r
PatNr;Alter (Monate);Größe;Geschlecht;Verstorben;Geburt;Aufnahme\r
 a1 ;780;1,5;M;JA;01.02.1950;03.02.2020\r
a2;-99;2,0;w;nein;31.12.1949;04.02.2020\r
a3;600;k.A.;W;Ja;1.3.1960;2.3.2020 10:15\r
"""
MAPPING = """
file = "north.csv"
[table]
separator = ";"
decimal = ","
encoding = "cp1252"
skip = 1
missing = ["k.A."]
[columns.pid]
from = "PatNr"
[columns.age]
from = "Alter (Monate)"
unit = "months"
divisor = 12
missing = ["-99"]
[columns.sex]
from = "Geschlecht"
ignore_case = true
levels = { m = "male", w = "female" }
[columns.death]
from = "Verstorben"
yes = ["ja"]
no = ["nein"]
"""


def write_site(folder: Path, mapping: str = MAPPING, raw: str = RAW, encoding: str = "cp1252") -> Path:
    (folder / "north.csv").write_bytes(raw.encode(encoding))
    path = folder / "north.mapping.toml"
    path.write_text(mapping, encoding="utf-8")
    return path


def read(path: Path, study: str = STUDY) -> dict[str, list[object]]:
    source, _ = open_source(path, Design(Study.from_toml(study)), "north")
    (batch,) = source.batches()
    return {name: values.to_pylist() for name, values in batch.items()}


def declare(name: str, kind: str) -> str:
    """The study with one number instead of age."""
    return STUDY.replace("age", name).replace('unit = "years"\nrange = [0, 120]', kind)


def test_columns_are_renamed_recoded_and_converted_and_codes_for_missing_are_missing(tmp_path: Path) -> None:
    rows = read(write_site(tmp_path))
    assert rows["pid"] == ["a1", "a2", "a3"]
    assert rows["age"] == [65.0, None, 50.0]
    assert rows["sex"] == ["male", "female", "female"]
    assert rows["death"] == ["1", "0", "1"]


def test_decimal_commas_and_the_words_of_the_table_are_read(tmp_path: Path) -> None:
    mapping = MAPPING.replace("[columns.age]", '[columns.size]\nfrom = "Größe"\nfactor = 100\n[columns.age]')
    assert read(write_site(tmp_path, mapping), STUDY.replace("age", "size"))["size"] == [150.0, 200.0, None]


def test_days_are_counted_since_a_date_or_since_another_column(tmp_path: Path) -> None:
    study = STUDY.replace("age", "days").replace("[0, 120]", "[0, 40000]")
    since_birth = '[columns.days]\nfrom = "Aufnahme"\ndate = "DD.MM.YYYY"\nsince = "Geburt"\n'
    path = write_site(tmp_path, MAPPING + since_birth)
    expected = [(pd.Timestamp(2020, 2, 3) - pd.Timestamp(1950, 2, 1)).days]
    expected += [(pd.Timestamp(2020, 2, 4) - pd.Timestamp(1949, 12, 31)).days]
    expected += [(pd.Timestamp(2020, 3, 2) - pd.Timestamp(1960, 3, 1)).days]
    assert read(path, study)["days"] == expected
    path.write_text(MAPPING + since_birth.replace("Geburt", "2020-01-01"), encoding="utf-8")
    assert read(path, study)["days"] == [33.0, 34.0, 61.0]


def test_an_identifying_date_is_written_as_year_month_day(tmp_path: Path) -> None:
    mapping = MAPPING.replace('from = "PatNr"', 'from = "Geburt"\ndate = "DD.MM.YYYY"')
    assert read(write_site(tmp_path, mapping))["pid"] == ["1950-02-01", "1949-12-31", "1960-03-01"]


@pytest.mark.parametrize(
    ("header", "encoding"), [("", "utf-8"), ("", "utf-16"), ('header = ["a", "b", "c"]\n', "cp850")]
)
def test_a_file_in_any_declared_encoding_with_or_without_a_header_is_read(
    tmp_path: Path, header: str, encoding: str
) -> None:
    raw = "" if header else "a\tb\tc\n"
    raw += "männlich\t1.234,5\tj\nweiblich\t2,25\tn\n"
    table = f'file = "north.csv"\n[table]\nseparator = "\\t"\ndecimal = ","\nthousands = "."\nencoding = "{encoding}"\n'
    columns = """[columns]
age = { from = "b", divisor = 50 }
sex = { from = "a", levels = { "männlich" = "male", weiblich = "female" } }
death = { from = "c", yes = ["J"], no = ["N"] }
pid = { from = "b" }
"""
    rows = read(write_site(tmp_path, table + header + columns, raw, encoding))
    assert rows["age"] == [1234.5 / 50, 2.25 / 50]
    assert rows["sex"] == ["male", "female"]
    assert rows["death"] == ["1", "0"]


def test_a_mapped_file_gives_the_fit_and_the_rows_of_a_file_in_the_studys_words(tmp_path: Path) -> None:
    lines = [f"p{k};{480 + 7 * k};1,5;{'mw'[k % 2]};{'ja' if k * k % 7 < 3 else 'nein'};;" for k in range(60)]
    path = write_site(tmp_path, raw="\r\n".join([*RAW.split("\r\n")[:2], *lines]))
    rows = [(f"p{k}", (480 + 7 * k) / 12, ("male", "female")[k % 2], int(k * k % 7 < 3)) for k in range(60)]
    pd.DataFrame(rows, columns=["pid", "age", "sex", "death"]).to_csv(tmp_path / "plain.csv", index=False)
    study = complete_study(Study.from_toml(STUDY))
    ours, plain = (analyse(study, {"north": where}) for where in (path, tmp_path / "plain.csv"))
    assert ours.fit.estimates.tolist() == plain.fit.estimates.tolist()
    left, right = (load_site(where, study, "north") for where in (path, tmp_path / "plain.csv"))
    assert left is not None
    assert right is not None
    assert make_snapshot(left, b"s" * 32).root == make_snapshot(right, b"s" * 32).root


def test_the_mapping_stands_in_the_snapshot_and_a_later_one_is_seen(tmp_path: Path) -> None:
    study = complete_study(Study.from_toml(STUDY))
    path = write_site(tmp_path)
    loaded = load_site(path, study, "north")
    assert loaded is not None
    first = make_snapshot(loaded, b"s" * 32)
    assert first.provenance == {"mapping": read_mapping(path, "north").digest}
    assert "provenance" in json.loads(first.document)
    path.write_text(MAPPING.replace("divisor = 12", "divisor = 12.0001"), encoding="utf-8")
    later = load_site(path, study, "north")
    assert later is not None
    assert make_snapshot(later, b"s" * 32).source != first.source
    assert loaded.source.stamp() != loaded.before


def test_where_the_file_lies_is_no_part_of_the_mappings_digest() -> None:
    one, other = (SiteMapping.model_validate({"file": name, "columns": {"a": {"from": "A"}}}) for name in "ab")
    assert one.digest == other.digest
    assert one.digest != SiteMapping.model_validate({"file": "a", "columns": {"a": {"from": "B"}}}).digest


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("divisor = 12", "divisor = 0", "CO-D170", "other than 0"),
        ("divisor = 12", "divisor = inf", "CO-D170", "divisor"),
        ("divisor = 12", 'yes = ["1"]', "CO-D170", "yes and no"),
        ("divisor = 12", 'levels = {a = "b"}\noffset = 2', "CO-D170", "one of them"),
        ("divisor = 12", 'since = "2020-01-01"', "CO-D170", "since"),
        ("divisor = 12", 'date = "D.M.Y"', "CO-D170", "DD, MM and YYYY"),
        ("divisor = 12", "python = 1", "CO-D170", "python"),
        ('file = "north.csv"', "", "CO-D170", "[sql]"),
        ('file = "north.csv"', "file = [", "CO-D170", "TOML"),
        ('file = "north.csv"', 'file = "south.csv"', "CO-D101", "south.csv"),
        ('file = "north.csv"', 'file = "north.docx"', "CO-D101", "north.docx"),
        ('encoding = "cp1252"', 'encoding = "utf-8"', "CO-D109", "UTF-8"),
        ('encoding = "cp1252"', 'encoding = "utf-16"', "CO-D109", "utf-16"),
        ('separator = ";"', 'separator = ","', "CO-D107", "semicolons"),
        ('separator = ";"', 'separator = "x"', "CO-D170", "separator"),
        ('from = "Geschlecht"', 'from = "geschlecht"', "CO-D106", "Geschlecht"),
        ('w = "female"', 'f = "female"', "CO-D116", "line 4 'w'"),
        ('yes = ["ja"]', 'yes = ["jawohl"]', "CO-D115", "'JA'"),
        ('missing = ["-99"]', "", "CO-D113", "line 4 -8.25"),
        ('from = "Alter (Monate)"', 'from = "Geburt"', "CO-D112", "01.02.1950"),
    ],
)
def test_a_mapping_that_does_not_fit_says_what_and_where(
    tmp_path: Path, old: str, new: str, code: str, words: str
) -> None:
    assert old in MAPPING
    path = write_site(tmp_path, MAPPING.replace(old, new))
    with pytest.raises(DataError) as caught:
        load_site(path, complete_study(Study.from_toml(STUDY)), "north")
    assert caught.value.code == code, caught.value.message
    assert words in caught.value.message


def test_a_point_is_not_taken_for_a_decimal_one_where_the_file_has_decimal_commas(tmp_path: Path) -> None:
    path = write_site(tmp_path, raw=RAW.replace(";780;", ";1.234;"))
    with pytest.raises(DataError, match=r"1\.234"):
        load_site(path, complete_study(Study.from_toml(STUDY)), "north")


def test_a_mapping_is_shown_in_words(tmp_path: Path) -> None:
    lines = describe_rows(write_site(tmp_path), Design(Study.from_toml(STUDY)), "north")
    assert lines[0].startswith("The rows come from 'north.csv' (separator ';', decimal comma, cp1252, 'k.A.' counts")
    assert "  age: column 'Alter (Monate)' in months; the value divided by 12; '-99' counts as missing" in lines
    assert "  sex: column 'Geschlecht'; 'm' is 'male', 'w' is 'female'" in lines


def test_a_run_that_is_kept_has_the_rows_in_the_studys_words(tmp_path: Path) -> None:
    path = write_site(tmp_path)
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "kept" / "north").mkdir(parents=True)
    files = keep_files(tmp_path / "study.toml", {"north": path})
    kept = files.write_sites(tmp_path / "kept", ["north"])["north"]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.read_text().splitlines() == [
        "death,age,sex,pid",
        "1,65,male,a1",
        "0,,female,a2",
        "1,50,female,a3",
    ]
