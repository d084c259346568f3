"""The commands as a user runs them, with their output, their errors and their exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from support.node.processes import Completed, run_command, run_process

STUDY = """
name = "trial"
sites = ["north", "south"]
formula = "y ~ age + sex"
[learner]
name = "glore"
aggregation = "plain"
[variables.y]
type = "binary"
[variables.age]
type = "number"
range = [20, 90]
[variables.sex]
type = "category"
levels = ["f", "m"]
"""
TERMS = {"term", "estimate", "std_error", "z", "p_value", "ci_low", "ci_high"}
KEYS = {
    "learner", "sites", "n", "rounds", "converged", "terms", "deviance", "null_deviance", "aic", "log_likelihood",
    "ledger", "seconds", "replay",
}  # fmt: skip


def rows(n: int, seed: int) -> list[list[str]]:
    """Simulated rows as text: outcome, age, sex."""
    rng = np.random.default_rng(seed)
    age, sex = rng.uniform(25, 85, n), rng.integers(0, 2, n)
    y = rng.random(n) < 1 / (1 + np.exp(3 - 0.04 * age - 0.5 * sex))
    return [[str(int(v)), f"{a:.3f}", "fm"[s]] for v, a, s in zip(y, age, sex, strict=True)]


def write(path: Path, lines: list[list[str]], header: str = "y,age,sex") -> Path:
    """A CSV file."""
    path.write_text("\n".join([header, *map(",".join, lines)]) + "\n")
    return path


@pytest.fixture
def trial(tmp_path: Path) -> Mapping[str, Path]:
    """A study with two sites' files."""
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    north, south = write(tmp_path / "north.csv", rows(150, 1)), write(tmp_path / "south.csv", rows(120, 2))
    return {"study": study, "north": north, "south": south}


def simulate(trial: Mapping[str, Path], *more: str) -> Completed:
    """Run `coterie simulate` on the trial."""
    data = [f"--data={site}={trial[site]}" for site in ("north", "south")]
    return run_command("simulate", trial["study"], *data, *more)


def test_simulate_prints_the_documented_json_and_equals_the_pooled_fit(trial: Mapping[str, Path]) -> None:
    done = simulate(trial, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result.keys() >= KEYS
    assert all(set(term) == TERMS for term in result["terms"])
    assert set(result["ledger"]) == {"records", "payload_bytes", "gas"}
    assert set(result["seconds"]) == {"compute", "ledger", "store", "total"}
    assert (result["replay"]["verdict"], result["replay"]["grade"]) == ("PASS", "identical")
    assert {"verdict", "grade", "steps", "max_difference"} <= result["replay"].keys()
    table = [line.split(",") for site in ("north", "south") for line in trial[site].read_text().split()[1:]]
    x = np.array([[1.0, float(age), float(sex == "m")] for _, age, sex in table])
    pooled = sm.GLM(np.array([float(y) for y, _, _ in table]), x, family=sm.families.Binomial()).fit(tol=1e-14)
    assert np.abs(np.array([t["estimate"] for t in result["terms"]]) - pooled.params).max() < 1e-10
    assert np.abs(np.array([t["std_error"] for t in result["terms"]]) - pooled.bse).max() < 1e-9
    assert result["aic"] == pytest.approx(pooled.aic, abs=1e-8)


def test_simulate_prints_a_table_for_people_with_progress_on_standard_error(trial: Mapping[str, Path]) -> None:
    done = simulate(trial)
    assert done.returncode == 0, done.stderr
    assert "Estimate" in done.stdout
    assert "95% CI" in done.stdout
    assert "Replay: PASS, identical" in done.stdout
    assert "round  2" in done.stderr  # the first round looks at the moments


def spoil(trial: Mapping[str, Path], lines: list[list[str]], header: str = "y,age,sex") -> Mapping[str, Path]:
    """The trial with another file for the site north."""
    write(trial["north"], lines, header)
    return trial


GOOD = rows(150, 1)
BAD_ROWS = {
    "header only": ([], "y,age,sex", 10, ["north.csv", "north", "no rows"]),
    "unknown level": ([*GOOD, ["0", "50", "x"]], "y,age,sex", 10, ["north.csv", "north", "152", "sex", "'x'", "f"]),
    "text in a number": ([*GOOD, ["0", "old", "f"]], "y,age,sex", 10, ["north.csv", "north", "152", "age", "'old'"]),
    "missing value": ([*GOOD, ["0", "", "f"]], "y,age,sex", 10, ["north.csv", "north", "152", "age", "missing"]),
    "outcome not 0/1": ([*GOOD, ["2", "50", "f"]], "y,age,sex", 10, ["north.csv", "north", "152", "'y'", "0"]),
    "duplicated header": ([[*r, "1"] for r in GOOD], "y,age,sex,age", 10, ["north.csv", "north", "age"]),
    "constant column": ([[y, a, "f"] for y, a, _ in GOOD], "y,age,sex", 10, ["north.csv", "north", "sex", "constant"]),
}


@pytest.mark.parametrize("fault", BAD_ROWS)
def test_bad_rows_are_refused_with_file_site_row_and_column(trial: Mapping[str, Path], fault: str) -> None:
    lines, header, status, words = BAD_ROWS[fault]
    done = simulate(spoil(trial, lines, header))
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, (word, done.stderr)


def test_a_missing_and_an_empty_file_are_named(trial: Mapping[str, Path], tmp_path: Path) -> None:
    missing = simulate({**trial, "north": tmp_path / "nowhere.csv"})
    assert missing.returncode == 10
    assert "nowhere.csv" in missing.stderr
    trial["north"].write_text("")
    empty = simulate(trial)
    assert empty.returncode == 10
    assert "north.csv" in empty.stderr


def test_collinear_columns_are_named(trial: Mapping[str, Path]) -> None:
    text = STUDY.replace("age + sex", "age + months + sex") + '[variables.months]\ntype = "number"\nrange = [0, 1200]\n'
    trial["study"].write_text(text)
    for site, seed in (("north", 1), ("south", 2)):
        lines = [[y, a, s, repr(12 * float(a))] for y, a, s in rows(100, seed)]
        write(trial[site], lines, "y,age,sex,months")
    done = simulate(trial)
    assert done.returncode in (10, 52)
    assert "months" in done.stderr
    assert "age" in done.stderr


def test_a_separated_outcome_is_named_with_its_column(trial: Mapping[str, Path]) -> None:
    trial["study"].write_text(STUDY + "[disclosure]\ncell = 0\n")
    for site, seed in (("north", 1), ("south", 2)):
        # So many rows that a dozen rounds of plain sums are not half as many equations as there are values.
        write(trial[site], [[str(int(float(a) > 55)), a, s] for _, a, s in rows(600, seed)])
    done = simulate(trial)
    assert done.returncode == 51, done.stderr
    assert "age" in done.stderr
    assert "separated" in done.stderr


def test_a_study_whose_sites_do_not_match_is_refused(trial: Mapping[str, Path]) -> None:
    done = run_command("simulate", trial["study"], f"--data=north={trial['north']}", f"--data=east={trial['south']}")
    assert done.returncode == 11
    assert "south" in done.stderr
    assert "east" in done.stderr


def test_errors_are_json_where_json_is_asked_for(trial: Mapping[str, Path]) -> None:
    done = simulate(spoil(trial, []), "--json")
    error = json.loads(done.stdout)["error"]
    assert error["code"].startswith("CO-D")
    assert error["status"] == done.returncode == 10


def test_a_study_file_that_is_wrong_is_explained(trial: Mapping[str, Path]) -> None:
    trial["study"].write_text(STUDY.replace('type = "binary"', 'type = "yes-no"'))
    done = simulate(trial)
    assert done.returncode == 11
    assert "variables.y.type" in done.stderr


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    examples = Path(__file__).parents[3] / "examples"
    subprocess.run([sys.executable, str(examples / "make_data.py")], cwd=tmp_path, check=True)
    data = [f"--data={site}={tmp_path / site}.csv" for site in ("north", "south", "west")]
    done = run_process("simulate", examples / "stroke.toml", *data, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["replay"]["grade"] == "identical"


def test_hostile_names_do_not_reach_the_terminal_raw(trial: Mapping[str, Path]) -> None:
    done = simulate(spoil(trial, [*GOOD, ["0", "\x1b[31mred", "f"]]))
    assert done.returncode == 10
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    "wrong", [("nosuch",), ("simulate",), ("demo", "--sites", "many"), ("audit", "replay", "--nosuch")]
)
def test_a_wrong_use_of_a_command_is_explained_without_a_traceback(wrong: tuple[str, ...]) -> None:
    done = run_command(*wrong)
    assert done.returncode == 2
    assert "Usage: " in done.stderr
    assert "Traceback" not in done.stderr
