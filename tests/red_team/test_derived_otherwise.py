"""Attacks by what two studies derive in two ways: outcomes, numbers, several levels, and a part beside a level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.lanes import diagonal, later
from support.red_team.hospitals import KNOWN, MASKED, PLAIN, N, Network, draw, text

from coterie_node.errors import ReleaseRefused

LOOSE = 'rows = {constant = "allow", collinear = "allow"}'
NUMBER = 'type = "number"\nrange = [0, 1000]'
OTHERWISE = r"\(derived otherwise\)"
ALL = "mrn >= 0"


@pytest.fixture
def network(tmp_path: Path) -> Network:
    """Cells of many patients at each site; one patient of each is 41, and it is the first."""
    network = Network(tmp_path, {site: draw(k) for k, site in enumerate("abc")})
    for data in network.data.values():
        data |= {"death": (np.arange(N) % 3 == 0).astype(int), "sex": np.arange(N) // 4 % 2}
        data["relapse"] = (np.arange(N) // 2 % 5 == 0).astype(int)
        data["mrn"] = np.arange(N)
        data["age"] = np.repeat(np.arange(30, 70), N // 40)
        data["age"][data["age"] == 41] = 42
        data["age"][0] = 41
    return network


def write(formula: str, derive: str = "", learner: str = PLAIN, where: str = ALL, rest: str = KNOWN) -> str:
    whole = f"{rest}\n{LOOSE}\n[cohort]\nwhere = {where!r}\n[derive]\n{derive}\n"
    return text(formula, "abc", learner, whole, mrn=NUMBER)


def write_models(derive: str, outcome: str) -> str:
    """A study of two models, of which the second one's outcome is derived."""
    formulas = ("relapse ~ age", f"{outcome} ~ age")
    models = "".join(f'[[models]]\nname = "m{k}"\nformula = "{formula}"\n' for k, formula in enumerate(formulas))
    head, mark, rest = write("", derive).partition("[learner]")
    return f"{head}{models}{mark}{rest}".replace('formula = ""\n', "")


DIED, LESS = 'd = "death == 1"', 'e = "death == 1 and mrn != 18"'
OUTCOMES = [
    (write("d ~ age + sex", DIED), write("e ~ age + sex", LESS)),
    (write("e ~ age + sex", LESS, MASKED), write("death ~ age + sex", "", MASKED)),
    (write("o ~ sex + death", 'o = "age > 40"'), write("death ~ p + sex", 'p = "age > 41"')),
    (write_models(DIED, "d"), write_models(LESS, "e")),
    (write("death ~ age + sex", "", MASKED), write("e ~ age + sex", LESS, MASKED)),
]


@pytest.mark.parametrize("studies", [*OUTCOMES[:2], *later(*OUTCOMES[2:])])
def test_outcomes_that_differ_for_one_patient_show_no_covariates(network: Network, studies: tuple[str, str]) -> None:
    """The sums of covariates of those with one outcome less those with the other: the covariates of one patient."""
    network.fit(studies[0])
    with pytest.raises(ReleaseRefused, match=OTHERWISE):
        network.fit(studies[1])


@pytest.mark.long
def test_levels_of_derived_columns_alone_show_no_patient(network: Network) -> None:
    network.fit(write("d ~ over", f'over = "age > 40"\n{DIED}'))
    women_and_men = f'w = "age > 41 and sex == 0"\nm = "age > 41 and sex == 1"\n{DIED}'
    with pytest.raises(ReleaseRefused, match=OTHERWISE):
        network.fit(write("d ~ w + m", women_and_men))


@pytest.mark.parametrize(("learner", "rest"), diagonal([PLAIN, MASKED], [KNOWN, ""]))
def test_levels_of_two_columns_beside_a_level_of_one_show_no_patient(network: Network, learner: str, rest: str) -> None:
    """Women over 41 and men over 41 together are all over 41: no level by itself is close to those over 40."""
    network.fit(write("death ~ over", 'over = "age > 40"', learner, rest=rest))
    women_and_men = 'w = "age > 41 and sex == 0"\nm = "age > 41 and sex == 1"'
    with pytest.raises(ReleaseRefused, match=rf"w and m with those of over.*{OTHERWISE}|levels of .*{OTHERWISE}"):
        network.fit(write("death ~ w + m", women_and_men, learner, rest=rest))


@pytest.mark.parametrize("derive", ["first(lab)|last(lab)", *later("mean(lab)|max(lab)", "any(lab > 0)|all(lab > 0)")])
def test_visits_taken_together_in_two_ways_that_differ_for_one_patient(network: Network, derive: str) -> None:
    """One patient of each site came twice."""
    for data in network.data.values():
        rows = np.sort(np.r_[np.arange(N), 17])
        for name in list(data):
            data[name] = data[name][rows]
        data["visit"] = np.r_[0, np.diff(rows) == 0].astype(int)
        data["lab"][18] = -data["lab"][17] - 1.0
    order = f'{KNOWN}\n{LOOSE}\n[cohort]\norder = "visit"\n[derive]\ny = "any(death == 1)"\n'
    visits = 'type = "count"\nrange = [0, 9]'
    first, second = (
        text("y ~ x" + k, "abc", PLAIN, f'{order}x{k} = "{way}"', visit=visits)
        for k, way in zip("ab", derive.split("|"), strict=True)
    )
    network.fit(first)
    with pytest.raises(ReleaseRefused, match=OTHERWISE):
        network.fit(second)


NEARLY = ["2*lab + (mrn == 18)", "lab*(1 + (mrn == 18))", "2*lab - age + exp(-(mrn - 18)^2*3)"]


@pytest.mark.parametrize("learner", [PLAIN, *later(MASKED)])
@pytest.mark.parametrize("number", [NEARLY[0], *later(*NEARLY[1:])])
@pytest.mark.parametrize("derived", [True, *later(False)])
def test_a_number_that_is_a_multiple_except_for_one_patient(
    network: Network, learner: str, number: str, derived: bool
) -> None:
    term, derive = ("n", f'n = "{number}"') if derived else (f"I({number})", "")
    with pytest.raises(ReleaseRefused, match=rf"is a sum of multiples of .*lab.* {OTHERWISE}"):
        network.fit(write(f"death ~ {term} + sex", derive, learner))


PARTS = [
    (write("death ~ sex", "", MASKED, "age > 40"), write("death ~ o + sex", 'o = "age > 41"', MASKED)),
    (write("death ~ o + sex", 'o = "age > 41"', MASKED), write("death ~ sex", "", MASKED, "age > 40")),
    (write("death ~ sex", "", MASKED), write("death ~ 1", "", MASKED, "sex == 0 and mrn != 17")),
    (write("death ~ sex", "", MASKED, "age <= 40"), write("death ~ I(age > 41) + sex", "", MASKED)),
]


@pytest.mark.parametrize("studies", [*PARTS[:2], *later(*PARTS[2:])])
def test_a_level_of_all_beside_a_condition_that_differs_by_one_patient(
    network: Network, studies: tuple[str, str]
) -> None:
    """Masked sums over those over 40 less the level of those over 41 among all: one patient of each site."""
    network.fit(studies[0])
    with pytest.raises(ReleaseRefused, match=rf"the patients of 'probe'.*{OTHERWISE}"):
        network.fit(studies[1])


@pytest.mark.parametrize("learner", [PLAIN, *later(MASKED)])
def test_honest_derivations_of_several_studies_pass(network: Network, learner: str) -> None:
    """Multiples, logarithms, splines, intervals, a part by a level, two outcomes: nobody is set apart."""
    network.fit(write("death ~ age + sex", "", learner))
    network.fit(write("death ~ log(age) + double + slope + sex", 'double = "lab*2"\nslope = "lab*(age > 60)"', learner))
    network.fit(write("both ~ old + sex", 'both = "death == 1 or relapse == 1"\nold = "age > 60"', learner))
    network.fit(write("relapse ~ old + lab", 'old = "age > 60"', learner, "sex == 0"))
