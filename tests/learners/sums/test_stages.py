"""In which stage an opening counts each level: what may be part of a level comes after it."""

from __future__ import annotations

import numpy as np
import pytest

from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import complete_study
from coterie_learners.glore.glore import GlorePlan
from coterie_learners.glore.many_plan import ModelsPlan
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows, Block
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
    single = {"a", "a = 0", "b", "b = 0", "x, not zero"}
    assert [levels for levels, _ in steps] == [single | OUTCOME, pairs, triple, set()]
    assert [events for _, events in steps] == [set(), single | {"the pool"}, pairs, triple]


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
