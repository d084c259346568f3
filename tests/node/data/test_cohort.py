"""Conditions and derived variables on a site's own rows: what stays, what is counted, and what the gate sees of it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from support.node.commands import refusal, run

import coterie_node.data.load as loading
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError
from coterie_learners.study.document import Study
from coterie_node.data.cohort.flow import Flow, FlowStep, band_count, draw_flow, list_flow_lines
from coterie_node.data.load import load_site
from coterie_node.data.patients.site_rows import WithRaw
from coterie_node.data.quality.check import check_data
from coterie_node.site.run_folder import RunFolder

HEAD = """
name = "chosen"
sites = ["a", "b", "c"]
patient = "pid"
learner = { name = "glore" }
rows = { missing = "drop" }
"""
VARIABLES = """
[variables]
died = { type = "binary" }
ward = { type = "category", levels = ["med", "icu"] }
sbp = { type = "number", range = [40, 300] }
born = { type = "date", range = [1900-01-01, 2010-12-31] }
seen = { type = "date", range = [2015-01-01, 2024-12-31] }
"""
BY_ROW = f"""{HEAD}
formula = "died ~ age + ward + tense"
[cohort]
where = ["age >= 18 and seen >= 2020-01-01", "sbp > 90 or sbp is missing"]
[derive]
age = "years(born, seen)"
tense = "sbp > 140"
{VARIABLES}"""
BY_PATIENT = f"""{HEAD}
formula = "dead ~ age + tense + wards"
[cohort]
where = ["seen >= 2020-01-01", "count() >= 2"]
order = "seen"
[derive]
age = "years(first(born), first(seen))"
dead = "any(died == 1)"
tense = "mean(sbp)"
wards = "last(ward)"
{VARIABLES}"""


def draw(n: int = 300, seed: int = 4) -> pd.DataFrame:
    """Visits of patients, some without a pressure."""
    rng = np.random.default_rng(seed)
    patient = np.sort(rng.integers(0, n // 2, n))
    born = np.array([datetime.date(1925, 1, 1) + datetime.timedelta(days=int(d)) for d in rng.integers(0, 31000, n)])
    seen = [datetime.date(2019, 6, 1) + datetime.timedelta(days=int(d)) for d in rng.integers(0, 1500, n)]
    sbp = np.where(rng.random(n) < 0.1, np.nan, np.round(rng.normal(130, 25, n).clip(60, 250)))
    frame = {"pid": [f"p{k}" for k in patient], "died": rng.integers(0, 2, n), "ward": rng.choice(["med", "icu"], n)}
    return pd.DataFrame({**frame, "sbp": sbp, "born": born[patient], "seen": seen})


def write(folder: Path, frame: pd.DataFrame, ending: str = ".csv") -> Path:
    path = folder / f"a{ending}"
    if ending == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


def load(path: Path, text: str) -> loading.Loaded:
    loaded = load_site(path, complete_study(Study.from_toml(text)), "a")
    assert loaded is not None
    return loaded


def list_ages(born: pd.Series, seen: pd.Series) -> list[int]:
    """Python's completed years."""
    pairs = zip(born, seen, strict=True)
    return [b.year - a.year - ((b.month, b.day) < (a.month, a.day)) for a, b in pairs]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_rows_are_those_that_pandas_selects(tmp_path: Path, ending: str) -> None:
    frame = draw()
    loaded = load(write(tmp_path, frame, ending), BY_ROW)
    frame["age"] = list_ages(frame.born, frame.seen)
    first = frame[(frame.age >= 18) & (frame.seen >= datetime.date(2020, 1, 1))]
    second = first[(first.sbp > 90) | first.sbp.isna()]
    used = second[second.sbp.notna()]
    assert isinstance(loaded.rows, WithRaw)
    raw = loaded.rows.read_raw().values
    assert raw["age"].tolist() == used.age.tolist()
    assert raw["tense"].tolist() == (used.sbp > 140).astype(int).tolist()
    assert raw["sbp"].tolist() == used.sbp.tolist()
    assert loaded.flow is not None
    counts = [step.left_out for step in loaded.flow.steps]
    assert counts == [len(frame) - len(first), len(first) - len(second), len(second) - len(used)]
    assert (loaded.flow.read, loaded.flow.used) == (len(frame), len(used))


def test_rows_that_are_read_again_in_each_pass_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, draw(), ".parquet")
    whole = load(path, BY_ROW)
    monkeypatch.setattr(loading, "IN_MEMORY", 0)
    streamed = load(path, BY_ROW)
    assert streamed.summary.streamed
    assert isinstance(whole.rows, WithRaw)
    assert isinstance(streamed.rows, WithRaw)
    here, there = whole.rows.read_raw(), streamed.rows.read_raw()
    assert {name: v.tolist() for name, v in here.values.items()} == {n: v.tolist() for n, v in there.values.items()}
    assert streamed.flow == whole.flow


def test_patients_are_those_that_pandas_groups(tmp_path: Path) -> None:
    frame = draw()
    loaded = load(write(tmp_path, frame), BY_PATIENT)
    visits = frame[frame.seen >= datetime.date(2020, 1, 1)].sort_values("seen", kind="stable")
    groups = visits.groupby("pid", sort=False)
    several = groups.filter(lambda visit: len(visit) >= 2).groupby("pid")
    expected = pd.DataFrame({"tense": several.sbp.mean(), "dead": several.died.max(), "wards": several.ward.last()})
    expected["age"] = list_ages(several.born.first(), several.seen.first())
    expected = expected[expected.tense.notna()]
    assert isinstance(loaded.rows, WithRaw)
    raw = loaded.rows.read_raw()
    assert raw.identifiers is not None
    rows = expected.loc[[row[0] for row in raw.identifiers]]
    assert len(rows) == len(expected)
    assert raw.values["tense"] == pytest.approx(rows.tense.to_numpy(), rel=1e-14)
    assert raw.values["dead"].tolist() == rows.dead.tolist()
    assert [("med", "icu")[int(k)] for k in raw.values["wards"]] == rows.wards.tolist()
    assert raw.values["age"].tolist() == rows.age.tolist()
    assert loaded.flow is not None
    assert loaded.flow.patients == visits.pid.nunique()


@pytest.mark.parametrize(
    ("column", "value", "code", "words"),
    [
        ("seen", "2020-13-01", "CO-D190", "not a date"),
        ("seen", "2020-03-01x", "CO-D190", "not a date"),
        ("seen", "01.03.2020", "CO-D190", "name its form in a mapping|map them"),
        ("ward", "ICU", "CO-D116", "not a declared level"),
        ("sbp", "high", "CO-D112", "not a finite decimal number"),
        ("pid", "", "CO-D132", "is blank"),
    ],
)
@pytest.mark.parametrize("text", [BY_ROW, BY_PATIENT], ids=["rows", "patients"])
def test_a_value_that_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, text: str, column: str, value: str, code: str, words: str
) -> None:
    frame = draw().astype({column: object})
    frame["seen"] = "2021-05-05" if column != "seen" else frame["seen"]
    frame.loc[7, column] = value
    with pytest.raises(DataError, match=f"{words}.*") as caught:
        load(write(tmp_path, frame), text)
    assert caught.value.code == code
    assert "line 9" in caught.value.message


def test_conditions_that_no_row_fulfils_and_tables_of_patterns_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, draw())
    for text in (BY_ROW, BY_PATIENT, BY_PATIENT.replace("count() >= 2", "count() >= 99").replace("2024", "2015")):
        with pytest.raises(DataError, match="None of 300 rows") as caught:
            load(path, text.replace("2020-01-01", "2024-12-31"))
        assert caught.value.code == "CO-D192"
    table = tmp_path / "a.json"
    table.write_text("[]")
    with pytest.raises(DataError) as refused:
        load(table, BY_ROW.replace('"glore"', '"cola"'))
    assert refused.value.code == "CO-D191"


def test_the_flow_for_others_has_no_exact_count() -> None:
    flow = Flow(622, (FlowStep("age >= 18", 3, 1), FlowStep('<b> & "x"', 118, unit="patients")), 501, patients=619)
    assert list_flow_lines(flow) == [
        "622 rows read",
        "- 3 rows left out: age >= 18 (1 of them as a value is missing)",
        "619 patients",
        '- 118 patients left out: <b> & "x"',
        "501 patients used",
    ]
    banded = list_flow_lines(flow, 5)
    assert banded[:3] == ["at least 620 rows read", "- fewer than 5 rows left out: age >= 18", "at least 615 patients"]
    assert [band_count(k, 5) for k in (0, 1, 4, 5, 9, 10)] == [
        "0", "fewer than 5", "fewer than 5", "at least 5", "at least 5", "at least 10",
    ]  # fmt: skip
    drawing = draw_flow(flow, 5)
    texts = [node.text for node in ElementTree.fromstring(drawing).iter() if node.text]
    assert "at least 500 patients used" in texts
    assert "<b>" not in drawing
    assert not {"622", "619", "501"} & set(" ".join(texts).split())


def test_the_check_of_a_site_shows_the_flow_and_writes_it_for_others(tmp_path: Path) -> None:
    path, study = write(tmp_path, draw()), tmp_path / "study.toml"
    study.write_text(BY_PATIENT)
    check = check_data(path, complete_study(Study.from_toml(BY_PATIENT)), "a")
    loaded = load(path, BY_PATIENT)
    assert check.flow == loaded.flow
    printed = run("data", "check", study, "--data", f"a={path}", "--flow", tmp_path / "flow.svg")
    assert f"  {check.flow.used} patients used" in printed
    assert "at least" in (tmp_path / "flow.svg").read_text()


def test_one_file_of_all_sites_is_drafted_by_its_column_of_sites(tmp_path: Path) -> None:
    frame = pd.concat([draw(seed=k).assign(hospital=name) for k, name in enumerate(("North", "South", "West"))])
    frame.to_csv(tmp_path / "all.csv", index=False, sep=";")
    out = tmp_path / "study.toml"
    run("study", "draft", tmp_path / "all.csv", "--split-by", "hospital", "--out", out)
    study = Study.from_toml(out.read_text())
    assert study.sites == ("north", "south", "west")
    assert study.variables["seen"].type == "date"
    parts = [pd.read_csv(tmp_path / f"{site}.csv", sep=";") for site in study.sites]
    assert [len(part) for part in parts] == [300, 300, 300]
    assert "hospital" not in parts[0].columns
    assert load_site(tmp_path / "north.mapping.toml", complete_study(study), "north") is not None
    error = refusal("study", "draft", tmp_path / "all.csv", "--split-by", "town", "--out", tmp_path / "b.toml")
    assert error.code == "CO-D106"


def test_a_run_that_is_kept_knows_the_flow_of_each_site_and_nothing_of_another_study(tmp_path: Path) -> None:
    study = complete_study(Study.from_toml(BY_ROW))
    flow = load(write(tmp_path, draw()), BY_ROW).flow
    assert flow is not None
    rows = {"a": {"flow": flow.as_dict()}, "b": {"flow": {"read": "many"}}, "c": {}}
    (tmp_path / "study.json").write_bytes(study.document)
    (tmp_path / "result.json").write_text(json.dumps({"rows": rows}))
    assert RunFolder(tmp_path).read_flows(1, study.hash) == {"a": flow}
    assert RunFolder(tmp_path).read_flows(1, bytes(32)) == {}
