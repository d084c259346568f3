"""Attacks on measured outcomes above zero: what a gamma or an inverse Gaussian model, and a Gaussian one, would show.

Each fails when what stops it is taken out; the honest studies beside them pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.lanes import diagonal, later, one_of_each
from support.red_team.hospitals import KNOWN, N, Network, draw, text

from coterie_learners.errors import Withheld
from coterie_node.errors import ReleaseRefused

STAY = 'type = "number"\nrange = [0.000001, 1e8]'
OFFSET = 'type = "number"\nrange = [-60, 60]'
FAMILIES = {
    "gamma": 'family = "gamma"\nlink = "log"',
    "inverse_gaussian": 'family = "inverse_gaussian"\nlink = "log"',
    "gamma_inverse": 'family = "gamma"',
    "inverse_square": 'family = "inverse_gaussian"\nmax_rounds = 60',
    "gaussian": 'family = "gaussian"',
}
ABOVE_ZERO = [name for name in FAMILIES if name != "gaussian"]
WAYS = {"plain": "ab", "masked": "abc"}
CASES = [(family, way) for family in FAMILIES for way in WAYS]


def write_study(family: str, way: str = "masked", formula: str = "stay ~ age + sex", rest: str = KNOWN) -> str:
    learner = f'name = "glore"\naggregation = "{way}"\n{FAMILIES[family]}'
    return text(formula, WAYS[way], learner, rest, stay=STAY, lt=OFFSET)


def draw_stays(seed: int) -> dict[str, Any]:
    rng, k = np.random.default_rng(seed + 50), np.arange(N)
    patients = draw(seed) | {"sex": k // 4 % 2, "hiv": (k // 8 % 4 == 0).astype(int)}
    return patients | {
        "stay": np.round(rng.gamma(4.0, 2.0, N) + 0.5, 3),
        "lt": np.round(rng.uniform(-0.5, 0.5, N), 3),
    }


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path, {site: draw_stays(k) for k, site in enumerate("abcd")})


@pytest.mark.parametrize(("family", "way"), one_of_each(CASES, lambda case: case[1]))
def test_honest_studies_pass(network: Network, family: str, way: str) -> None:
    network.fit(write_study(family, way, "stay ~ age + sex + hiv"))


@pytest.mark.parametrize(("family", "way"), diagonal(["gamma", "inverse_gaussian", "gaussian"], list(WAYS)))
def test_follow_up_times_pass_as_an_offset(network: Network, family: str, way: str) -> None:
    for site in "abc":
        network.data[site]["lt"] = np.round(np.log(np.random.default_rng(3).uniform(0.02, 9, N)), 3)
        network.data[site]["stay"] = np.round(network.data[site]["stay"] * np.exp(network.data[site]["lt"]), 6)
    network.fit(write_study(family, way, "stay ~ age + sex + offset(lt)"))


# One patient's outcome


@pytest.mark.parametrize(("family", "way"), one_of_each(CASES, lambda case: case[1]))
def test_one_patient_who_is_nearly_all_of_the_outcome(network: Network, family: str, way: str) -> None:
    network.data["a"]["stay"][17] = 9e7
    with pytest.raises(ReleaseRefused, match=r"of a sum of stay.*\(dominance\)"):
        network.fit(write_study(family, way))


@pytest.mark.parametrize("least", [1e-5, *later(3e-4)])
@pytest.mark.parametrize(("family", "way"), diagonal(["inverse_gaussian", "inverse_square"], list(WAYS)))
def test_the_least_outcome_from_the_sum_of_reciprocals(network: Network, family: str, way: str, least: float) -> None:
    """The deviance of the null model is the sum of 1 / y less n / mean: one patient is nearly all of it."""
    network.data["a"]["stay"][17] = least
    with pytest.raises(ReleaseRefused, match=r"1 / stay.*\(dominance\)"):
        network.fit(write_study(family, way))


def test_the_least_outcome_from_tables(network: Network) -> None:
    """A table of patterns has the sum of 1 / y over all of them."""
    study = text("stay ~ sex + hiv", "ab", f'name = "cola"\n{FAMILIES["inverse_gaussian"]}', KNOWN, stay=STAY)
    network.fit(study)
    network.data["b"]["stay"][17] = 1e-5
    network.logs.clear()
    with pytest.raises(ReleaseRefused, match=r"1 / stay.*\(dominance\)"):
        network.fit(study)


def test_the_sum_of_reciprocals_is_read_off_a_fit(network: Network) -> None:
    """What the attack would find, on a fit whose gate lets it pass: the sum, from n, the mean and the null deviance."""
    fit = network.fit(write_study("inverse_gaussian"))
    y = np.concatenate([network.data[site]["stay"] for site in "abc"])
    assert fit.null_deviance + len(y) / y.mean() == pytest.approx(np.sum(1.0 / y), rel=1e-9)


@pytest.mark.parametrize("way", ["plain", *later("masked")])
def test_the_least_outcome_after_an_honest_model_of_the_same_columns(network: Network, way: str) -> None:
    """The columns and rows are in the log already, by a model that sums no reciprocals."""
    network.data["a"]["stay"][17] = 1e-5
    network.fit(write_study("gamma", way))
    with pytest.raises(ReleaseRefused, match=r"1 / stay.*\(dominance\)"):
        network.fit(write_study("inverse_gaussian", way))


@pytest.mark.parametrize("way", ["masked", *later("plain")])
def test_the_least_outcome_through_one_of_several_models(network: Network, way: str) -> None:
    network.data["a"]["stay"][17] = 1e-5
    models = '[[models]]\nname = "one"\nformula = "stay ~ age"\nfamily = "gamma"\nlink = "log"\n'
    models += '[[models]]\nname = "two"\nformula = "stay ~ sex"\nfamily = "inverse_gaussian"\nlink = "log"\n'
    study = write_study("gamma", way).replace('formula = "stay ~ age + sex"\n', "")
    study = study.replace(FAMILIES["gamma"], "")
    with pytest.raises(ReleaseRefused, match=r"1 / stay.*\(dominance\)"):
        network.fit(study + models)


@pytest.mark.parametrize("patients", [3, *later(1, 4)])
@pytest.mark.parametrize(("family", "way"), one_of_each(CASES, lambda case: case[1]))
def test_few_patients_with_another_outcome_behind_noise(network: Network, family: str, way: str, patients: int) -> None:
    """All others have nearly one value: X'y less that value times X'1 is the sum of these patients' rows."""
    for site in "abc":
        network.data[site]["stay"] = 1.0 + 1e-7 * np.random.default_rng(3).random(N)
    network.data["a"]["stay"][:patients] += 1.0
    with pytest.raises(ReleaseRefused, match=r"stay.*(\(small level\)|\(dominance\))"):
        network.fit(write_study(family, way))


@pytest.mark.parametrize("family", ["gamma", *later("inverse_gaussian", "gaussian")])
def test_an_outcome_of_two_values_behind_noise_is_one_of_events(network: Network, family: str) -> None:
    """Everybody with hiv has the larger outcome: the sum of it in that level says so of each of them."""
    for site in "ab":
        network.data[site]["stay"] = 1.0 + 1e-7 * np.random.default_rng(3).random(N)
        network.data[site]["stay"] += (network.data[site]["hiv"] == 1) | (np.arange(N) % 3 == 0)
    with pytest.raises(ReleaseRefused, match=r"level of hiv has the same stay \(full cell\)"):
        network.fit(write_study(family, "plain", "stay ~ age + sex + hiv"))


# Offsets


@pytest.mark.parametrize("apart", [-20.0, *later(-8.0, -30.0)])
@pytest.mark.parametrize(("family", "way"), diagonal(["gamma", "inverse_gaussian"], list(WAYS)))
def test_an_offset_under_which_the_least_mean_weighs_most(
    network: Network, family: str, way: str, apart: float
) -> None:
    """The score of a gamma model has y / mean: a patient whose mean is far below the others' is all of it."""
    for site in "abc":
        network.data[site]["lt"] = np.round(np.random.default_rng(3).uniform(20, 59, N), 3)
    network.data["a"]["lt"][17] = 20.0 + apart
    with pytest.raises(ReleaseRefused, match=r"lt.*\(dominance\)"):
        network.fit(write_study(family, way, "stay ~ age + sex + offset(lt)"))


# Studies of pools that differ


@pytest.mark.parametrize("second", ["the same", *later("another family", "another outcome")])
@pytest.mark.parametrize(("family", "way"), diagonal(["gamma", "inverse_gaussian"], list(WAYS)))
def test_one_patient_more(network: Network, family: str, way: str, second: str) -> None:
    network.fit(write_study(family, way), N - 1, "a")
    later_study = {
        "the same": write_study(family, way),
        "another family": write_study("gaussian", way),
        "another outcome": write_study(family, way, "lt ~ age + sex").replace("[-60, 60]", "[0.1, 60]"),
    }[second]
    for site in "abc":
        network.data[site]["lt"] = network.data[site]["lt"] + 1.0
    with pytest.raises(ReleaseRefused, match=r"\(added\)|\(value changed\)"):
        network.fit(later_study)


@pytest.mark.parametrize(("family", "way"), diagonal(["gamma", "inverse_gaussian"], list(WAYS)))
def test_a_corrected_outcome(network: Network, family: str, way: str) -> None:
    network.fit(write_study(family, way))
    network.data["a"]["stay"][3] += 1.0
    with pytest.raises(ReleaseRefused, match=r"\(value changed\)"):
        network.fit(write_study(family, way, "stay ~ sex"))


@pytest.mark.parametrize("family", ["gamma", *later("inverse_gaussian")])
def test_one_site_more(network: Network, family: str) -> None:
    network.fit(write_study(family))
    with pytest.raises(ReleaseRefused, match="what d holds alone"):
        network.fit(write_study(family).replace("['a', 'b', 'c']", "['a', 'b', 'c', 'd']"))


@pytest.mark.parametrize("family", ["inverse_gaussian", *later("gamma")])
def test_a_pool_that_grew_by_patients_and_one_of_them_has_a_level(network: Network, family: str) -> None:
    for site in "abc":
        network.data[site]["hiv"][-60:] = 0
    network.data["a"]["hiv"][-1] = 1
    whole = dict(network.data)
    for site in "abc":
        network.data[site] = {name: column[:-60] for name, column in whole[site].items()}
    network.fit(write_study(family, formula="stay ~ age + hiv"))
    network.data |= whole
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*\(small level\)"):
        network.fit(write_study(family, formula="stay ~ age + hiv"))


@pytest.mark.parametrize("family", ["gamma", *later("inverse_gaussian", "gamma_inverse", "inverse_square")])
def test_a_level_that_one_patient_of_the_pool_has(network: Network, family: str) -> None:
    for site in "abc":
        network.data[site]["hiv"] = np.zeros(N, int)
    network.data["b"]["hiv"][0] = 1
    loose = f'{KNOWN}\nrows = {{constant = "allow", collinear = "allow"}}'
    with pytest.raises(Withheld, match=r"hiv has fewer than 5 patients in the pool"):
        network.fit(write_study(family, formula="stay ~ age + hiv", rest=loose))


@pytest.mark.parametrize("patients", [1, *later(3)])
@pytest.mark.parametrize("family", ["gamma", *later("inverse_gaussian")])
def test_the_outcome_of_a_pattern_of_few_patients_from_two_rounds(network: Network, family: str, patients: int) -> None:
    """Of every pair of levels there are many, of all three few. The curvature of a gamma model is a sum of outcomes.

    Two rounds at other coefficients give the sum of the outcomes of each pattern, though not how many have it.
    """
    for site in "ab":
        k = np.arange(N)
        network.data[site] |= {"sex": k % 2, "hiv": k // 2 % 2, "relapse": k // 4 % 2}
        kept = np.setdiff1d(k, np.flatnonzero(k % 8 == 7)[patients:])
        network.data[site] = {name: column[kept] for name, column in network.data[site].items()}
    network.fit(write_study("gaussian", "plain", "stay ~ sex + hiv + relapse"))
    with pytest.raises(ReleaseRefused, match=r"keeps 'stats/\d' back.*single patterns of all covariates"):
        network.fit(write_study(family, "plain", "stay ~ sex + hiv + relapse"))
