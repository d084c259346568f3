"""Attacks on masked studies whose pool is judged by bits: what counts refuse, bits refuse, and they show no count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.red_team.hospitals import KNOWN, N, Network, draw, text

from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.errors import StudyError, Withheld
from coterie_learners.study.document import Study
from coterie_node.errors import ReleaseRefused

LOOSE = 'rows = {constant = "allow", collinear = "allow"}'
GLORE = 'name = "glore"\nopening = "bits"'
COLA = 'name = "secure_cola"\nscheme = "masks"\nopening = "bits"'


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path, {site: draw(k) for k, site in enumerate("abcde")})


@pytest.mark.parametrize("sites", ["abc", "abcde"])
@pytest.mark.parametrize("learner", [GLORE, COLA], ids=["glore", "secure_cola"])
def test_a_study_passes_whose_levels_have_enough_patients(network: Network, learner: str, sites: str) -> None:
    network.fit(text("death ~ sex + hiv", sites, learner))


def test_a_level_that_one_patient_of_the_pool_has(network: Network) -> None:
    for site in "abc":
        network.data[site]["hiv"] = np.zeros(N, dtype=int)
    network.data["b"]["hiv"][7] = 1
    with pytest.raises(Withheld, match=r"hiv has fewer than 5 patients in the pool \(small level\)"):
        network.fit(text("death ~ age + hiv", learner=GLORE, rest=LOOSE))


def test_a_level_that_one_hospital_has(network: Network) -> None:
    for site in "abc":
        network.data[site]["hiv"] = np.full(N, int(site == "b"))
    with pytest.raises(Withheld, match=r"hiv is at fewer than 3 sites \(few sites\)"):
        network.fit(text("death ~ age + hiv", learner=GLORE, rest=LOOSE))


def test_a_level_all_of_whom_have_the_outcome(network: Network) -> None:
    for site in "abc":
        network.data[site]["death"][network.data[site]["hiv"] == 1] = 1
    with pytest.raises(Withheld, match=r"hiv has the outcome in every patient \(full cell\)"):
        network.fit(text("death ~ age + hiv", learner=GLORE))


def test_one_patient_more_and_one_site_more(network: Network) -> None:
    network.fit(text("death ~ age + sex", "abcd", GLORE, KNOWN), N - 1, "a")
    with pytest.raises(ReleaseRefused, match=r"\(added\)"):
        network.fit(text("death ~ sex", "abcd", GLORE, KNOWN))
    with pytest.raises(ReleaseRefused, match=r"\(site added\)"):
        network.fit(text("death ~ age + sex", "abcde", GLORE, KNOWN), N - 1, "a")


@pytest.mark.parametrize(("first", "second"), [(GLORE, GLORE), (GLORE, 'name = "glore"'), ('name = "glore"', GLORE)])
def test_a_pool_that_grew_while_nobody_sees_its_counts(network: Network, first: str, second: str) -> None:
    """Forty new patients at each site, of whom one has hiv: the difference's counts are known to nobody."""
    whole = dict(network.data)
    for site in "abc":
        network.data[site] = {name: column[:-40] for name, column in whole[site].items()}
    network.fit(text("death ~ age + hiv", learner=first, rest=KNOWN))
    network.data |= {site: whole[site] for site in "abc"}
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*bits.*\[cohort\]"):
        network.fit(text("death ~ age + hiv", learner=second, rest=KNOWN))


def test_the_same_patients_again_pass(network: Network) -> None:
    for learner in (GLORE, 'name = "glore"', GLORE):
        network.fit(text("death ~ age + hiv", learner=learner, rest=KNOWN))
    network.fit(text("relapse ~ age", learner=GLORE, rest=KNOWN))


def test_a_study_that_excludes_sites_has_no_bits() -> None:
    with pytest.raises(StudyError, match="silent_site"):
        complete_study(Study.from_toml(text("death ~ age", learner=GLORE, rest='ledger = {silent_site = "exclude"}')))


@pytest.mark.parametrize("learner", [GLORE, COLA], ids=["glore", "secure_cola"])
def test_people_read_who_computes_and_that_nobody_sees_a_count(learner: str) -> None:
    study = complete_study(Study.from_toml(text("death ~ sex", "abcd", learner)))
    disclosure = learner_of(study).discloses(study)
    words = " ".join((*disclosure.leaves, *disclosure.collusion, *disclosure.everybody))
    assert learner_of(study).needs_channel(study)
    assert "Nobody sees a count" in words
    assert "a, b and c compare the counts on shares. No two of them must collude" in words
