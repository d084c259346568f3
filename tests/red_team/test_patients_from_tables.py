"""Attacks on tables of characteristics: one patient read off the sums, by all other sites, or from two studies."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.lanes import later
from support.learners.table_study import play_table, read_stays, split_stays, table_study
from support.red_team.hospitals import Network

from coterie_learners.core import masked_sum
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Floors
from coterie_learners.study.rows import ArrayCodes
from coterie_learners.table_one.shown_items import choose_ways
from coterie_learners.table_one.table_plan import CharacteristicsPlan
from coterie_node.errors import ReleaseRefused
from coterie_node.release.policy import Policy

FLOOR = 5
STUDY = """
name = "table"
sites = ["a", "b", "c"]
formula = "arm ~ age + sex"
patient = "pseudonym"
[learner]
name = "table_one"
aggregation = "{aggregation}"
quantiles = {{ age = {{ width = 5, low = 55, high = 75 }} }}
[rows]
missing = "{missing}"
[variables.arm]
type = "binary"
[variables.sex]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
"""


def read_off(counts: Array) -> list[float]:
    """Every number of patients that a reader can add up from the cells of one line: any set of a row's or column's."""
    out = []
    for table in (counts, counts.T):
        for row in table:
            for size in range(1, len(row) + 1):
                out += [float(sum(cells)) for cells in itertools.combinations(row.tolist(), size)]
    return out


def test_all_other_sites_together_see_no_small_count_of_the_last_one() -> None:
    study = table_study(3, floor=FLOOR)
    _, protocol = play_table(study, split_stays())
    machines = {name: protocol.machines[name].seat(study.sites, 0) for name in study.sites}
    victim, *others = study.sites
    words: NDArray[np.uint64] = np.asarray(protocol.posts("counts")[victim]["masked"])
    for peer in others:
        pad = np.frombuffer(machines[peer].mask(victim, "counts", words.nbytes), "<u8").reshape(words.shape)
        words = masked_sum.add_words(words, masked_sum.negate_words(pad) if victim < peer else pad)
    plan = CharacteristicsPlan.of(study)
    floors = masked_sum.unmask_sums(
        protocol.posts("floors"), {"passes": (sum(len(item.alternatives) for item in plan.items),)}
    )
    shown = choose_ways(plan, floors["passes"], 3)
    own = masked_sum.unmask_sums({victim: {"masked": words}}, shown.shapes)
    lines = shown.read_counts(own["counts"])
    assert lines["patients", ""].sum() > 0
    assert not [n for counts in lines.values() for n in read_off(counts) if 0 < round(n) < FLOOR]


def test_plain_counts_of_a_site_have_no_small_sum() -> None:
    study = table_study(3, floor=FLOOR, learner={"aggregation": "plain"})
    _, protocol = play_table(study, split_stays())
    plan = CharacteristicsPlan.of(study)
    passes = np.sum([post["passes"] for post in protocol.posts("floors").values()], axis=0)
    shown = choose_ways(plan, passes, 3)
    for post in protocol.posts("counts").values():
        for counts in shown.read_counts(np.asarray(post["counts"])).values():
            assert not [n for n in read_off(counts) if 0 < round(n) < FLOOR]


def test_a_number_that_one_patient_dominates_is_not_summed() -> None:
    _, columns = read_stays()
    columns["stay"][np.flatnonzero(columns["ward"] == 2)[0]] = 1e6
    variables = {**table_study(3).model_dump()["variables"], "stay": {"type": "number", "range": [0, 1e6]}}
    study = table_study(3, floor=FLOOR, variables=variables)
    fit, _ = play_table(study, split_stays(3, columns))
    (stay,) = (line for line in fit.details["table"]["lines"] if line["name"] == "stay")
    assert stay["shown"] == "nothing"


@pytest.mark.long
def test_a_number_of_few_values_is_not_summed() -> None:
    _, columns = read_stays()
    columns["stay"] = np.where(columns["stay"] > 3.0, 1.0, 2.0)
    columns["stay"][0] = 3.0
    fit, _ = play_table(table_study(3, floor=FLOOR), split_stays(3, columns))
    (stay,) = (line for line in fit.details["table"]["lines"] if line["name"] == "stay")
    assert stay["shown"] == "nothing"


@pytest.mark.long
def test_few_missing_values_of_one_site_are_not_counted() -> None:
    _, columns = read_stays()
    columns["stay"][3] = np.nan
    fit, _ = play_table(table_study(3, floor=FLOOR), split_stays(3, columns))
    (stay,) = (line for line in fit.details["table"]["lines"] if line["name"] == "stay")
    assert stay["shown"] == "nothing"
    assert not [term for term in fit.terms if term.startswith("stay")]


def test_a_site_of_a_few_patients_in_a_group_gives_no_groups_to_anybody() -> None:
    hospitals, columns = read_stays()
    rows = split_stays()
    inside = np.flatnonzero((np.array(hospitals) == "C") & (columns["ward"] == 1))
    kept = np.setdiff1d(np.flatnonzero(np.array(hospitals) == "C"), inside[2:])
    rows["south"] = ArrayCodes({k: v[kept] for k, v in columns.items()})
    fit, _ = play_table(table_study(3, floor=FLOOR), rows)
    table = fit.details["table"]
    assert table["n"][1:] == [None, None, None]
    assert not [line for line in table["lines"] if line["shown"] == "groups"]


# Over several studies


def draw(seed: int, n: int = 300) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return {
        "pseudonym": np.array([f"{seed}-{k}" for k in range(n)]),
        "age": np.round(rng.normal(64, 9, n)),
        "sex": rng.integers(0, 2, n),
        "arm": rng.integers(0, 2, n),
    }


@pytest.fixture
def hospitals(tmp_path: Path) -> Network:
    return Network(tmp_path, {site: draw(k) for k, site in enumerate("abc")})


@pytest.mark.parametrize("aggregation", ["plain", *later("masked")])
def test_a_second_table_over_all_but_one_patient_is_refused(hospitals: Network, aggregation: str) -> None:
    text = STUDY.format(aggregation=aggregation, missing="keep")
    hospitals.fit(text, 299, "a")
    with pytest.raises(ReleaseRefused, match=r"\(added\)"):
        hospitals.fit(text)


@pytest.mark.long
def test_a_table_after_a_value_went_missing_is_refused(hospitals: Network) -> None:
    text = STUDY.format(aggregation="masked", missing="keep")
    hospitals.fit(text)
    hospitals.data["b"]["age"][3] = np.nan
    with pytest.raises(ReleaseRefused, match=r"\(value changed\)"):
        hospitals.fit(text)


def test_a_model_over_the_complete_rows_is_refused_if_few_are_incomplete(hospitals: Network) -> None:
    hospitals.data["b"]["age"][3] = np.nan
    hospitals.fit(STUDY.format(aggregation="masked", missing="keep"))
    with pytest.raises(ReleaseRefused, match=r"\(dropped\)"):
        hospitals.fit(STUDY.format(aggregation="masked", missing="drop"))


def test_a_site_s_stricter_floor_keeps_its_plain_counts_back(hospitals: Network) -> None:
    hospitals.policy = Policy(floors=Floors(cell=120))
    with pytest.raises(ReleaseRefused, match=r"counts below 120 patients"):
        hospitals.fit(STUDY.format(aggregation="plain", missing="refuse"))
