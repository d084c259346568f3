"""Attacks by standardised means and by limits of the profile likelihood: studies whose difference is one patient's.

Both are sums over the same rows as the fit's, at other points. Each test fails when what stops it is taken out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.lanes import later
from support.red_team.hospitals import KNOWN, N, Network, draw, text

from coterie_learners.errors import Withheld
from coterie_node.errors import ReleaseRefused

OPTIONS = {
    "means": 'standardise = "hiv"',
    "limits": 'intervals = "profile"',
    "both": 'standardise = "hiv"\nintervals = "profile"',
    "neither": "",
}
ASKED = ["means", "limits", "both"]
WAYS = {"plain": "ab", "masked": "abc"}
NEW = 60


def later_pairs(asked: list[str], first: tuple[str, str]) -> list[Any]:
    """All pairs of options and ways but one, for `make test-long`."""
    pairs = [(option, way) for option in asked for way in WAYS if (option, way) != first]
    return [pytest.param(*pair, marks=pytest.mark.long) for pair in pairs]


def write_study(asked: str, way: str = "masked", formula: str = "death ~ age + hiv", rest: str = KNOWN) -> str:
    return text(formula, WAYS[way], f'name = "glore"\naggregation = "{way}"\n{OPTIONS[asked]}', rest)


def draw_patients(seed: int) -> dict[str, Any]:
    """Many patients in every cell."""
    k = np.arange(N)
    return draw(seed) | {"death": (k % 3 == 0).astype(int), "hiv": (k // 8 % 4 == 0).astype(int), "sex": k // 4 % 2}


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path, {site: draw_patients(k) for k, site in enumerate("abcd")})


def shorten(network: Network, sites: str, rows: int) -> dict[str, Any]:
    """The whole data; the network is left with the first rows of these sites."""
    whole = dict(network.data)
    for site in sites:
        network.data[site] = {name: column[:rows] for name, column in whole[site].items()}
    return whole


@pytest.mark.parametrize(("asked", "way"), [("both", "masked"), *later_pairs(ASKED, ("both", "masked"))])
def test_honest_studies_pass_one_after_the_other(network: Network, asked: str, way: str) -> None:
    """The fit, then the same with means and limits, then another outcome of the same patients."""
    network.fit(write_study("neither", way))
    network.fit(write_study(asked, way))
    network.fit(write_study(asked, way, "relapse ~ age + hiv") if way == "masked" else write_study(asked, way))


# No limits and no means, and the pair that `make test` checks.
CHECKED = [("neither", "neither"), ("neither", "both")]
PAIRS = [(first, second) for first in OPTIONS for second in OPTIONS if (first, second) not in CHECKED]


@pytest.mark.parametrize("rest", [KNOWN, *later("")])
@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("pair", [("neither", "both"), *later(*PAIRS)])
def test_one_patient_more(network: Network, pair: tuple[str, str], way: str, rest: str) -> None:
    """Means with everybody at a level, of n and of n + 1 patients, differ by what the model says of the one."""
    network.fit(write_study(pair[0], way, rest=rest), N - 1, "a")
    with pytest.raises(ReleaseRefused, match=r"\(added\)"):
        network.fit(write_study(pair[1], way, rest=rest))


@pytest.mark.parametrize(("asked", "way"), [("both", "plain"), *later_pairs(ASKED, ("both", "plain"))])
def test_one_patient_exchanged(network: Network, asked: str, way: str) -> None:
    network.fit(write_study(asked, way), N - 1, "a")
    network.data["a"] = {name: column[1:] for name, column in network.data["a"].items()}
    with pytest.raises(ReleaseRefused, match=r"\(exchanged\)"):
        network.fit(write_study(asked, way, "death ~ age + hiv + sex"))


@pytest.mark.parametrize(("asked", "way"), [("both", "plain"), *later_pairs(ASKED, ("both", "plain"))])
def test_a_corrected_value(network: Network, asked: str, way: str) -> None:
    """The treatment of one patient is changed: the means stay, and their derivatives move by that patient's row."""
    network.fit(write_study(asked, way))
    network.data["a"]["hiv"][3] ^= 1
    with pytest.raises(ReleaseRefused, match=r"\(value changed\)"):
        network.fit(write_study(asked, way))


@pytest.mark.parametrize("asked", ["means", *later("limits", "both")])
def test_one_site_more(network: Network, asked: str) -> None:
    network.fit(write_study("neither"))
    with pytest.raises(ReleaseRefused, match="what d holds alone"):
        network.fit(write_study(asked).replace("['a', 'b', 'c']", "['a', 'b', 'c', 'd']"))


@pytest.mark.parametrize(("asked", "way"), [("both", "plain"), *later_pairs(ASKED, ("both", "plain"))])
def test_new_patients_of_whom_one_has_the_level_that_is_standardised(network: Network, asked: str, way: str) -> None:
    for site in "abc":
        network.data[site]["hiv"][-NEW:] = 0
    network.data["a"]["hiv"][-1] = 1
    whole = shorten(network, "abc", N - NEW)
    network.fit(write_study("neither", way))
    network.data |= whole
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*\(small level\)"):
        network.fit(write_study(asked, way))


@pytest.mark.parametrize("asked", ["limits", *later("means", "both")])
def test_means_and_limits_in_the_clear_after_the_masked_fit(network: Network, asked: str) -> None:
    """Sums of two of the three hospitals show what the third one holds."""
    network.fit(write_study("neither"))
    with pytest.raises(ReleaseRefused, match=r"\(masks undone\)"):
        network.fit(write_study(asked, "plain"))


@pytest.mark.parametrize("asked", ["means", *later("limits", "both")])
def test_a_level_that_one_patient_of_the_pool_has(network: Network, asked: str) -> None:
    for site in "abc":
        network.data[site]["hiv"] = np.zeros(N, int)
    network.data["b"]["hiv"][0] = 1
    loose = f'{KNOWN}\nrows = {{constant = "allow", collinear = "allow"}}'
    with pytest.raises(Withheld, match=r"hiv has fewer than 5 patients in the pool"):
        network.fit(write_study(asked, rest=loose))


@pytest.mark.parametrize(
    ("asked", "step"), [("means", "standardised"), ("limits", "limits/0"), ("both", "standardised")]
)
def test_the_points_of_means_and_limits_are_equations_like_those_of_a_fit(
    network: Network, asked: str, step: str
) -> None:
    """The sums of a fit alone leave: more patterns of age and hiv occur than these determine, but not with more points.

    Three patients of one age have hiv.
    """
    for site in "ab":
        k = np.arange(N)
        network.data[site]["age"] = 40.0 + k // 2 % 25
        network.data[site]["hiv"] = np.where(network.data[site]["age"] == 64.0, (k < 150) & (k > 100), k % 2).astype(
            int
        )
    network.fit(write_study("neither", "plain"))
    with pytest.raises(ReleaseRefused, match=rf"keeps '{step}' back.*single patterns of all covariates"):
        network.fit(write_study(asked, "plain"))


@pytest.mark.parametrize("asked", ["limits", *later("both")])
def test_points_of_many_studies_are_as_many_equations_as_values(network: Network, asked: str) -> None:
    """Each study by itself passes, and the fits of all of them do. Their points together are solved for the ages."""
    formulas = [f"{outcome} ~ age{more}" for outcome in ("death", "relapse") for more in ("", " + hiv", " + sex")]
    for site in "ab":
        network.data[site]["relapse"] = (np.arange(N) // 2 % 3 == 0).astype(int)
    for formula in formulas:
        network.fit(write_study("neither", "plain", formula))
    studies = [write_study(asked, "plain", f if asked == "limits" else "death ~ age + hiv + sex") for f in formulas]
    with pytest.raises(ReleaseRefused, match=r"keeps 'limits/\d' back.*\(equations\)"):
        list(map(network.fit, studies))
