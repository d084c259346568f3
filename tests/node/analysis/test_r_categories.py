"""Multinomial and proportional-odds models in GLORE against R's nnet and MASS (tests/golden/r/categories.R)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.lanes import later, one_of_each
from support.learners.r_stays import fit_files, largest_differences, references, write_site_files

from coterie_learners.core import masked_sum
from coterie_learners.core.registry import complete_study, options_of
from coterie_learners.errors import ProtocolError, Separation, StudyError
from coterie_learners.glore.category_fit import step_category
from coterie_learners.glore.category_plan import CategoryPlan
from coterie_learners.glore.glore import GloreOptions
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows, Block
from coterie_learners.sums import newton
from coterie_node.analysis.conformance import check_learner
from coterie_node.analysis.pooled import Reference
from coterie_node.audit.report.model_words import describe_model
from coterie_node.cli.study.advise import advise, try_advices
from coterie_node.run.simulate import simulate

FORMULAS = {"stays": "pain ~ age + ward + frail", "cohort": "disposition ~ age + sex + cci"}
ESTIMATES, ERRORS = 1e-10, 1e-9
# A level that two of three hospitals have is no column of a masked study; the last of five, or of four, lacks one.
SPLITS = [("stays", 3), ("cohort", 4), ("stays", 5)]
CASES = [(data, family, count) for family in ("multinomial", "ordinal") for data, count in SPLITS]


@pytest.mark.parametrize(("data", "family", "count"), one_of_each(CASES, lambda case: case[1]))
def test_coefficients_thresholds_and_errors_are_those_of_r(tmp_path: Path, data: str, family: str, count: int) -> None:
    files = write_site_files(data, count, tmp_path)
    result = fit_files(files, data, FORMULAS[data], {"name": "glore", "family": family})
    estimates, errors = largest_differences(result, references("categories")[f"{family}_{data}"])
    assert estimates < ESTIMATES
    assert errors < ERRORS
    assert result.fit.ratio == {"multinomial": "RRR", "ordinal": "OR"}[family]


def category_study(family: str = "ordinal", **keys: Any) -> Study:
    """A study of three levels at three sites."""
    variables = {
        "y": {"type": "category", "levels": ["low", "middle", "high"]},
        "x": {"type": "number", "range": [-5, 5]},
        "z": {"type": "binary"},
    }
    plain = {"name": "levels", "sites": ["a", "b", "c"], "formula": "y ~ x + z", "variables": variables}
    learner = {"name": "glore", "family": family, **keys.pop("learner", {})}
    return complete_study(Study.model_validate({**plain, "learner": learner, **keys}))


def draw(seed: int = 1, n: int = 400) -> Block:
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=n), rng.integers(0, 2, n).astype(float)
    y = np.digitize(0.7 * x - 0.4 * z + rng.logistic(size=n), [-0.8, 0.9]).astype(float)
    return Block(np.column_stack([np.ones(n), x, z]), y)


def split_rows(block: Block) -> dict[str, ArrayRows]:
    return {name: ArrayRows.of(block.take(np.arange(at, len(block), 3))) for at, name in enumerate("abc")}


@pytest.mark.parametrize("family", ["ordinal", *later("multinomial")])
def test_a_model_of_levels_has_every_property_of_a_learner(family: str) -> None:
    study, rows = category_study(family), split_rows(draw())
    _, runners, _ = simulate(study, rows)
    fit = runners["a"].machine.result
    pairs = zip(fit.terms, fit.estimates.tolist(), fit.std_errors.tolist(), strict=True)
    want = {term: (estimate, error) for term, estimate, error in pairs}
    reference = Reference({t: e for t, (e, _) in want.items()}, {t: s for t, (_, s) in want.items()})
    report = check_learner(study, dict(rows), reference)
    assert (report.unchecked, report.order_difference) == (0, 0.0)
    assert report.restarts == report.records


@pytest.mark.long
def test_two_levels_in_order_are_a_logistic_model_with_the_sign_of_its_threshold() -> None:
    block = draw()
    binary = Block(block.x, (block.y > 0).astype(float))
    two = {"y": {"type": "category", "levels": ["low", "high"]}, **category_study().model_dump()["variables"]}
    two["y"] = {"type": "category", "levels": ["low", "high"]}
    ordinal = simulate(category_study(variables=two), split_rows(binary))[1]["a"].machine.result
    variables = {**two, "y": {"type": "binary"}}
    logistic = simulate(category_study("binomial", variables=variables), split_rows(binary))[1]["a"].machine.result
    assert ordinal.terms == ("x", "z", "low|high")
    np.testing.assert_allclose(ordinal.estimates, [*logistic.estimates[1:], -logistic.estimates[0]], rtol=1e-9)
    np.testing.assert_allclose(ordinal.std_errors[:2], logistic.std_errors[1:], rtol=1e-8)


@pytest.mark.long
def test_the_fit_does_not_depend_on_units_and_declared_ranges() -> None:
    block = draw()
    far = Block(np.column_stack([block.x[:, 0], 1e5 + 0.01 * block.x[:, 1], block.x[:, 2]]), block.y)
    variables = {**category_study().model_dump()["variables"], "x": {"type": "number", "range": [0, 1e6]}}
    near = simulate(category_study(), split_rows(block))[1]["a"].machine.result
    moved = simulate(category_study(variables=variables), split_rows(far))[1]["a"].machine.result
    assert moved.estimates[0] * 0.01 == pytest.approx(near.estimates[0], rel=1e-7)
    assert moved.std_errors[1] == pytest.approx(near.std_errors[1], rel=1e-7)


@pytest.mark.parametrize("family", ["ordinal", *later("multinomial")])
def test_a_column_that_tells_the_level_is_named(family: str) -> None:
    block = draw()
    x = block.x.copy()
    x[:, 1] = block.y + 0.3 * np.sin(np.arange(len(block)))
    with pytest.raises(Separation) as error:
        simulate(category_study(family, learner={"opening": "none", "max_rounds": 60}), split_rows(Block(x, block.y)))
    assert error.value.code == "CO-N302"


def test_a_level_that_nobody_has_is_named() -> None:
    block = draw()
    rows = split_rows(Block(block.x, np.minimum(block.y, 1.0)))
    with pytest.raises(Separation, match="y = high"):
        simulate(category_study(), rows)


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"learner": {"firth": True}}, "CO-S342"),
        ({"learner": {"robust": "HC0"}}, "CO-S342"),
        ({"formula": "y ~ 0 + x"}, "CO-S342"),
        ({"formula": "y ~ z + offset(x)"}, "CO-S342"),
        ({"learner": {"aggregation": "plain"}}, "CO-S343"),
        ({"sites": ["a", "b"]}, "CO-S305"),
        ({"ledger": {"silent_site": "exclude"}}, "CO-S306"),
        ({"formula": "z ~ x"}, "CO-S301"),
        ({"learner": {"name": "cola"}, "formula": "y ~ z"}, "CO-S303"),
    ],
)
def test_a_study_that_does_not_fit_is_refused_in_words(keys: dict[str, Any], code: str) -> None:
    with pytest.raises(StudyError) as error:
        category_study(**keys)
    assert error.value.code == code


@pytest.mark.long
def test_the_advice_for_an_order_of_levels_is_glore_which_synthetic_rows_pass() -> None:
    advices = try_advices(category_study(), advise(category_study()))
    assert (advices[0].learner, advices[0].fits) == ("glore", True)
    assert describe_model(category_study(), None).startswith("ordinal regression")


@pytest.mark.parametrize(
    ("name", "value", "code"), [("counts", 0.5, "CO-P503"), ("counts", -60.0, "CO-P503"), ("deviance", -1.0, "CO-P502")]
)
def test_sums_that_no_rows_can_give_are_refused(name: str, value: float, code: str) -> None:
    study = category_study()
    plan = CategoryPlan.of(study, options_of(study, GloreOptions))
    sums = {key: np.zeros(shape) for key, shape in plan.round.shapes.items()}
    sums["counts"] = np.array([50.0, 40.0, 30.0])
    sums[name] = sums[name] + value
    values = np.concatenate([np.ravel(sums[key]) for key in sorted(sums)])
    nothing = {"masked": np.zeros((len(values), 2), np.uint64)}
    posts = {"a": {"masked": masked_sum.encode_fixed_point(values)}, "b": nothing, "c": nothing}
    with pytest.raises(ProtocolError) as error:
        step_category(plan, {**newton.begin(plan.rules), "known": np.asarray(1), "objective": np.asarray(1e300)}, posts)
    assert error.value.code == code
