"""Sites count the patients that they have in common before a fit, and nobody learns who they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.core.shared_patients import OwnPatients, check_list, count_pairs
from coterie_learners.errors import ProtocolError, StudyError
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.audit.result import Result

SITES = ("north", "south", "west")
PLAIN = {
    "name": "counted",
    "sites": list(SITES),
    "formula": "y ~ x",
    "patient": "pid",
    "variables": {"y": {"type": "binary"}, "x": {"type": "number", "range": [-6, 6]}},
    "rows": {"shared_patients": "count"},
}
LEARNERS: Mapping[str, Mapping[str, object]] = {
    "glore": {"name": "glore"},
    "glore plain": {"name": "glore", "aggregation": "plain"},
    "secure_lasso": {"name": "secure_lasso", "alpha": 0.01},
}


def study(learner: Mapping[str, object], shared: str = "count") -> Study:
    return complete_study(Study.model_validate({**PLAIN, "learner": learner, "rows": {"shared_patients": shared}}))


def write(folder: Path, patients: Mapping[str, list[str]]) -> dict[str, str]:
    """A file for each site with these patients."""
    rng, files = np.random.default_rng(4), {}
    for site, names in patients.items():
        x = rng.normal(size=len(names)).clip(-5, 5).round(4)
        y = (rng.random(len(names)) < 1 / (1 + np.exp(-x))).astype(int)
        lines = [f"{name},{a},{b}" for name, a, b in zip(names, y, x, strict=True)]
        files[site] = str(folder / f"{site}.csv")
        Path(files[site]).write_text("\n".join(["pid,y,x", *lines]) + "\n")
    return files


def fit(folder: Path, learner: str, patients: Mapping[str, list[str]], shared: str = "count") -> Result:
    return analyse(study(LEARNERS[learner], shared), write(folder, patients))


def name_patients(shared: int) -> dict[str, list[str]]:
    """90, 80 and 70 patients; so many of north are at south too, written otherwise."""
    north = [f"P-{k:04d}" for k in range(90)]
    south = [f"p{k}" for k in range(shared)] + [f"S{k}" for k in range(80 - shared)]
    return {"north": north, "south": south, "west": [f"W{k}" for k in range(70)]}


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_patients_of_each_two_sites_are_counted_and_warned_of(tmp_path: Path, learner: str) -> None:
    result = fit(tmp_path, learner, name_patients(12))
    assert result.fit.details["shared_patients"] == {"north, south": 12}
    assert [w for w in result.fit.warnings if w.startswith("Patients at two sites count twice: north and south 12.")]
    assert result.replay is not None
    assert result.replay.verdict == ("RECORD INTACT" if learner == "secure_lasso" else "PASS")
    assert result.fit.n == 240


def test_sites_without_a_common_patient_are_said_to_have_none(tmp_path: Path) -> None:
    result = fit(tmp_path, "glore", name_patients(0))
    assert result.fit.details["shared_patients"] == {}
    assert "No two sites have a patient in common (counted before the fit)." in result.fit.notes
    assert not any("count twice" in warning for warning in result.fit.warnings)


def test_the_count_changes_no_number_of_the_fit(tmp_path: Path) -> None:
    files = write(tmp_path, name_patients(5))
    counted, plain = (analyse(study(LEARNERS["glore"], shared), files) for shared in ("count", "ignore"))
    np.testing.assert_array_equal(counted.params, plain.params)


def test_a_study_may_refuse_a_single_common_patient(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="north and south have 1 patient in common: each would count twice") as caught:
        fit(tmp_path, "glore", name_patients(1), "refuse")
    assert caught.value.code == "CO-N253"


def test_one_file_in_another_order_at_two_sites_ends_the_study_before_its_sums(tmp_path: Path) -> None:
    north = [f"P-{k:04d}" for k in range(90)]
    patients = {"north": north, "south": north[::-1], "west": [f"W{k}" for k in range(70)]}
    with pytest.raises(StudyError, match=r"90 of the 90 patients of .* the two files seem to be of the same patients"):
        fit(tmp_path, "glore", patients)


def test_a_study_that_does_not_count_has_the_document_that_it_had() -> None:
    assert b"shared_patients" not in study(LEARNERS["glore"], "ignore").document
    assert b"shared_patients" in study(LEARNERS["glore"]).document


@pytest.mark.parametrize(
    "change", [{"patient": ""}, {"ledger": {"silent_site": "exclude"}}, {"cohort": {"where": "x > 0"}}]
)
def test_a_study_that_cannot_count_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"rows\.shared_patients"):
        Study.model_validate({**PLAIN, "learner": LEARNERS["glore"], **change})


def test_people_read_what_the_count_discloses() -> None:
    of = study(LEARNERS["glore"])
    lines = " ".join(learner_of(of).discloses(of).leaves)
    assert "Everybody learns how many patients each two sites have in common" in lines


@pytest.mark.parametrize("size", [0, 3, 6])
def test_a_list_of_a_length_that_no_site_makes_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"A list of {size} elements"):
        check_list({"points": np.zeros((size, 32), np.uint8)})


def test_a_list_that_changes_its_length_on_the_way_is_laid_to_the_site_that_raised_it() -> None:
    of, rng = study(LEARNERS["glore"]), np.random.default_rng(1)
    lists = [{name: {"points": rng.integers(0, 256, (4, 32), np.uint8)} for name in SITES} for _ in SITES]
    lists[2]["north"] = {"points": rng.integers(0, 256, (8, 32), np.uint8)}
    with pytest.raises(ProtocolError, match="north made 8 of the 4 identifiers of south"):
        count_pairs(of, tuple(lists))


def test_the_length_of_a_list_shows_a_power_of_two_only() -> None:
    of = study(LEARNERS["glore"])
    site = Site(of, "north", secret=bytes(32), read_patients=lambda: [f"P{k}" for k in range(33)])
    points = OwnPatients(site).points
    assert len(points) == 64
    assert len(np.unique(points, axis=0)) == 64
    assert [bytes(p) for p in points] == sorted(bytes(p) for p in points)
