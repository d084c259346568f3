"""Columns of which a combination leaves few patients, against columns made to have one and to have none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.objections import Grade
from coterie_node.privacy.prints import print_numbers
from coterie_node.release.derivations import known_derivations
from coterie_node.release.derivations.known_columns import SummedColumn, judge_combinations
from coterie_node.release.derivations.known_derivations import Sizes, judge_numbers

FLOOR = 5
PLAIN, MASKED = Sizes(FLOOR, True), Sizes(FLOOR, False)
Numbers = NDArray[np.float64]


def draw(seed: int, rows: int = 300, count: int = 5) -> list[Numbers]:
    """Columns of several shapes, each in units of its own."""
    random = np.random.default_rng(seed)
    shapes = [random.normal(size=rows), random.uniform(40, 90, rows), np.exp(random.normal(size=rows) / 2)]
    return [shapes[k % 3] if k < 3 else random.normal(size=rows) * 10.0**k for k in range(count)]


def as_columns(own: list[Numbers], former: list[Numbers]) -> list[SummedColumn]:
    mine = [SummedColumn(f"own {k}", values, is_raw=False) for k, values in enumerate(own)]
    return mine + [SummedColumn(f"former {k}", values, is_former=True) for k, values in enumerate(former)]


def plant(seed: int, patients: int, size: float) -> list[Numbers]:
    """A number that is a sum of the former columns and, for so many patients, something of their own."""
    former, random = draw(seed), np.random.default_rng(1000 + seed)
    number = sum(random.normal() * column for column in former)
    spike = np.zeros(len(former[0]))
    spike[random.choice(len(spike), patients, replace=False)] = random.choice([-1.0, 1.0], patients)
    return [np.asarray(number + size * spike)]


@pytest.mark.parametrize("patients", range(1, FLOOR))
@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_each_planted_combination_is_found(patients: int, size: float) -> None:
    for seed in range(10):
        (objection,) = judge_combinations(as_columns(plant(seed, patients, size), draw(seed)), PLAIN)
        assert (objection.grade, objection.kind) == (Grade.REFUSE, "close columns")


def test_under_masks_a_person_is_asked() -> None:
    (objection,) = judge_combinations(as_columns(plant(0, 1, 1.0), draw(0)), MASKED)
    assert objection.grade is Grade.ASK


@pytest.mark.parametrize("rows", [12, 30, 60, 300])
def test_columns_without_one_pass(rows: int) -> None:
    """Small files too, in which few rows have much of many directions."""
    for seed in range(40):
        own = draw(500 + seed, rows, 4)
        functions = [np.log(np.abs(own[1])), own[0] ** 2, own[0] * own[1], (own[0] > 0) * own[1]]
        assert not list(judge_combinations(as_columns([*own, *functions], draw(seed, rows)), PLAIN))


def test_a_combination_of_as_many_as_the_floor_passes() -> None:
    for seed in range(10):
        assert not list(judge_combinations(as_columns(plant(seed, FLOOR, 1.0), draw(seed)), PLAIN))


def test_what_levels_of_the_file_show_is_not_asked() -> None:
    """One patient with two levels: the pool's counts are judged for that."""
    rows = np.arange(300)
    levels = [SummedColumn("a", (rows < 100) * 1.0, True), SummedColumn("b", (rows < 101) * 1.0, True)]
    number = SummedColumn("n", draw(1)[0], is_raw=False)
    assert not list(judge_combinations([*levels, number], PLAIN))


def test_without_a_floor_nothing_is_asked() -> None:
    assert not list(judge_combinations(as_columns(plant(0, 1, 1.0), draw(0)), Sizes(1, True)))


def test_columns_that_differ_at_once_are_compared_on_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pair of columns on all rows took ten times what the gate takes for a study of fifty columns."""
    rng, rows, printed = np.random.default_rng(1), 5000, list[int]()
    new = {f"x{k}": rng.normal(size=rows) for k in range(8)}
    log = PrivacyLog()
    former = {f"z{k}": print_numbers(rng.normal(size=rows), f"z{k}", log.key) for k in range(8)}
    former["near"] = print_numbers(np.where(np.arange(rows) == 18, 7.0, new["x3"]), "near", log.key)

    def count(values: Any, column: str, key: bytes) -> Any:
        printed.append(len(values))
        return print_numbers(values, column, key)

    monkeypatch.setattr(known_derivations, "print_numbers", count)
    found = list(judge_numbers(new, former, frozenset({"x3", "near"}), log, Sizes(5, True)))
    assert [objection.subject for objection in found] == ["x3 and near"]
    assert sum(printed) < 2 * rows
