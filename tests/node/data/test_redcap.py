"""REDCap exports: the rows of the CSV that says the same; repeated instruments, events and other codes are refused."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.node.redcap_exports import DICTIONARY, N, write_export, write_plain

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.cli.sources import omop_command, redcap_command
from coterie_node.data.commitment import make_snapshot
from coterie_node.data.findings import FileOrigin
from coterie_node.data.load import load_site
from coterie_node.data.redcap.dictionary import read_dictionary
from coterie_node.data.redcap.variables import write_variables

STUDY = complete_study(
    Study.from_toml(
        """
name = "records"
sites = ["north"]
formula = "died ~ age + sex + diabetes"
rows = { missing = "drop", minimum = 1 }
disclosure = { rows = 1, cell = 0 }
learner = { name = "glore", aggregation = "plain", opening = "none" }
[variables.died]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
[variables.sex]
type = "category"
levels = ["Female", "Male"]
[variables.diabetes]
type = "binary"
"""
    )
)


@pytest.mark.parametrize("event", ["", "base_arm_1"])
def test_an_export_gives_what_the_csv_gives(tmp_path: Path, event: str) -> None:
    paths = write_export(tmp_path, event), write_plain(tmp_path)
    ours, plain = (analyse(STUDY, {"north": path}) for path in paths)
    assert ours.fit.estimates.tobytes() == plain.fit.estimates.tobytes()
    assert ours.as_dict()["ledger"]["payload_bytes"] == plain.as_dict()["ledger"]["payload_bytes"]
    left, right = (load_site(path, STUDY, "north") for path in paths)
    assert left is not None
    assert right is not None
    assert (left.read, left.n, dict(left.missing)) == (N, N - 2, dict(right.missing))
    snapshot = make_snapshot(left, b"s" * 32)
    assert snapshot.root == make_snapshot(right, b"s" * 32).root
    assert set(snapshot.provenance) == {"mapping", "dictionary"}


def test_a_message_names_the_line_of_the_export(tmp_path: Path) -> None:
    path = write_export(tmp_path, "base_arm_1", lambda text: text.replace("\n11,base_arm_1,,,", "\n11,base_arm_1,,,9"))
    with pytest.raises(DataError, match=r"'age'.*line 22") as caught:
        load_site(path, STUDY, "north")
    assert caught.value.code == "CO-D113"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda text: text.replace("\n7,base_arm_1,,", "\n7,base_arm_1,lab,1"),
            "1 row repeats an instrument, first line 8",
        ),
        (lambda text: text.replace("\n7,base_arm_1,", "\n7,follow_arm_1,"), "'base_arm_1', 'follow_arm_1'.*`event`"),
        (lambda text: text.replace(",1,0,0,0,2", ",Male,0,0,0,2"), "'sex' has 'Male' in .* rows .*raw values"),
        (lambda text: text.replace("comorb____2", "weight"), "no field for the columns 'weight'"),
        (lambda text: text.replace("-99,1,0,0", "=1+1,1,0,0"), "'sex' has '=1\\+1' in 1 row"),
        (lambda text: text.replace("\n8,base", "\n7,base"), "'record_id' has a record a second time, at line 9"),
    ],
)
def test_what_is_no_row_for_each_record_is_refused_with_words(
    tmp_path: Path, change: Callable[[str], str], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        load_site(write_export(tmp_path, change=change), STUDY, "north")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n", "no column"),
        ("", "no column"),
        (DICTIONARY.replace("1, Female", "1; Female"), "no code with a label"),
        (DICTIONARY.replace("2, Male", "1, Male"), "code twice"),
        (DICTIONARY.replace("sex,base", "Sex;DROP,base"), "name of a field"),
        (DICTIONARY.replace('"Name, family"', '"Name, family'), "no CSV"),
        (DICTIONARY.replace("died,base", "age,base"), "the column 'age' 2 times"),
        (DICTIONARY.replace("pain,base", "comorb___1,base"), "the column 'comorb___1' 2 times"),
        (DICTIONARY.replace('"Field Note"', '"Field Type"'), "the column 'Field Type' twice"),
        (DICTIONARY.replace("hint,base", "hint,,,,,,,,,,,,,base"), "Record 8 has .* cells, and the header has 11"),
        (DICTIONARY.replace("2, Male", "2, Female"), "'sex' has the label 'Female' for 2 codes"),
    ],
)
def test_a_dictionary_that_is_none_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = write_export(tmp_path)
    (tmp_path / "dictionary.csv").write_text(content or "x")
    with pytest.raises(DataError, match=words) as caught:
        load_site(path, STUDY, "north")
    assert caught.value.code == "CO-D178"


def test_the_dictionary_gives_types_levels_ranges_and_labels(tmp_path: Path) -> None:
    write_export(tmp_path)
    fields = read_dictionary(FileOrigin.of("north", tmp_path / "dictionary.csv"))
    text = write_variables(fields)
    variables = tomllib.loads(text)["variables"]
    assert variables["age"] == {"type": "number", "range": [18, 110]}
    assert variables["sex"] == {"type": "category", "levels": ["Female", "Male", "Not known, asked"]}
    assert variables["died"] == variables["comorb___1"] == variables["comorb____2"] == {"type": "binary"}
    assert variables["pain"]["range"] == [0, 100]
    assert set(variables) == {"age", "sex", "died", "pain", "comorb___1", "comorb____2"}
    assert "# name is left out: it identifies patients." in text
    assert "# Age at admission" in text


def test_the_recipe_for_fhir_makes_one_row_for_each_patient(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "exports.md").read_text()
    recipe = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "Patient.ndjson").write_text(
        '{"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1950-03-02"}\n'
    )
    condition = (
        '{"subject": {"reference": "Patient/p1"}, "onsetDateTime": "%s", "code": {"coding": [{"code": "%s"}]}}\n'
    )
    (tmp_path / "export" / "Condition.ndjson").write_text(
        condition % ("2021-05-04T10:00:00Z", "stroke") + condition % ("2020-01-02", "diabetes")
    )
    subprocess.run([sys.executable, "-c", recipe], check=True, cwd=tmp_path)
    rows = pq.read_table(tmp_path / "patients.parquet").to_pylist()
    assert rows == [{"patient": "p1", "sex": "female", "born": "1950-03-02", "index_date": "2020-01-02", "diabetes": 1}]


def test_commands_print_variables_and_statements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_export(tmp_path)
    redcap_command(tmp_path / "dictionary.csv")
    assert "[variables.comorb___1]" in capsys.readouterr().out
    example = Path(__file__).parents[3] / "examples" / "omop" / "north.mapping.toml"
    omop_command(example, "mssql")
    assert "DATEDIFF(day, members.index_date" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"no .omop. definition"):
        omop_command(tmp_path / "north.mapping.toml")
