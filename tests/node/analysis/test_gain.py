"""What joining bought a site is computed from its own rows, equals other libraries' fits, and leaves no trace."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn.metrics import roc_auc_score
from support.lanes import one_of_each
from support.learners.evaluation_study import (
    draw_site,
    held_out_study,
    other_rows_study,
    play_evaluation,
    split_older_stays,
)
from support.learners.table_study import play_table, split_stays, table_study

from coterie_chain.store.protocol import MemoryBlobs
from coterie_learners.core.fit import Fit
from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import StudyError
from coterie_learners.evaluate.parts import draw_held_out, list_row_words
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes, CodedBlocks
from coterie_node.analysis.gain import describe_gain, measure_gain
from coterie_node.release.gate import Gate
from coterie_node.run.recorded_steps import steps
from coterie_node.run.simulate import World, simulate

ROWS = {name: draw_site(seed, 400) for seed, name in enumerate(("north", "south", "west"))}


def run_study(study: Study) -> tuple[World, Fit]:
    """The study in one process."""
    world, runners, _ = simulate(study, ROWS, gates={name: Gate(study) for name in study.sites})
    fit = runners["north"].machine.result
    assert isinstance(fit, Fit)
    return world, fit


def seat(study: Study, name: str, rows: ArrayCodes) -> Site:
    return Site(study, name, rows)


def test_the_own_fit_is_that_of_statsmodels_on_the_site_s_rows_of_the_fit() -> None:
    study = held_out_study()
    _, fit = run_study(study)
    gain = measure_gain(seat(study, "south", ROWS["south"]), fit)
    values, inside = ROWS["south"].everything, draw_held_out(study, list_row_words(ROWS["south"]))
    x = sm.add_constant(np.column_stack([values["lab"], values["male"]]))
    own = sm.GLM(values["ill"][~inside], x[~inside], family=sm.families.Binomial()).fit(tol=1e-14, maxiter=100)
    np.testing.assert_allclose([term.own for term in gain.terms], own.params, rtol=1e-8)
    np.testing.assert_allclose([term.own_width for term in gain.terms], 2 * 1.959963984540054 * own.bse, rtol=1e-8)
    np.testing.assert_allclose([term.joint for term in gain.terms], fit.estimates)
    assert gain.n + int(inside.sum()) == 400
    assert 1.3 < gain.times < 2.2


def test_both_models_are_compared_on_rows_that_neither_has_seen() -> None:
    study = held_out_study()
    _, fit = run_study(study)
    gain = measure_gain(seat(study, "south", ROWS["south"]), fit)
    values, inside = ROWS["south"].everything, draw_held_out(study, list_row_words(ROWS["south"]))
    eta = fit.estimates[0] + fit.estimates[1] * values["lab"] + fit.estimates[2] * values["male"]
    assert gain.held_out is not None
    assert gain.held_out.joint_area is not None
    assert gain.held_out.own_area is not None
    assert gain.held_out.joint_area["value"] == pytest.approx(roc_auc_score(values["ill"][inside], eta[inside]))
    assert gain.held_out.own_area["within"] == pytest.approx(gain.held_out.joint_area["within"], abs=1e-3)
    assert "held-out rows here the AUC is" in gain.sentence


def test_both_models_are_compared_on_the_other_rows_of_a_condition() -> None:
    study = other_rows_study(floor=5)
    rows = split_older_stays(study)
    fit, _ = play_evaluation(study, rows)
    name = study.sites[0]
    gain = measure_gain(Site(study, name, rows[name]), fit)
    part = rows[name]
    assert isinstance(part, ArrayCodes)
    older = part.everything["age"] >= 60
    assert gain.held_out is not None
    assert (gain.n, gain.held_out.n) == (int(np.count_nonzero(~older)), int(np.count_nonzero(older)))
    assert gain.held_out.joint_area is not None


def test_nothing_of_the_gain_is_on_the_ledger_or_in_the_store() -> None:
    study = held_out_study()
    world, fit = run_study(study)
    assert isinstance(world.blobs, MemoryBlobs)
    log, blocks = list(world.chain.log), dict(world.blobs.blocks)
    gain = measure_gain(seat(study, "south", ROWS["south"]), fit)
    assert list(world.chain.log) == log
    assert world.blobs.blocks == blocks
    posted = [post for done in steps(world.ledger(), world.blobs, world.number, study) for post in done.posts.values()]
    numbers = np.concatenate([np.ravel(value).astype(float) for post in posted for value in post.values()])
    assert len(numbers) > 100
    for term in gain.terms:
        for value in (term.own, term.own_width):
            assert not np.isclose(numbers, value, rtol=1e-9, atol=0.0).any()
            assert repr(value) not in repr(log)


def test_a_site_whose_own_rows_do_not_identify_the_model_hears_why() -> None:
    study = complete_study(Study.model_validate(held_out_study().model_dump() | {"evaluate": {}}))
    _, fit = run_study(held_out_study())
    few = ArrayCodes(
        {name: np.asarray(values)[:12] * (name != "male") for name, values in draw_site(8).everything.items()}
    )
    gain = measure_gain(seat(study, "south", few), fit)
    assert gain.held_out is None
    assert "alone has no fit" in gain.sentence


FAMILIES = {
    ("gamma", "inverse"): sm.families.Gamma(sm.families.links.InversePower()),
    ("gamma", "log"): sm.families.Gamma(sm.families.links.Log()),
    ("quasipoisson", "log"): sm.families.Poisson(),
    ("gaussian", "identity"): sm.families.Gaussian(),
    ("gaussian", "log"): sm.families.Gaussian(sm.families.links.Log()),
    ("poisson", "identity"): sm.families.Poisson(sm.families.links.Identity()),
}


def outcome_study(family: str, link: str, **options: object) -> Study:
    variables = {"y": {"type": "count", "range": [1, 60]}, "x": {"type": "number", "range": [0, 1]}}
    learner = {"name": "glore", "family": family, "link": link, "opening": "none", **options}
    plain = {"name": "gains", "sites": ["north", "south", "west"], "formula": "y ~ x", "variables": variables}
    return complete_study(Study.model_validate({**plain, "learner": learner, "disclosure": {"cell": 0}}))


def draw_counts(seed: int, n: int = 90) -> ArrayCodes:
    rng = np.random.default_rng(seed)
    x = np.round(rng.random(n), 2)
    return ArrayCodes({"x": x, "y": np.clip(rng.negative_binomial(4, 4 / (4 + 6 + 5 * x)), 1, 60).astype(float)})


def fit_rows(study: Study, rows: Mapping[str, ArrayCodes]) -> Fit:
    """The joint fit of these sites, without a gate."""
    _, runners, _ = simulate(study, {name: CodedBlocks(Design(study), part) for name, part in rows.items()})
    fit = runners["north"].machine.result
    assert isinstance(fit, Fit)
    return fit


@pytest.mark.filterwarnings("ignore:The .* link function does not respect")
@pytest.mark.parametrize(("family", "link"), one_of_each(list(FAMILIES), lambda pair: pair[0]))
def test_widths_of_both_fits_have_the_dispersion_and_the_t_of_statsmodels(family: str, link: str) -> None:
    study, rows = outcome_study(family, link), {name: draw_counts(k) for k, name in enumerate(ROWS)}
    fit = fit_rows(study, rows)
    gain = measure_gain(seat(study, "south", rows["south"]), fit)
    for part, widths in ((["south"], [t.own_width for t in gain.terms]), (ROWS, [t.joint_width for t in gain.terms])):
        x, y = (np.concatenate([rows[name].everything[column] for name in part]) for column in ("x", "y"))
        model = sm.GLM(y, sm.add_constant(x), family=FAMILIES[family, link])
        scale = 1.0 if family == "poisson" else "X2"
        fitted = model.fit(tol=1e-14, maxiter=100, scale=scale)
        quantile = stats.norm.ppf(0.975) if family == "poisson" else stats.t.ppf(0.975, len(y) - 2)
        np.testing.assert_allclose(widths, 2 * quantile * fitted.bse, rtol=2e-7)


def test_a_study_whose_own_fit_would_be_another_model_has_no_gain() -> None:
    study = outcome_study("quasipoisson", "log", robust="HC0")
    rows = {name: draw_counts(k) for k, name in enumerate(ROWS)}
    fit = fit_rows(study, rows)
    with pytest.raises(StudyError, match="has robust, which"):
        measure_gain(seat(study, "south", rows["south"]), fit)


def test_a_study_without_a_regression_has_no_gain() -> None:
    study = table_study(3)
    rows = split_stays()
    fit, _ = play_table(study, rows)
    with pytest.raises(StudyError, match="no regression on rows"):
        measure_gain(Site(study, study.sites[0], rows[study.sites[0]]), fit)
    assert describe_gain(Site(study, study.sites[0], rows[study.sites[0]]), fit) == ""
