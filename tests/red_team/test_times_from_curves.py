"""Attacks on curves: a patient's time read off the sums, the published curve, neighbouring steps, or two studies."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.learners.survival_study import curve_study, play_curves, read_columns, split_sites
from support.red_team.hospitals import Network

from coterie_learners.core import masked_sum
from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import Withheld
from coterie_learners.study.document import Floors, Study
from coterie_learners.study.rows import ArrayCodes
from coterie_learners.survival.plan import CurvePlan
from coterie_learners.survival.step_counts import StepCounts
from coterie_learners.survival.survival_curves import share_counts_of_steps, survival_curves
from coterie_node.errors import ReleaseRefused
from coterie_node.release.gate import Gate
from coterie_node.release.policy import Policy

FLOOR = 5
STUDY = """
name = "times"
sites = ["a", "b", "c"]
formula = "death ~ 1"
patient = "pseudonym"
[learner]
name = "survival_curves"
time = "months"
event = "death"
aggregation = "{aggregation}"
time_grid = {{ width = {width}, horizon = 36 }}
[variables.months]
type = "number"
range = [0, 100]
[variables.death]
type = "binary"
"""


def read_off(counts: StepCounts) -> Iterator[float]:
    """Every number of patients that a reader can take off the counts: sums of runs of steps, and who is at risk."""
    for array in (counts.events, counts.censored, counts.events + counts.censored):
        sums = np.concatenate([np.zeros((*array.shape[:-1], 1)), np.cumsum(array, axis=-1)], axis=-1)
        for i, k in itertools.combinations(range(sums.shape[-1]), 2):
            yield from (sums[..., k] - sums[..., i]).ravel().tolist()
    yield from counts.at_risk.ravel().tolist()


def test_no_small_count_follows_from_the_pooled_counts_or_differences_of_neighbours() -> None:
    _, table = play_curves(curve_study(3, floor=FLOOR, group=None))
    counts = StepCounts(*(np.asarray(table.last()[name]) for name in ("events", "censored", "entries")))
    assert counts.events.shape[-1] > 1
    assert not [n for n in read_off(counts) if 0 < n < FLOOR]


def test_the_drops_of_the_published_curve_stand_on_the_floor() -> None:
    fit, _ = play_curves(curve_study(3, floor=FLOOR, group=None))
    (group,) = fit.details["survival"]["groups"]
    survival = np.array([1.0, *group["survival"]])
    drops = (1.0 - survival[1:] / survival[:-1]) * np.array(group["at_risk"])
    assert not [n for n in np.rint(drops).tolist() if 0 < n < FLOOR]


def test_all_other_sites_together_see_no_small_count_of_the_last_one() -> None:
    study = curve_study(3, floor=FLOOR, group=None)
    fit, table = play_curves(study)
    multiple = round(fit.details["survival"]["grid"]["width"] / 2)
    machines = {name: table.machines[name].seat(study.sites, 0) for name in study.sites}
    victim, *others = study.sites
    words: NDArray[np.uint64] = np.asarray(table.posts("counts")[victim]["masked"])
    for peer in others:
        pad = np.frombuffer(machines[peer].mask(victim, "counts", words.nbytes), "<u8").reshape(words.shape)
        words = masked_sum.add_words(words, masked_sum.negate_words(pad) if victim < peer else pad)
    shapes = {"events": (1, 1, 18 // multiple), "censored": (1, 1, 18 // multiple)}
    own = masked_sum.unmask_sums({victim: {"masked": words}}, shapes)
    assert own["events"].sum() > 0
    counts = StepCounts(own["events"], own["censored"], np.zeros_like(own["events"]))
    assert not [n for a in (counts.events, counts.censored) for n in a.ravel().tolist() if 0 < n < FLOOR]


def test_one_late_event_at_one_site_widens_the_steps_of_all() -> None:
    columns = read_columns()
    study = curve_study(3, width=12, floor=FLOOR, group=None)
    rows = split_sites(columns, study.sites)
    assert play_curves(study, rows)[0].details["survival"]["grid"]["width"] == 12
    late = (columns["months"] > 24) & (columns["died"] == 1) & (np.arange(900) % 3 == 0)
    kept = ~late | (np.arange(900) == np.flatnonzero(late)[0])
    rows["north"] = ArrayCodes({k: v[kept & (np.arange(900) % 3 == 0)] for k, v in columns.items()})
    assert play_curves(study, rows)[0].details["survival"]["grid"]["width"] == 36


def draw(seed: int, n: int = 400) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    exits, leaves = rng.exponential(25, n), rng.uniform(5, 70, n)
    months = np.round(np.minimum(exits, leaves), 2)
    return {
        "pseudonym": np.array([f"{seed}-{k}" for k in range(n)]),
        "months": months,
        "age": np.round(rng.normal(60, 9, n)),
        "death": (exits <= leaves).astype(int),
    }


@pytest.fixture
def hospitals(tmp_path: Path) -> Network:
    network = Network(tmp_path, {site: draw(k) for k, site in enumerate("abc")})
    # The patient that the attackers look for.
    network.data["a"]["months"][:4], network.data["a"]["death"][:4] = [12.0, 12.05, 36.05, 9.02], 1
    return network


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
def test_a_second_study_over_all_but_one_patient_is_refused(hospitals: Network, aggregation: str) -> None:
    text = STUDY.format(aggregation=aggregation, width=12)
    hospitals.fit(text, 400 - 1, "a")
    with pytest.raises(ReleaseRefused, match=r"\(added\)"):
        hospitals.fit(text)


COX = STUDY.replace("death ~ 1", "death ~ age").replace("survival_curves", "cox")
COX = COX.replace("time_grid = {{ width = {width}, horizon = 36 }}\n", "").replace(
    'aggregation = "{aggregation}"', "{more}"
)
COX += '[variables.age]\ntype = "number"\nrange = [0, 120]\n'


def test_a_second_cox_model_over_all_but_one_patient_is_refused(hospitals: Network) -> None:
    hospitals.fit(COX.format(more=""), 400 - 1, "a")
    with pytest.raises(ReleaseRefused, match=r"\(added\)"):
        hospitals.fit(COX.format(more=""))


def test_a_cox_model_with_one_time_corrected_is_refused_after_the_curves(hospitals: Network) -> None:
    hospitals.fit(STUDY.format(aggregation="masked", width=12))
    hospitals.data["b"]["months"][3] = 0.5
    with pytest.raises(ReleaseRefused, match=r"\(value changed\)"):
        hospitals.fit(COX.format(more=""))


def test_a_cox_model_whose_levels_are_not_opened_first_is_refused(hospitals: Network) -> None:
    with pytest.raises(ReleaseRefused, match=r"not opened"):
        hospitals.fit(COX.format(more='opening = "none"'))


def test_a_corrected_time_is_refused_as_a_second_study(hospitals: Network) -> None:
    text = STUDY.format(aggregation="masked", width=12)
    hospitals.fit(text)
    hospitals.data["a"]["months"][3] = 0.5
    with pytest.raises(ReleaseRefused, match=r"\(value changed\)"):
        hospitals.fit(text)


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
def test_a_site_s_stricter_floor_widens_the_steps_of_all(hospitals: Network, aggregation: str) -> None:
    text = STUDY.format(aggregation=aggregation, width=6) + "\n[disclosure]\ncell = 0\nrows = 5\n"
    assert hospitals.fit(text).details["survival"]["grid"]["width"] == 6
    hospitals.policy, hospitals.logs = Policy(floors=Floors(cell=40)), {}
    assert hospitals.fit(text).details["survival"]["grid"]["width"] == 18


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
def test_a_site_s_stricter_floor_that_no_steps_pass_keeps_its_counts_back(hospitals: Network, aggregation: str) -> None:
    text = STUDY.format(aggregation=aggregation, width=6) + "\n[disclosure]\ncell = 0\nrows = 5\n"
    hospitals.policy = Policy(floors=Floors(cell=350))
    with pytest.raises(Withheld, match=r"a site's own policy may have a stricter floor"):
        hospitals.fit(text)


def test_the_gate_keeps_plain_counts_back_that_are_below_a_site_s_own_floor(hospitals: Network) -> None:
    text = STUDY.format(aggregation="plain", width=6) + "\n[disclosure]\ncell = 0\nrows = 5\n"
    study = complete_study(Study.from_toml(text))
    site = Site(study, "a", data=ArrayCodes({k: hospitals.data["a"][k] for k in ("months", "death")}), parties=("a",))
    gate, script = Gate(study, Policy(floors=Floors(cell=40))), survival_curves(site)
    next(script)
    step = script.send({name: {"passes": np.ones(4)} for name in study.sites})
    verdict = gate.judge(step, site, share_counts_of_steps(site, CurvePlan.of(study), 1))
    assert verdict.refused
    assert "counts below 40 patients" in verdict.sentence


def test_a_study_of_few_patients_posts_no_counts() -> None:
    study = curve_study(3, floor=FLOOR, group=None)
    few = {k: v[:12] for k, v in read_columns().items()}
    with pytest.raises(Withheld):
        play_curves(study, split_sites(few, study.sites))


# Two studies of curves

GROUPED = STUDY.replace("[variables.months]", '[variables.sex]\ntype = "binary"\n[variables.months]')


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
@pytest.mark.parametrize(("width", "horizon"), [(12.1, 36.3), (11.99, 35.97), (18.05, 36.1), (6.02, 36.12)])
def test_two_grids_whose_ends_lie_near_each_other(
    hospitals: Network, aggregation: str, width: float, horizon: float
) -> None:
    """Few patients leave between month 12 and 12.1: the cumulative counts of the two grids differ by these."""
    hospitals.fit(STUDY.format(aggregation=aggregation, width=12))
    second = STUDY.format(aggregation=aggregation, width=width).replace("horizon = 36", f"horizon = {horizon}")
    with pytest.raises(ReleaseRefused, match=r"on another grid of months.*\(time steps\).*one grid"):
        hospitals.fit(second)


def test_two_grids_one_by_group(hospitals: Network) -> None:
    for site in "abc":
        hospitals.data[site]["sex"] = np.arange(400) % 2
    hospitals.fit(GROUPED.format(aggregation="plain", width=12).replace("[learner]", '[learner]\ngroup = "sex"'))
    second = GROUPED.format(aggregation="plain", width=12.1).replace("horizon = 36", "horizon = 36.3")
    with pytest.raises(ReleaseRefused, match=r"\(time steps\)"):
        hospitals.fit(second)


def test_two_grids_of_two_outcomes(hospitals: Network) -> None:
    """Who leaves does not depend on the outcome that is counted."""
    for site in "abc":
        hospitals.data[site]["relapse"] = np.arange(400) % 2
    hospitals.fit(STUDY.format(aggregation="masked", width=12))
    second = STUDY.format(aggregation="masked", width=12.1).replace("horizon = 36", "horizon = 36.3")
    with pytest.raises(ReleaseRefused, match=r"\(time steps\)"):
        hospitals.fit(second.replace("death", "relapse"))


def test_three_grids_of_which_no_earlier_two_lie_near_each_other(hospitals: Network) -> None:
    hospitals.fit(STUDY.format(aggregation="masked", width=12))
    hospitals.fit(STUDY.format(aggregation="masked", width=18))
    with pytest.raises(ReleaseRefused, match=r"\(time steps\)"):
        hospitals.fit(STUDY.format(aggregation="masked", width=18.1).replace("horizon = 36", "horizon = 36.2"))


def test_two_horizons_that_lie_near_each_other(hospitals: Network) -> None:
    hospitals.fit(STUDY.format(aggregation="plain", width=36))
    with pytest.raises(ReleaseRefused, match=r"\(time steps\)"):
        hospitals.fit(STUDY.format(aggregation="plain", width=36.1).replace("horizon = 36", "horizon = 36.1"))


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
def test_grids_whose_joint_steps_have_many_patients_pass(hospitals: Network, aggregation: str) -> None:
    for width in (12, 18, 12, 36):
        hospitals.fit(STUDY.format(aggregation=aggregation, width=width))


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
def test_thirty_patients_more_are_counts_of_thirty_patients(hospitals: Network, aggregation: str) -> None:
    text = STUDY.format(aggregation=aggregation, width=12)
    hospitals.fit(text, 400 - 30)
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*in a step of months"):
        hospitals.fit(text)


def test_patients_who_left_the_file_are_judged_by_the_counts_of_the_former_study(hospitals: Network) -> None:
    text = STUDY.format(aggregation="masked", width=12)
    hospitals.fit(text)
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*in a step of months"):
        hospitals.fit(text, 400 - 30)


def test_many_patients_more_pass_on_wide_steps(hospitals: Network) -> None:
    text = STUDY.format(aggregation="masked", width=12)
    hospitals.fit(text, 180)
    hospitals.fit(text)
