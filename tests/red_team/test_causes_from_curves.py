"""Attacks on competing causes: when, and of what, a patient died, read off the counts, the curves, or two studies."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.learners.survival_study import curve_study, play_curves, read_causes, split_sites
from support.red_team.hospitals import Network

from coterie_learners.core import masked_sum
from coterie_learners.core.fit import Fit
from coterie_learners.survival.step_counts import StepCounts
from coterie_node.errors import ReleaseRefused

FLOOR = 5
HEAD = """
name = "causes"
sites = ["a", "b", "c"]
formula = "cause ~ {terms}"
patient = "pseudonym"
[learner]
time = "months"
event = "cause"
{learner}
[variables.months]
type = "number"
range = [0, 100]
[variables.cause]
type = "category"
levels = ["alive", "cancer", "other"]
[variables.age]
type = "number"
range = [0, 120]
"""
GRID = "time_grid = {{ width = {width}, horizon = {horizon} }}"


def ask_curves(width: float, horizon: float = 36) -> str:
    learner = 'name = "survival_curves"\n' + GRID.format(width=width, horizon=horizon)
    return HEAD.format(terms="1", learner=learner)


def ask_cox(cause: str, width: float = 36, horizon: float = 36) -> str:
    options = f'name = "cox"\nbaseline = "common"\nmax_rounds = 6\ncause = "{cause}"\n'
    return HEAD.format(terms="age", learner=options + GRID.format(width=width, horizon=horizon))


def solve_events(fit: Fit) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """The numbers of patients in each step that follow from the published curves alone."""
    details = fit.details["survival"]
    for at, group in enumerate(details["groups"]):
        before = np.array([1.0, *group["survival"][:-1]])
        for cause in details["causes"]:
            steps = np.diff(cause["groups"][at]["incidence"], prepend=0.0)
            yield cause["cause"], np.rint(steps / before * np.array(group["at_risk"]))
        at_risk = np.array(group["at_risk"])
        yield "any", np.rint((1.0 - np.array(group["survival"]) / before) * at_risk)


def list_small(counts: NDArray[np.float64]) -> list[float]:
    """Small numbers of patients among all sums of runs of steps."""
    sums = np.concatenate([[0.0], np.cumsum(counts)])
    pairs = itertools.combinations(range(len(sums)), 2)
    return [n for n in (float(sums[k] - sums[i]) for i, k in pairs) if 0 < n < FLOOR]


def play_causes(floor: int) -> Fit:
    study = curve_study(3, floor=floor, group=None, event="cause")
    return play_curves(study, split_sites(read_causes(), study.sites))[0]


def test_without_a_floor_the_curves_show_when_and_of_what_a_patient_died() -> None:
    columns, fit = read_causes(), play_causes(0)
    events = dict(solve_events(fit))["other"]
    (step, *_) = np.flatnonzero(events == 1).tolist()
    inside = (columns["cause"] == 2) & (np.ceil(columns["months"] / 2) == step + 1)
    assert np.count_nonzero(inside) == 1


def test_with_the_floor_no_small_number_follows_from_the_curves() -> None:
    fit = play_causes(FLOOR)
    assert len(fit.details["survival"]["groups"][0]["times"]) > 1
    for _, events in solve_events(fit):
        assert events.sum() > 0
        assert not list_small(events)
    causes = dict(solve_events(fit))
    assert (causes["cancer"] + causes["other"]).tolist() == causes["any"].tolist()


def test_all_other_sites_together_see_no_small_count_of_a_cause_of_the_last_one() -> None:
    study = curve_study(3, floor=FLOOR, group=None, event="cause")
    fit, table = play_curves(study, split_sites(read_causes(), study.sites))
    steps = len(fit.details["survival"]["groups"][0]["times"])
    machines = {name: table.machines[name].seat(study.sites, 0) for name in study.sites}
    victim, *others = study.sites
    words: NDArray[np.uint64] = np.asarray(table.posts("counts")[victim]["masked"])
    for peer in others:
        pad = np.frombuffer(machines[peer].mask(victim, "counts", words.nbytes), "<u8").reshape(words.shape)
        words = masked_sum.add_words(words, masked_sum.negate_words(pad) if victim < peer else pad)
    shapes: dict[str, tuple[int, ...]] = {"causes": (2, 1, 1, steps), "censored": (1, 1, steps)}
    own = masked_sum.unmask_sums({victim: {"masked": words}}, shapes)
    events = own["causes"].sum(axis=0)
    entries = np.zeros_like(events)
    entries[..., 0] = events.sum() + own["censored"].sum()
    counts = StepCounts(events, own["censored"], entries, own["causes"])
    assert counts.at_risk[0, 0, 0] == 300
    assert own["causes"].sum() > 0
    assert not [n for a in (own["causes"], own["censored"], counts.at_risk) for n in a.ravel() if 0 < n < FLOOR]


def draw(seed: int, n: int = 400) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    exits, leaves = rng.exponential(25, n), rng.uniform(5, 70, n)
    cause = np.where(exits <= leaves, np.where(rng.random(n) < 0.6, "cancer", "other"), "alive")
    return {
        "pseudonym": np.array([f"{seed}-{k}" for k in range(n)]),
        "months": np.round(np.minimum(exits, leaves), 2),
        "age": np.round(rng.normal(60, 9, n)),
        "cause": cause,
    }


@pytest.fixture
def hospitals(tmp_path: Path) -> Network:
    network = Network(tmp_path, {site: draw(k) for k, site in enumerate("abc")})
    # The patient that the attackers look for.
    network.data["a"]["months"][0], network.data["a"]["cause"][0] = 12.05, "other"
    return network


def test_a_second_study_over_all_but_one_patient_is_refused(hospitals: Network) -> None:
    hospitals.fit(ask_curves(12), 400 - 1, "a")
    with pytest.raises(ReleaseRefused, match=r"\(added\)"):
        hospitals.fit(ask_curves(12))


def test_a_cause_that_is_corrected_is_refused_as_a_second_study(hospitals: Network) -> None:
    hospitals.fit(ask_curves(12))
    hospitals.data["a"]["cause"][0] = "cancer"
    with pytest.raises(ReleaseRefused, match=r"\(value changed\)"):
        hospitals.fit(ask_curves(12))


def test_two_grids_whose_ends_lie_near_each_other_are_refused(hospitals: Network) -> None:
    hospitals.fit(ask_curves(12))
    with pytest.raises(ReleaseRefused, match=r"\(time steps\)"):
        hospitals.fit(ask_curves(12.1, 36.3))


def test_a_model_of_one_cause_on_a_grid_near_that_of_the_curves_is_refused(hospitals: Network) -> None:
    hospitals.fit(ask_curves(18))
    with pytest.raises(ReleaseRefused, match=r"\(time steps\)"):
        hospitals.fit(ask_cox("cancer", 18.05, 36.1))


def test_models_of_each_cause_and_the_curves_of_one_grid_pass(hospitals: Network) -> None:
    assert hospitals.fit(ask_curves(18)).details["survival"]["grid"]["width"] == 18
    for cause in ("cancer", "other"):
        assert hospitals.fit(ask_cox(cause, 18)).details["cox"]["cause"] == cause


def test_models_of_two_causes_that_show_together_who_has_neither_are_refused(hospitals: Network) -> None:
    """Who leaves a step without cancer, and who without another cause, are many; with neither there are two."""
    for site, rows in hospitals.data.items():
        early = np.flatnonzero((rows["months"] <= 18) & (rows["cause"] == "alive"))
        rows["cause"][early[2:] if site == "a" else early] = "cancer"
    hospitals.fit(ask_cox("other", 18))
    hospitals.logs = {}
    hospitals.fit(ask_cox("cancer", 18))
    with pytest.raises(ReleaseRefused, match=r"\(time steps\)"):
        hospitals.fit(ask_cox("other", 18))
