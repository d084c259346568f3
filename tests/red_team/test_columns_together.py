"""Attacks by columns none of which shows anybody alone: a combination of them is 0 for all patients but few.

The columns are of one study or of several: raw, derived, levels, powers, products, weighted, of the outcome, of times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.lanes import later
from support.red_team.hospitals import KNOWN, MASKED, PLAIN, N, Network, draw, text

from coterie_node.errors import ReleaseRefused

LOOSE = 'rows = {constant = "allow", collinear = "allow"}'
NUMBER = 'type = "number"\nrange = [0, 1000]'
STAGES = 'type = "category"\nlevels = ["p", "q", "r"]'
VISITS = 'type = "count"\nrange = [0, 9]'
VARIABLES = {"mrn": NUMBER, "months": NUMBER, "first": NUMBER, "second": NUMBER, "stage": STAGES, "again": STAGES}
VARIABLES |= {"visits": VISITS}
CLOSE, OTHERWISE = r"\(close columns\)", r"\(derived otherwise\)"
COX = 'name = "cox"\ntime = "months"\nevent = "death"'
TABLE, CURVES = 'name = "table_one"', 'name = "survival_curves"\ntime = "months"\nevent = "death"'
GRID = "\ntime_grid = { width = 5, horizon = 30 }"


@pytest.fixture
def network(tmp_path: Path) -> Network:
    """Cells of many patients; `first` and `second` are two completions of a column that one patient of each site lacks.

    `again` is `stage` with another level of one patient.
    """
    network = Network(tmp_path, {site: draw(k) for k, site in enumerate("abc")})
    for k, data in enumerate(network.data.values()):
        rng, row = np.random.default_rng(40 + k), np.arange(N)
        data |= {"mrn": row, "death": (row % 3 == 0).astype(int), "sex": row // 4 % 2}
        data["hiv"] = (row // 8 % 4 == 0).astype(int)
        data |= {
            "age": np.repeat(np.arange(30, 70), N // 40) * 1.0,
            "months": np.round(rng.exponential(25, N) + 0.1, 1),
        }
        data["first"] = np.round(data["age"] + rng.normal(size=N), 2)
        data["second"] = np.where(row == 77, data["first"] + 3.3, data["first"])
        data["stage"] = np.array(["p", "q", "r"])[row // 5 % 3]
        data["again"] = np.where(row == 77, "r", data["stage"])
    return network


def write(formula: str, derive: str = "", learner: str = PLAIN, where: str = "", rest: str = KNOWN) -> str:
    where = f"[cohort]\nwhere = {where!r}\n" if where else ""
    derive = f"[derive]\n{derive}\n" if derive else ""
    return text(formula, "abc", learner, f"{rest}\n{LOOSE}\n{where}{derive}", **VARIABLES)


LEVEL, EXCHANGED = 'o = "age > 50"', 'p = "(age > 50 and mrn != 399) or mrn == 0"'
LOGARITHM, SPIKE = 'n = "log(age)"', 'm = "2*log(age) + (mrn == 18)"'
Pair = tuple[tuple[str, ...], tuple[str, ...]]
# Of each attack the formulas, derivations (and conditions) of a study that passes, and of the one that is refused.
PAIRS: dict[str, Pair] = {
    "a level with another patient": (("death ~ o + sex", LEVEL), ("death ~ p + sex", EXCHANGED)),
    "a multiple of a former number": (("death ~ n + sex", LOGARITHM), ("death ~ m + sex", SPIKE)),
    "an outcome with another patient": (
        ("d ~ age + sex", 'd = "death == 1"'),
        ("e ~ age + sex", 'e = "(death == 1 and mrn != 18) or mrn == 19"'),
    ),
    "a little of another column besides": (
        ("death ~ lab + o", LEVEL),
        ("death ~ p + sex", 'p = "lab + (mrn == 18) + (age > 50)/1000000"'),
    ),
    "a power of a former study": (("death ~ lab + lab^2",), ("death ~ n", 'n = "lab^2 + (mrn == 18)"')),
    "a product of a former study": (("death ~ lab*age",), ("death ~ n", 'n = "lab*age + (mrn == 18)"')),
    "a function of a former number": (("death ~ n", LOGARITHM), ("death ~ m", 'm = "log(2*age + (mrn == 18))"')),
    "a spline of a former study": (
        ("death ~ bs(lab, knots = c(0), degree = 1) + sex",),
        ("death ~ n", 'n = "abs(lab)*2 + lab + (mrn == 18)"'),
    ),
    "a level of all, then the same of a part": (
        ("death ~ n + lab", 'n = "age > 50 and sex == 1"'),
        ("death ~ m", 'm = "(sex == 1 and mrn != 396) or mrn == 390"', "age > 50"),
    ),
    "a level within a number": (
        ("death ~ x + lab", 'x = "(age > 40)*2 + lab"'),
        ("death ~ y", 'y = "(age > 40 and mrn != 399)*2 + 2*lab"'),
    ),
    "an offset": (
        ("death ~ sex + offset(a)", 'a = "(age > 50)*0.5"'),
        ("death ~ sex + offset(b)", 'b = "((age > 50 and mrn != 399) or mrn == 0)*0.5"'),
    ),
    "a part with another patient": (("death ~ sex", "", "age > 50"), ("death ~ p + sex", EXCHANGED)),
    "a level with another patient than a part": (("death ~ p + sex", EXCHANGED), ("death ~ sex", "", "age > 50")),
    "a number of a part": (
        ("death ~ lab", "", "age > 50"),
        ("death ~ n", 'n = "2*lab*(age > 50) + (mrn == 18)"'),
    ),
}


# All others wait for `make test-long`.
WAITING = [
    pytest.param(attack, learner, marks=pytest.mark.long)
    for k, attack in enumerate(PAIRS)
    for learner in (PLAIN, MASKED)
    if (k, learner) not in ((0, MASKED), (1, PLAIN))
]


@pytest.mark.parametrize(("attack", "learner"), [(next(iter(PAIRS)), MASKED), (list(PAIRS)[1], PLAIN), *WAITING])
def test_two_studies_of_which_a_combination_is_few_patients(network: Network, attack: str, learner: str) -> None:
    (formula, derive, *where), second = (*PAIRS[attack][0], "")[:3], PAIRS[attack][1]
    network.fit(write(formula, derive, learner, *where))
    with pytest.raises(ReleaseRefused, match=CLOSE):
        network.fit(write(second[0], second[1], learner, *second[2:]))


@pytest.mark.parametrize("learner", [PLAIN, MASKED], ids=["plain", "masked"])
@pytest.mark.parametrize("column", ["first", *later("stage")])
def test_two_columns_of_the_file_that_differ_for_one_patient(network: Network, column: str, learner: str) -> None:
    """Two completions of a column that one patient lacked: what they differ by is that patient's row."""
    network.fit(write(f"death ~ {column} + sex", "", learner))
    with pytest.raises(ReleaseRefused, match=OTHERWISE):
        network.fit(write(f"death ~ {'second' if column == 'first' else 'again'} + sex", "", learner))


@pytest.mark.parametrize("learner", [PLAIN, *later(MASKED)], ids=["plain", "masked"])
def test_two_models_of_which_one_has_another_value_of_one_patient(network: Network, learner: str) -> None:
    models = "".join(f'[[models]]\nname = "{c}"\nformula = "relapse ~ {c} + sex"\n' for c in ("first", "second"))
    head, mark, rest = write("", "", learner).partition("[learner]")
    with pytest.raises(ReleaseRefused, match=CLOSE):
        network.fit(f"{head}{models}{mark}{rest}".replace('formula = ""\n', ""))


@pytest.mark.parametrize("learner", [PLAIN, MASKED], ids=["plain", "masked"])
def test_a_number_and_another_one_that_differs_for_one_patient_in_one_study(network: Network, learner: str) -> None:
    with pytest.raises(ReleaseRefused, match=CLOSE):
        network.fit(write("death ~ n + m", f"{LOGARITHM}\n{SPIKE}", learner))


@pytest.mark.parametrize("derive", [f"{LEVEL}\n{EXCHANGED}", *later('o = "age > 40"\np = "age > 40 and mrn != 399"')])
def test_two_levels_of_one_masked_study(network: Network, derive: str) -> None:
    """Each has many patients of the pool, so that the opening stops nothing; the sums differ by one or two patients."""
    with pytest.raises(ReleaseRefused, match=CLOSE):
        network.fit(write("relapse ~ o + p + sex", derive, MASKED))


@pytest.mark.long
def test_levels_of_one_masked_study_that_many_patients_tell_apart_pass(network: Network) -> None:
    network.fit(write("relapse ~ o + p + sex", 'o = "age > 40"\np = "age > 60"', MASKED))
    network.fit(write("death ~ o*q + sex", 'o = "age > 40"\nq = "sex == 1 or hiv == 1"', MASKED))


@pytest.mark.parametrize("learner", [PLAIN, MASKED], ids=["plain", "masked"])
@pytest.mark.parametrize("formula", ["death ~ lab + lab^30", *later("death ~ lab + lab^8:age")])
def test_powers_and_products_that_are_nearly_one_patient_s(network: Network, formula: str, learner: str) -> None:
    """No column by itself is one patient's, but of the power, or the product, one patient has nearly all."""
    for data in network.data.values():
        data["lab"] = np.round(np.random.default_rng(3).uniform(-1, 1, N), 3)
        data["lab"][5] = 4.0
    with pytest.raises(ReleaseRefused, match=CLOSE):
        network.fit(write(formula, "", learner))


@pytest.mark.long
@pytest.mark.parametrize("learner", [PLAIN, *later(MASKED)], ids=["plain", "masked"])
def test_a_product_with_the_weights_of_a_former_study(network: Network, learner: str) -> None:
    """The sums of lab weighed by age are those of the product of both."""
    network.fit(write("death ~ lab", "", f'{learner}\nweights = "age"'))
    with pytest.raises(ReleaseRefused, match=CLOSE):
        network.fit(write("death ~ n", 'n = "lab*age + (mrn == 18)"', learner))


@pytest.mark.long
@pytest.mark.parametrize("learner", [MASKED, *later(PLAIN)], ids=["masked", "plain"])
def test_the_exponential_of_a_former_offset(network: Network, learner: str) -> None:
    """The first sums of counts weigh each row by the exponential of its offset."""
    for data in network.data.values():
        data["visits"] = np.arange(N) // 7 % 4
    network.fit(write("visits ~ sex + offset(o)", 'o = "2*log(months + 1)"', f'{learner}\nfamily = "poisson"'))
    with pytest.raises(ReleaseRefused, match=CLOSE):
        network.fit(write("death ~ n + sex", 'n = "(months + 1)^2 + 50*(mrn == 18)"', learner))


@pytest.mark.long
@pytest.mark.parametrize("learner", [PLAIN, *later(MASKED)], ids=["plain", "masked"])
def test_a_number_of_women_and_of_men_then_one_of_all(network: Network, learner: str) -> None:
    for sex in (0, 1):
        network.fit(write("death ~ n", LOGARITHM, learner, f"sex == {sex}"))
    with pytest.raises(ReleaseRefused, match=CLOSE):
        network.fit(write("death ~ m", SPIKE, learner))


@pytest.mark.parametrize("learner", [MASKED, *later(PLAIN)], ids=["masked", "plain"])
def test_a_number_of_all_and_of_men_then_one_of_women(network: Network, learner: str) -> None:
    """No former study is of women alone, but the sums of all less those of men are theirs."""
    network.fit(write("death ~ n", LOGARITHM, learner))
    network.fit(write("death ~ n", LOGARITHM, learner, "sex == 0"))
    with pytest.raises(ReleaseRefused, match=CLOSE):
        network.fit(write("death ~ m", 'm = "2*log(age) + (mrn == 20)"', learner, "sex == 1"))


OTHERS: dict[str, Pair] = {
    "groups of a table": (("o ~ lab", LEVEL, TABLE), ("p ~ lab", EXCHANGED, TABLE)),
    "a table, then sums": (("sex ~ n", LOGARITHM, TABLE), ("death ~ m", SPIKE, MASKED)),
    "sums, then a Cox model": (("death ~ n", LOGARITHM, MASKED), ("death ~ m", SPIKE, COX)),
    "groups of curves": (
        ("death ~ 1", LEVEL, f'{CURVES}\ngroup = "o"{GRID}'),
        ("death ~ 1", EXCHANGED, f'{CURVES}\ngroup = "p"{GRID}'),
    ),
    "strata": (("death ~ age", LEVEL, f'{COX}\nstrata = "o"'), ("death ~ age", EXCHANGED, f'{COX}\nstrata = "p"')),
    "one patient in a stratum": (("death ~ age", "", COX), ("death ~ age", 's = "mrn == 18"', f'{COX}\nstrata = "s"')),
    "one patient who enters late": (
        ("death ~ age", "", COX),
        ("death ~ age", 'e = "months/2*(mrn == 18)"', f'{COX}\nentry = "e"'),
    ),
    "a treatment": (
        ("lab ~ t + age", 't = "sex == 1"', 'name = "propensity"\ntreatment = "t"'),
        (
            "lab ~ u + age",
            'u = "(sex == 1 and mrn != 399) or mrn == 0"',
            'name = "propensity"\ntreatment = "u"',
        ),
    ),
    "results on shares": (("death ~ n", LOGARITHM, 'name = "secure_glm"'), ("death ~ m", SPIKE, 'name = "secure_glm"')),
    "tables of patterns": (
        ("death ~ o", LEVEL, 'name = "secure_cola"\nscheme = "masks"'),
        ("death ~ p", EXCHANGED, 'name = "secure_cola"\nscheme = "masks"'),
    ),
    "intervals of fourteen levels": (
        (
            "death ~ h",
            "h = 'cut(age, breaks = c(-Inf, 33, 36, 39, 40, 45, 48, 51, 54, 57, 60, 63, 66, 68, Inf))'",
            MASKED,
        ),
        (
            "death ~ h",
            "h = 'cut(age, breaks = c(-Inf, 33, 36, 39, 41, 45, 48, 51, 54, 57, 60, 63, 66, 68, Inf))'",
            MASKED,
        ),
    ),
}


@pytest.mark.parametrize("attack", [*list(OTHERS)[:1], *later(*list(OTHERS)[1:])])
def test_studies_of_two_learners(network: Network, attack: str) -> None:
    if attack == "intervals of fourteen levels":
        for data in network.data.values():
            data["age"] = np.where(data["age"] == 41, 42.0, data["age"])
            data["age"][0] = 41.0
    first, second = OTHERS[attack]
    network.fit(write(*first))
    with pytest.raises(ReleaseRefused, match=rf"{CLOSE}|\(value changed\)"):
        network.fit(write(*second))


# What hospitals do in earnest


HONEST: list[list[tuple[Any, ...]]] = [
    [
        ("death ~ age + q + sex", 'q = "age^2"'),
        ("relapse ~ n + sex + hiv", LOGARITHM),
        ("death ~ lab + lab^2 + lab^3",),
    ],
    [
        ("death ~ lab*sex",),
        ("relapse ~ b + lab:stage", 'b = "age/10"'),
        ("death ~ s + rcs(lab, c(-1, 0, 1))", 's = "lab*sex"'),
    ],
    [("death ~ lab", "", "sex == 0"), ("death ~ w + lab", 'w = "lab*sex"'), ("death ~ o + lab*stage", LEVEL)],
    [("death ~ first + sex",), ("death ~ age + sex",), ("death ~ stage + age",)],
]


@pytest.mark.parametrize("learner", [MASKED, *later(PLAIN)], ids=["masked", "plain"])
@pytest.mark.parametrize("studies", [HONEST[0], *later(*HONEST[1:])])
def test_honest_columns_pass_one_after_the_other(
    network: Network, studies: list[tuple[Any, ...]], learner: str
) -> None:
    for formula, *rest in studies[: 2 if learner == PLAIN else 3]:
        derive, where = (*rest, "", "")[:2]
        network.fit(write(formula, derive, learner, where))


def test_small_sites_with_few_patients_of_a_level_pass_under_masks(tmp_path: Path) -> None:
    """Each site has four patients of stage r, of whom one has most of a cost; the pool has twelve."""
    network = Network(tmp_path, {site: draw(k, 60) for k, site in enumerate("abc")})
    for k, data in enumerate(network.data.values()):
        row = np.arange(60)
        data["stage"] = np.where(row % 15 == 7, "r", np.array(["p", "q"])[row % 2])
        data["months"] = np.round(np.random.default_rng(k).uniform(1, 9, 60), 1)
        data["months"][7] = 30.0
    for formula in ("death ~ months:stage", "relapse ~ months*stage + age", "death ~ age + age^2 + sex"):
        network.fit(text(formula, "abc", MASKED, f"{KNOWN}\n{LOOSE}", months=NUMBER, stage=STAGES))


@pytest.mark.parametrize("learner", [MASKED, *later(PLAIN)], ids=["masked", "plain"])
def test_completions_of_a_column_that_many_lack_pass(network: Network, learner: str) -> None:
    for data in network.data.values():
        lacking = np.arange(N) % 7 == 3
        data["second"] = np.where(lacking, np.round(data["age"] + 2.5, 2), data["first"])
    network.fit(write("death ~ first + sex", "", learner))
    network.fit(write("death ~ second + sex", "", learner))
