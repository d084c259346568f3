"""Attacks by who chooses a published model: coefficients that set one patient apart in the sums of its scores."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.lanes import later
from support.red_team.hospitals import KNOWN, Network, draw, text

from coterie_learners.errors import LearnerError
from coterie_node.errors import ReleaseRefused

ALLOW = f'{KNOWN}\n[rows]\nconstant = "allow"\ncollinear = "allow"'
SPIKE = "exp(-(age - 55.05)^2*100000)"
STOPS = (ReleaseRefused, LearnerError)


@pytest.fixture
def hospitals(tmp_path: Path) -> Network:
    out = Network(tmp_path, {site: draw(k) for k, site in enumerate("abc")})
    out.data["a"]["age"][0] = 55.05  # alone: all other ages have one digit
    return out


def validate(
    formula: str, aggregation: str, coefficients: dict[str, float], rest: str = ALLOW, evaluate: str = ""
) -> str:
    names = {"(Intercept)": 0.0} | coefficients
    options = ", ".join(f'"{name}" = {value}' for name, value in names.items())
    learner = f'name = "validate"\naggregation = "{aggregation}"\ncoefficients = {{ {options} }}'
    head, mark, tail = text(formula, learner=learner, rest=rest).partition("[learner]")
    return f"{head}[evaluate]\n{evaluate}\n{mark}{tail}"


@pytest.mark.parametrize("aggregation", ["masked", *later("plain")])
def test_coefficients_that_choose_one_patient_are_refused(hospitals: Network, aggregation: str) -> None:
    column = "I(abs(age - 55.05) < 0.02)"
    with pytest.raises(STOPS, match=r"\(small level\)|\(dominance\)"):
        hospitals.fit(validate(f"death ~ {column}", aggregation, {f"{column}[TRUE]": 15.0}))


@pytest.mark.long
@pytest.mark.parametrize("aggregation", ["masked", "plain"])
def test_a_spike_at_one_patient_is_refused(hospitals: Network, aggregation: str) -> None:
    with pytest.raises(STOPS, match=r"values or fewer|\(dominance\)"):
        hospitals.fit(validate(f"death ~ {SPIKE} + sex", aggregation, {SPIKE: 15.0, "sex": 0.001}))


@pytest.mark.parametrize("aggregation", ["masked", *later("plain")])
def test_a_level_of_one_patient_of_the_pool_is_refused(hospitals: Network, aggregation: str) -> None:
    for site in "abc":
        hospitals.data[site]["hiv"][:] = 0
    hospitals.data["a"]["hiv"][3] = 1
    with pytest.raises(STOPS, match=r"\(small level\)"):
        hospitals.fit(validate("death ~ hiv + lab", aggregation, {"hiv": 0.01, "lab": 1.0}))


def test_a_product_that_one_patient_has_alone_is_refused(hospitals: Network) -> None:
    """Steep coefficients make the probability 0 for all but the patient who has several levels at once."""
    for site in "abc":
        hospitals.data[site]["sex"][hospitals.data[site]["hiv"] == 1] = 0
    hospitals.data["a"]["sex"][hospitals.data["a"]["hiv"].argmax()] = 1
    coefficients = {"(Intercept)": -40.0, "hiv": 20.0, "sex": 20.0}
    with pytest.raises(ReleaseRefused, match=r"\(dominance\)"):
        hospitals.fit(validate("death ~ hiv + sex", "masked", coefficients))


@pytest.mark.parametrize("aggregation", ["masked", *later("plain")])
def test_steep_coefficients_that_choose_three_patients_are_refused(hospitals: Network, aggregation: str) -> None:
    """The probability is 1 for those three and 0 for all others, so that its sum by outcome counts their outcomes."""
    hospitals.data["a"]["lab"][:3] = [4.5, 4.6, 4.7]
    with pytest.raises(STOPS, match=r"fewer than 5 patients make up nearly all of a sum of the scores \(dominance\)"):
        hospitals.fit(validate("death ~ lab", aggregation, {"(Intercept)": -400.0, "lab": 100.0}))


@pytest.mark.parametrize("aggregation", ["masked", *later("plain")])
def test_powers_that_choose_one_patient_are_refused(hospitals: Network, aggregation: str) -> None:
    """Beside a column of many patients the sums of logits tell nearly all of what one has of a high power."""
    hospitals.data["a"]["lab"][0] = 5.0
    with pytest.raises(STOPS, match=r"\(close columns\)"):
        hospitals.fit(validate("death ~ lab + lab^30", aggregation, {"lab": 0.1, "lab^30": 1e-22}))


@pytest.mark.parametrize("aggregation", ["masked", *later("plain")])
def test_an_honest_validation_passes(hospitals: Network, aggregation: str) -> None:
    coefficients = {"(Intercept)": -6.0, "age": 0.1, "sex": 0.3}
    for evaluate in ("", 'by = ["hiv"]'):
        hospitals.fit(validate("death ~ age + sex", aggregation, coefficients, KNOWN, evaluate))


def test_a_rare_level_of_a_group_is_not_shown_and_stops_nothing(hospitals: Network) -> None:
    for site in "abc":
        hospitals.data[site]["hiv"][:] = 0
    hospitals.data["a"]["hiv"][:2] = 1
    coefficients = {"(Intercept)": -6.0, "age": 0.1, "sex": 0.3}
    for aggregation in ("masked", "plain"):
        hospitals.fit(validate("death ~ age + sex", aggregation, coefficients, KNOWN, 'by = ["hiv"]'))
