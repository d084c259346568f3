"""Variants of the attacks on sums: other identifiers, mixed studies, differences of the pool, patterns over studies.

Each is a sequence of studies that together would show one patient, and the sentence that refuses the last of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.lanes import later
from support.red_team.hospitals import KNOWN, MASKED, PLAIN, N, Network, draw, text

from coterie_learners.errors import DataError, Withheld
from coterie_node.errors import ReleaseRefused

LOOSE = 'rows = {constant = "allow", collinear = "allow"}'
GROUP = 'type = "category"\nlevels = ["x", "y", "z"]'


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path, {site: draw(k) for k, site in enumerate("abcd")})


def balance(network: Network) -> None:
    """Cells of many patients at each site, so that plain sums may leave."""
    for site in network.data:
        network.data[site]["death"] = (np.arange(N) % 3 == 0).astype(int)
        network.data[site]["sex"] = np.arange(N) // 4 % 2


# Who patients are


@pytest.mark.parametrize("learner", [PLAIN, MASKED], ids=["plain", "masked"])
def test_one_patient_more_under_another_identifier(network: Network, learner: str) -> None:
    """The second study names another column of identifiers, so that all patients look new."""
    for site in "abc":
        network.data[site]["mrn"] = np.array([f"M{site}{k}" for k in range(N)])
    network.fit(text("death ~ age + sex", learner=learner, rest=KNOWN), N - 1, "a")
    with pytest.raises(ReleaseRefused, match=r"the study 'probe'.*\(identifiers changed\).*\[cohort\]"):
        network.fit(text("death ~ age + sex", learner=learner, rest='patient = "mrn"'))


def test_one_patient_more_in_a_file_whose_identifiers_are_written_in_another_way(network: Network) -> None:
    network.fit(text("death ~ age + sex", rest=KNOWN), N - 1, "a")
    network.data["a"]["pseudonym"] = np.array([f"00{name}" for name in network.data["a"]["pseudonym"]])
    with pytest.raises(ReleaseRefused, match=r"\(identifiers changed\)"):
        network.fit(text("death ~ age", rest=KNOWN))


def test_women_with_identifiers_men_without_then_all_but_one(network: Network) -> None:
    balance(network)
    order = np.argsort(network.data["a"]["sex"], kind="stable")
    network.data["a"] = {name: column[order] for name, column in network.data["a"].items()}
    whole, women = network.data["a"], int(np.count_nonzero(network.data["a"]["sex"] == 0))
    network.fit(text("death ~ age", "ab", PLAIN, f"{KNOWN}\n{LOOSE}"), women, "a")
    network.data["a"] = {name: column[women:] for name, column in whole.items()}
    network.fit(text("death ~ age", "ab", PLAIN, LOOSE))
    network.data["a"] = {name: column[1:] for name, column in whole.items()}
    with pytest.raises(ReleaseRefused, match=r"\(combination\)"):
        network.fit(text("death ~ age", "ab", PLAIN, f"{KNOWN}\n{LOOSE}"))


def test_rows_that_repeat_others_are_taken_for_rows_of_the_same_patients(network: Network) -> None:
    """Five rows of one patient pass as five patients where rows are taken for patients."""
    for site in "ab":
        patients = np.repeat(np.arange(N // 5), 5)
        network.data[site] = {name: column[patients] for name, column in network.data[site].items()}
    with pytest.raises(ReleaseRefused, match=r"\(repeated rows\).*patient = "):
        network.fit(text("death ~ age + sex", "ab", PLAIN))


def test_coarse_columns_explain_repeats(network: Network) -> None:
    balance(network)
    for site in "ab":
        network.data[site]["age"] = np.round(network.data[site]["age"])
    network.fit(text("death ~ age + sex", "ab", PLAIN))


# Differences


@pytest.mark.parametrize("rest", [KNOWN, ""], ids=["identifiers", "rows"])
def test_thirty_patients_more_and_one_of_them_has_a_level(network: Network, rest: str) -> None:
    balance(network)
    for site in "ab":
        network.data[site]["hiv"] = (np.arange(N) // 8 % 5 == 0).astype(int)
        network.data[site]["hiv"][-30:] = 0
        network.data[site]["hiv"][-1] = 1
    study = text("death ~ sex + hiv", "ab", PLAIN, rest)
    network.fit(study, N - 30, "a")
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*\(small level\)"):
        network.fit(study)


def test_forty_patients_more_and_one_of_them_is_at_a_rare_year_of_a_long_category(network: Network) -> None:
    """A category with more levels than a table has by its values is one all the same, in a difference too."""
    balance(network)
    levels = [f"y{k}" for k in range(14)]
    for site in "ab":
        network.data[site]["year"] = np.array(levels)[np.arange(N) // 12 % 14]
        network.data[site]["year"][-40:] = np.array(levels)[np.r_[np.arange(39) % 3, 5]]
    year = f'type = "category"\nlevels = {levels}'.replace("'", '"')
    study = text(
        "relapse ~ year",
        "ab",
        f'{PLAIN}\nfamily = "gaussian"',
        KNOWN,
        year=year,
        relapse='type = "number"\nrange = [-9, 9]',
    )
    for site in "ab":
        network.data[site]["relapse"] = network.data[site]["lab"]
    network.fit(study, N - 40, "a")
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*of year \(small level\)"):
        network.fit(study)


def test_forty_patients_more_and_one_of_them_has_most_of_a_cost(network: Network) -> None:
    balance(network)
    for site in "ab":
        network.data[site]["cost"] = np.round(np.random.default_rng(1).lognormal(5, 0.5, N), 2)
        network.data[site]["cost"][np.r_[:48, N - 1]] = 9e7
    study = text("death ~ sex + cost", "ab", PLAIN, KNOWN, cost='type = "number"\nrange = [0, 1e8]')
    network.fit(study, N - 40, "a")
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*\(dominance\)"):
        network.fit(study)


def grow(network: Network, formula: str, **more: Any) -> None:
    """A masked study on all rows of every site but the last ten, and again on all."""
    full = network.data
    network.data = {s: {name: column[: N - 10] for name, column in full[s].items()} for s in full}
    network.fit(text(formula, rest=KNOWN, **more))
    network.data = full
    network.fit(text(formula, rest=KNOWN, **more))


@pytest.mark.parametrize("learner", ['name = "glore"', 'name = "secure_cola"'])
def test_a_pool_that_grew_by_one_patient_of_a_level(network: Network, learner: str) -> None:
    """Each site has ten patients more, and no single site's rows follow; the pool's difference is one patient's."""
    for site in "abc":
        network.data[site]["hiv"] = (np.arange(N) % 5 == 0).astype(int)
        network.data[site]["hiv"][-10:] = 0
    network.data["b"]["hiv"][-1] = 1
    with pytest.raises(ReleaseRefused, match=r"study 'probe'.*\(difference\).*hiv.*\(small level\)"):
        grow(network, "death ~ sex + hiv", learner=learner)


def test_a_pool_that_grew_by_patients_who_all_have_the_outcome(network: Network) -> None:
    for site in "abc":
        network.data[site]["hiv"] = (np.arange(N) % 5 == 0).astype(int)
        network.data[site]["death"][-10:] = network.data[site]["hiv"][-10:]
    with pytest.raises(ReleaseRefused, match=r"\(difference\).*hiv.*\(full cell\)"):
        grow(network, "death ~ sex + hiv")


def test_a_pool_that_grew_by_many_patients_of_every_level_passes(network: Network) -> None:
    for site in "abc":
        network.data[site]["sex"], network.data[site]["death"] = np.arange(N) % 2, np.arange(N) // 2 % 2
    grow(network, "death ~ sex")


# Patterns over several studies, and patterns that one of them leaves out


def draw_cube(small: int) -> Mapping[str, NDArray[Any]]:
    """Eight patterns of three columns; of the one with all three, `small` patients have the outcome."""
    a, b, c = np.arange(N) % 2, np.arange(N) // 2 % 2, np.arange(N) // 4 % 2
    death, full = (np.arange(N) // 8 % 3 == 0).astype(int), (a == 1) & (b == 1) & (c == 1)
    death[full] = 0
    death[np.flatnonzero(full)[:small]] = 1
    return {"a": a, "b": b, "c": c, "death": death}


BINARY = dict.fromkeys("abc", 'type = "binary"')


def test_patterns_that_follow_from_two_studies_with_other_products(network: Network) -> None:
    for site in "ab":
        network.data[site] |= draw_cube(2)
    loose = f"{KNOWN}\n{LOOSE}"
    network.fit(text("death ~ a*b + c", "ab", PLAIN, loose, **BINARY))
    network.fit(text("death ~ a + b*c", "ab", PLAIN, loose, **BINARY))
    with pytest.raises(ReleaseRefused, match=r"\(pattern\)|single patterns|\(small level\)"):
        network.fit(text("death ~ a*b*c", "ab", PLAIN, loose, **BINARY))


def test_sums_over_all_rows_after_a_table_without_its_small_patterns(network: Network) -> None:
    """Every pair has many patients, one pattern of three columns has two: just these are the difference."""
    for site in "ab":
        network.data[site] |= draw_cube(10)
        rows = np.flatnonzero((network.data[site]["a"] & network.data[site]["b"] & network.data[site]["c"]) == 1)[2:]
        kept = np.setdiff1d(np.arange(N), rows)
        network.data[site] = {name: column[kept] for name, column in network.data[site].items()}
    network.fit(text("death ~ a + b + c", "ab", 'name = "cola"', KNOWN, **BINARY))
    with pytest.raises(ReleaseRefused, match=r"\((added|difference)\)"):
        network.fit(text("death ~ a + b + c", "ab", PLAIN, KNOWN, **BINARY))


# Declared types


def test_an_outcome_of_two_values_declared_as_a_number(network: Network) -> None:
    for site in "abc":
        network.data[site]["death"][network.data[site]["hiv"] == 1] = 1
    number = 'type = "number"\nrange = [0, 1]'
    with pytest.raises(DataError, match="'death' has 3 values or fewer"):
        network.fit(text("death ~ age + hiv", learner='name = "glore"\nfamily = "gaussian"', death=number))


def test_a_linear_model_of_an_outcome_that_everybody_in_a_level_has(network: Network) -> None:
    for site in "abc":
        network.data[site]["death"][network.data[site]["hiv"] == 1] = 1
    count = 'type = "count"\nrange = [0, 9]'
    with pytest.raises(Withheld, match="full cell"):
        network.fit(text("death ~ age + hiv", learner='name = "glore"\nfamily = "gaussian"', death=count))


@pytest.mark.parametrize("second", ['name = "cola"', *later('name = "secure_cola"', PLAIN, MASKED)])
def test_one_patient_more_with_another_learner(network: Network, second: str) -> None:
    balance(network)
    network.fit(text("death ~ sex", learner=MASKED, rest=KNOWN), N - 1, "a")
    with pytest.raises(ReleaseRefused, match=r"\(added\)"):
        network.fit(text("death ~ sex", learner=second, rest=KNOWN))


def test_one_patient_exchanged_and_one_column_declared_as_a_category(network: Network) -> None:
    network.fit(text("death ~ age + sex", rest=KNOWN), N - 1, "a")
    network.data["a"] = {name: column[1:] for name, column in network.data["a"].items()}
    sex = 'type = "category"\nlevels = ["0", "1"]'
    with pytest.raises(ReleaseRefused, match=r"\(exchanged\)"):
        network.fit(text("relapse ~ sex + age:sex", rest=KNOWN, sex=sex))


def test_one_patient_fewer_through_an_offset_that_the_patient_lacks(network: Network) -> None:
    for site in "abc":
        network.data[site]["lt"] = np.round(np.random.default_rng(3).normal(size=N), 2).astype(object)
    network.data["a"]["lt"][7] = ""
    rest = f'{KNOWN}\nrows = {{missing = "drop"}}'
    kinds = {"death": 'type = "count"\nrange = [0, 9]', "lt": 'type = "number"\nrange = [-9, 9]'}
    learner = 'name = "glore"\nfamily = "poisson"'
    network.fit(text("death ~ age", learner=learner, rest=rest, **kinds))
    with pytest.raises(ReleaseRefused, match=r"lack lt \(dropped\)"):
        network.fit(text("death ~ age + offset(lt)", learner=learner, rest=rest, **kinds))


# Weights, and levels behind noise


@pytest.mark.parametrize("learner", ["plain", "masked"])
@pytest.mark.parametrize("patients", [4, *later(1)])
def test_an_offset_that_leaves_few_patients_any_weight(network: Network, learner: str, patients: int) -> None:
    """The information of the first round is then that of these patients alone, to all digits."""
    balance(network)
    for site in "abc":
        network.data[site]["lt"] = np.round(np.random.default_rng(3).uniform(-60, -40, N), 3)
    network.data["a"]["lt"][:patients] = np.linspace(0, 0.1, patients)
    kinds = {"death": 'type = "count"\nrange = [0, 9]', "lt": 'type = "number"\nrange = [-60, 1]'}
    options = f'name = "glore"\naggregation = "{learner}"\nfamily = "poisson"'
    with pytest.raises(ReleaseRefused, match=r"under the offset lt.*\(dominance\)"):
        network.fit(text("death ~ age + offset(lt)", "abc", options, KNOWN, **kinds))


def test_follow_up_times_from_days_to_years_pass_as_an_offset(network: Network) -> None:
    balance(network)
    for site in "ab":
        network.data[site]["lt"] = np.round(np.log(np.random.default_rng(3).uniform(0.01, 9, N)), 3)
    kinds = {"death": 'type = "count"\nrange = [0, 9]', "lt": 'type = "number"\nrange = [-9, 9]'}
    options = f'{PLAIN}\nfamily = "poisson"'
    network.fit(text("death ~ age + offset(lt)", "ab", options, KNOWN, **kinds))


@pytest.mark.parametrize("patients", [3, *later(1, 4)])
def test_a_rare_level_behind_noise(network: Network, patients: int) -> None:
    """No two values are equal, and none dominates: yet the sums are those of the few who are far from the others."""
    balance(network)
    for site in "ab":
        network.data[site]["hiv"] = 1e-7 * np.random.default_rng(5).random(N)
        network.data[site]["hiv"][:patients] += 1.0
    with pytest.raises(ReleaseRefused, match=r"of hiv \(small level\)|\(dominance\)"):
        network.fit(text("death ~ age + hiv", "ab", PLAIN, KNOWN, hiv='type = "number"\nrange = [0, 2]'))
