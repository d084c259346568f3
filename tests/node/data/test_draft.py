"""From files as hospitals have them to a study and mappings that fit as they are; every guess is named."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
import statsmodels.api as sm
from support.node.commands import run

from coterie_learners.errors import StudyError
from coterie_node.analysis.analyse import analyse
from coterie_node.cli.study.draft import draft_command
from coterie_node.data.draft.column_words import ColumnWords
from coterie_node.data.draft.draft import draft_from_files, draft_from_profiles, save_draft
from coterie_node.data.draft.look import look_at_column
from coterie_node.data.draft.site_look import look_at_file
from coterie_node.data.draft.vocabulary import find_conversion, name_variable, split_unit
from coterie_node.data.draft.write import StudyDraft
from coterie_node.data.mapping.document import read_mapping
from coterie_node.data.quality.profile import ColumnProfile, widen
from coterie_node.errors import ConfigError
from coterie_node.run.study_files import load_study

RAW = runpy.run_path(str(Path(__file__).parents[3] / "examples" / "raw" / "make.py"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("raw")
    return list(RAW["write_files"](folder))


@pytest.fixture(scope="module")
def draft(files: list[Path]) -> StudyDraft:
    return draft_from_files(files, files[0].parent / "study.toml")


def look(header: str, values: list[Any], decimal: str = ".", floor: int = 0) -> ColumnProfile:
    texts = [None if value is None else str(value) for value in values]
    return look_at_column(ColumnWords.of(header, texts, decimal), floor)


def test_three_raw_files_become_a_study_that_fits_as_it_is(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "study.toml"
    printed = run("study", "draft", *files, "--out", out)
    assert "'AGE_MONTHS' is in months and is converted to years" in printed
    result = analyse(load_study(out), {path.stem: tmp_path / f"{path.stem}.mapping.toml" for path in files})
    x, y = read_patients()
    assert result.fit.terms == ("(Intercept)", "age", "sex[female]", "nihss", "creatinine", "diabetes")
    assert (result.fit.n, result.fit.events) == (len(y), int(y.sum()))
    np.testing.assert_allclose(result.fit.estimates, sm.Logit(y, x).fit(disp=0, tol=1e-12).params, rtol=1e-8)


def read_patients() -> tuple[np.ndarray, np.ndarray]:
    """Complete patients of all hospitals in the study's words, rounded as their own files round them."""
    x, y = [], []
    for name, hospital in RAW["HOSPITALS"].items():
        for p in RAW["draw_patients"](hospital.seed, hospital.n):
            if p.nihss is None or p.creatinine is None:
                continue
            age = float(f"{p.age * 12:.0f}") / 12 if name == "west" else p.age
            creatinine = float(f"{p.creatinine * 88.42:.0f}") / 88.42 if name == "south" else p.creatinine
            x.append([1.0, age, not p.male, p.nihss, creatinine, p.diabetes])
            y.append(p.died)
    return np.array(x, dtype=float), np.array(y, dtype=float)


def test_the_same_files_give_the_same_draft_and_the_script_the_same_bytes(
    files: list[Path], draft: StudyDraft, tmp_path: Path
) -> None:
    assert draft_from_files(files, files[0].parent / "study.toml") == draft
    again = RAW["write_files"](tmp_path)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in files]


TITLE = "Registry of heart failure, South Hospital\n\n"
ROWS = "MRN;Age;LVEF;Smoking\n" + "".join(
    f"{k // 2 + 90000};{40 + k % 30};{30 + k % 37};{'NFC'[k % 3]}\n" for k in range(80)
)


def test_a_title_above_the_header_is_passed_over_and_shared_identifiers_are_named(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    for line in (TITLE + ROWS).splitlines():
        book.active.append([int(c) if c.isdigit() else c for c in line.split(";")] if line else [])
    book.save(tmp_path / "south.xlsx")
    paths = [write(tmp_path, "north.csv", TITLE + ROWS), tmp_path / "south.xlsx"]
    draft = draft_from_files(paths, tmp_path / "study.toml", {"Smoking": "smoked"})
    assert all("\nskip = 2" in text for text in draft.mappings.values())
    assert 'levels = ["N", "F", "C"]' in draft.study
    assert "[variables.smoked]" in draft.study
    assert any("several rows share" in text for text in draft.apart)
    files = save_draft(draft, tmp_path / "study.toml")
    result = analyse(load_study(files.study), files.mappings)
    assert result.fit.n == 160


def test_a_name_for_a_column_that_no_site_has_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "north.csv", ROWS)
    with pytest.raises(StudyError, match="No site has a column 'EF'") as caught:
        draft_from_files([path], tmp_path / "study.toml", {"EF": "ef"})
    assert caught.value.code == "CO-S110"


def test_what_is_left_out_is_named_with_the_reason(draft: StudyDraft) -> None:
    apart = "\n".join(draft.apart)
    for name, reason in (
        ("'PatNr'", "identifier"),
        ("'Klinik'", "same in all rows"),
        ("'Bemerkung für Ärzte'", "free text"),
        ("'sex_copy'", "same as 'sex'"),
        ("'MRN'", "identifier"),
    ):
        assert any(name in line and reason in line for line in draft.apart), (name, apart)


def test_no_value_of_a_patient_stands_in_a_draft(files: list[Path], draft: StudyDraft) -> None:
    text = "\n".join([draft.study, *draft.mappings.values(), *draft.questions, *draft.apart])
    assert "N10000" not in text
    assert "case 1" not in text
    assert "30.09.2022" not in text


def test_mappings_name_separators_units_codes_and_orders_of_dates(draft: StudyDraft, tmp_path: Path) -> None:
    mappings = {}
    for site, text in draft.mappings.items():
        (tmp_path / f"{site}.toml").write_text(text, encoding="utf-8")
        mappings[site] = read_mapping(tmp_path / f"{site}.toml", site)
    north, south, west = (mappings[site] for site in ("north", "south", "west"))
    assert (north.table.separator, north.table.decimal, north.table.encoding) == (";", ",", "cp1252")
    assert north.rule("nihss").missing == ("-99",)
    assert north.rule("creatinine").missing == ("unbekannt",)
    assert south.rule("nihss").missing == (".",)
    assert south.rule("creatinine").divisor == 88.42
    assert west.rule("age").divisor == 12.0
    assert west.rule("nihss").missing == ("99",)
    assert dict(west.rule("sex").levels) == {"1": "male", "2": "female"}
    assert west.dates.order == (("ADM_DT", "DIS_DT"),)


@pytest.mark.parametrize(
    ("header", "values", "kind", "codes"),
    [
        ("age", [20, 45, 67, 90, -99, 31], "count", ("-99",)),
        ("nihss", [0, 4, 8, 15, 42, 99, 99], "count", ("99",)),
        ("age", [88, 89, 90, 95, 99, 60], "count", ()),
        ("crp", ["0,5", "12,25", "unbekannt", "."], "number", (".", "unbekannt")),
        ("flag", ["Ja", "nein", "JA", "NA"], "binary", ()),
        ("flag", [0, 1, 1, 0], "binary", ()),
        ("gender", [1, 2, 2, 1], "category", ()),
        ("stage", ["I", "II", "III", "II"] * 3, "category", ()),
        ("seen", ["2020-01-01", "2021-05-06", ""], "date", ()),
        ("seen", ["20200101", "20210506"], "date", ()),
        ("comment", [f"text number {k} of the many" for k in range(40)], "apart", ()),
        ("patient_id", [f"{k}" for k in range(100, 140)], "apart", ()),
        ("code", [f"A{k}" for k in range(100, 140)], "apart", ()),
        ("ward", ["7"] * 10, "apart", ()),
        ("nothing", ["", None, "NA"], "apart", ()),
        ("odd", ["a\x1bb", "c"] * 5, "apart", ()),
        ("mixed", ["1", "2", "3", "4", "x"] * 5, "apart", ()),
    ],
)
def test_columns_are_told_apart_and_codes_for_missing_are_found(
    header: str, values: list[Any], kind: str, codes: tuple[str, ...]
) -> None:
    profile = look(header, values, decimal="," if header == "crp" else ".")
    assert (profile.kind, profile.codes) == (kind, codes)


def test_a_date_of_two_possible_forms_is_asked_about() -> None:
    profile = look("seen", ["03/04/2020", "05/06/2021"])
    assert profile.form == "MM/DD/YYYY"
    assert "DD/MM/YYYY" in profile.questions[0]


def test_a_number_that_is_far_too_frequent_is_asked_about() -> None:
    assert any("99 may stand" in text for text in look("age", [*range(60, 110), *[99] * 6]).questions)
    assert look("age", list(range(60, 110))).questions == ()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (23, 94, (0, 100)),
        (0, 42, (0, 50)),
        (37.2, 37.9, (37.2, 38.0)),
        (-5, 5, (-6, 6)),
        (80, 81, (80, 81)),
        (1200, 88000, (0, 100000)),
        (3, 3, (0, 3)),
        (0.31, 3.9, (0, 4)),
    ],
)
def test_ranges_are_widened_to_round_numbers(low: float, high: float, expected: tuple[float, float]) -> None:
    assert widen(low, high) == pytest.approx(expected)


def test_a_widened_range_holds_every_value() -> None:
    rng = np.random.default_rng(3)
    for _ in range(500):
        low, high = sorted(rng.normal(scale=10.0 ** rng.integers(-3, 5), size=2).tolist())
        start, end = widen(low, high)
        assert start <= low <= high <= end
        assert start < end


@pytest.mark.parametrize(
    ("header", "variable", "unit"),
    [
        ("Alter (Jahre)", "age", "years"),
        ("AGE_MONTHS", "age", "months"),
        ("Kreatinin [µmol/l]", "creatinine", "umol/L"),
        ("creatinine_umol_l", "creatinine", "umol/L"),
        ("GeschlechtPatient", "geschlecht_patient", ""),
        ("Geschlecht", "sex", ""),
        ("1. Wert", "x_1_wert", ""),
    ],
)
def test_names_and_units_are_recognised(header: str, variable: str, unit: str) -> None:
    assert (name_variable(header), split_unit(header)[1]) == (variable, unit)


def test_conversions_run_in_both_directions_and_only_where_they_are_true() -> None:
    there, back = find_conversion("creatinine", "mg/dL", "umol/L"), find_conversion("creatinine", "umol/L", "mg/dL")
    assert there is not None
    assert back is not None
    assert there.factor / there.divisor * back.factor / back.divisor == pytest.approx(1.0)
    assert find_conversion("urea", "mg/dL", "umol/L") is None


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_disagreements_are_named_column_level_kind_and_unit(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lines = {"a": ["death,age,stage,only_a,odd"], "b": ["death,age,stage,odd"]}
    for k in range(60):
        age = int(rng.integers(30, 90))
        lines["a"].append(f"{k % 2},{age},{'Mild' if k % 3 else 'severe'},{k % 5},{k % 7 + 0.5}")
        lines["b"].append(f"{k % 2},{age * 12},{'mild' if k % 4 else 'unsure'},{'xy'[k % 2]}")
    paths = [write(tmp_path, f"{name}.csv", "\n".join(text)) for name, text in lines.items()]
    draft = draft_from_files(paths, tmp_path / "study.toml")
    said = "\n".join([*draft.questions, *draft.apart])
    assert "only_a: a has 'only_a'; no column of that name at b." in said
    assert "odd: the sites hold different things under it" in said
    assert "a: stage has no unsure here" in said
    assert "b: stage has no severe here" in said
    assert "perhaps months where the others have years" in said
    assert 'levels = ["Mild", "severe", "unsure"]' in draft.study


def test_a_draft_overwrites_nothing(draft: StudyDraft, tmp_path: Path) -> None:
    save_draft(draft, tmp_path / "study.toml")
    with pytest.raises(ConfigError) as caught:
        save_draft(draft, tmp_path / "study.toml")
    assert caught.value.code == "CO-F232"


def test_files_without_a_common_column_and_two_files_of_one_site_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one = write(tmp_path, "a.csv", "x,y\n1,2\n2,3\n3,4\n")
    two = write(tmp_path, "b.csv", "p,q\n1,2\n2,3\n3,4\n")
    same = write(tmp_path / "other", "A.csv", "x,y\n1,2\n2,3\n3,4\n")
    for paths in ([one, two], [one, same]):
        with pytest.raises(StudyError) as caught:
            draft_from_files(paths, tmp_path / "study.toml")
        assert caught.value.code == "CO-S110"


@pytest.mark.parametrize("name", ['x"; y', "a\nb", "naïve", "=cmd()", "[variables.x]", "x\x1b[31m", "'''", "\u202ea"])
def test_hostile_headers_and_words_end_no_comment_and_no_string(tmp_path: Path, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    rows = "".join(f"{k % 2},{k},{quoted if k % 3 else 'b'}\n" for k in range(30))
    paths = [write(tmp_path, f"{site}.csv", f"death,{quoted},kind\n{rows}") for site in "ab"]
    draft = draft_from_files(paths, tmp_path / "study.toml")
    places = save_draft(draft, tmp_path / "study.toml")
    study = load_study(places.study)
    assert set(study.variables) >= {"death"}
    for site, path in places.mappings.items():
        assert sorted(read_mapping(path, site).columns) == sorted(study.variables)


def test_profiles_of_sites_give_the_draft_of_their_files(files: list[Path], draft: StudyDraft) -> None:
    profiles = [look_at_file(path, path.stem) for path in files]
    assert draft_from_profiles(profiles, files[0].parent / "study.toml") == draft


def test_one_name_for_two_columns_of_a_site_is_refused(tmp_path: Path) -> None:
    lines = "".join(f"{k % 2},{20 + k},{k % 7},{k % 11}\n" for k in range(60))
    for site in ("north", "south"):
        (tmp_path / f"{site}.csv").write_text("y,one,two,three\n" + lines)
    paths = [tmp_path / "north.csv", tmp_path / "south.csv"]
    with pytest.raises(StudyError, match="north: the columns 'one' and 'two' are both named 'age'") as caught:
        draft_from_files(paths, tmp_path / "study.toml", {"one": "age", "two": "age"})
    assert caught.value.code == "CO-S112"
    with pytest.raises(StudyError, match="'one' is named 'age' and 'years'") as caught:
        draft_command(paths, tmp_path / "study.toml", column=["age=one", "years=one"])
    assert caught.value.code == "CO-S112"
    draft = draft_from_files(paths, tmp_path / "study.toml", {"one": "three"})
    assert "north: 'three' is left out: 'one' was named 'three'." in draft.apart
    assert 'from = "one"' in draft.mappings["north"]
