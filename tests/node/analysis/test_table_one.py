"""Tables of characteristics over the real runner: files with gaps, the gate, every format, a methods section."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from support.lanes import later
from support.learners.r_stays import GOLDEN, SPLITS, references
from support.learners.survival_study import curve_study
from support.learners.table_study import LACKING, arm_study, read_stays, split_arms, split_stays, table_study

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError, StudyError
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.analysis.conformance import check_learner
from coterie_node.analysis.pooled import Reference
from coterie_node.audit.report.model_words import describe_model
from coterie_node.audit.result import Result
from coterie_node.cli.study.advise import advise
from coterie_node.data.synthetic import simulate_cohort


def reference(model: str) -> Reference:
    """R's numbers as the learner's terms."""
    return Reference({term: value for term, (value, _) in references("table_one")[model].terms.items()})


def write_files(folder: Path, count: int = 3) -> dict[str, Path]:
    """The stays as files, with gaps where R has none, and a ward in each row that is used."""
    with (GOLDEN / "data" / "stays.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for place, row in enumerate(rows, start=1):
        row |= {name: "" for name, every in LACKING.items() if place % every == 0}
        row["ward"] = "NA" if place % 17 == 0 else row["ward"]
    paths = {}
    for site, members in SPLITS[count].items():
        lines = [row for row in rows if row["site"] in members]
        paths[site] = folder / f"{site}.csv"
        text = [",".join(lines[0]), *(",".join(row.values()) for row in lines)]
        paths[site].write_text("\n".join(text) + "\n")
    return paths


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    study = table_study(3, rows={"missing": "keep"})
    return analyse(study, dict(write_files(tmp_path_factory.mktemp("stays"))))


@pytest.mark.parametrize("count", [3, *later(2, 5)])
def test_tables_have_every_property_of_a_learner(count: int) -> None:
    report = check_learner(table_study(count), split_stays(count), reference("stays"), tolerance=1e-9)
    assert report.estimate_difference < 1e-9
    assert (report.unchecked, report.server_steps) == (0, 2)
    labels = count if count > 2 else 0  # under masks each site posts the labels of its rows first
    assert report.records == labels + 3 * count + 3 == report.restarts


@pytest.mark.long
def test_a_study_with_a_rate_has_them_too() -> None:
    report = check_learner(arm_study(2), split_arms(2), reference("survival"), tolerance=1e-9)
    assert report.order_difference == 0.0


def test_files_with_gaps_give_the_table_of_r_and_replay_to_the_bit(result: Result) -> None:
    assert result.replay is not None
    assert result.replay.grade == "identical"
    assert reference("stays").differences(result.fit)["max_abs_estimate"] < 1e-10
    assert result.fit.n == 1130
    assert all(counts["dropped"] > 0 for counts in result.rows.values())


def test_the_text_has_counts_means_quartiles_and_missing_values(result: Result) -> None:
    lines = result.text().splitlines()
    assert any(line.split()[:2] == ["n", "1130"] for line in lines)
    (age,) = (line for line in lines if line.startswith("age: mean (SD)"))
    assert "63.62 (12.37)" in age
    assert any(line.startswith("  median [quartiles]") for line in lines)
    assert any(line.startswith("  missing") for line in lines)
    assert any(line.startswith("  severe") for line in lines)


@pytest.mark.parametrize(
    ("shape", "first", "cell"),
    [
        ("csv", ",Overall,ward[medical]", "n,1130,549,427,154,"),
        ("markdown", "|  | Overall | ward\\[medical\\]", "| n | 1130 | 549 | 427 | 154 |"),
        ("latex", "\\begin{tabular}{lrrrrr}", "n & 1130 & 549 & 427 & 154"),
        ("html", "<table>", '<tr><th scope="row">n</th><td>1130</td>'),
    ],
)
def test_the_table_comes_in_the_formats_of_papers(result: Result, shape: str, first: str, cell: str) -> None:
    text = result.table(shape)
    assert text.startswith(first)
    assert cell in text


def test_a_gap_is_no_level_and_refused_where_the_study_does_not_keep_it(tmp_path: Path) -> None:
    files = write_files(tmp_path)
    with pytest.raises(DataError) as error:
        analyse(table_study(3, rows={"missing": "refuse"}), dict(files))
    assert error.value.code == "CO-D117"


def test_missing_values_are_kept_for_a_table_alone() -> None:
    plain = curve_study(3).model_dump()
    with pytest.raises(StudyError) as error:
        complete_study(Study.model_validate({**plain, "rows": {"missing": "keep"}}))
    assert error.value.code == "CO-S409"


def test_a_methods_section_calls_the_table_by_its_name() -> None:
    assert describe_model(table_study(3), None).startswith("table of characteristics")


@pytest.mark.long
def test_the_advice_for_a_table_is_the_table() -> None:
    assert advise(table_study(3))[0].learner == "table_one"


def test_synthetic_patients_of_a_table_are_values_of_its_variables() -> None:
    cohort = simulate_cohort(table_study(3), 50, np.random.default_rng(1))
    for data in cohort.sites.values():
        (codes,) = list(data.codes())  # type: ignore[union-attr]
        assert set(codes) == {"ward", "age", "frail", "pain", "infections", "stay"}


def test_a_line_is_a_function_or_a_derived_variable_of_the_rows_that_a_condition_lets_in(tmp_path: Path) -> None:
    cohort, derive = {"where": "age >= 40 or age is missing"}, {"old": "age > 65"}
    formula = "ward ~ cut(age, c(-Inf, 60, 75, Inf)) + old + log1p(infections)"
    study = table_study(3, formula, learner={"quantiles": {}}, cohort=cohort, derive=derive)
    table = analyse(study, dict(write_files(tmp_path)))
    _, columns = read_stays()
    age = columns["age"][~(columns["age"] < 40)]
    lines = [line.strip() for line in table.text().splitlines()]
    assert lines[next(k for k, line in enumerate(lines) if line.startswith("n ")) :][0].split()[1] == str(len(age))
    middle, old = int(np.sum((age > 60) & (age <= 75))), int(np.sum(age > 65))
    assert any(line.startswith("(60,75]") and f" {middle} (" in line for line in lines)
    assert any(line.startswith("old") and f" {old} (" in line for line in lines)
    assert any(line.startswith("log1p(infections): mean (SD)") for line in lines)
    assert table.replay is not None
    assert table.replay.grade == "identical"
