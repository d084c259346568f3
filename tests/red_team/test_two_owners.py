"""Secure GLM on joined columns: a second question about all patients but one, whoever leaves the patient out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.lanes import later
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
sites = ["clinic", "registry", "university"]
formula = "died ~ age + male"
identifier = ["person"]
[columns]
clinic = ["age"]
registry = ["male", "died"]
university = []
[learner]
name = "{learner}"
questions = 9
linkage = "{linkage}"
{options}
[variables.died]
type = "{outcome}"
{range}
[variables.male]
type = "binary"
[variables.age]
type = "number"
range = [20, 100]
"""
PATIENTS = 80
GLM = {"learner": "secure_glm", "options": "", "outcome": "binary", "range": ""}
LASSO = {"learner": "secure_lasso", "options": "alpha = [0.01]", "outcome": "number", "range": "range = [0, 1]"}
NAMES = ("clinic", "registry", "university")


def write_columns(folder: Path, absent: Mapping[str, int]) -> dict[str, Path]:
    """Both owners' files on the same patients, each without its last few."""
    rng = np.random.default_rng(1)
    ages, males = rng.integers(30, 90, PATIENTS).tolist(), rng.integers(0, 2, PATIENTS).tolist()
    died = rng.integers(0, 2, PATIENTS).tolist()
    lines = {
        "clinic": ["person,age", *(f"P{k},{age}" for k, age in enumerate(ages))],
        "registry": ["person,male,died", *(f"P{k},{m},{d}" for k, (m, d) in enumerate(zip(males, died, strict=True)))],
    }
    paths = {}
    for site, rows in lines.items():
        paths[site] = folder / f"{site}.csv"
        paths[site].write_text("\n".join(rows[: len(rows) - absent.get(site, 0)]) + "\n")
    return paths


def run_study(
    folder: Path, logs: Mapping[str, PrivacyLog], name: str, absent: Mapping[str, int] | None = None, **words: str
) -> None:
    """A study judged beside what left before."""
    study = complete_study(Study.from_toml(STUDY.format(name=name, **({"linkage": "masks"} | GLM | words))))
    files = write_columns(folder, absent or {})
    data: dict[str, Any] = {site: load_site(file, study, site).rows for site, file in files.items()}  # type: ignore
    gates = {site: Gate(study, log=logs[site]) for site in study.sites}
    with run_in_own_session(name):
        simulation.simulate(study, data, gates=gates)


@pytest.fixture
def logs() -> dict[str, PrivacyLog]:
    return {site: PrivacyLog() for site in NAMES}


@pytest.mark.parametrize("owner", ["clinic", "registry"])
@pytest.mark.parametrize("linkage", ["masks", *later("paillier")])
def test_a_second_study_over_all_joint_patients_but_one_is_refused(
    tmp_path: Path, logs: dict[str, PrivacyLog], owner: str, linkage: str
) -> None:
    run_study(tmp_path, logs, "first", linkage=linkage)
    with pytest.raises(ReleaseRefused) as caught:
        run_study(tmp_path, logs, "second", {owner: 1}, linkage=linkage)
    assert caught.value.code == "CO-R301"


@pytest.mark.parametrize(("before", "after"), [(LASSO, GLM), (GLM, LASSO)], ids=["lasso first", "glm first"])
def test_another_learner_on_the_same_join_is_such_a_second_study_too(
    tmp_path: Path, logs: dict[str, PrivacyLog], before: dict[str, str], after: dict[str, str]
) -> None:
    run_study(tmp_path, logs, "first", None, **before)
    with pytest.raises(ReleaseRefused) as caught:
        run_study(tmp_path, logs, "second", {"clinic": 1}, **after)
    assert caught.value.code == "CO-R301"


@pytest.mark.long
def test_the_same_question_on_the_same_patients_is_let_through(tmp_path: Path, logs: dict[str, PrivacyLog]) -> None:
    run_study(tmp_path, logs, "first")
    run_study(tmp_path, logs, "again")
