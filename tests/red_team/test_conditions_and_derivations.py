"""Attacks by conditions on rows and by derived columns: one patient out of a filter, one value out of two cuts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.lanes import diagonal, later
from support.red_team.hospitals import KNOWN, MASKED, PLAIN, N, Network, draw, text

from coterie_learners.errors import DataError, StudyError, Withheld
from coterie_learners.study.document import Study
from coterie_node.errors import ReleaseRefused
from coterie_node.release.policy import Policy

LOOSE = 'rows = {constant = "allow", collinear = "allow"}'
# Two studies: those over 40, and those over 41.
FORMULA = ("death ~ I(age > 40)", "death ~ I(age > 41)")
DERIVED = ("death ~ over_40", "death ~ over_41")
BOTH = ("death ~ over_40", "death ~ I(age > 41)")
NUMBER = 'type = "number"\nrange = [0, 1000]'


@pytest.fixture
def network(tmp_path: Path) -> Network:
    """Cells of many patients at each site, so that plain sums may leave."""
    network = Network(tmp_path, {site: draw(k) for k, site in enumerate("abcd")})
    for data in network.data.values():
        data |= {"death": (np.arange(N) % 3 == 0).astype(int), "sex": np.arange(N) // 4 % 2}
        data["mrn"] = np.arange(N)
        data["age"] = np.repeat(np.arange(30, 70), N // 40)
        data["age"][data["age"] == 41] = 42
        data["age"][0] = 41
    return network


def write(where: str, formula: str = "death ~ sex", learner: str = PLAIN, rest: str = "", derive: str = "") -> str:
    whole = f"{rest}\n{LOOSE}\n[cohort]\nwhere = {where!r}\n[derive]\n{derive}\n"
    return text(formula, "abc", learner, whole, mrn=NUMBER)


@pytest.mark.parametrize("learner", [PLAIN, *later(MASKED)])
def test_a_condition_that_isolates_one_patient_leaves_too_few_rows(network: Network, learner: str) -> None:
    with pytest.raises(DataError, match="1 row can be used") as caught:
        network.fit(write("mrn == 17", learner=learner))
    assert caught.value.code == "CO-D118"


@pytest.mark.parametrize(("rest", "learner"), diagonal([KNOWN, ""], [PLAIN, MASKED]))
def test_two_studies_whose_conditions_differ_by_one_patient(network: Network, rest: str, learner: str) -> None:
    network.fit(write("mrn >= 0", learner=learner, rest=rest))
    with pytest.raises((ReleaseRefused, Withheld), match=r"\(dropped\)|\(identifiers changed\)|\(difference\)"):
        network.fit(write("mrn != 17", learner=learner, rest=rest))


@pytest.mark.long
def test_a_condition_through_a_derived_column_differs_by_one_patient(network: Network) -> None:
    network.fit(write("mrn >= 0", rest=KNOWN))
    with pytest.raises(ReleaseRefused, match=r"\(dropped\)"):
        network.fit(write("target == 0", rest=KNOWN, derive='target = "mrn == 17"'))


@pytest.mark.parametrize("learner", [MASKED, *later(PLAIN)])
def test_a_derived_column_that_marks_one_patient_is_a_small_level(network: Network, learner: str) -> None:
    with pytest.raises((ReleaseRefused, Withheld), match=r"small level|fewer than 5|below 5"):
        network.fit(write("mrn >= 0", "death ~ target", learner, KNOWN, 'target = "mrn == 17"'))


def test_a_derived_column_that_encodes_who_a_patient_is_meets_the_floor(network: Network) -> None:
    """Powers of two by number of the file: the sum of those who died would tell who did, bit by bit."""
    with pytest.raises(ReleaseRefused, match="dominance"):
        network.fit(write("mrn >= 0", "death ~ code", PLAIN, KNOWN, 'code = "exp(mrn / 1.44)"'))


def test_the_identifying_column_is_no_part_of_an_expression() -> None:
    with pytest.raises(StudyError, match="pseudonym is no variable"):
        Network(Path(), {}).fit(write("pseudonym == '0-17'", rest=KNOWN))


@pytest.mark.parametrize(("cuts", "rest"), diagonal([FORMULA, DERIVED, BOTH], [KNOWN, ""]))
def test_one_patient_between_two_cuts_of_two_studies(network: Network, cuts: tuple[str, str], rest: str) -> None:
    """Those over 40 less those over 41: one patient, whose outcome would follow."""
    first, second = cuts
    network.fit(write("mrn >= 0", first, PLAIN, rest, 'over_40 = "age > 40"'))
    with pytest.raises(ReleaseRefused, match=r"\(derived otherwise\)|\(neighbouring cuts\)"):
        network.fit(write("mrn >= 0", second, PLAIN, rest, 'over_41 = "age > 41"'))


@pytest.mark.long
def test_the_same_cut_again_shows_nothing_new(network: Network) -> None:
    for formula in ("death ~ over_40", "death ~ over_40 + sex"):
        network.fit(write("mrn >= 0", formula, PLAIN, KNOWN, 'over_40 = "age > 40"'))
    network.fit(write("mrn >= 0", "death ~ I(age > 40)", PLAIN, KNOWN, 'over_40 = "age > 40"'))


def test_masked_sums_of_two_cuts_ask_a_person(network: Network) -> None:
    network.fit(write("mrn >= 0", "death ~ over", MASKED, KNOWN, 'over = "age > 40"'))
    with pytest.raises(ReleaseRefused, match=r"\(derived otherwise\)"):
        network.fit(write("mrn >= 0", "death ~ older", MASKED, KNOWN, 'older = "age > 41"'))


def test_a_derived_column_under_its_old_name_with_one_other_value(network: Network) -> None:
    network.fit(write("mrn >= 0", "death ~ over", PLAIN, KNOWN, 'over = "age > 40"'))
    with pytest.raises(ReleaseRefused, match=r"\(value changed\)|\(exchanged\)"):
        network.fit(write("mrn >= 0", "death ~ over", PLAIN, KNOWN, 'over = "age > 41"'))


@pytest.mark.parametrize("derive", ["", *later('over = "age > 60"')])
def test_a_larger_set_of_patients_is_judged_by_what_both_studies_derive(network: Network, derive: str) -> None:
    """Sixty patients more; of these one is over 60: seen in no raw column, as age is a measurement."""
    for data in network.data.values():
        data["age"] = np.where(np.arange(N) % 4 == 0, 65, 35) + np.arange(N) % 7 * 0.5
        data["age"][-60:] = 40 + np.arange(60) / 8
        data["age"][-1] = 64
    term = "over" if derive else "I(age > 60)"
    network.fit(write("mrn < 340", f"death ~ {term}", PLAIN, KNOWN, derive))
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*\(small level\)"):
        network.fit(write("mrn >= 0", f"death ~ {term}", PLAIN, KNOWN, derive))


def test_visits_joined_in_two_ways_that_differ_for_one_patient(network: Network) -> None:
    """The last visit of one patient alone is taken out of the second study."""
    for data in network.data.values():
        twice = np.arange(2 * N) // 2
        for name in list(data):
            data[name] = data[name][twice]
        data["visit"] = np.arange(2 * N) % 2
        data["lab"] = np.where(np.arange(2 * N) % 2 == 0, 1.0, np.arange(2 * N) % 5)
    derive = 'died = "any(death == 1)"\nhigh = "last(lab) > 2"\nwoman = "first(sex)"'
    rest = f'{KNOWN}\n{LOOSE}\n[cohort]\norder = "visit"\n'
    variables = {"mrn": NUMBER, "visit": 'type = "count"\nrange = [0, 9]'}
    first = text("died ~ woman", "abc", PLAIN, f"{rest}where = 'mrn >= 0'\n[derive]\n{derive}", **variables)
    second = text(
        "died ~ high", "abc", PLAIN, f"{rest}where = 'mrn != 17 or visit == 0'\n[derive]\n{derive}", **variables
    )
    network.fit(first)
    with pytest.raises(ReleaseRefused, match=r"\(value changed\)"):
        network.fit(second)


@pytest.mark.parametrize("column", ["infected", *later("I(hiv > 0)")])
def test_a_sensitive_column_stays_so_under_a_derived_name(network: Network, column: str) -> None:
    """Everybody of the second ward has it: known of each of them, whatever the column is called."""
    for data in network.data.values():
        data["hiv"] = (np.arange(N) % 5 == 0).astype(int)
        data["ward"] = np.where(np.arange(N) % 10 == 0, 1, 0)
    derive = 'infected = "hiv == 1"\nsecond = "ward == 1"'
    rest = f'disclosure = {{ sensitive = ["hiv"] }}\n{KNOWN}'
    study = write("mrn >= 0", f"death ~ {column} + second", PLAIN, rest, derive)
    with pytest.raises(ReleaseRefused, match=r"\(full cell\)"):
        network.fit(f'{study}[variables.ward]\ntype = "binary"\n')


def test_a_column_that_a_policy_keeps_out_is_not_read_by_a_derivation() -> None:
    study = Study.from_toml(write("mrn >= 0", "death ~ infected", PLAIN, KNOWN, 'infected = "hiv == 1"'))
    with pytest.raises(StudyError, match="never lets hiv be used"):
        Policy(never=("hiv",)).check(study, "a")
    joined = Study.from_toml(write("any(hiv == 1)", "died ~ 1", PLAIN, KNOWN, 'died = "any(death == 1)"'))
    with pytest.raises(StudyError, match="never lets hiv be used"):
        Policy(never=("hiv",)).check(joined, "a")
