"""Two hospitals and a helper: a second question about all patients but one, and small counts that a result shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coterie_learners.core.protocol import Site
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
formula = "died ~ age + male"
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


def write_rows(path: Path, seed: int, rows: int, events: int = 30) -> Path:
    """The first `rows` of a hospital's patients; so many of them have died."""
    rng = np.random.default_rng(seed)
    ages, males = rng.integers(30, 90, PATIENTS).tolist(), rng.integers(0, 2, PATIENTS).tolist()
    died = rng.permutation([1] * events + [0] * (PATIENTS - events)).tolist()
    lines = [f"{seed}-{k},{d},{a},{m}" for k, (d, a, m) in enumerate(zip(died, ages, males, strict=True))]
    path.write_text("\n".join(["person,died,age,male", *lines[:rows]]) + "\n")
    return path


def run_study(
    folder: Path, logs: Mapping[str, PrivacyLog], name: str, rows: int = PATIENTS, events: int = 30, **words: str
) -> None:
    """A study on all of north's patients and the first `rows` of south's, judged beside what left before."""
    study = complete_study(Study.from_toml(STUDY.format(name=name, **{"more": "", "options": "", **words})))
    files = {
        "north": write_rows(folder / "north.csv", 1, PATIENTS),
        "south": write_rows(folder / "south.csv", 2, rows, events),
    }
    data = {site: load_site(file, study, site).rows for site, file in files.items()}  # type: ignore[union-attr]
    gates = {site: Gate(study, log=logs[site]) for site in study.sites}
    with pytest.MonkeyPatch.context() as patch:
        make_site = simulation.site_of

        def make_new_site(*args: Any) -> Site:
            of, site, rows, keys, entries, session = args
            return make_site(of, site, rows, keys, entries, f"{session}/{name}")  # of its own, as on a ledger

        patch.setattr(simulation, "site_of", make_new_site)
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


def test_the_same_question_again_is_let_through(tmp_path: Path, logs: dict[str, PrivacyLog]) -> None:
    run_study(tmp_path, logs, "first")
    run_study(tmp_path, logs, "again")


def test_few_events_of_one_hospital_stop_a_null_deviance_and_nothing_else(
    tmp_path: Path, logs: dict[str, PrivacyLog]
) -> None:
    run_study(tmp_path, logs, "plain", events=3)
    with pytest.raises(ReleaseRefused, match="events"):
        run_study(tmp_path, logs, "null", events=3, options="null_deviance = true")
