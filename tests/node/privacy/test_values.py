"""Plain sums are judged by the values, whatever the study declares."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from coterie_node.privacy.prints import RawRows
from coterie_node.privacy.values import (
    ColumnValues,
    LevelTable,
    Sample,
    cross_tables,
    has_dominant_patient,
    is_dominated,
    judge_values,
    table_of,
)

FLOOR = 5
RNG = np.random.default_rng(3)
N = 400
SEX = RNG.integers(0, 2, N).astype(float)
AGE = np.round(RNG.uniform(30, 90, N), 1)
DIED = (RNG.random(N) < 0.3).astype(float)


def kinds(values: dict[str, NDArray[Any]], outcome: str = "died", **more: Any) -> set[str]:
    return {o.kind for o in judge_values(Sample(values, outcome, **more), FLOOR)}


def subjects(values: dict[str, NDArray[Any]], outcome: str = "died", **more: Any) -> set[str]:
    return {o.subject for o in judge_values(Sample(values, outcome, **more), FLOOR)}


def test_ordinary_columns_pass() -> None:
    assert kinds({"died": DIED, "sex": SEX, "age": AGE, "weight": RNG.normal(70, 10, N)}) == set()


@pytest.mark.parametrize("rare", [1.0, 0.25, 7.0])
def test_a_number_that_only_one_patient_has_is_a_small_level(rare: float) -> None:
    hiv = np.zeros(N)
    hiv[0] = rare
    assert "of hiv" in subjects({"died": DIED, "sex": SEX, "hiv": hiv})


def test_a_dose_that_is_zero_for_nearly_all_is_a_table() -> None:
    dose = RNG.normal(size=N)
    dose[2:] = 0.0
    table = table_of("dose", dose)
    assert table is not None
    assert table.counts().tolist() == [N - 2, 1, 1]
    assert "of dose" in subjects({"died": DIED, "dose": dose})
    many = RNG.normal(size=N)
    many[:100] = 1.5
    table = table_of("dose", many)
    assert table is not None
    assert table.size == 2
    assert table_of("dose", RNG.normal(size=N)) is None


def test_events_are_counted_for_every_whole_number_outcome() -> None:
    level = np.zeros(N)
    level[:20] = 1
    died = DIED.copy()
    died[:20] = 0
    died[0] = 1
    assert "of level by died" in subjects({"died": died, "level": level})
    visits = died * 3
    visits[20:] = RNG.integers(0, 40, N - 20)
    assert "of level by died" in subjects({"died": visits, "level": level})


def test_a_level_whose_patients_all_have_the_outcome_is_full_and_one_without_the_outcome_is_not() -> None:
    level = np.zeros(N)
    level[:10] = 1
    died = DIED.copy()
    died[:10] = 1
    assert kinds({"died": died, "level": level}) == {"full cell"}
    died[:10] = 0
    assert kinds({"died": died, "level": level}) == set()


def test_an_outcome_that_everybody_has_is_full() -> None:
    assert "full cell" in kinds({"died": np.ones(N), "sex": SEX})
    assert kinds({"died": np.zeros(N), "sex": SEX}) == set()


def test_full_cells_of_covariates_are_refused_where_they_are_sensitive() -> None:
    pregnant = np.where(SEX == 0, (RNG.random(N) < 0.3).astype(float), 0.0)
    values = {"died": DIED, "sex": SEX, "pregnant": pregnant, "hiv": (pregnant > 0).astype(float)}
    assert kinds(values) == set()
    assert kinds(values, sensitive=("hiv",)) == {"full cell"}


def test_a_small_pair_and_a_small_product_are_refused() -> None:
    a, b, c = ((RNG.random(N) < 0.5).astype(float) for _ in range(3))
    both = (a == 1) & (b == 1)
    c[both] = 0
    assert kinds({"died": DIED, "a": a, "b": b, "c": c}) == set()
    c[np.flatnonzero(both)[:2]] = 1
    assert kinds({"died": DIED, "a": a, "b": b, "c": c}) == set()
    assert "of c by a:b" in subjects({"died": DIED, "a": a, "b": b, "c": c}, products=[("a", "b")])
    a[both] = 0
    a[np.flatnonzero(both)[:2]] = 1
    assert "of a by b" in subjects({"died": DIED, "a": a, "b": b})


def test_an_offset_with_few_values_is_a_table() -> None:
    offset = np.zeros(N)
    offset[:3] = np.log(2)
    assert "of offset" in subjects({"died": DIED, "offset": offset})


def test_one_patient_who_is_nearly_all_of_a_sum_is_refused() -> None:
    """Figures of the rule's own study: silent for normals, nearly so for log-normals, sure of a 1000-fold outlier."""

    def squares(x: NDArray[Any]) -> bool:
        return is_dominated((x - np.median(x)) ** 2)

    cost = RNG.lognormal(0, 0.5, N)
    cost[0] = cost.sum() * 1e4
    assert kinds({"died": DIED, "cost": cost}) == {"dominance"}
    draws = [np.random.default_rng(k) for k in range(500)]
    assert not any(squares(r.normal(size=100)) for r in draws)
    assert np.mean([squares(r.lognormal(0, 2, 100)) for r in draws]) == pytest.approx(0.19, abs=0.06)
    assert np.mean([squares(r.lognormal(0, 1.5, 1000)) for r in draws]) == pytest.approx(0.012, abs=0.012)


def test_prints_are_judged_as_the_values_that_they_stand_for() -> None:
    level = np.zeros(N)
    level[:3] = 1
    keyed = {"died": np.where(DIED == 0, 9177, 41), "level": np.where(level == 0, 5, 77)}
    assert subjects(keyed, zeros={"died": 9177, "level": 5}) >= {"of level"}


def test_a_category_is_a_table_however_many_levels_it_has() -> None:
    year = RNG.integers(0, 26, N).astype(float)
    year[year == 25] = 24.0
    year[0] = 25.0
    assert "of year" not in subjects({"died": DIED, "year": year})
    assert "of year" in subjects({"died": DIED, "year": year}, categories={"year"})


def test_a_study_that_shows_every_count_shows_full_cells_too() -> None:
    group, died = (np.arange(N) % 2).astype(float), DIED.copy()
    died[group == 1] = 1.0
    sample = Sample({"died": died, "group": group}, "died")
    assert {o.kind for o in judge_values(sample, FLOOR)} == {"full cell"}
    assert judge_values(sample, 0) == []


def test_two_way_tables_are_those_of_a_direct_count() -> None:
    rng = np.random.default_rng(8)
    sizes = (2, 4, 3, 300, 12, 2, 90, 4000)
    tables = [LevelTable(str(k), rng.integers(0, size, 2000), size) for k, size in enumerate(sizes)]
    counts = cross_tables(tables)
    assert set(counts) == set(itertools.combinations(range(len(sizes)), 2))
    for (a, b), table in counts.items():
        direct = np.unique(tables[a].codes * sizes[b] + tables[b].codes, return_counts=True)[1]
        assert np.array_equal(np.sort(table[table > 0]), np.sort(direct))


def test_a_frequent_value_is_a_table_wherever_it_lies() -> None:
    for value in (-3.5, 0.0, 1e300):
        column = RNG.normal(size=N)
        column[: N // 5] = value
        table = table_of("x", column)
        assert table is not None
        assert table.counts().tolist() == [N // 5, N - N // 5]


def test_dominance_without_a_median_is_what_the_median_says() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values = rng.lognormal(rng.normal(), rng.uniform(0.1, 3), rng.integers(5, 200)) - rng.uniform(0, 50)
        exact = is_dominated(np.abs(values)) or is_dominated((values - np.median(values)) ** 2)
        assert has_dominant_patient(values) == exact


@pytest.mark.parametrize("present", [np.arange(N) % 3, np.round(RNG.normal(size=N), 3)], ids=["few", "many"])
def test_a_column_with_missing_values_is_read_without_them(present: NDArray[np.float64]) -> None:
    gaps = np.where(np.arange(N) % 7 == 0, np.nan, present)
    column, complete = ColumnValues("lab", gaps), ColumnValues("lab", gaps[~np.isnan(gaps)])
    assert RawRows({"lab": gaps}).find_few("lab") is None
    assert (column.table is None) == (complete.table is None)
    assert column.table is None or column.table.counts().tolist() == complete.table.counts().tolist()  # type: ignore[union-attr]
    assert column.ends == complete.ends


def test_a_measurement_with_a_frequent_place_and_no_gap_has_a_cluster() -> None:
    values = np.concatenate([np.linspace(0, 1, 3000), 0.5005 + RNG.uniform(-4e-4, 4e-4, 1500)])
    assert ColumnValues("x", values).table is None
    assert [table.size for table in ColumnValues("x", values).clusters] == [2]


def test_the_ends_of_a_bounded_measurement_are_no_rare_levels() -> None:
    for seed, n in itertools.product(range(3), (5_000, 20_000, 100_000)):
        rng = np.random.default_rng(seed)
        for values in (rng.beta(2, 2, n), rng.random(n), rng.triangular(0, 0.5, 1, n)):
            assert judge_values(Sample({"x": values, "died": (rng.random(n) < 0.3).astype(float)}, "died"), FLOOR) == []


@pytest.mark.parametrize("rows", [2_000, 100_000], ids=["few rows", "many rows"])
def test_rare_levels_and_frequent_places_show_among_many_rows_too(rows: int) -> None:
    rng = np.random.default_rng(rows)
    rare = rng.uniform(-0.1, 0.1, rows)
    rare[:3] += 1.0
    died = (rng.random(rows) < 0.3).astype(float)
    assert "small level" in {o.kind for o in judge_values(Sample({"x": rare, "died": died}, "died"), FLOOR)}
    frequent = rng.random(rows)
    frequent[: rows // 4] = 0.25
    table = table_of("x", frequent)
    assert table is not None
    assert table.counts().tolist() == [rows // 4, rows - rows // 4]
