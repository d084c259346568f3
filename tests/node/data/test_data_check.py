"""Profiles that stand on the floor, the check of a site's rows at home, and three planted faults that it catches."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.node.commands import refusal, run

from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.data.draft.draft import draft_from_files, draft_from_profiles, save_draft
from coterie_node.data.draft.site_look import look_at_file
from coterie_node.data.quality.check import DataCheck, check_data
from coterie_node.data.quality.page import list_lines, write_page
from coterie_node.data.quality.profile import SiteProfile
from coterie_node.errors import ConfigError

RAW = runpy.run_path(str(Path(__file__).parents[3] / "examples" / "raw" / "make.py"))
SITES = ("north", "south", "west")
STUDY = """
name = "checked"
sites = ["north", "south", "west"]
formula = "death ~ age + sex + nihss + creatinine"
learner = { name = "glore" }
rows = { missing = "drop" }
[variables.death]
type = "binary"
[variables.age]
type = "number"
unit = "years"
range = [0, 2000]
[variables.sex]
type = "category"
levels = ["female", "male"]
[variables.nihss]
type = "number"
range = [-100, 100]
[variables.creatinine]
type = "number"
unit = "mg/dL"
range = [0, 1000]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three raw files, their mappings, and a study with wide ranges."""
    place = tmp_path_factory.mktemp("checked")
    files = RAW["write_files"](place)
    save_draft(draft_from_files(files, place / "drafted.toml"), place / "drafted.toml")
    (place / "study.toml").write_text(STUDY)
    return place


def run_profile(folder: Path, site: str) -> Path:
    out = folder / f"{site}.json"
    if not out.exists():
        mapping, study = folder / f"{site}.mapping.toml", folder / "study.toml"
        run("data", "profile", mapping, "--study", study, "--site", site, "--out", out)
    return out


def check_west(folder: Path, old: str, new: str) -> list[str]:
    """What the check of west says of its age, death and so on, with one thing of its mapping changed."""
    text = (folder / "west.mapping.toml").read_text(encoding="utf-8")
    assert old in text
    changed = folder / f"planted{abs(hash((old, new)))}.mapping.toml"
    changed.write_text(text.replace(old, new), encoding="utf-8")
    peers = [word for site in ("north", "south") for word in ("--against", run_profile(folder, site))]
    printed = run("data", "check", folder / "study.toml", "--data", f"west={changed}", *peers, "--json")
    return list(json.loads(printed)["notes"])


def test_three_like_hospitals_are_not_odd_beside_each_other(folder: Path) -> None:
    assert [note for note in check_west(folder, "divisor = 12", "divisor = 12") if "elsewhere" in note] == []


def test_a_wrong_unit_is_caught(folder: Path) -> None:
    notes = check_west(folder, "divisor = 12", "divisor = 1")
    assert any("age has the median" in note and "perhaps months where the others have years" in note for note in notes)


def test_a_turned_label_is_caught(folder: Path) -> None:
    notes = check_west(folder, 'from = "EXITUS"', 'from = "EXITUS"\nyes = ["0"]\nno = ["1"]')
    assert any(note.startswith("death: ") and "are exchanged" in note for note in notes)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('from = "CREAT_MG_DL"', 'from = "CREAT_MG_DL"\nfactor = 88.42', "umol/L where the others have mg/dL"),
        ('from = "DIABETES"', 'from = "DIABETES"\nyes = ["0"]\nno = ["1"]', "are exchanged"),
    ],
    ids=["unit", "label"],
)
def test_other_wrong_units_and_turned_labels_are_caught(folder: Path, old: str, new: str, words: str) -> None:
    study = folder / "more.toml"
    study.write_text(STUDY.replace('creatinine"', 'creatinine + diabetes"') + '[variables.diabetes]\ntype = "binary"\n')
    mapping = (folder / "west.mapping.toml").read_text(encoding="utf-8")
    assert old in mapping
    changed = folder / f"planted-{words[:4].strip('/ ')}.mapping.toml"
    changed.write_text(mapping.replace(old, new), encoding="utf-8")
    peer = folder / "more-north.json"
    if not peer.exists():
        run("data", "profile", folder / "north.mapping.toml", "--study", study, "--site", "north", "--out", peer)
    printed = run("data", "check", study, "--data", f"west={changed}", "--against", peer, "--json")
    assert any(words in note for note in json.loads(printed)["notes"]), printed


def test_a_column_that_a_site_lacks_is_named_before_anything_leaves(folder: Path, tmp_path: Path) -> None:
    mapping = (folder / "west.mapping.toml").read_text(encoding="utf-8").replace('from = "NIHSS"', 'from = "NIH"')
    changed = folder / "lacking.mapping.toml"
    changed.write_text(mapping, encoding="utf-8")
    error = refusal("data", "check", folder / "study.toml", "--data", f"west={changed}")
    assert error.code == "CO-D106"
    assert "'NIH' (did you mean 'NIHSS'?)" in error.message
    raw = (folder / "west.csv").read_text(encoding="utf-8").replace("NIHSS", "SCORE")
    (tmp_path / "west.csv").write_text(raw, encoding="utf-8")
    draft = draft_from_files([folder / "north.csv", folder / "south.csv", tmp_path / "west.csv"], tmp_path / "s.toml")
    assert any(text.startswith("nihss: ") and "no column of that name at west" in text for text in draft.apart)


def test_an_undeclared_code_for_missing_is_caught(folder: Path) -> None:
    notes = check_west(folder, 'missing = ["99"]', 'missing = ["98"]')
    assert any(note.startswith("nihss goes up to") and "perhaps a code" in note for note in notes)


def test_a_wrong_unit_is_named_when_profiles_are_merged(folder: Path, tmp_path: Path) -> None:
    raw = (folder / "west.csv").read_text(encoding="utf-8").replace("AGE_MONTHS", "AGE")
    (tmp_path / "west.csv").write_text(raw, encoding="utf-8")
    profiles = [look_at_file(folder / "north.csv", "north", 5), look_at_file(tmp_path / "west.csv", "west", 5)]
    draft = draft_from_profiles(profiles, tmp_path / "study.toml")
    assert any("west: age has the median" in q and "perhaps months" in q for q in draft.questions)
    assert any("names no unit; years is taken" in q for q in draft.questions)


def test_a_study_drafted_from_profiles_fits_at_every_site(folder: Path, tmp_path: Path) -> None:
    for site in SITES:
        (tmp_path / f"{site}.csv").write_bytes((folder / f"{site}.csv").read_bytes())
        run("data", "profile", tmp_path / f"{site}.csv", "--out", tmp_path / f"{site}.json")
    profiles = [tmp_path / f"{site}.json" for site in SITES]
    run("study", "draft", "--from-sites", *profiles, "--out", tmp_path / "study.toml")
    study = complete_study(Study.from_toml((tmp_path / "study.toml").read_text(encoding="utf-8")))
    result = analyse(study, {site: tmp_path / f"{site}.mapping.toml" for site in SITES})
    assert result.fit.terms[1:] == ("age", "sex[female]", "nihss", "creatinine", "diabetes")


def test_a_profile_stands_on_its_floor(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    rows = [f"{rng.normal(50, 3):.4f},{'abc'[min(k % 40, 2)]},{['no', 'yes'][k % 2]}" for k in range(400)]
    rows += ["987.6543,rare,no", "3.2109,rare,no", "51,rare,yes"]
    path = tmp_path / "site.csv"
    path.write_text("value,stage,flag\n" + "\n".join(rows) + "\n")
    for floor in (5, 12):
        profile = look_at_file(path, "site", floor)
        text = profile.model_dump_json()
        assert "987" not in text
        assert "rare" not in text
        value = profile.find("value")
        assert value is not None
        assert value.high is not None
        assert value.high <= 100
        shown = {level.word for look in profile.columns for level in look.levels}
        assert shown == ({"a", "b", "c", "no", "yes"} if floor == 5 else {"c", "no", "yes"})
        assert profile.rows == 400


def test_a_profile_of_few_rows_says_no_range_and_no_level(tmp_path: Path) -> None:
    path = tmp_path / "site.csv"
    path.write_text("value,flag\n" + "".join(f"{k},{'yes' if k % 2 else 'no'}\n" for k in range(8)))
    profile = look_at_file(path, "site", 5)
    value, flag = profile.find("value"), profile.find("flag")
    assert value is not None
    assert flag is not None
    assert (value.low, value.quarters, flag.levels) == (None, None, ())


def check(tmp_path: Path, rows: str, study: str = STUDY, mapping: str = "") -> DataCheck:
    (tmp_path / "north.csv").write_text(rows)
    path = tmp_path / "north.mapping.toml"
    path.write_text('file = "north.csv"\n' + mapping)
    return check_data(path, complete_study(Study.from_toml(study)), "north")


HEAD = "pid,death,age,sex,nihss,creatinine,admission,discharge\n"


def line(k: int, **values: Any) -> str:
    row = {"pid": f"p{k}", "death": k % 2, "age": 50 + k % 20 + k / 100, "sex": ("male", "female")[k % 2]}
    row |= {"nihss": k % 12, "creatinine": 1 + k % 7 / 10, "admission": "2020-01-02", "discharge": "2020-01-09"}
    return ",".join(str(value) for value in (row | values).values()) + "\n"


def test_the_check_finds_what_is_missing_wrong_far_off_double_and_out_of_order(tmp_path: Path) -> None:
    rows = [line(k) for k in range(60)]
    rows[3] = line(3, age="")
    rows[4] = line(4, sex="Male")
    rows[5] = line(5, creatinine=55)
    rows[6] = line(6, discharge="2019-12-31")
    rows[7] = line(7, admission="31.12.2019")
    rows[8] = line(8, pid="p1")
    dates = (
        '[dates]\nforms = {admission = "YYYY-MM-DD", discharge = "YYYY-MM-DD"}\norder = [["admission", "discharge"]]\n'
    )
    study = STUDY.replace("formula", 'patient = "pid"\nformula')
    found = check(tmp_path, HEAD + "".join(rows), study, dates)
    notes = "\n".join(found.notes)
    assert (found.rows, found.complete) == (60, 58)
    assert found.faults == ("sex is not a declared level in 1 of 60 rows: line 6 'Male'",)
    assert next(c for c in found.columns if c.name == "age").missing == 1
    assert "creatinine: 1 row lies far from the others: line 7 55.0" in notes
    assert "admission is later than discharge in 1 row: line 8" in notes
    assert "do not have their declared form: admission: line 9" in notes
    assert "1 patient has several rows (2 rows, at most 2 of one)" in notes


def test_copies_of_whole_rows_are_counted_where_no_column_names_patients(tmp_path: Path) -> None:
    found = check(tmp_path, HEAD + "".join(line(k % 55) for k in range(60)))
    assert "5 rows repeat another row in every column of the study" in found.notes


def test_quartiles_and_counts_are_those_of_the_rows(tmp_path: Path) -> None:
    found = check(tmp_path, HEAD + "".join(line(k) for k in range(60)))
    by_name = {column.name: column for column in found.columns}
    ages = [50 + k % 20 + k / 100 for k in range(60)]
    assert by_name["age"].quarters == pytest.approx(np.quantile(ages, [0, 0.25, 0.5, 0.75, 1]))
    assert by_name["sex"].levels == {"female": 30, "male": 30}
    assert list_lines(found)[-1] == "Nothing to look at."


def test_the_page_escapes_what_a_file_says_and_loads_nothing(tmp_path: Path) -> None:
    rows = [line(k) for k in range(30)] + [line(31, sex="<script>alert(1)</script>")]
    page = write_page(check(tmp_path, HEAD + "".join(rows)))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page


def test_the_command_ends_with_10_for_faults_and_writes_a_page_once(tmp_path: Path) -> None:
    rows = [line(k) for k in range(30)] + [line(31, sex="x")]
    (tmp_path / "north.csv").write_text(HEAD + "".join(rows))
    (tmp_path / "study.toml").write_text(STUDY)
    words = ("data", "check", tmp_path / "study.toml", "--data", f"north={tmp_path / 'north.csv'}")
    assert "The study refuses:" in run(*words, "--html", tmp_path / "page.html", code=10)
    assert "not a declared level" in (tmp_path / "page.html").read_text()
    with pytest.raises(ConfigError) as caught:
        run(*words, "--html", tmp_path / "page.html")
    assert caught.value.code == "CO-F232"


@pytest.mark.parametrize("content", ["{}", "[]", "x", '{"format": 2}', "\udcff", "{" * 5000])
def test_what_is_no_profile_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "north.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        run("study", "draft", "--from-sites", path, "--out", tmp_path / "study.toml")
    assert caught.value.code == "CO-F233"


def test_a_profile_survives_its_file(folder: Path) -> None:
    profile = look_at_file(folder / "north.csv", "north", 5)
    assert SiteProfile.model_validate_json(profile.model_dump_json(exclude_defaults=True)) == profile


def write_rows(folder: Path, rows: str, mapping: str = "") -> Path:
    """A file of a site with these rows, and a mapping of it."""
    (folder / "rows.csv").write_text("age,sex,death,nihss,creatinine\n" + rows)
    (folder / "m.toml").write_text(f'file = "rows.csv"\n{mapping}')
    return folder / "m.toml"


def check_rows(folder: Path, rows: str, mapping: str = "") -> DataCheck:
    study = complete_study(Study.from_toml(STUDY.replace("range = [0, 2000]", "range = [18, 110]")))
    return check_data(write_rows(folder, rows, mapping), study, "north")


def test_the_column_wrong_counts_rows_and_a_remedy_stands_below(tmp_path: Path) -> None:
    """It counted kinds of faults: three wrong rows were a 1."""
    check = check_rows(tmp_path, "40,male,0,1,1\n-9,F,1,2,2\n-9,M,0,3,2\n12,male,0,4,1\n")
    assert {column.name: column.wrong for column in check.columns if column.wrong} == {"age": 3, "sex": 2}
    lines = list_lines(check)
    assert any(line.startswith("age (years)") and "3 (75.0%)" in line for line in lines)
    assert any("state in a mapping what they mean" in line for line in lines)
    assert "state in a mapping what they mean" in write_page(check)


def test_a_code_for_missing_outside_the_range_is_named_with_the_line_of_the_mapping(tmp_path: Path) -> None:
    rows = "40,male,0,1,1\n-9,female,1,2,2\n-9,male,0,3,2\n12,male,0,4,1\n"
    note = "age: -9 in 2 rows may mean that the value is missing; if so, "
    note += 'a mapping has missing = ["-9"] under [columns.age]'
    check = check_rows(tmp_path, rows)
    assert [text for text in check.notes if "is missing; if so" in text] == [note]
    mended = check_rows(tmp_path, rows, '[columns.age]\nmissing = ["-9"]\n')
    assert [text for text in mended.notes if "is missing; if so" in text] == []


def test_a_unit_that_nothing_converts_and_a_column_of_no_study_are_named(tmp_path: Path) -> None:
    """A mapping that only says months let months pass for years, where the range allows both."""
    rows, head = "40,male,0,1,1\n50,female,1,2,2\n", '[columns.age]\nunit = "months"\n'
    unit = "age: the file is in months by the mapping, and the study in years"
    check = check_rows(tmp_path, rows, head + '[columns.Age]\nunit = "years"\n')
    assert [text.split(";")[0] for text in check.mapped] == [
        unit,
        "the mapping has [columns.Age], which the study does not declare",
    ]
    assert check_rows(tmp_path, rows, head + "divisor = 12\n").mapped == ()
    assert check_rows(tmp_path, rows, '[columns.age]\nunit = "Years"\n').mapped == ()
