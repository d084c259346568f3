"""Small things that a result or a refusal says: units of ratios, options that there are, files that are no text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.learners.plain_study import PLAIN_STUDY, SITES
from typer.testing import CliRunner

from coterie_learners.core.fit import Fit
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError, StudyError
from coterie_learners.study.document import Study
from coterie_learners.study.formula import parse_formula
from coterie_node.audit.result import fit_lines, numbers
from coterie_node.cli.main import app
from coterie_node.data.files.csv_file import open_csv
from coterie_node.data.findings import FileOrigin


def fit(estimate: float, **changed: str | bool) -> Fit:
    whole = {
        "learner": "glore",
        "family": "binomial",
        "link": "logit",
        "terms": ("(Intercept)", "dose"),
        "estimates": np.array([-900.0, estimate]),
        "covariance": np.eye(2),
        "n": 100,
        "events": 30,
        "rounds": 3,
        "converged": True,
        "dispersion": 1.0,
        "dispersion_known": True,
        "deviance": 10.0,
        "null_deviance": 20.0,
        "log_likelihood": -5.0,
        "ratio": "OR",
    }
    return Fit(**{**whole, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(("estimate", "unit"), [(43210.0, "1e-05"), (-1234.0, "0.0001")])
def test_a_ratio_that_no_number_holds_says_which_unit_to_take(estimate: float, unit: str) -> None:
    lines = [line for line in fit_lines(fit(estimate), "s", ("a",)) if "which no number can show" in line]
    assert len(lines) == 1
    assert f"Per {unit} it is {np.exp(estimate * float(unit)):.4g}" in lines[0]
    assert "declare the variable in a unit of " + unit in lines[0]


def test_a_ratio_that_a_number_holds_says_nothing_of_units() -> None:
    assert not any("no number holds" in line for line in fit_lines(fit(3.0), "s", ("a",)))


@pytest.mark.parametrize(("known", "name"), [(True, "z"), (False, "t")])
def test_json_names_the_statistic(known: bool, name: str) -> None:
    assert numbers(fit(1.0, dispersion_known=known), ("a",))["statistic_name"] == name


def test_an_unknown_option_is_answered_with_those_that_there_are() -> None:
    text = PLAIN_STUDY.replace('name = "glore"', 'name = "glore"\nmax_round = 3')
    with pytest.raises(StudyError, match=r"no option 'max_round'\. Its options are aggregation, .*max_rounds"):
        complete_study(Study.from_toml(text))


def test_a_formula_does_not_end_with_a_plus() -> None:
    with pytest.raises(StudyError, match="ends with `\\+`"):
        parse_formula("y ~ x +")
    assert parse_formula("y ~ x + -1").intercept is False


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04\x14\x00", "an Excel workbook"),
        (b"\x1f\x8b\x08", "compressed by gzip"),
        (b"sep=,\ny,x\n1,2\n", "names the separator for a spreadsheet"),
        (b"sep=;\ny;x\n1;2\n", "names the separator for a spreadsheet"),
    ],
)
def test_a_file_that_is_no_csv_is_named_for_what_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        open_csv(FileOrigin.of("a", path), ("y", "x"))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """One file of all sites, and the study beside it."""
    (tmp_path / "study.toml").write_text(PLAIN_STUDY)
    rng = np.random.default_rng(5)
    x = rng.normal(size=300).round(3)
    y = (rng.random(300) < 1 / (1 + np.exp(-x))).astype(int)
    lines = [f"{a},{SITES[k % 3]},{b}" for k, (a, b) in enumerate(zip(y.tolist(), x.tolist(), strict=True))]
    (tmp_path / "all.csv").write_text("\n".join(["y,site,x", *lines]) + "\n")
    return tmp_path


def simulate(folder: Path, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["simulate", str(folder / "study.toml"), *options, "--json"])
    return done.exit_code, done.stdout if done.exception is None else str(done.exception)


def test_one_file_of_all_sites_is_divided_by_its_column(whole: Path) -> None:
    status, output = simulate(whole, "--data", f"all={whole / 'all.csv'}", "--by", "site")
    assert status == 0, output
    document = json.loads(output)
    assert document["n"] == 300
    assert {name: row["read"] for name, row in document["rows"].items()} == dict.fromkeys(SITES, 100)


@pytest.mark.parametrize(
    ("column", "words"), [("clinic", "no single column 'clinic'"), ("y", "names sites in 'y' that the study does not")]
)
def test_a_column_that_names_no_sites_is_refused(whole: Path, column: str, words: str) -> None:
    status, output = simulate(whole, "--data", f"all={whole / 'all.csv'}", "--by", column)
    assert status != 0
    assert words in output


def test_rows_of_which_most_are_dropped_are_a_warning(whole: Path) -> None:
    text = (whole / "study.toml").read_text().replace("[variables.y]", '[rows]\nmissing = "drop"\n[variables.y]', 1)
    (whole / "study.toml").write_text(text)
    lines = (whole / "all.csv").read_text().splitlines()
    assert ",north," in lines[1]
    emptied = [line.rsplit(",", 1)[0] + "," if ",north," in line and k % 5 else line for k, line in enumerate(lines)]
    (whole / "all.csv").write_text("\n".join(emptied) + "\n")
    status, output = simulate(whole, "--data", f"all={whole / 'all.csv'}", "--by", "site")
    assert status == 0, output
    notes = [note for note in json.loads(output)["notes"] if "more than half of its rows" in note]
    assert [note.partition(":")[0] for note in notes] == ["north"]
    soundness = json.loads(output)["soundness"]
    assert notes[0] in soundness["warnings"]
    assert soundness["verdict"].startswith(f"{len(soundness['warnings'])} warning")


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("--genesis", "0x88f28fa5b0da", "0x and 64 digits"),
        ("--genesis", "88" * 32, "0x and 64 digits"),
        ("--catalog", "0x7B12D516919619F747FC667CE0f068c69927563", "0x and 40 digits"),
    ],
)
def test_a_part_of_a_hash_is_named_as_such_and_not_as_another_network(option: str, text: str, said: str) -> None:
    """An auditor who copied too little read FAIL: the bundle is of another network."""
    done = CliRunner().invoke(app, ["audit", "verify", "study.zip", option, text])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
