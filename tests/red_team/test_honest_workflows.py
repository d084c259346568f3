"""What hospitals do in earnest runs without anybody's override, beside the attacks that look like it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.red_team.hospitals import KNOWN, MASKED, PLAIN, N, Network, draw, text

from coterie_node.data import load
from coterie_node.errors import ReleaseRefused

COHORT = f'{KNOWN}\n[cohort]\nname = "autumn"\ncomplete = ["death", "relapse", "age", "sex", "lab"]'
MODELS = ["death ~ age + sex", "death ~ sex", "relapse ~ age + sex", "death ~ age + sex + lab", "relapse ~ lab"]
EVEN = {"death": 3, "relapse": 5, "sex": 2}


@pytest.fixture
def network(tmp_path: Path) -> Network:
    """Four hospitals whose binary columns have many patients in every cell, in any run of sixty rows."""
    data = {site: draw(k) for k, site in enumerate("abcd")}
    for columns in data.values():
        columns |= {name: (np.arange(N) % size == 0).astype(int) for name, size in EVEN.items()}
    return Network(tmp_path, data)


@pytest.mark.parametrize(("sites", "learner"), [("ab", PLAIN), ("abc", MASKED)], ids=["plain", "masked"])
def test_five_models_over_a_declared_cohort_whose_files_have_grown(network: Network, sites: str, learner: str) -> None:
    for k, formula in enumerate(MODELS):
        network.fit(text(formula, sites, learner, COHORT), N - 10 + 2 * k)


@pytest.mark.parametrize(("sites", "learner"), [("ab", PLAIN), ("abc", MASKED)], ids=["plain", "masked"])
def test_the_same_study_again_and_two_outcomes(network: Network, sites: str, learner: str) -> None:
    for formula in ("death ~ age + sex", "death ~ age + sex", "relapse ~ age + sex"):
        network.fit(text(formula, sites, learner, KNOWN))


@pytest.mark.parametrize(("sites", "learner"), [("ab", PLAIN), ("abc", MASKED)], ids=["plain", "masked"])
def test_women_only_after_all(network: Network, sites: str, learner: str) -> None:
    network.fit(text("death ~ age + sex", sites, learner, KNOWN))
    for site in sites:
        women = network.data[site]["sex"] == 0
        network.data[site] = {name: column[women] for name, column in network.data[site].items()}
    network.fit(text("death ~ age + lab", sites, learner, KNOWN))


def test_one_site_more_after_two_of_the_old_ones_have_new_patients(network: Network) -> None:
    full = network.data
    network.data = full | {site: {name: column[: N - 60] for name, column in full[site].items()} for site in "ab"}
    network.fit(text("death ~ age + sex", "abc", MASKED, KNOWN))
    network.data = full
    network.fit(text("death ~ age + sex", "abcd", MASKED, KNOWN))


def test_a_study_on_next_year_s_patients(network: Network) -> None:
    """Other patients at the same sites, nearly as many, and under identifiers of the same kind."""
    network.fit(text("death ~ age + sex", "abc", MASKED, KNOWN))
    for k, site in enumerate("abc"):
        binary = {name: network.data[site][name] for name in EVEN}
        network.data[site] = {name: column[:-1] for name, column in (draw(40 + k) | binary).items()}
    network.fit(text("death ~ age + sex", "abc", MASKED, KNOWN))


@pytest.mark.parametrize("learner", ['name = "glore"', 'name = "secure_cola"\nscheme = "newton"'])
@pytest.mark.parametrize("rest", [COHORT, COHORT.removeprefix(KNOWN)], ids=["identifiers", "rows"])
def test_a_cohort_keeps_its_patients_in_files_that_do_not_fit_in_memory(
    network: Network, monkeypatch: pytest.MonkeyPatch, learner: str, rest: str
) -> None:
    """Rows that are read in batches are cut down to the cohort in each pass; without it one patient more is refused."""
    monkeypatch.setattr(load, "IN_MEMORY", 0)
    network.ending = ".parquet"
    models = [f"{outcome} ~ sex" for outcome in ("death", "relapse")]
    network.fit(text(models[0], learner=learner, rest=rest), N - 1, "a")
    network.fit(text(models[1], learner=learner, rest=rest))
    assert [head.n for head in network.logs["a"].heads()] == [N - 1, N - 1]
    with pytest.raises(ReleaseRefused, match=r"\((added|row count)\)"):
        network.fit(text(models[1], learner=learner, rest=KNOWN if rest.startswith(KNOWN) else ""))
