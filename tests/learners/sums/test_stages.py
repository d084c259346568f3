"""In which stage an opening counts each level: what may be part of a level comes after it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import StudyError
from coterie_learners.glore.glore import GlorePlan
from coterie_learners.glore.many_plan import ModelsPlan
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows, Block
from coterie_learners.sums.opening.cells import list_product_cells, mark_columns
from coterie_learners.sums.opening.counts import Opening

VARIABLES = """
[variables.y]
type = "binary"
[variables.a]
type = "binary"
[variables.b]
type = "binary"
[variables.g]
type = "category"
levels = ["p", "q", "r"]
[variables.x]
type = "number"
range = [0, 9]
[variables.n]
type = "count"
range = [0, 4]
[variables.w]
type = "number"
range = [0.5, 9]
[derive]
both = "a == 1 and b == 1"
three = "both and x > 4"
high = "x > 4"
cause = "y == 1 and a == 1"
"""


def read_study(formula: str, learner: str = "", models: str = "") -> Study:
    head = 'name = "stages"\nsites = ["s0", "s1", "s2"]\n' + (models or f'formula = "{formula}"\n')
    return complete_study(Study.from_toml(f'{head}[learner]\nname = "glore"\n{learner}\n{VARIABLES}'))


def open_study(formula: str, learner: str = "") -> Opening:
    return GlorePlan.of(read_study(formula, learner)).opening


def list_steps(opening: Opening) -> list[tuple[set[str], set[str]]]:
    """Of each stage the levels, and the levels in which events are counted."""
    return [({opening.names[k] for k in s.levels}, {opening.names[k] for k in s.events}) for s in opening.stages]


OUTCOME = {"the pool", "y = 1", "y = 0"}


def test_events_in_a_level_come_after_the_level() -> None:
    levels = {"a", "a = 0", "g[p]", "g[q]", "g[r]", "x, not zero"}
    assert list_steps(open_study("y ~ a + g + x")) == [(levels | OUTCOME, set()), (set(), levels | {"the pool"})]


def test_products_come_after_their_factors_and_before_their_events() -> None:
    steps = list_steps(open_study("y ~ a * b * x"))
    pairs, triple = {"a:b", "a:x, not zero", "b:x, not zero"}, {"a:b:x, not zero"}
    pairs |= {"a = 0 and b = 1", "a = 1 and b = 0", "a = 0 and b = 0", "a = 0 and x not zero", "b = 0 and x not zero"}
    triple |= {f"a = {a} and b = {b} and x not zero" for a, b in ((0, 1), (1, 0), (0, 0))}
    single = {"a", "a = 0", "b", "b = 0", "x, not zero"}
    assert [levels for levels, _ in steps] == [single | OUTCOME, pairs, triple, set()]
    assert [events for _, events in steps] == [set(), single | {"the pool"}, pairs, triple]


@pytest.mark.parametrize(
    ("formula", "cells"),
    [
        ("y ~ a + b + g", set()),
        ("y ~ a:b", {"not (a = 1 and b = 1)"}),
        ("y ~ a + a:b", {"a = 1 and b = 0"}),
        ("y ~ a + a:b:high", {"a = 1 and not (b = 1 and high = 1)"}),
        ("y ~ a + a:g", {"a = 1 and g[p]"}),
        (
            "y ~ a * g",
            {"a = 1 and g[p]"} | {f"a = 0 and g[{level}]" for level in "pqr"},
        ),
        ("y ~ 0 + g + a:g", {f"a = 0 and g[{level}]" for level in "pqr"} | {"a = 1"}),
        ("y ~ x * a", {"a = 0 and x not zero"}),
        ("y ~ x * n", set()),
    ],
)
def test_the_cells_whose_sums_follow_from_those_of_products(formula: str, cells: set[str]) -> None:
    opening = open_study(formula)
    several = {cell.name for cell in list_product_cells(opening.design) if len(cell.variables) > 1}
    assert several == {name for name in cells if " and " in name or "not" in name}
    assert cells <= set(opening.names)
    assert len(set(opening.names)) == len(opening.names)


@pytest.mark.parametrize(
    "formula", ["y ~ a * b * g", "y ~ 0 + g + a:g:x + b:high", "y ~ a + a:b:high", "y ~ x * a * b"]
)
def test_cells_hold_the_rows_that_meet_their_conditions(formula: str) -> None:
    """In every row a cell is 1 if the row is what the cell's name says, and else 0."""
    design, rng = open_study(formula).design, np.random.default_rng(7)
    codes = {name: rng.integers(0, 2, 300).astype(float) for name in ("y", "a", "b", "high", "x")}
    codes["g"] = rng.integers(0, 3, 300).astype(float)
    masks = mark_columns(design, design.raw(codes, 300))
    cells = list_product_cells(design)
    for cell in cells:
        masks[cell.key] = cell.find(masks)
        assert np.array_equal(masks[cell.key], meet_conditions(cell.name, codes)), cell.name
    assert cells


def meet_conditions(name: str, codes: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Which rows meet what a cell's name says, read from the name alone."""
    head, _, inside = name.partition("not (")
    out = 1.0 - meet_conditions(inside[:-1], codes) if inside else np.ones(300)
    for part in filter(None, head.split(" and ")):
        if part.startswith("g["):
            out = out * (codes["g"] == "pqr".index(part[2]))
        else:
            variable, value = part.replace("x not zero", "x = 1").split(" = ")
            out = out * (codes[variable] == float(value))
    return out


def test_too_many_cells_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"v{k}" for k in range(10)]
    monkeypatch.setitem(
        globals(), "VARIABLES", VARIABLES + "".join(f'[variables.{v}]\ntype = "binary"\n' for v in names)
    )
    opening = open_study(f"y ~ {'*'.join(names)}")
    with pytest.raises(StudyError, match=r"more than 4000 cells.*Use a shorter formula"):
        _ = opening.names


def test_a_power_joins_no_other_column() -> None:
    opening = open_study("y ~ x + I(x^2)")
    assert len(opening.stages) == 2


@pytest.mark.parametrize("formula", ["y ~ a + both + three + high", "y ~ three + both + high + a"])
def test_what_is_derived_comes_after_levels_of_fewer_columns(formula: str) -> None:
    stages = dict(zip((opening := open_study(formula)).names, opening.levels_at.tolist(), strict=True))
    expected = {"a": 1, "high": 1, "both": 2, "both = 0": 2, "three": 3, "three = 0": 3, "the pool": 1, "y = 1": 1}
    assert {name: stages[name] for name in expected} == expected


def test_no_stage_is_empty_where_every_level_is_derived() -> None:
    assert [bool(levels) for levels, _ in list_steps(open_study("y ~ three"))] == [True, True, False]
    assert len(open_study("x ~ three", 'family = "gaussian"').stages) == 1


def test_events_come_after_an_outcome_that_joins_columns() -> None:
    """A derived outcome is a level of two columns: who has it is no part of what is known of a level of one."""
    opening = open_study("cause ~ b")
    assert [levels for levels, _ in list_steps(opening)] == [
        {"the pool", "b", "b = 0"},
        {"cause = 1", "cause = 0"},
        set(),
    ]
    assert list_steps(opening)[2][1] == {"the pool", "b", "b = 0"}


@pytest.mark.parametrize(("formula", "family"), [("y ~ a * b", "binomial"), ("x ~ a", "gaussian")])
def test_sizes_of_weights_come_last(formula: str, family: str) -> None:
    opening = open_study(formula, f'family = "{family}"\nweights = "w"')
    levels, events = list_steps(opening)[-1]
    assert levels == set(opening.mass_names) != set()
    assert not events & levels
    assert all(not set(opening.mass_names) & earlier for earlier, _ in list_steps(opening)[:-1])


def test_values_of_an_outcome_come_after_the_outcome() -> None:
    opening = open_study("n ~ a", 'family = "negative_binomial"')
    (first, none), (values, events) = list_steps(opening)
    assert first == {"the pool", "a", "a = 0", "n, not zero"}
    assert not none
    assert values == set(opening.value_names) != set()
    assert events == {"the pool", "a", "a = 0"}


def test_levels_of_several_models_are_ordered_together() -> None:
    models = '[[models]]\nname = "m"\nformula = "y ~ a"\n[[models]]\nname = "n"\nformula = "cause ~ both"\n'
    openings = ModelsPlan.of(read_study("", models=models)).openings
    assert [stage.number for stage in openings["m"].stages] == [1, 2]
    assert [stage.number for stage in openings["n"].stages] == [1, 2, 3]
    assert GlorePlan.of(read_study("cause ~ both")).opening.stages[0].levels.tolist() == [0, 1, 2, 3, 4]
    assert openings["n"].levels_at[openings["n"].names.index("both")] == 2


def test_the_stages_together_are_all_counts() -> None:
    """Counted by stages and put together, a site's counts are those of one count of all."""
    study = read_study("y ~ a * b + x", 'weights = "w"')
    rng = np.random.default_rng(3)
    opening = GlorePlan.of(study).opening
    x = np.column_stack([np.ones(200), *(rng.integers(0, 2, 200) for _ in range(len(opening.design.columns) - 1))])
    block = Block(x.astype(float), rng.integers(0, 2, 200).astype(float), prior=rng.uniform(0.5, 9, 200))
    site = Site(study, "s0", ArrayRows.of(block))
    whole, counts = opening.count(site), opening.begin()
    assert np.isnan(counts["events"]).any()
    for stage in opening.stages:
        counts = stage.add(counts, opening.count_stage(stage, site))
    for key, values in whole.items():
        assert np.array_equal(counts[key], values), key
