"""Drafts of sources: types, levels, units and ranges that a data dictionary or an OMOP definition declares."""

from __future__ import annotations

import runpy
from pathlib import Path

import duckdb
import pytest
from support.node.redcap_exports import write_export

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.data.draft.draft import draft_from_files, save_draft
from coterie_node.data.draft.source_look import look_at_source
from coterie_node.errors import ConfigError

ROOT = Path(__file__).parents[3]


def write_redcap_source(folder: Path, name: str) -> Path:
    write_export(folder).unlink()
    source = folder / f"{name}.source.toml"
    source.write_text(
        'file = "export.csv"\n[table]\nmissing = ["-99"]\n[redcap]\ndictionary = "dictionary.csv"\n', encoding="utf-8"
    )
    return source


def test_a_dictionary_gives_types_levels_and_ranges_and_the_draft_fits_as_it_is(tmp_path: Path) -> None:
    draft = draft_from_files([write_redcap_source(tmp_path, "north")], tmp_path / "study.toml")
    places = save_draft(draft, tmp_path / "study.toml")
    text = places.study.read_text()
    study = Study.from_toml(text)
    assert study.variables["age"].range == (18.0, 110.0)
    assert set(study.variables["sex"].levels) == {"female", "male", "Not known, asked"}
    assert study.variables["death"].type == "binary"
    assert study.variables["comorb_1"].type == "binary"
    assert "record_id" not in study.variables
    mapping = places.mappings["north"].read_text()
    assert 'dictionary = "dictionary.csv"' in mapping
    assert "[columns.sex]" in mapping
    formula = text.replace(study.formula, "death ~ age + comorb_1").replace(
        'name = "glore"', 'name = "glore"\naggregation = "plain"\nopening = "none"'
    )
    fitted = complete_study(Study.from_toml(formula + "\n[disclosure]\nrows = 1\ncell = 0\n"))
    assert analyse(fitted, {"north": places.mappings["north"]}).fit.n == 89


def test_an_omop_definition_gives_types_levels_units_and_ranges(tmp_path: Path) -> None:
    made = runpy.run_path(str(ROOT / "examples/omop/make.py"))
    with duckdb.connect(str(tmp_path / "north.duckdb")) as base:
        base.execute(made["write_script"](made["make_tables"](600, 5), "cdm"))
    text = (ROOT / "examples/omop/north.mapping.toml").read_text()
    source = tmp_path / "north.source.toml"
    source.write_text(text.partition("[columns")[0])  # its address leads to the file beside it
    draft = draft_from_files([source], tmp_path / "study.toml")
    study = Study.from_toml(draft.study)
    assert study.variables["age"].range == (0.0, 120.0)
    assert study.variables["age"].unit == "years"
    assert set(study.variables["age_group"].levels) == {"0-44", "45-64", "65-79", "80+"}
    assert set(study.variables["sex"].levels) == {"male", "female"}
    assert study.variables["charlson"].range == (0.0, 10.0)
    assert study.variables["time"].range == (0.0, 365.0)
    assert study.variables["time"].unit == "days"
    assert study.variables["event"].type == "binary"
    assert not {"person_id", "index_date"} & set(study.formula.split())


def test_a_profile_of_a_source_has_nothing_below_its_floor(tmp_path: Path) -> None:
    profile = look_at_source(write_redcap_source(tmp_path, "north"), "north", floor=5)
    sex = profile.find("sex")
    assert sex is not None
    assert {level.word for level in sex.levels} == {"Female", "Male"}
    assert all(level.share > 0 for column in profile.columns for level in column.levels)


def test_a_source_with_columns_and_a_draft_elsewhere_are_refused(tmp_path: Path) -> None:
    source = write_redcap_source(tmp_path, "north")
    with pytest.raises(ConfigError, match="Write the draft beside the source") as caught:
        draft_from_files([source], tmp_path / "other" / "study.toml")
    assert caught.value.code == "CO-F232"
    source.write_text(source.read_text() + '[columns.age]\nfrom = "age"\n')
    with pytest.raises(DataError, match="Leave them out") as refused:
        draft_from_files([source], tmp_path / "study.toml")
    assert refused.value.code == "CO-D170"
