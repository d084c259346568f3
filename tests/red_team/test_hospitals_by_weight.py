"""Attacks on masked sums through weights: one hospital, or few patients, weigh so much that a sum is theirs alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.red_team.hospitals import KNOWN, MASKED, N, Network, draw, text

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import StudyError, Withheld
from coterie_learners.study.document import Study
from coterie_node.errors import ReleaseRefused

WEIGHTS = {"w": 'type = "number"\nrange = [0.0000000001, 1000]'}
OFFSET = {"lt": 'type = "number"\nrange = [-30, 9]', "visits": 'type = "count"\nrange = [0, 9]'}
CURVES = 'name = "survival_curves"\ntime = "months"\nevent = "death"\ntime_grid = { width = 18, horizon = 36 }'
COX = 'name = "cox"\ntime = "months"\nevent = "death"'
MONTHS = {"months": 'type = "number"\nrange = [0, 200]'}


@pytest.fixture
def network(tmp_path: Path) -> Network:
    network = Network(tmp_path, {site: draw(k) for k, site in enumerate("abcd")})
    for k, columns in enumerate(network.data.values()):
        rng = np.random.default_rng(k)
        columns["w"], columns["lt"] = np.round(rng.uniform(0.9, 1, N), 3), np.round(rng.normal(0, 0.1, N), 3)
        columns["visits"] = np.minimum(rng.poisson(2, N), 9)
        columns["months"] = np.round(rng.exponential(25, N).clip(0.1, 190), 1)
    return network


@pytest.mark.parametrize("kind", ["prior", "sampling"])
@pytest.mark.parametrize("heavy", ["b", "ab"])
def test_one_or_two_hospitals_with_nearly_all_weight(network: Network, heavy: str, kind: str) -> None:
    for site in set("abc") - set(heavy):
        network.data[site]["w"] = np.round(network.data[site]["w"] * 1e-7, 10)
    learner = f'{MASKED}\nweights = "w"\nweight_kind = "{kind}"'
    with pytest.raises(Withheld, match=r"weight by w .*nearly all weight.* at fewer than 3 sites \(few sites\)"):
        network.fit(text("death ~ age + sex", learner=learner, **WEIGHTS))


def test_one_hospital_with_nearly_all_weight_of_patients_with_several_rows(network: Network) -> None:
    for site in "ac":
        network.data[site]["w"] = np.round(network.data[site]["w"] * 1e-7, 10)
    learner = f'{MASKED}\nweights = "w"\nrobust = "patient"'
    with pytest.raises(Withheld, match=r"nearly all weight.*\(few sites\)"):
        network.fit(text("death ~ age + sex", learner=learner, rest=KNOWN, **WEIGHTS))


@pytest.mark.parametrize(("family", "outcome"), [("poisson", "visits"), ("binomial", "death")])
def test_one_hospital_with_nearly_all_weight_through_an_offset(network: Network, family: str, outcome: str) -> None:
    for site in "ac":
        network.data[site]["lt"] -= 18
    learner = f'{MASKED}\nfamily = "{family}"'
    with pytest.raises(Withheld, match=r"weight by lt .*nearly all weight.*\(few sites\)"):
        network.fit(text(f"{outcome} ~ sex + offset(lt)", learner=learner, **OFFSET))


@pytest.mark.parametrize("spread", [0.3, 1.0, 1.5])
def test_weights_of_honest_surveys_pass(network: Network, spread: float) -> None:
    for k, site in enumerate("abc"):
        network.data[site]["w"] = np.round(np.exp(np.random.default_rng(k).normal(0, spread, N)), 4)
    network.fit(text("death ~ age + sex", learner=f'{MASKED}\nweights = "w"', **WEIGHTS))


def test_bits_do_not_judge_weights() -> None:
    learner = f'{MASKED}\nopening = "bits"\nweights = "w"'
    with pytest.raises(StudyError, match="nearly all weight"):
        complete_study(Study.from_toml(text("death ~ age", learner=learner, **WEIGHTS)))


@pytest.mark.parametrize("count", [3, 4])
def test_a_level_of_few_patients_behind_noise_under_masks(network: Network, count: int) -> None:
    for site in "abc":
        level = np.arange(N) < (count if site == "b" else 0)
        network.data[site]["w"] = np.round(level + np.random.default_rng(1).uniform(0.1, 0.1 + 1e-6, N), 9)
    with pytest.raises(ReleaseRefused, match=r"few patients of this site.*w.*\(small level\)"):
        network.fit(text("death ~ age + w", learner=MASKED, **WEIGHTS))


@pytest.mark.parametrize(("first", "second"), [(CURVES, COX), (COX, CURVES), (MASKED, CURVES), (CURVES, CURVES)])
def test_one_site_more_where_one_of_two_studies_has_no_labels(network: Network, first: str, second: str) -> None:
    """Curves post no labels of rows: nothing is known to have changed between them and a Cox model."""

    def study(sites: str, learner: str) -> str:
        return text("death ~ 1" if learner == CURVES else "death ~ sex", sites, learner, KNOWN, **MONTHS)

    network.fit(study("abc", first))
    with pytest.raises(ReleaseRefused, match=r"\(site added\)"):
        network.fit(study("abcd", second))
