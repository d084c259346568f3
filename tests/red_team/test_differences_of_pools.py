"""Attacks by several studies of any two learners whose pools differ by patients, and one of them has a level.

Also on one study: a single event of the pool, and weights and offsets that few patients have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.lanes import diagonal, later
from support.red_team.hospitals import KNOWN, MASKED, PLAIN, N, Network, draw, text

from coterie_learners.errors import Withheld
from coterie_node.errors import ReleaseRefused

VARIABLES = {
    "months": 'type = "number"\nrange = [0, 100]',
    "stage": 'type = "category"\nlevels = ["p", "q", "r"]',
    "visits": 'type = "count"\nrange = [0, 9]',
    "weight": 'type = "number"\nrange = [0.5, 10]',
    "shift": 'type = "number"\nrange = [-5, 5]',
}
LOOSE = f'{KNOWN}\nrows = {{constant = "allow", collinear = "allow"}}'
CURVES = 'name = "survival_curves"\ntime = "months"\nevent = "death"\ntime_grid = { width = 18, horizon = 36 }'
COX = 'name = "cox"\ntime = "months"\nevent = "death"'
LEARNERS = {
    "glore": (MASKED, "death ~ age + hiv"),
    "table_one": ('name = "table_one"', "hiv ~ age + sex"),
    "survival_curves": (f'{CURVES}\ngroup = "hiv"', "death ~ 1"),
    "cox": (COX, "death ~ hiv"),
    "multinomial": ('name = "glore"\nfamily = "multinomial"', "stage ~ hiv + age"),
    "ordinal": ('name = "glore"\nfamily = "ordinal"', "stage ~ hiv + age"),
    "secure_cola": ('name = "secure_cola"\nscheme = "masks"', "death ~ hiv"),
    "secure_glm": ('name = "secure_glm"', "death ~ hiv"),
}
PLAIN_LEARNERS = {
    "glore": (PLAIN, "death ~ sex + hiv"),
    "table_one": ('name = "table_one"\naggregation = "plain"', "hiv ~ age + sex"),
    "survival_curves": (f'{CURVES}\ngroup = "hiv"\naggregation = "plain"', "death ~ 1"),
    "secure_glm": LEARNERS["secure_glm"],
}
NEW = 60


def write_study(case: tuple[str, str], sites: str = "abc", rest: str = KNOWN, formula: str = "") -> str:
    return text(formula or case[1], sites, case[0], rest, **VARIABLES)


def draw_patients(seed: int) -> dict[str, NDArray[Any]]:
    """Many patients in every cell, and no level hiv among the last NEW ones."""
    rng, k = np.random.default_rng(seed + 90), np.arange(N)
    return draw(seed) | {
        "months": np.round(rng.exponential(25, N).clip(0.1, 99), 1),
        "stage": np.array(["p", "q", "r"])[k // 5 % 3],
        "sex": k // 2 % 2,
        "death": (k % 3 == 0).astype(int),
        "hiv": np.where(k < N - NEW, k // 8 % 4 == 0, 0).astype(int),
        "visits": np.minimum(rng.negative_binomial(1.5, 0.4, N), 7),
        "weight": np.ones(N),
        "shift": np.zeros(N),
    }


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path, {site: draw_patients(k) for k, site in enumerate("abcd")})


def cut(network: Network, sites: str, rows: int = N - NEW) -> None:
    for site in sites:
        network.data[site] = {name: column[:rows] for name, column in network.data[site].items()}


@pytest.mark.parametrize(("first", "second"), diagonal(list(LEARNERS), list(LEARNERS)))
def test_a_pool_that_grew_by_patients_and_one_of_them_has_a_level(network: Network, first: str, second: str) -> None:
    network.data["a"]["hiv"][-1] = 1
    whole = dict(network.data)
    cut(network, "abc")
    network.fit(write_study(LEARNERS[first]))
    network.data |= whole
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*\(small level\)"):
        network.fit(write_study(LEARNERS[second]))


@pytest.mark.parametrize(("first", "second"), diagonal(list(PLAIN_LEARNERS), list(PLAIN_LEARNERS)))
def test_sums_in_the_clear_over_new_patients_and_one_of_them_has_a_level(
    network: Network, first: str, second: str
) -> None:
    network.data["a"]["hiv"][-1] = 1
    whole = dict(network.data)
    cut(network, "abc")
    network.fit(write_study(PLAIN_LEARNERS[first]))
    network.data |= whole
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*\(small level\)"):
        network.fit(write_study(PLAIN_LEARNERS[second]))


@pytest.mark.parametrize("learner", ["glore", "table_one", *later("cox", "multinomial", "ordinal", "secure_cola")])
def test_a_newcomer_with_one_patient_of_a_level(network: Network, learner: str) -> None:
    """Two of the old sites have new patients, so that no site stands alone; but hiv is one patient's in all of them."""
    network.data["d"]["hiv"][:] = 0
    network.data["d"]["hiv"][5] = network.data["a"]["hiv"][-1] = int(learner == "table_one")
    network.data["d"]["hiv"][5] = 1
    whole = dict(network.data)
    cut(network, "ab")
    network.fit(write_study(LEARNERS[learner]))
    network.data |= whole
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*\(small level\)"):
        network.fit(write_study(LEARNERS[learner], "abcd"))


@pytest.mark.parametrize("learner", ["glore", "table_one", *later("secure_cola", "cox")])
def test_women_then_men_then_all_with_others_and_one_of_them_has_a_level(network: Network, learner: str) -> None:
    network.data["a"]["hiv"][-1] = 1
    whole = dict(network.data)
    for sex in (0, 1):
        for site in "abc":
            chosen = (whole[site]["sex"] == sex) & (np.arange(N) < N - NEW)
            network.data[site] = {name: column[chosen] for name, column in whole[site].items()}
        network.fit(write_study(LEARNERS[learner]))
    network.data |= whole
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*\(small level\)"):
        network.fit(write_study(LEARNERS[learner]))


@pytest.mark.parametrize("learner", ["table_one", "survival_curves"])
def test_new_patients_at_one_site_alone(network: Network, learner: str) -> None:
    """Two hundred patients, so that none of their own counts is small: the sums less the former are that site's."""
    for site in "abc":
        network.data[site]["hiv"] = (np.arange(N) // 8 % 4 == 0).astype(int)
    whole = dict(network.data)
    cut(network, "a", N - 200)
    network.fit(write_study(LEARNERS[learner]))
    network.data |= whole
    with pytest.raises(ReleaseRefused, match=r"what a holds alone \(site added\)"):
        network.fit(write_study(LEARNERS[learner]))


# One study


@pytest.mark.parametrize("events", [1, *later(4)])
@pytest.mark.parametrize(
    "case",
    [
        (MASKED, "death ~ age"),
        (f'{MASKED}\nopening = "bits"', "death ~ age"),
        (f'{MASKED}\nrobust = "patient"', "death ~ age"),
        ('name = "glore"\nfamily = "poisson"', "visits ~ age"),
        (COX, "death ~ age"),
        LEARNERS["secure_cola"],
    ],
    ids=["glore", "bits", "patients", "poisson", "cox", "secure_cola"],
)
def test_few_events_of_the_pool(network: Network, case: tuple[str, str], events: int) -> None:
    """X'y over one event is the row of that patient."""
    for site in "abc":
        network.data[site]["death"][:] = network.data[site]["visits"][:] = 0
    network.data["b"]["death"][8 : 8 + events] = network.data["b"]["visits"][8 : 8 + events] = 3
    network.data["b"]["death"][8 : 8 + events] = 1
    with pytest.raises(Withheld, match=r"(death = 1|visits, not zero) has fewer than 5 patients.*\(small level\)"):
        network.fit(write_study(case, rest=LOOSE))


def test_few_patients_without_the_event(network: Network) -> None:
    for site in "abc":
        network.data[site]["death"][:] = 1
    network.data["b"]["death"][7] = 0
    with pytest.raises(Withheld, match=r"death = 0 has fewer than 5 patients"):
        network.fit(write_study((MASKED, "death ~ age"), rest=LOOSE))


def test_events_at_one_hospital_alone(network: Network) -> None:
    for site in "ac":
        network.data[site]["death"][:] = 0
    with pytest.raises(Withheld, match=r"death = 1 is at fewer than 3 sites \(few sites\)"):
        network.fit(write_study((MASKED, "death ~ age"), rest=LOOSE))


@pytest.mark.parametrize("patients", [3, *later(1)])
@pytest.mark.parametrize(
    ("column", "learner", "formula"),
    [
        ("weight", f'{MASKED}\nweights = "weight"', "death ~ age + hiv"),
        ("weight", f'{MASKED}\nweights = "weight"\nweight_kind = "sampling"', "death ~ age + hiv"),
        ("weight", f'{PLAIN}\nweights = "weight"', "death ~ hiv"),
        ("shift", MASKED, "death ~ age + hiv + offset(shift)"),
    ],
    ids=["weights", "sampling", "plain", "offset"],
)
def test_few_patients_who_alone_have_another_weight(
    network: Network, column: str, learner: str, formula: str, patients: int
) -> None:
    """All others weigh the same: the sums less those without weights are those patients' own."""
    network.data["b"][column][7 : 7 + patients] = 2.0
    with pytest.raises(ReleaseRefused, match=r"\(small level\)"):
        network.fit(write_study((learner, formula)))


# What hospitals do in earnest


def test_all_learners_on_one_cohort_whose_files_have_grown(network: Network) -> None:
    cases = [case for name, case in LEARNERS.items() if name != "secure_glm"]
    cohort = f'{KNOWN}\n[cohort]\nname = "autumn"\ncomplete = ["death", "sex", "age", "hiv", "stage", "months"]'
    network.data["a"]["hiv"][-1] = 1
    whole = dict(network.data)
    cut(network, "abc")
    for case in cases:
        network.fit(write_study(case, rest=cohort))
    network.data |= whole
    for case in cases:
        network.fit(write_study(case, rest=cohort))


@pytest.mark.parametrize("learner", ["survival_curves", *later(*sorted(LEARNERS.keys() - {"survival_curves"}))])
def test_one_site_more_after_two_of_the_old_ones_have_new_patients_of_every_level(
    network: Network, learner: str
) -> None:
    for site in "abcd":
        network.data[site]["hiv"] = (np.arange(N) // 8 % 4 == 0).astype(int)
    whole = dict(network.data)
    cut(network, "ab", N - 100)
    network.fit(write_study(LEARNERS[learner]))
    network.data |= whole
    network.fit(write_study(LEARNERS[learner], "abcd"))
