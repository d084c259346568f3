"""Two hospitals and a helper: a second question about all patients but one, and small counts that a result shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from support.red_team.sessions import run_in_own_session

from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_node.data.load import load_site
from coterie_node.errors import ReleaseRefused
from coterie_node.privacy.log import PrivacyLog
from coterie_node.release.gate import Gate
from coterie_node.run import simulate as simulation

STUDY = """
name = "{name}"
sites = ["north", "south", "university"]
helpers = ["university"]
formula = "{formula}"
{more}
[learner]
name = "secure_glm"
questions = 9
{options}
[variables.died]
type = "binary"
[variables.male]
type = "binary"
[variables.age]
type = "number"
range = [20, 100]
"""
PATIENTS = 90


def write_rows(path: Path, seed: int, rows: int, events: int = 30, men: int = -1, all_men: int = -1) -> Path:
    """The first `rows` of a hospital's patients, of whom so many have died.

    `men`: so many of the dead are men; `all_men`: so many of all patients. Negative: as it happens.
    """
    rng = np.random.default_rng(seed)
    ages, males = rng.integers(30, 90, PATIENTS).tolist(), rng.integers(0, 2, PATIENTS).tolist()
    died = rng.permutation([1] * events + [0] * (PATIENTS - events)).tolist()
    if men >= 0:
        dead = [k for k, d in enumerate(died) if d]
        males = [int(k in dead[:men] if k in dead else m) for k, m in enumerate(males)]
    if all_men >= 0:
        males = [1] * all_men + [0] * (PATIENTS - all_men)
    lines = [f"{seed}-{k},{d},{a},{m}" for k, (d, a, m) in enumerate(zip(died, ages, males, strict=True))]
    path.write_text("\n".join(["person,died,age,male", *lines[:rows]]) + "\n")
    return path


def run_study(
    folder: Path,
    logs: Mapping[str, PrivacyLog],
    name: str,
    rows: int = PATIENTS,
    events: int = 30,
    men: int = -1,
    all_men: int = -1,
    **words: str,
) -> None:
    """A study on all of north's patients and the first `rows` of south's, judged beside what left before."""
    study = complete_study(
        Study.from_toml(STUDY.format(name=name, **{"more": "", "options": "", "formula": "died ~ age + male", **words}))
    )
    files = {
        "north": write_rows(folder / "north.csv", 1, PATIENTS),
        "south": write_rows(folder / "south.csv", 2, rows, events, men, all_men),
    }
    data = {site: load_site(file, study, site).rows for site, file in files.items()}  # type: ignore[union-attr]
    gates = {site: Gate(study, log=logs[site]) for site in study.sites}
    with run_in_own_session(name):
        simulation.simulate(study, data, gates=gates)


@pytest.fixture
def logs() -> dict[str, PrivacyLog]:
    return {site: PrivacyLog() for site in ("north", "south", "university")}


@pytest.mark.parametrize("more", ["", 'patient = "person"'], ids=["rows", "identifiers"])
def test_a_second_study_over_all_but_one_patient_is_refused(
    tmp_path: Path, logs: dict[str, PrivacyLog], more: str
) -> None:
    run_study(tmp_path, logs, "first", more=more)
    with pytest.raises(ReleaseRefused) as caught:
        run_study(tmp_path, logs, "second", PATIENTS - 1, more=more)
    assert caught.value.code == "CO-R301"


@pytest.mark.long
def test_the_same_question_again_is_let_through(tmp_path: Path, logs: dict[str, PrivacyLog]) -> None:
    run_study(tmp_path, logs, "first")
    run_study(tmp_path, logs, "again")


def test_few_events_of_one_hospital_stop_a_null_deviance_and_nothing_else(
    tmp_path: Path, logs: dict[str, PrivacyLog]
) -> None:
    run_study(tmp_path, logs, "plain", events=3)
    with pytest.raises(ReleaseRefused, match="events"):
        run_study(tmp_path, logs, "null", events=3, options="null_deviance = true")


def test_few_events_of_a_level_stop_a_null_deviance_and_the_refusal_names_the_column(
    tmp_path: Path, logs: dict[str, PrivacyLog]
) -> None:
    """Thirty of south's patients died, of whom three are men: the events as a whole are many."""
    run_study(tmp_path, logs, "plain", men=3)
    with pytest.raises(ReleaseRefused, match="of male by died") as caught:
        run_study(tmp_path, logs, "null", men=3, options="null_deviance = true")
    assert "take the study without null_deviance" in caught.value.message
    assert "age" not in caught.value.message


def test_a_rare_level_of_one_hospital_stops_a_covariance_and_the_refusal_names_the_column(
    tmp_path: Path, logs: dict[str, PrivacyLog]
) -> None:
    run_study(tmp_path, logs, "plain", all_men=4)
    with pytest.raises(ReleaseRefused, match=r"of male[.;]? ?.*Merge rare levels, take the study without covariance"):
        run_study(tmp_path, logs, "whole", all_men=4, options="covariance = true")


def test_a_model_of_binary_columns_alone_gives_the_tables_so_that_the_gate_judges_them(
    tmp_path: Path, logs: dict[str, PrivacyLog]
) -> None:
    run_study(tmp_path, logs, "many", formula="died ~ male")
    with pytest.raises(ReleaseRefused, match="of male by died"):
        run_study(tmp_path, logs, "few", men=3, formula="died ~ male")
