"""Attacks on counts: masked sums for a shape that tell how many have each count, and tables behind an offset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.red_team.hospitals import KNOWN, PLAIN, N, Network, draw, text, write

from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import StudyError, Withheld
from coterie_learners.glore.glore import GlorePlan, compute_local_sums, expose_stats
from coterie_learners.study.document import Study
from coterie_learners.sums import newton
from coterie_node.data.load import load_site

VISITS = 'type = "count"\nrange = [0, 9]'
SHAPED = 'name = "glore"\nfamily = "negative_binomial"\nmax_rounds = 60'


@pytest.fixture
def network(tmp_path: Path) -> Network:
    network = Network(tmp_path, {site: draw(k) for k, site in enumerate("abcd")})
    for k, site in enumerate("abcd"):
        network.data[site]["visits"] = np.minimum(np.random.default_rng(k).negative_binomial(1.0, 0.3, N), 9)
    return network


def test_counts_of_which_the_largest_are_written_as_one_pass(network: Network) -> None:
    network.fit(text("visits ~ age + sex", learner=SHAPED, visits=VISITS))


@pytest.mark.parametrize(
    ("formula", "opening"),
    [("visits ~ age + sex", "counts"), ("visits ~ sex + offset(lab)", "counts"), ("visits ~ age + sex", "bits")],
)
def test_a_count_that_one_patient_of_the_pool_has(network: Network, formula: str, opening: str) -> None:
    """One patient has 9 visits: sums of digamma at several shapes have one solution in whole numbers."""
    for site in "abc":
        network.data[site]["visits"][network.data[site]["visits"] == 9] = 8
    network.data["b"]["visits"][3] = 9
    study = text(formula, learner=f'{SHAPED}\nopening = "{opening}"', visits=VISITS)
    with pytest.raises(Withheld, match=r"visits = 9 has fewer than 5 patients.*\(small level\).*quasipoisson"):
        network.fit(study)


def test_a_count_that_one_hospital_alone_has(network: Network) -> None:
    for site in "ac":
        network.data[site]["visits"][network.data[site]["visits"] == 9] = 8
    network.data["b"]["visits"][:20] = 9
    with pytest.raises(Withheld, match=r"visits = 9 is at fewer than 3 sites \(few sites\)"):
        network.fit(text("visits ~ age + sex", learner=SHAPED, visits=VISITS))


def test_a_count_of_few_patients_who_have_several_rows(network: Network) -> None:
    for site in "abc":
        network.data[site]["pseudonym"] = np.repeat(network.data[site]["pseudonym"][: N // 2], 2)
        network.data[site]["visits"][network.data[site]["visits"] == 9] = 8
    for site in "abc":
        network.data[site]["visits"][:2] = 9
    study = text("visits ~ age + sex", "abc", f'{SHAPED}\nrobust = "patient"', KNOWN, visits=VISITS)
    with pytest.raises(Withheld, match=r"visits = 9 has fewer than 5 patients"):
        network.fit(study)


def test_a_range_of_more_counts_than_are_counted_first() -> None:
    with pytest.raises(StudyError, match="more than 2000 counts"):
        complete_study(
            Study.from_toml(text("visits ~ sex", learner=SHAPED, visits='type = "count"\nrange = [0, 9000]'))
        )


@pytest.mark.parametrize("offset", ["", " + offset(lab)"])
def test_the_first_look_lists_the_tables_also_with_an_offset(network: Network, offset: str, tmp_path: Path) -> None:
    """X'X and X'y do not depend on the offset: one woman with the outcome follows from them."""
    network.data["a"]["sex"], network.data["a"]["death"] = np.arange(N) % 2, (np.arange(N) % 4 == 0).astype(int)
    network.data["a"]["death"][1] = 1
    study = complete_study(Study.from_toml(text(f"death ~ sex{offset}", "ab", PLAIN)))
    write(tmp_path / "a.csv", network.data["a"], None)
    loaded = load_site(tmp_path / "a.csv", study, "a")
    assert loaded is not None
    plan, site = GlorePlan.of(study), Site(study, "a", loaded.rows, parties=study.sites)
    sums = compute_local_sums(plan, site, newton.begin(plan.rules))
    assert expose_stats(plan, (None,), site, sums).cells["sex=1 & death=1"] == 1


def test_later_rounds_solve_patterns_of_covariates_and_offset(network: Network, tmp_path: Path) -> None:
    """With few offsets few patterns occur, and two rounds give the count of each."""
    rows = np.arange(N)
    network.data["a"] |= {"sex": rows % 2, "lab": rows // 2 % 2 * 1.0, "death": rows // 4 % 2}
    network.data["a"]["lab"][:3] = -1.0
    study = complete_study(Study.from_toml(text("death ~ sex + offset(lab)", "ab", PLAIN)))
    write(tmp_path / "a.csv", network.data["a"], None)
    loaded = load_site(tmp_path / "a.csv", study, "a")
    assert loaded is not None
    plan, site = GlorePlan.of(study), Site(study, "a", loaded.rows, parties=study.sites)
    sums = compute_local_sums(plan, site, newton.begin(plan.rules))
    views = (None, np.array([0.1, 0.2]), np.array([0.3, -0.4]), np.array([-0.2, 0.5]))
    cells = expose_stats(plan, views, site, sums).cells
    assert cells["pattern sex=1, offset lab=-1"] == 1
