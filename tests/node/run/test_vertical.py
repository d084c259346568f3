"""Columns split over sites, from files to the result: NHEFS and simulated patients, replay, gate, dry run."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.learners import vertical
from support.learners.clinic_study import CLINIC_VARIABLES

from coterie_learners.errors import DataError, StudyError, Withheld
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.analysis.conformance import check_learner
from coterie_node.analysis.pooled import Reference
from coterie_node.audit.replay import replay
from coterie_node.demo.cases import find_case
from coterie_node.errors import ConfigError, ReleaseRefused
from coterie_node.release.gate import Gate
from coterie_node.run.preview import dry_run
from coterie_node.run.simulate import simulate
from coterie_node.run.study_files import load_study

LEARNERS = ("vertigo", "valoris")


@pytest.fixture(scope="module", params=LEARNERS)
def nhefs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Study, dict[str, Path], Reference]:
    case, folder = find_case(request.param), tmp_path_factory.mktemp(request.param)
    sites = case.site_names(3)
    (folder / "study.toml").write_text(case.study_text(sites))
    return load_study(folder / "study.toml"), dict(case.write_sites(folder, sites)), case.pooled()


def test_on_nhefs_the_result_is_the_pooled_one_with_each_term_s_site(
    nhefs: tuple[Study, dict[str, Path], Reference],
) -> None:
    study, files, reference = nhefs
    result = analyse(study, files)
    differences = reference.differences(result.fit)
    assert differences["max_abs_estimate"] < 1e-9
    assert differences["max_abs_std_error"] < 1e-8
    plain = json.loads(json.dumps(result.as_dict()))
    assert [row["term"] for row in plain["terms"]] == list(Design(study).names)
    sites = {row["term"]: row["site"] for row in plain["terms"]}
    assert (sites["age"], sites["active[inactive]"], sites["sbp"]) == ("demographics", "habits", "clinical")
    assert sites["(Intercept)"] == "clinical"
    alignment = plain["details"]["alignment"]
    assert alignment["unmatched"] == {"demographics": 0, "habits": 0, "clinical": 0}
    assert alignment["incomplete"] == {"demographics": 0, "habits": 0, "clinical": 93}
    assert (alignment["common"], alignment["complete"]) == (1629, 1536)
    assert plain["details"]["disclosure/demographics"]["binary_columns"] == ["sex[female]", "race[black-or-other]"]
    grade = "identical" if study.learner.name == "vertigo" else "nothing recomputed"
    verdict = "PASS" if grade == "identical" else "RECORD INTACT"
    assert (plain["replay"]["verdict"], plain["replay"]["grade"]) == (verdict, grade)
    assert plain["replay"]["unchecked"] == 0
    if study.learner.name == "valoris":
        assert all(verdict["released"] for verdict in plain["details"]["privacy"].values())
        assert "demographics: every outcome could be the other one" in result.text()


def test_without_a_grant_the_auditor_says_what_is_sealed(nhefs: tuple[Study, dict[str, Path], Reference]) -> None:
    study, files, _ = nhefs
    from coterie_node.data.load import load_site

    rows = {}
    for name, path in files.items():
        loaded = load_site(path, study, name)
        assert loaded is not None
        rows[name] = loaded.rows
    world, runners, _ = simulate(study, rows)
    stranger = replay(world.ledger(), world.blobs, world.number)
    grade = "partly sealed" if study.learner.name == "vertigo" else "nothing recomputed"
    assert (stranger.verdict.verdict, stranger.verdict.grade) == ("RECORD INTACT", grade)
    assert "published model is" not in stranger.verdict.claim
    steps = runners["clinical"].machine.checked
    assert stranger.verdict.steps + stranger.verdict.unchecked == steps
    assert stranger.verdict.steps == (1 if study.learner.name == "vertigo" else 0)
    granted = replay(world.ledger(), world.blobs, world.number, granted=world.view())
    assert (granted.verdict.steps, granted.verdict.unchecked) == (steps, 0)
    if study.learner.name == "vertigo":
        np.testing.assert_array_equal(stranger.fit.estimates, runners["clinical"].machine.result.estimates)


@pytest.mark.parametrize(
    ("learner", "options"),
    [
        ("vertigo", {}),
        pytest.param("vertigo", {"exchange": "gram", "ridge": 1.0}, marks=pytest.mark.long),
        pytest.param("valoris", {}, marks=pytest.mark.long),
        pytest.param("valoris", {"mode": "aggregated"}, marks=pytest.mark.long),
    ],
)
def test_both_learners_obey(learner: str, options: Mapping[str, Any]) -> None:
    columns_by_site = {"north": ("died", "a1", "p1"), "south": ("b1", "q1"), "east": ("c1",)}
    study, codes = (
        vertical.study(columns_by_site, learner, **options),
        vertical.draw(300, columns_by_site=columns_by_site),
    )
    if "ridge" in options:
        from learners.vertical.test_vertigo import penalised

        estimates = penalised(study, codes, 1.0, False)
        reference = Reference(dict(zip(Design(study).names, estimates.tolist(), strict=True)))
    else:
        pooled_fit = vertical.pooled(study, codes)
        reference = Reference(*(dict(zip(Design(study).names, v.tolist(), strict=True)) for v in pooled_fit))
    report = check_learner(study, vertical.split(study, codes), reference, tolerance=1e-8)
    assert report.restarts > 5
    assert report.server_steps == (1 if learner == "vertigo" else 0)
    assert report.estimate_difference < 1e-8
    topics = set(report.disclosed)
    assert {"keys", "align/points", "align/raise/1", "align/report"} < topics
    assert ("factor" in topics) is (learner == "vertigo")


# Files


STUDY = (
    """
name = "clinics"
sites = ["registry", "clinic"]
formula = "dead ~ age + sex + dose"
identifier = ["code", "born"]
[columns]
registry = ["dead", "dose"]
clinic = ["age", "sex"]
[learner]
name = "LEARNER"
[disclosure]
rebuild = "REBUILD"
"""
    + CLINIC_VARIABLES
)


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def files(folder: Path, n: int = 120) -> dict[str, Path]:
    rng = np.random.default_rng(8)
    age, sex, dose = rng.integers(20, 90, n), rng.integers(0, 2, n), np.round(rng.uniform(0, 10, n), 2)
    dead = (rng.random(n) < 1 / (1 + np.exp(3 - age / 25 - dose / 10))).astype(int)
    clinic = [(f"P-{k:03d}", 1900 + k % 50, age[k], ["male", "female"][sex[k]]) for k in rng.permutation(n)]
    registry = [(1900 + k % 50, f"p{k}", dead[k], dose[k]) for k in rng.permutation(n)]
    return {
        "clinic": write(folder / "clinic.csv", ("code", "born", "age", "sex"), clinic),
        "registry": write(folder / "registry.csv", ("born", "code", "dead", "dose"), registry),
    }


def study(folder: Path, learner: str = "valoris", rebuild: str = "allow") -> Study:
    path = folder / "study.toml"
    path.write_text(STUDY.replace("LEARNER", learner).replace("REBUILD", rebuild))
    return load_study(path)


@pytest.mark.parametrize("learner", LEARNERS)
def test_files_with_two_identifying_columns_written_differently_are_joined(tmp_path: Path, learner: str) -> None:
    result = analyse(study(tmp_path, learner), files(tmp_path))
    assert result.fit.n == 120
    assert result.fit.details["alignment"]["written_differently"] == 120
    assert "120 of their identifiers are written differently" in result.text()


def test_the_gate_keeps_a_factor_of_binary_columns_back_unless_the_study_allows_it(tmp_path: Path) -> None:
    with pytest.raises(ReleaseRefused, match=r"rebuild sex\[female\] row by row") as caught:
        analyse(study(tmp_path, rebuild="refuse"), files(tmp_path))
    assert "clinic's release gate keeps 'factor/clinic' back" in caught.value.message
    with pytest.raises(ReleaseRefused, match="rebuild"):
        analyse(study(tmp_path, "vertigo", rebuild="refuse"), files(tmp_path))


@pytest.mark.parametrize("mode", ["per_site", "aggregated"])
def test_the_gate_keeps_typed_numbers_back_in_both_modes(mode: str) -> None:
    columns_by_site = {"north": ("died",), "south": ("b1", "b2"), "east": ("c1",)}
    plain = vertical.study(columns_by_site, "valoris", mode=mode).model_dump()
    of = Study.model_validate({**plain, "disclosure": {"rebuild": "refuse"}})
    codes = vertical.draw(200, columns_by_site=columns_by_site)
    rows = vertical.split(of, {**codes, "b2": np.round(codes["b2"], 3)})
    with pytest.raises(ReleaseRefused, match="on a grid") as caught:
        simulate(of, rows, gates={name: Gate(of) for name in columns_by_site})
    assert caught.value.code == "CO-R301"
    assert "south's release gate keeps 'factor/south' back" in caught.value.message
    assert "rebuild b2 row by row" in caught.value.message
    assert "b1" not in caught.value.message


def test_the_floor_on_events_is_held_where_the_outcome_is(tmp_path: Path) -> None:
    for learner in LEARNERS:
        plain = study(tmp_path, learner).model_dump()
        plain["disclosure"]["events_per_parameter"] = 20.0
        with pytest.raises(ReleaseRefused, match="fewer than 20 events here for each of 4 coefficients"):
            analyse(Study.model_validate(plain), files(tmp_path))


def test_a_dry_run_says_what_would_leave_and_to_which_sites(tmp_path: Path) -> None:
    leaving = dry_run(study(tmp_path), dict(files(tmp_path)))
    sentences = {(preview.site, preview.release.verdict.topic): preview.release.verdict.sentence for preview in leaving}
    assert "goes to registry" in sentences["clinic", "factor/clinic"]
    assert "up to one rotation" in sentences["clinic", "factor/clinic"]
    assert "Coefficients with their covariance goes to clinic" in sentences["registry", "answer/clinic"]


def test_a_dry_run_of_one_site_alone_asks_for_the_others(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        dry_run(study(tmp_path), {"clinic": files(tmp_path)["clinic"]})
    assert caught.value.code == "CO-S106"


def test_duplicates_are_refused_before_anything_leaves(tmp_path: Path) -> None:
    paths = files(tmp_path)
    lines = paths["clinic"].read_text().splitlines()
    paths["clinic"].write_text("\n".join([*lines, lines[5]]) + "\n")
    with pytest.raises(DataError) as caught:
        analyse(study(tmp_path), paths)
    assert caught.value.code == "CO-D133"


def test_an_answer_that_gives_outcomes_away_ends_the_study_for_all(tmp_path: Path) -> None:
    from red_team.test_published_attacks import FEW, draw_few

    unsafe = vertical.study(FEW, "valoris", ridge=30.0)
    with pytest.raises(Withheld) as caught:
        simulate(unsafe, vertical.split(unsafe, draw_few()))
    assert caught.value.code == "CO-D401"


def test_the_demos_on_split_columns_have_three_sites() -> None:
    for learner in LEARNERS:
        assert find_case(learner).site_names(3) == ("demographics", "habits", "clinical")
        with pytest.raises(ConfigError) as caught:
            find_case(learner).site_names(2)
        assert caught.value.code == "CO-F314"
