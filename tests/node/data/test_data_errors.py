"""Every fault of a file is said with its code, site, file, place, column, value and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coterie_learners.errors import DataError
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_node.data.arrow_values import Values
from coterie_node.data.files import csv_file
from coterie_node.data.load import load_rows

VARIABLES = """
[variables.dead]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
unit = "years"
[variables.visits]
type = "count"
range = [0, 50]
[variables.sex]
type = "category"
levels = ["male", "female"]
[variables.dose]
type = "number"
range = [0, 240]
"""
HEADER = "sex,age,dead,visits,dose\n"
GOOD = [
    "male,50.5,0,1,9",
    "female,61,1,2,7",
    "male,70,0,4,8.5",
    "female,49,1,3,1",
    "male,33.25,1,0,3",
    "female,20,0,6,2",
]


def design(formula: str = "dead ~ age + visits + sex", rows: str = "") -> Design:
    head = f'name = "s"\nsites = ["north"]\nformula = "{formula}"\nlearner = {{name = "glore"}}\nrows = {{{rows}}}\n'
    return Design(Study.from_toml(head + VARIABLES))


def load_error(path: Path, of: Design | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        load_rows(path, of or design(), "north")
    message = caught.value.message
    assert "Site north" in message
    assert path.name in message or not path.name.isprintable()
    assert message.isprintable()
    assert message.endswith((".", "?"))
    return caught.value


def csv(tmp_path: Path, text: str | bytes, name: str = "rows.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(*rows: str) -> str:
    return HEADER + "\n".join(rows) + "\n"


def parquet(tmp_path: Path, **columns: Values) -> Path:
    path = tmp_path / "rows.parquet"
    good = {
        "sex": pa.array(["male", "female"] * 3),
        "age": pa.array([50.5, 61, 70, 49, 33.25, 20]),
        "dead": pa.array([0, 1, 0, 1, 1, 0]),
        "visits": pa.array([1, 2, 4, 3, 0, 6]),
        "dose": pa.array([9, 7, 8.5, 1, 3, 2]),
    }
    pq.write_table(pa.table(good | columns), path)
    return path


def check(error: DataError, code: str, *words: str) -> None:
    assert error.code == code, error.message
    for word in words:
        assert word in error.message, error.message


def test_good_rows_are_good(tmp_path: Path) -> None:
    assert load_rows(csv(tmp_path, lines(*GOOD)), design(), "north").n == 6
    assert load_rows(parquet(tmp_path), design(), "north").n == 6


# The file itself


def test_missing_file(tmp_path: Path) -> None:
    check(load_error(tmp_path / "none.csv"), "CO-D101", "no file", "none.csv", "Check the path")
    check(load_error(csv(tmp_path, "x") / "below.csv"), "CO-D101")


def test_directory_and_device(tmp_path: Path) -> None:
    check(load_error(tmp_path), "CO-D102", "is a directory")
    check(load_error(Path("/dev/null")), "CO-D102", "not a regular file")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = tmp_path / "loop.csv"
    loop.symlink_to(loop)
    check(load_error(loop), "CO-D102", "cannot be read", "may read it")
    check(load_error(tmp_path / "a\0b.csv"), "CO-D102", "cannot be read")
    paths = [csv(tmp_path, lines(*GOOD)), parquet(tmp_path)]

    def denied(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    for path in paths:
        check(load_error(path), "CO-D102", "Permission denied", "may read it")


@pytest.mark.parametrize("text", ["", "\n\n\r\n", HEADER, HEADER.strip(), HEADER + "\n\n"])
def test_empty_csv(tmp_path: Path, text: str) -> None:
    check(load_error(csv(tmp_path, text)), "CO-D103", "Export")


def test_empty_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    check(load_error(path), "CO-D103", "no rows")


def test_unsupported_ending(tmp_path: Path) -> None:
    check(load_error(csv(tmp_path, lines(*GOOD), "rows.xlsx")), "CO-D119", "'.xlsx'", ".csv", ".parquet")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_unicode(tmp_path: Path, encoding: str) -> None:
    check(load_error(csv(tmp_path, lines(*GOOD).encode(encoding))), "CO-D109", "not UTF-8", "Save it as CSV in UTF-8")


def test_latin1(tmp_path: Path) -> None:
    rows = lines(*GOOD, "gar\u00e7on,50,0,1,1").encode("latin-1")
    check(load_error(csv(tmp_path, rows)), "CO-D109", "line 8", "0xe7", "Save it as CSV in UTF-8")
    rows = lines(*GOOD, "gar\u00e7on,50,0,1").encode("latin-1")
    check(load_error(csv(tmp_path, rows)), "CO-D108", "line 8 has 4")
    check(load_error(csv(tmp_path, b"\xe7," + lines(*GOOD).encode())), "CO-D109", "header")


@pytest.mark.parametrize("raw", [b"PAR1", b"not parquet at all", b"PAR1" + bytes(100) + b"PAR1"])
def test_not_a_parquet_file(tmp_path: Path, raw: bytes) -> None:
    check(load_error(csv(tmp_path, raw, "rows.parquet")), "CO-D110", "cannot be read as Parquet", "Write it again")


def test_parquet_with_broken_pages(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[4:60] = bytes(56)
    path.write_bytes(raw)
    check(load_error(path), "CO-D110", "cannot be read as Parquet")


# The header


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_other_separators(tmp_path: Path, separator: str, name: str) -> None:
    check(load_error(csv(tmp_path, lines(*GOOD).replace(",", separator))), "CO-D107", name, "Export with commas")


def test_duplicated_header(tmp_path: Path) -> None:
    check(
        load_error(csv(tmp_path, "sex,age,dead,visits,age\n" + GOOD[0])), "CO-D104", "'age'", "more than once", "Rename"
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1])] * 2, names=["age", "age"]), path)
    check(load_error(path), "CO-D104", "'age'")


def test_blank_header(tmp_path: Path) -> None:
    check(load_error(csv(tmp_path, '"",' + HEADER + "1," + GOOD[0])), "CO-D105", "column 1", "row.names = FALSE")
    check(load_error(csv(tmp_path, "sex, ,dead,visits,dose\n" + GOOD[0])), "CO-D105", "column 2")


def test_missing_column(tmp_path: Path) -> None:
    error = load_error(csv(tmp_path, "sex,Age,death,visits ,dose\n" + GOOD[0]))
    check(error, "CO-D106", "'dead' (did you mean 'death'?)", "'age' (did you mean 'Age'?)", "'visits '")
    error = load_error(csv(tmp_path, "a,b\n1,2\n"))
    check(error, "CO-D106", "'dead' (the file has 'a', 'b')")
    path = parquet(tmp_path)
    pq.write_table(pq.read_table(path).rename_columns(["sex", "age", "Dead", "visits", "dose"]), path)
    check(load_error(path), "CO-D106", "'dead' (did you mean 'Dead'?)")


def test_header_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "MAX_HEADER_BYTES", 100)
    check(load_error(csv(tmp_path, '"' + lines(*GOOD))), "CO-D110", "header cannot be read", "quotation marks")
    check(
        load_error(csv(tmp_path, lines(*GOOD).replace("\n", " "))), "CO-D110", "header does not end", "one row a line"
    )


def test_header_with_an_endless_name(tmp_path: Path) -> None:
    check(load_error(csv(tmp_path, "a" * 200_000 + "\n1\n")), "CO-D106", "'dead' (the file has 'aaa", "a…")


def test_long_notes_of_several_lines_are_no_fault(tmp_path: Path) -> None:
    note = '"' + "long note\n" * 50_000 + '",'
    path = csv(tmp_path, "note," + HEADER + "".join(f"{note}{row}\n" for row in GOOD))
    assert load_rows(path, design(), "north").n == 6
    error = load_error(path, design("dead ~ age + visits", "minimum = 7"))
    check(error, "CO-D118")


# The records


def test_ragged_rows(tmp_path: Path) -> None:
    rows = [*GOOD, "male,50", "", *GOOD, "male,50,5,0,1,9"]
    error = load_error(csv(tmp_path, lines(*rows)))
    check(error, "CO-D108", "5 fields", "2 of 14 rows", "line 8 has 2", "line 16 has 6", "quotation marks", "dot")
    error = load_error(csv(tmp_path, lines(*["male,50"] * 9)))
    check(error, "CO-D108", "9 of 9 rows", "line 6 has 2 and 4 more")


def test_quotation_mark_that_is_not_closed(tmp_path: Path) -> None:
    note = HEADER.replace("sex", "note,sex")
    swallowed = note + "\n".join(["x," + GOOD[0], '"x,' + GOOD[1], "x," + GOOD[2], '"y,' + GOOD[3], "x," + GOOD[4]])
    check(load_error(csv(tmp_path, swallowed)), "CO-D110", "line 3", "quotation marks", "twice")
    last = note + "\n".join(["x," + row for row in GOOD]) + '\n"x,' + GOOD[0]
    check(load_error(csv(tmp_path, last)), "CO-D110", "line 8")
    truncated = lines(*GOOD) + 'male,60,1,2,"3'
    check(load_error(csv(tmp_path, truncated), design("dead ~ age")), "CO-D110", "line 8")


def test_record_larger_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "BLOCK", 64)
    path = csv(tmp_path, lines(*GOOD, '"' + "x" * 500 + '",1,1,1,1'))
    check(load_error(path), "CO-D110", "cannot be read as CSV")


# The values

BAD = [
    ("age", "1,5", "CO-D112", "not a finite decimal number", "1.5 and not 1,5"),
    ("age", "1,055", "CO-D112", "not a finite decimal number", "If the comma sets thousands apart, write 1055;"),
    (
        "age",
        "12,345,678",
        "CO-D112",
        "not a finite decimal number",
        "If the comma sets thousands apart, write 12345678.",
    ),
    ("age", "abc", "CO-D112", "not a finite decimal number", "Write a plain number"),
    ("age", " 50", "CO-D112", "not a finite decimal number", "Remove the blanks"),
    ("age", "inf", "CO-D112", "not a finite decimal number", "Write a plain number"),
    ("age", "121", "CO-D113", "out of the declared range", "0 to 120 years"),
    ("age", "-0.5", "CO-D113", "out of the declared range", "0 to 120 years"),
    ("visits", "51", "CO-D113", "out of the declared range", "0 to 50. Check"),
    ("visits", "1.5", "CO-D114", "not a whole number", "declare the variable as a number"),
    ("dead", "yes", "CO-D115", "neither 0 nor 1", "Code a binary variable as 0 and 1"),
    ("dead", "2", "CO-D115", "neither 0 nor 1", "Code a binary variable as 0 and 1"),
    ("sex", "Female", "CO-D116", "not a declared level", "Did you mean 'female'? The study declares the levels 'male'"),
    ("sex", "male ", "CO-D116", "not a declared level", "Remove the blanks"),
    ("sex", "other", "CO-D116", "not a declared level", "'male', 'female'. Recode it, or add the level"),
    ("sex", "", "CO-D117", "missing", 'rows.missing = "drop"'),
    ("dead", "NA", "CO-D117", "missing", 'rows.missing = "drop"'),
]


@pytest.mark.parametrize(("column", "value", "code", "what", "todo"), BAD)
def test_bad_value_in_csv(tmp_path: Path, column: str, value: str, code: str, what: str, todo: str) -> None:
    at = HEADER.strip().split(",").index(column)
    fields = GOOD[1].split(",")
    fields[at] = f'"{value}"'
    kind = "outcome" if column == "dead" else "column"
    error = load_error(csv(tmp_path, lines(*GOOD, ",".join(fields), *GOOD)))
    check(error, code, f"The {kind} '{column}' is {what} in 1 of 13 rows: line 8 {value!r}. ", todo)


@pytest.mark.parametrize(
    ("column", "values", "code", "row"),
    [
        ("age", pa.array([1, 2, 3, 4, float("inf"), 5]), "CO-D112", "row 5 inf"),
        ("age", pa.array([1, 2, 3, 4, 5, 121.5]), "CO-D113", "row 6 121.5"),
        ("visits", pa.array([1, 2.5, 3, 4, 5, 6]), "CO-D114", "row 2 2.5"),
        ("dead", pa.array([0, 1, 2, 0, 1, 0], pa.uint8()), "CO-D115", "row 3 2"),
        (
            "sex",
            pa.array(["male", "M", "male", "M", "female", "M"]).dictionary_encode(),
            "CO-D116",
            "row 2 'M', row 4 'M'",
        ),
        ("sex", pa.array([0, 1, 0, 1, 0, 1]), "CO-D116", "in 6 of 6 rows: row 1 0, "),
        ("age", pa.array([1, None, 3, 4, float("nan"), 5]), "CO-D117", "row 2 None, row 5 nan"),
    ],
)
def test_bad_value_in_parquet(tmp_path: Path, column: str, values: Values, code: str, row: str) -> None:
    check(load_error(parquet(tmp_path, **{column: values})), code, f"'{column}'", row)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        (
            "age",
            pa.array(["50"] * 6),
            "'age' is stored as string, but the study declares a number. Store it as numbers.",
        ),
        ("dead", pa.array(["1"] * 6), "'dead' is stored as string, but the study declares a binary"),
        ("sex", pa.array([1.0] * 6), "'sex' is stored as double, but the study declares a category. Store it as text"),
        ("visits", pa.array([[1]] * 6), "stored as list<"),
    ],
)
def test_parquet_column_of_a_wrong_type(tmp_path: Path, column: str, values: Values, words: str) -> None:
    check(load_error(parquet(tmp_path, **{column: values})), "CO-D111", words)


def test_five_rows_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    rows = [*GOOD, *["male,old,0,1,9"] * 7, "nobody,,7,1,9"]
    error = load_error(csv(tmp_path, lines(*rows)), design("dead ~ age + sex", 'missing = "drop"'))
    check(error, "CO-D115", "in 1 of 14 rows: line 15 '7'", "Faults also in 'age' (7 rows), 'sex' (1 row).")
    error = load_error(csv(tmp_path, lines(*rows)), design("visits ~ age + sex", 'missing = "drop"'))
    check(error, "CO-D112", "in 7 of 14 rows: line 8 'old'", "line 12 'old' and 2 more. ")
    assert "line 13" not in error.message


def test_rows_are_counted_over_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "BLOCK", 128)
    rows = [*GOOD * 9, "male,old,0,1,9", *GOOD * 9, "male,older,0,1,9", "male,1,0"]
    path = csv(tmp_path, lines(*rows))
    check(load_error(path), "CO-D108", "1 of 111 rows: line 112 has 3")
    check(load_error(csv(tmp_path, lines(*rows[:-1]))), "CO-D112", "2 of 110 rows: line 56 'old', line 111 'older'.")


def test_lines_are_those_of_an_editor(tmp_path: Path) -> None:
    text = "\n" + HEADER + GOOD[0] + "\n\n\n" + '"male",old,0,1,9' + "\r\n" + GOOD[1]
    check(load_error(csv(tmp_path, text)), "CO-D112", "line 6 'old'")
    text = HEADER + GOOD[0] + "\n" + 'male,old,0,1,"9\n"' + "\n" + GOOD[1]
    check(load_error(csv(tmp_path, text)), "CO-D112", "line 3 'old'")
    text = HEADER + 'male,20,1,1,"9\n\n,\r"\r\n' + GOOD[0] + "\r\n" + 'male,old,0,1,"9\n"' + "\n" + GOOD[1]
    check(load_error(csv(tmp_path, text)), "CO-D112", "line 7 'old'")
    text = '"note\nof two lines",' + HEADER + "x,male,old,0,1,9\n"
    check(load_error(csv(tmp_path, text)), "CO-D112", "line 3 'old'")


def test_long_and_hostile_values_are_clipped_and_escaped(tmp_path: Path) -> None:
    evil = "\x1b[31mred\x1b[0m\u202e\x07\x9b"
    error = load_error(csv(tmp_path, lines(*GOOD, f"{evil},1,1,1,1")))
    check(error, "CO-D116", r"'\x1b[31mred\x1b[0m\u202e")
    error = load_error(csv(tmp_path, lines(*GOOD, f"male,{'9' * 500}x,1,1,1")))
    check(error, "CO-D112", "'" + "9" * 38 + "…")
    assert "9" * 39 not in error.message


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07<b>"
    path = csv(tmp_path, f'"{evil}","a\nb",sex\n1,2,3\n', "\x1b[2Jrows.csv")
    check(load_error(path), "CO-D106", r"\x1b]0;owned\x07<b>", r"'a\nb'", r"\x1b[2Jrows.csv")
    check(load_error(csv(tmp_path, f'"{evil}","{evil}"\n1,2\n')), "CO-D104", r"\x1b]0;owned")
    check(load_error(tmp_path / "\x1b[2J.csv"), "CO-D101", r"\x1b[2J.csv")
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({evil: [1]}), path)
    check(load_error(path), "CO-D106", r"\x1b]0;owned")


# The site as a whole


def test_too_few_rows(tmp_path: Path) -> None:
    check(load_error(csv(tmp_path, lines(*GOOD[:4]))), "CO-D118", "4 rows", "at least 5")
    rows = [*GOOD[:4], "male,,1,1,1", ",NA,1,1,1"]
    error = load_error(csv(tmp_path, lines(*rows)), design(rows='missing = "drop", minimum = 6'))
    check(error, "CO-D118", "4 rows can be used, 2 having been dropped", "'age' in 2, 'sex' in 1", "at least 6")


def test_constant_columns(tmp_path: Path) -> None:
    rows = [f"male,4{k},{k % 2},7,{k}" for k in range(6)]
    error = load_error(csv(tmp_path, lines(*rows)))
    check(error, "CO-D120", "'visits', 'sex'", "all 6 rows", 'rows.constant = "allow"')
    # The value itself is nobody's business.
    assert "male" not in error.message
    assert "7" not in error.message
    check(load_error(parquet(tmp_path, age=pa.array([5.0] * 6))), "CO-D120", "'age'")


def test_constant_outcome(tmp_path: Path) -> None:
    error = load_error(parquet(tmp_path, dead=pa.array([1] * 6)))
    check(error, "CO-D121", "outcome 'dead'", "all 6 rows", 'rows.constant = "allow"')


@pytest.mark.parametrize("shift", [0.0, 119.9])
def test_collinear_columns(tmp_path: Path, shift: float) -> None:
    rng = np.random.default_rng(1)
    age = shift + rng.uniform(0, 0.1, 50)
    rows = [f"{('male', 'female')[k % 2]},{a!r},{(k // 3) % 2},{k},{2 * a!r}" for k, a in enumerate(age.tolist())]
    path = csv(tmp_path, lines(*rows))
    error = load_error(path, design("dead ~ age + visits + dose"))
    check(error, "CO-D122", "The column dose is a combination of age:", 'rows.collinear = "allow"')
    assert load_rows(path, design("dead ~ age + visits + dose", 'collinear = "allow"'), "north").n == 50


def test_shifted_columns_are_collinear_only_with_an_intercept(tmp_path: Path) -> None:
    rows = [f"male,{k},{k % 3 % 2},1,{k + 10}" for k in range(20)]
    path = csv(tmp_path, lines(*rows))
    check(load_error(path, design("dead ~ age + dose")), "CO-D122", "dose")
    assert load_rows(path, design("dead ~ age + dose -1"), "north").n == 20


def test_more_columns_than_rows(tmp_path: Path) -> None:
    formula = "dead ~ age*visits*sex"
    error = load_error(csv(tmp_path, lines(*GOOD)), design(formula))
    check(error, "CO-D123", "8 columns", "6 rows", "Shorten the formula", 'rows.collinear = "allow"')
    assert load_rows(csv(tmp_path, lines(*GOOD)), design(formula, 'collinear = "allow"'), "north").n == 6


def test_nothing_of_an_unread_column_reaches_a_message(tmp_path: Path) -> None:
    rows = ["SECRET," + row for row in [*GOOD, "male,abc,0,1,1", "male,1"]]
    makers: list[Callable[[], str]] = [
        lambda: "note," + HEADER + "\n".join(rows),
        lambda: "note," + HEADER + "\n".join(rows[:-1]),
        lambda: "note," + HEADER + "\n".join(rows[:6]) + '\n"SECRET',
    ]
    for make in makers:
        assert "SECRET" not in load_error(csv(tmp_path, make())).message
