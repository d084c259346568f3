"""Attacks on effects by propensity scores: one patient, or one hospital, weighs so much that a mean is theirs alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.lanes import later
from support.learners.table import MemoryProtocol
from support.learners.treatment_study import split_treatment_rows, treatment_study
from support.red_team.hospitals import KNOWN, N, Network, draw, text

from coterie_learners.causal.hazard_stage import end_hazard
from coterie_learners.causal.propensity import propensity, weigh_outcomes
from coterie_learners.core.masked_sum import SiteSums
from coterie_learners.errors import DataError, ProtocolError, Separation, Withheld
from coterie_node.errors import ReleaseRefused

DRUG = {"drug": 'type = "binary"', "x": 'type = "number"\nrange = [-50, 50]'}
MASKED = 'name = "propensity"\ntreatment = "drug"\naggregation = "masked"'
PLAIN = MASKED.replace("masked", "plain")
FORMULA = "death ~ drug + age + sex"


@pytest.fixture
def network(tmp_path: Path) -> Network:
    network = Network(tmp_path, {site: draw(k) for k, site in enumerate("abc")})
    for k, columns in enumerate(network.data.values()):
        rng = np.random.default_rng(100 + k)
        columns["drug"] = (rng.random(N) < 0.4).astype(int)
        columns["x"] = np.round(rng.normal(size=N), 2)
    return network


def probe(formula: str = FORMULA, learner: str = MASKED) -> str:
    return text(formula, learner=learner, rest=KNOWN, **DRUG)


@pytest.mark.parametrize("learner", [MASKED, PLAIN])
def test_a_fair_study_passes_the_gates(network: Network, learner: str) -> None:
    network.fit(probe(learner=learner))


@pytest.mark.parametrize("learner", [MASKED, *later(PLAIN)])
def test_a_second_study_over_all_but_one_patient_is_refused(network: Network, learner: str) -> None:
    network.fit(probe(learner=learner), N - 1, "a")
    with pytest.raises(ReleaseRefused, match=r"\(added\)"):
        network.fit(probe(learner=learner))


@pytest.mark.long
def test_a_regression_on_one_patient_more_is_refused_after_it(network: Network) -> None:
    network.fit(probe(), N - 1, "a")
    with pytest.raises(ReleaseRefused, match=r"\(added\)"):
        network.fit(text(FORMULA, learner='name = "glore"\naggregation = "masked"', rest=KNOWN, **DRUG))


def test_one_patient_with_nearly_all_weight_of_an_arm(network: Network) -> None:
    """A treated patient whose covariate speaks so much against the drug that the arm's mean is this one's outcome."""
    for columns in network.data.values():
        columns["drug"] = (np.arange(N) % 2 < (columns["x"] > 0)).astype(int)
    network.data["a"]["x"][0], network.data["a"]["drug"][0] = -9.0, 1
    with pytest.raises(Withheld, match=r"arm drug = 1 has an effective sample size below 5.*truncate") as error:
        network.fit(probe("lab ~ drug + x"))
    assert error.value.code == "CO-N137"
    network.fit(probe("lab ~ drug + x", f"{MASKED}\ntruncate = [0.05, 0.95]"))


def spread_scores(network: Network) -> None:
    """The drug goes with x, of which one patient of each site has by far the most, and does not take it."""
    for k, columns in enumerate(network.data.values()):
        columns["x"][3] = 8.0
        chance = 1.0 / (1.0 + np.exp(-0.6 * columns["x"]))
        columns["drug"] = (np.random.default_rng(k).random(N) < chance).astype(int)
        columns["drug"][3] = 0


@pytest.mark.parametrize("learner", [MASKED, *later(PLAIN)], ids=["masked", "plain"])
@pytest.mark.parametrize(
    "ends", [("", "truncate = [0.001, 0.955]"), *later(("truncate = [0.2, 0.955]", "truncate = [0.2, 0.95]"))]
)
def test_weights_that_end_at_other_scores_show_no_patient(
    network: Network, ends: tuple[str, str], learner: str
) -> None:
    """The weighed sums of two studies differ by the outcome of the one patient beyond one end alone."""
    spread_scores(network)
    network.fit(probe("death ~ drug + x", f"{learner}\n{ends[0]}"))
    with pytest.raises(ReleaseRefused, match=r"keeps 'weights' back.*\(close columns\)"):
        network.fit(probe("death ~ drug + x", f"{learner}\n{ends[1]}"))


@pytest.mark.long
@pytest.mark.parametrize("learner", [MASKED, *later(PLAIN)], ids=["masked", "plain"])
def test_weights_that_end_at_other_scores_of_many_patients_pass(network: Network, learner: str) -> None:
    """So do other estimands, another outcome, and ends beyond which nobody is."""
    spread_scores(network)
    studies = [
        ("death", ""),
        ("relapse", ""),
        ("death", "truncate = [0.3, 0.7]"),
        ("death", "truncate = [0.001, 0.999]"),
    ]
    for outcome, more in [*studies, ("death", 'estimand = "ATT"'), ("death", 'estimand = "overlap"')]:
        network.fit(probe(f"{outcome} ~ drug + x", f"{learner}\n{more}"))


def test_two_treated_patients_of_a_level(network: Network) -> None:
    for columns in network.data.values():
        columns["drug"] = np.where(columns["hiv"] == 1, 0, columns["drug"])
        columns["drug"][np.flatnonzero(columns["hiv"] == 1)[:1]] = 1
    with pytest.raises(Withheld, match=r"hiv, drug = 1 has fewer than 5 patients in the pool"):
        network.fit(probe("death ~ drug + hiv"))


def test_a_drug_that_two_hospitals_have(network: Network) -> None:
    network.data["c"]["drug"][:] = 0
    with pytest.raises(Withheld, match=r"drug is at fewer than 3 sites"):
        network.fit(probe().replace(KNOWN, f'{KNOWN}\n[rows]\nconstant = "allow"'))


def test_a_drug_that_everybody_of_a_level_has_is_separation(network: Network) -> None:
    for columns in network.data.values():
        columns["drug"] = np.where(columns["hiv"] == 1, 1, columns["drug"])
    with pytest.raises(Separation, match=r"The treatment is separated"):
        network.fit(probe("death ~ drug + hiv"))


def test_few_patients_of_a_pattern_are_not_read_off_plain_sums(network: Network) -> None:
    for columns in network.data.values():
        rare = np.flatnonzero((columns["hiv"] == 1) & (columns["drug"] == 1) & (columns["sex"] == 1))
        columns["death"][rare] = 0
        columns["death"][rare[:2]] = 1
    with pytest.raises(ReleaseRefused):
        network.fit(probe("death ~ drug + hiv + sex", PLAIN))


@pytest.mark.parametrize("more", ['standardise = "drug"', *later('intervals = "profile"')])
def test_sums_after_a_plain_fit_are_judged_pattern_by_pattern(network: Network, more: str) -> None:
    """Two of a pattern: the fit's own few rounds do not show them, the sums after it may."""
    learner = f'name = "glore"\naggregation = "plain"\n{more}'
    network.fit(text("death ~ drug + sex", learner=learner, rest=KNOWN, **DRUG))
    for columns in network.data.values():
        columns["hiv"] = np.where((columns["drug"] == 1) & (columns["sex"] == 1), 0, columns["hiv"])
        columns["hiv"][np.flatnonzero((columns["drug"] == 1) & (columns["sex"] == 1))[:2]] = 1
    with pytest.raises(ReleaseRefused):
        network.fit(text("death ~ drug + sex + hiv", learner=learner, rest=KNOWN, **DRUG))


def test_a_site_whose_numbers_have_few_values_posts_nothing(network: Network) -> None:
    network.data["b"]["x"] = np.arange(N) % 2
    with pytest.raises(DataError, match=r"3 values or fewer"):
        network.fit(probe("death ~ drug + x"))


HAZARD = f'{MASKED}\neffect = "hazard_ratio"\ntime = "months"'
MONTHS = {"months": 'type = "number"\nrange = [0, 60]'}


def probe_hazards(network: Network) -> str:
    for k, columns in enumerate(network.data.values()):
        columns["months"] = np.round(np.random.default_rng(200 + k).uniform(0.1, 60, N), 1)
    return text(FORMULA, learner=HAZARD, rest=KNOWN, **DRUG, **MONTHS)


def test_a_hazard_ratio_over_all_but_one_patient_is_refused(network: Network) -> None:
    study = probe_hazards(network)
    network.fit(study, N - 1, "a")
    with pytest.raises(ReleaseRefused, match=r"\(added\)"):
        network.fit(study)


def test_a_hazard_ratio_of_two_events_in_an_arm_is_withheld(network: Network) -> None:
    study = probe_hazards(network)
    for columns in network.data.values():
        columns["death"] = np.where(columns["drug"] == 1, 0, columns["death"])
    network.data["a"]["death"][np.flatnonzero(network.data["a"]["drug"] == 1)[:2]] = 1
    with pytest.raises(Withheld, match=r"death = 1, drug = 1 has fewer than 5 patients in the pool"):
        network.fit(study)


def test_squared_scores_that_no_patients_can_have_are_refused() -> None:
    sums = SiteSums({"squared_scores": (1,), "plain_squares": (2, 1)}, masked=False)
    hostile = {"north": {"squared_scores": np.array([-1.0]), "plain_squares": np.ones((2, 1))}}
    with pytest.raises(ProtocolError, match="squares add up to no such number") as error:
        end_hazard(sums, {name: np.ones(2) for name in ("patients", "weight", "heavy")}, {}, hostile)
    assert error.value.code == "CO-P502"


def test_weighted_outcomes_that_no_patients_can_have_are_refused() -> None:
    study = treatment_study(("north", "south"), aggregation="plain")
    table = MemoryProtocol(propensity, study, split_treatment_rows(study))
    table.play()
    weights = next(iter(table.posts("weighing").values()))
    posts = table.posts("outcomes")
    sums = SiteSums({name: np.shape(value) for name, value in posts["north"].items()}, masked=False)
    hostile = {**posts, "south": {**posts["south"], "outcome": np.array([1e6, 1e6])}}
    with pytest.raises(ProtocolError, match="declared range") as error:
        weigh_outcomes(sums, weights, hostile)
    assert error.value.code == "CO-P508"
