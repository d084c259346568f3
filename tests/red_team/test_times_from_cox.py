"""Attacks on a baseline hazard that all sites have in common: covariates read off the sums of neighbouring steps."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.learners.cox_cohort import PatientProtocol, common_study, read_cohort, split_rows
from support.red_team.hospitals import Network

from coterie_learners.core import masked_sum
from coterie_learners.cox.common_baseline import list_cell_shapes
from coterie_learners.cox.cox_plan import CoxPlan
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Floors
from coterie_node.errors import ReleaseRefused
from coterie_node.release.policy import Policy

FLOOR = 5
TABLES: dict[str, Any] = {"formula": "died ~ arm + stage", "max_rounds": 6, "horizon": 36}
STUDY = """
name = "hazards"
sites = ["a", "b", "c"]
formula = "death ~ age"
patient = "pseudonym"
[learner]
name = "cox"
time = "months"
event = "death"
baseline = "common"
max_rounds = 6
opening = "{opening}"
time_grid = {{ width = {width}, horizon = {horizon} }}
[variables.months]
type = "number"
range = [0, 100]
[variables.death]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
"""


def open_sums(table: PatientProtocol, topic: str, size: int) -> dict[str, Array]:
    """What everybody reads: the sums over all sites of a round."""
    shapes = list_cell_shapes(CoxPlan.of(table.study), size)
    return masked_sum.unmask_sums(table.posts(topic), shapes)


def count_events(table: PatientProtocol) -> int:
    """Number of steps with an event, as everybody knows it."""
    words = np.asarray(table.posts("sums/0")["north"]["masked"]).shape[0]
    return next(n for n in range(1, words) if masked_sum.size_of(list_cell_shapes(CoxPlan.of(table.study), n)) == words)


def list_leavers(sums: dict[str, Array]) -> tuple[Array, Array]:
    """Numbers of patients who leave between neighbouring steps (c,), and their sums of x (c, p)."""
    return sums["s0"] - np.append(sums["s0"][1:], 0.0), sums["s1"] - np.vstack([sums["s1"][1:], 0.0 * sums["s1"][:1]])


def find_patterns(sums: list[dict[str, Array]], betas: list[Array], step: int) -> set[tuple[int, ...]]:
    """Which numbers of patients by pattern of arm and stage fit what leaves between two steps in all rounds."""
    patterns = np.array([(b, c, late) for b, c in ((0, 0), (1, 0), (0, 1)) for late in (0, 1)], dtype=float)
    n = round(float(list_leavers(sums[0])[0][step]))
    fits = set()
    for places in itertools.combinations_with_replacement(range(6), n):
        counts = np.bincount(places, minlength=6)
        risks = [np.exp(patterns @ beta) for beta in betas]
        if all(abs(counts @ r - list_leavers(s)[0][step]) < 1e-9 for r, s in zip(risks, sums, strict=True)):
            fits.add(tuple(counts.tolist()))
    return fits


def play(study_options: dict[str, Any], floor: int) -> PatientProtocol:
    table = PatientProtocol(common_study(floor=floor, ties="breslow", **study_options), read_cohort())
    table.play()
    return table


def read_betas(table: PatientProtocol, rounds: int) -> list[Array]:
    models = [next(iter(table.posts(f"model/{t}").values())) for t in range(rounds - 1)]
    return [np.zeros(len(models[0]["beta"])), *(np.asarray(model["beta"]) for model in models)]


def test_without_a_floor_two_rounds_show_the_covariates_of_who_leaves_in_a_step() -> None:
    table = play({**TABLES, "width": 0.5}, 0)
    sums = [open_sums(table, f"sums/{t}", count_events(table)) for t in range(2)]
    leavers, _ = list_leavers(sums[0])
    (step, *_) = np.flatnonzero((leavers > 1) & (leavers <= 4)).tolist()
    assert len(find_patterns(sums, read_betas(table, 2), step)) == 1


def test_with_the_floor_nobody_of_a_pattern_leaves_alone() -> None:
    columns, _, _ = read_cohort()
    table = play({**TABLES, "width": 3, "horizon": 36}, FLOOR)
    size = count_events(table)
    sums = open_sums(table, "sums/0", size)
    leavers, first = list_leavers(sums)
    cells = [leavers, *first.T, leavers - first[:, 0] - first[:, 1], leavers - first[:, 2]]
    assert not [n for n in np.rint(np.concatenate(cells)).tolist() if 0 < n < FLOOR]
    last = np.clip(np.ceil(columns["months"] / (36 / size)), 1, size)
    keys = np.stack([last, columns["arm"], columns["stage"], columns["died"] * (columns["months"] <= 36)])
    assert np.unique(keys, axis=1, return_counts=True)[1].min() >= FLOOR


def test_all_other_sites_together_see_no_small_pattern_of_the_last_one() -> None:
    columns, place, _ = read_cohort()
    table = play({**TABLES, "width": 3, "horizon": 36}, FLOOR)
    size, study = count_events(table), table.study
    machines = {name: table.machines[name].seat(study.sites, 0) for name in study.sites}
    victim, *others = study.sites
    words: NDArray[np.uint64] = np.asarray(table.posts("sums/0")[victim]["masked"])
    for peer in others:
        pad = np.frombuffer(machines[peer].mask(victim, "sums/0", words.nbytes), "<u8").reshape(words.shape)
        words = masked_sum.add_words(words, masked_sum.negate_words(pad) if victim < peer else pad)
    shapes = list_cell_shapes(CoxPlan.of(study), size)
    leavers, first = list_leavers(masked_sum.unmask_sums({victim: {"masked": words}}, shapes))
    assert round(float(leavers.sum())) == np.count_nonzero(place == 0) == len(columns["age"]) // 3
    assert not [n for n in np.rint(np.concatenate([leavers, *first.T])).tolist() if 0 < n < FLOOR]


def test_measured_covariates_have_more_values_among_who_leaves_than_all_rounds_show_sums() -> None:
    options: dict[str, Any] = {"formula": "died ~ age", "width": 2, "horizon": 36}
    for rounds in (6, 12):
        table = play({**options, "max_rounds": rounds}, FLOOR)
        leavers, _ = list_leavers(open_sums(table, "sums/0", count_events(table)))
        assert np.rint(leavers).min() >= 2 * rounds


def test_one_change_of_a_covariate_widens_the_steps_until_it_is_within_one() -> None:
    """His two rows would leave and enter between neighbouring steps alone."""
    columns, place, patient = split_rows(read_cohort())
    late = 900 + int(np.argmax(columns["months"][900:]))
    assert 18 < columns["months"][late] < 36
    kept = (np.arange(len(place)) < 900) | (np.arange(len(place)) == late)
    columns["start"][:900] = np.where(np.arange(900) == patient[late], columns["start"][:900], 0.0)
    cohort = {name: values[kept] for name, values in columns.items()}, place[kept], patient[kept]
    options: dict[str, Any] = {"entry": "start", "formula": "died ~ treated", "patient": "pseudonym", "width": 3}
    for floor, steps in ((0, 12), (FLOOR, 1)):
        table = PatientProtocol(common_study(floor=floor, ties="breslow", **options), cohort)
        table.play()
        assert count_events(table) == steps


def draw(seed: int, n: int = 400) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    exits, leaves = rng.exponential(25, n), rng.uniform(5, 70, n)
    return {
        "pseudonym": np.array([f"{seed}-{k}" for k in range(n)]),
        "months": np.round(np.minimum(exits, leaves), 2),
        "age": np.round(rng.normal(60, 9, n)),
        "death": (exits <= leaves).astype(int),
    }


@pytest.fixture
def hospitals(tmp_path: Path) -> Network:
    return Network(tmp_path, {site: draw(k) for k, site in enumerate("abc")})


def test_an_honest_study_passes_the_gates(hospitals: Network) -> None:
    hospitals.fit(STUDY.format(opening="counts", width=6, horizon=36))


def test_a_site_s_stricter_floor_widens_the_steps_of_all(hospitals: Network) -> None:
    text = STUDY.format(opening="counts", width=6, horizon=36)
    widths = []
    for floor in (5, 60):
        hospitals.policy, hospitals.logs = Policy(floors=Floors(cell=floor)), {}
        widths.append(hospitals.fit(text).details["cox"]["baseline"]["grid"]["width"])
    assert widths[0] < widths[1]


def test_a_second_study_on_a_grid_whose_ends_lie_near_is_refused(hospitals: Network) -> None:
    hospitals.data["a"]["months"][0], hospitals.data["a"]["death"][0] = 12.05, 1
    hospitals.fit(STUDY.format(opening="counts", width=12, horizon=36))
    with pytest.raises(ReleaseRefused, match=r"\(time steps\)"):
        hospitals.fit(STUDY.format(opening="counts", width=12.1, horizon=36.3))


def test_a_second_study_over_all_but_one_patient_is_refused(hospitals: Network) -> None:
    hospitals.fit(STUDY.format(opening="counts", width=6, horizon=36), 400 - 1, "a")
    with pytest.raises(ReleaseRefused, match=r"\(added\)"):
        hospitals.fit(STUDY.format(opening="counts", width=6, horizon=36))


def test_a_study_whose_levels_are_not_opened_first_is_refused(hospitals: Network) -> None:
    with pytest.raises(ReleaseRefused, match=r"not opened"):
        hospitals.fit(STUDY.format(opening="none", width=6, horizon=36))


CHANGING = """
name = "changing"
sites = ["a", "b", "c"]
formula = "death ~ age + treated"
patient = "pseudonym"
[learner]
name = "cox"
time = "months"
event = "death"
entry = "start"
robust = "patient"
[variables.months]
type = "number"
range = [0, 100]
[variables.start]
type = "number"
range = [0, 100]
[variables.death]
type = "binary"
[variables.treated]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
"""


def test_patients_with_several_rows_pass_the_gates_of_files_that_name_them(hospitals: Network) -> None:
    for site, rows in hospitals.data.items():
        n = len(rows["months"])
        first = {name: values[: n // 2].copy() for name, values in rows.items()}
        first["months"], first["death"] = np.round(first["months"] * 0.4, 3) + 0.001, np.zeros(n // 2, int)
        start = np.concatenate([first["months"], np.zeros(n - n // 2), np.zeros(n // 2)])
        treated = np.concatenate([np.ones(n // 2, int), np.zeros(n, int)])
        joined = {name: np.concatenate([values, first[name]]) for name, values in rows.items()}
        joined["months"][:n] += 0.01
        hospitals.data[site] = {**joined, "start": start, "treated": treated[: n + n // 2]}
    hospitals.fit(CHANGING)
