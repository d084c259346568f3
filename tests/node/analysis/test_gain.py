"""What joining bought a site is computed from its own rows, equals other libraries' fits, and leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.metrics import roc_auc_score
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
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes
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


def test_a_study_without_a_regression_has_no_gain() -> None:
    study = table_study(3)
    rows = split_stays()
    fit, _ = play_table(study, rows)
    with pytest.raises(StudyError, match="no regression on rows"):
        measure_gain(Site(study, study.sites[0], rows[study.sites[0]]), fit)
    assert describe_gain(Site(study, study.sites[0], rows[study.sites[0]]), fit) == ""
