"""Attacks on models of several levels: a rare level, a level that all in a group have, a second study over one more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.lanes import later
from support.red_team.hospitals import Network

from coterie_learners.errors import Withheld
from coterie_node.errors import ReleaseRefused

STUDY = """
name = "levels"
sites = ["a", "b", "c"]
formula = "grade ~ age + sex"
patient = "pseudonym"
[learner]
name = "glore"
family = "{family}"
opening = "{opening}"
[variables.grade]
type = "category"
levels = ["low", "middle", "high"]
[variables.sex]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
"""
LEVELS = ("low", "middle", "high")


def draw(seed: int, n: int = 300) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    age, sex = np.round(rng.normal(60, 9, n), 1), rng.integers(0, 2, n)
    places = np.digitize((age - 60) / 20 + 0.3 * sex + rng.logistic(size=n), [-0.8, 0.9])
    return {
        "pseudonym": np.array([f"{seed}-{k}" for k in range(n)]),
        "age": age,
        "sex": sex,
        "grade": np.array(LEVELS)[places],
    }


@pytest.fixture
def hospitals(tmp_path: Path) -> Network:
    return Network(tmp_path, {site: draw(k) for k, site in enumerate("abc")})


@pytest.mark.parametrize("family", ["ordinal", *later("multinomial")])
def test_a_second_model_over_all_but_one_patient_is_refused(hospitals: Network, family: str) -> None:
    text = STUDY.format(family=family, opening="counts")
    hospitals.fit(text, 299, "a")
    with pytest.raises(ReleaseRefused, match=r"\(added\)"):
        hospitals.fit(text)


def test_a_model_whose_levels_are_not_opened_first_is_refused(hospitals: Network) -> None:
    with pytest.raises(ReleaseRefused, match="not opened"):
        hospitals.fit(STUDY.format(family="ordinal", opening="none"))


def test_a_level_that_few_patients_have_stops_the_study_before_its_sums(hospitals: Network) -> None:
    for data in hospitals.data.values():
        high = np.flatnonzero(data["grade"] == "high")
        data["grade"][high[1:]] = "low"
    with pytest.raises(Withheld, match=r"grade\[high\] has fewer than 5 patients"):
        hospitals.fit(STUDY.format(family="multinomial", opening="counts"))


def test_a_level_that_two_hospitals_have_stops_the_study_before_its_sums(hospitals: Network) -> None:
    data = hospitals.data["c"]
    data["grade"][data["grade"] == "high"] = "middle"
    with pytest.raises(Withheld, match=r"grade\[high\] is at fewer than 3 sites"):
        hospitals.fit(STUDY.format(family="ordinal", opening="counts"))


def test_a_group_that_all_have_one_level_stops_the_study_before_its_sums(hospitals: Network) -> None:
    for data in hospitals.data.values():
        data["grade"][data["sex"] == 1] = "middle"
    with pytest.raises(Withheld, match="full cell"):
        hospitals.fit(STUDY.format(family="ordinal", opening="counts"))
