"""Secure GLM over the real runner: by rows and by columns, what is opened, what it refuses, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import statsmodels.api as sm
from support.lanes import later
from support.learners import glm_studies
from support.learners.glm_studies import HELPER, GlmCohort, columns_cohort, make_study, rows_cohort

from coterie_learners.core import payload as pay
from coterie_learners.core.fit import Fit
from coterie_learners.core.registry import learner_of
from coterie_learners.errors import LearnerError, ProtocolError, StudyError
from coterie_learners.secure_glm.glm_result import check_opened
from coterie_learners.secure_glm.secure_glm import SECURE_GLM
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows, Data, OwnColumns
from coterie_node.analysis.conformance import check_learner
from coterie_node.audit.replay import replay
from coterie_node.errors import NodeError
from coterie_node.run.simulate import World, simulate

CASES: dict[str, Callable[[], GlmCohort]] = {
    "two hospitals and a helper": rows_cohort,
    "three hospitals": lambda: rows_cohort(hospitals=3),
    "two owners of columns": columns_cohort,
}


def run_study(c: GlmCohort) -> tuple[Fit, World]:
    """The first site's result of a whole run, and the world it ran in."""
    world, runners, _ = simulate(c.study, c.data)
    return cast(Fit, runners[c.study.sites[0]].machine.result), world


def assert_pooled(c: GlmCohort, fit: Fit) -> None:
    """Coefficients within 1e-4 standard errors, and standard errors within 1e-4 of statsmodels'."""
    reference = c.pooled
    assert reference.std_errors is not None
    errors = np.array([reference.std_errors[t] for t in fit.terms])
    estimates = np.array([reference.estimates[t] for t in fit.terms])
    assert np.abs((fit.estimates - estimates) / errors).max() < 1e-4
    assert np.abs(fit.std_errors / errors - 1.0).max() < 1e-4


@pytest.mark.parametrize("name", ["two hospitals and a helper", *later("two owners of columns")])
def test_it_obeys_and_equals_the_pooled_fit(name: str) -> None:
    c = CASES[name]()
    report = check_learner(c.study, c.data, c.pooled, tolerance=1e-4)
    assert report.estimate_difference < 1e-4
    assert report.restarts > 1


@pytest.mark.parametrize(
    "made",
    [
        *later(lambda: rows_cohort(hospitals=3, seed=2), lambda: rows_cohort(hospitals=5, m=2, seed=3)),
        lambda: columns_cohort(owners=("ana", "bob", "eve"), seed=4),
    ],
)
def test_more_owners_supply_what_three_parties_compute_on(made: Callable[[], GlmCohort]) -> None:
    c = made()
    fit, world = run_study(c)
    assert_pooled(c, fit)
    verdict = replay(world.ledger(), world.blobs, world.number).verdict
    assert (verdict.verdict, verdict.grade) == ("RECORD INTACT", "opened results")


@pytest.mark.long
def test_by_rows_and_by_columns_the_same_patients_give_the_same_fit() -> None:
    by_rows, by_columns = run_study(rows_cohort(seed=6))[0], run_study(columns_cohort(seed=6))[0]
    gap = (by_rows.estimates - by_columns.estimates) / by_rows.std_errors
    assert np.abs(gap).max() < 1e-4
    assert np.abs(by_rows.std_errors / by_columns.std_errors - 1.0).max() < 1e-4


@pytest.mark.long
def test_masked_glore_and_secure_glm_agree_on_three_sites() -> None:
    c = rows_cohort(hospitals=3, seed=7)
    glore = make_study(3, c.study.sites, "glore", disclosure={"cell": 0})
    masked, secure = run_study(replace(c, study=glore))[0], run_study(c)[0]
    assert np.abs((masked.estimates - secure.estimates) / masked.std_errors).max() < 1e-4
    assert np.abs(masked.std_errors / secure.std_errors - 1.0).max() < 1e-4
    assert masked.deviance is not None
    assert secure.deviance is not None
    assert abs(masked.deviance - secure.deviance) < 1e-3


def test_an_offset_of_the_rows_is_taken_into_account() -> None:
    c = rows_cohort(seed=8)
    variables = glm_studies.declare_variables(3) | {"time": {"type": "number", "range": [-3, 3]}}
    study = make_study(
        3, c.study.sites, helpers=[HELPER], formula="y ~ x0 + x1 + x2 + offset(time)", variables=variables
    )
    offset = np.random.default_rng(5).normal(0.0, 0.8, len(c.y))
    design = np.column_stack([np.ones(len(c.y)), c.x])
    parts = {"s0": slice(0, 130), "s1": slice(130, None)}
    data: dict[str, Data] = {name: ArrayRows(design[cut], c.y[cut], offset[cut]) for name, cut in parts.items()}
    shifted = replace(c, study=study, data=data, offset=offset)
    assert_pooled(shifted, run_study(shifted)[0])


@pytest.mark.parametrize("terms", ["1", *later("x0")])
def test_a_model_of_an_intercept_alone_or_of_one_column_is_fitted(terms: str) -> None:
    c = rows_cohort(m=1, seed=12)
    if terms == "1":
        variables = {"y": {"type": "binary"}}
        study = make_study(0, c.study.sites, helpers=[HELPER], formula="y ~ 1", variables=variables)
        data: dict[str, Data] = {}
        for name, rows in c.data.items():
            block = cast(ArrayRows, rows).everything
            data[name] = ArrayRows(block.x[:, :1], block.y)
        c = replace(c, study=study, x=c.x[:, :0], data=data)
    assert_pooled(c, run_study(c)[0])


@pytest.mark.parametrize(("owner", "spread"), [("ana", 0.8), pytest.param("bob", 0.01, marks=pytest.mark.long)])
def test_an_offset_that_one_owner_has_beside_its_columns_is_taken_into_account(owner: str, spread: float) -> None:
    """A narrow offset fills a small interval of what offsets may be, and is placed there for its digits."""
    c = columns_cohort(seed=8)
    variables = glm_studies.declare_variables(3) | {"time": {"type": "number", "range": [-3, 3]}}
    columns = {**c.study.columns, owner: (*c.study.columns[owner], "time")}
    study = make_study(
        3, c.study.sites, columns=columns, identifier=["code"], variables=variables,
        formula="y ~ x0 + x1 + x2 + offset(time)",
    )  # fmt: skip
    offset = np.random.default_rng(5).normal(0.5, spread, len(c.y))
    own = cast(OwnColumns, c.data[owner])
    places = [int(code[1:]) if code.startswith("P") else 0 for (code,) in own.identifiers]
    data = {**c.data, owner: replace(own, offset=offset[places])}
    shifted = replace(c, study=study, data=data, offset=offset)
    assert_pooled(shifted, run_study(shifted)[0])


# What is opened


def test_the_ledger_holds_what_is_opened_and_nothing_else() -> None:
    fit, world = run_study(rows_cohort())
    (record,) = [r for r in world.ledger().read_finished(world.number, 1) or () if r.site == "s0"]
    post = pay.decode(pay.unpack(world.blobs.get(record.post.cid)))[1]
    names = {"n", "iterations", "rounds", "coefficients", "variances", "deviance", "sent", "transcript"}
    assert set(post) == names
    assert np.isnan(fit.covariance[0, 1])  # type: ignore[index]
    assert (fit.events, fit.null_deviance, fit.n) == (None, None, 260)


def test_null_deviance_and_covariance_come_only_if_the_study_says_so_and_it_says_what_follows() -> None:
    c = rows_cohort(null_deviance=True, covariance=True)
    fit = run_study(c)[0]
    pooled = sm.GLM(c.y, np.column_stack([np.ones(260), c.x]), family=sm.families.Binomial()).fit(tol=1e-13)
    assert fit.events == int(c.y.sum())
    assert fit.null_deviance is not None
    assert abs(fit.null_deviance - pooled.null_deviance) < 1e-6
    assert fit.covariance is not None
    np.testing.assert_allclose(fit.covariance, pooled.cov_params(), atol=1e-5 * np.abs(pooled.cov_params()).max())
    text = describe(c.study)
    assert "gives each of two hospitals the other's number of events exactly" in text
    assert "The whole covariance gives each of two hospitals the other's X'WX exactly" in text
    plain = describe(rows_cohort().study)
    assert "number of events" not in plain
    assert "whole covariance" not in plain
    assert "No two of s0, s1, hub may collude" in plain
    assert "s0, s1, hub learn how many patients each site with rows has" in plain


def describe(study: Study) -> str:
    return " ".join(line for lines in learner_of(study).discloses(study).paragraphs.values() for line in lines)


# Ends without a result


def run_to_error(c: GlmCohort) -> LearnerError | NodeError:
    with pytest.raises((LearnerError, NodeError)) as caught:
        simulate(c.study, c.data)
    return cast("LearnerError | NodeError", caught.value)


def test_too_few_patients_end_it_before_anything_is_opened() -> None:
    error = run_to_error(rows_cohort(n=25))
    assert error.code == "CO-N241"
    assert "fewer than 30 patients" in error.message


@pytest.mark.parametrize("hospitals", [2, 4])
def test_a_constant_column_at_all_sites_is_said_in_words_to_everybody(hospitals: int) -> None:
    c = rows_cohort(hospitals=hospitals)
    data: dict[str, Data] = {}
    for name, rows in c.data.items():
        block = cast(ArrayRows, rows).everything
        x = block.x.copy()
        x[:, 3] = 1.0
        data[name] = ArrayRows(x, block.y)
    assert run_to_error(replace(c, data=data)).code == "CO-N244"


@pytest.mark.long
def test_a_column_that_is_constant_at_one_owner_only_is_fitted() -> None:
    c = rows_cohort(seed=9)
    x = c.x.copy()
    x[:130, 2] = 0.0
    design = np.column_stack([np.ones(260), x])
    data: dict[str, Data] = {"s0": ArrayRows(design[:130], c.y[:130]), "s1": ArrayRows(design[130:], c.y[130:])}
    changed = replace(c, x=x, data=data)
    assert_pooled(changed, run_study(changed)[0])


@pytest.mark.long
def test_separated_patients_end_it_with_both_causes_named() -> None:
    c = rows_cohort(n=120, m=1, seed=3)
    y = (c.x[:, 0] > np.median(c.x[:, 0])).astype(float)
    design = np.column_stack([np.ones(120), c.x])
    data: dict[str, Data] = {"s0": ArrayRows(design[:60], y[:60]), "s1": ArrayRows(design[60:], y[60:])}
    error = run_to_error(replace(c, data=data))
    assert error.code == "CO-N142"
    assert "separation" in error.message


def test_a_value_out_of_its_range_stays_at_its_owner() -> None:
    c = columns_cohort()
    own = c.data["ana"]
    assert isinstance(own, OwnColumns)
    x = own.x.copy()
    x[3, 0] = 1.5
    assert run_to_error(replace(c, data={**c.data, "ana": replace(own, x=x)})).code == "CO-D343"


@pytest.mark.parametrize(
    ("code", "made"),
    [
        ("CO-S543", lambda: make_study(2, ["a", "b"])),
        ("CO-S543", lambda: make_study(2, ["a", "b", "g", "h"], helpers=["g", "h"])),
        ("CO-S551", lambda: make_study(2, ["a", "b", "c"], formula="y ~ x0 + x1 - 1")),
        ("CO-S551", lambda: make_study(2, ["a", "b", "c"], formula="x0 ~ x1")),
        ("CO-S545", lambda: make_study(2, ["a", "b", "c"], options={"ridge": 1e9})),
        ("CO-S542", lambda: make_study(2, ["a", "b", "c"], ledger={"silent_site": "exclude"})),
        ("CO-S408", lambda: make_study(2, ["a", "b", "c"], "glore", helpers=["c"])),
    ],
)  # fmt: skip
def test_studies_that_cannot_be_run_are_refused_in_words(code: str, made: Callable[[], Study]) -> None:
    with pytest.raises(StudyError) as caught:
        made()
    assert caught.value.code == code


def test_a_result_that_no_computation_could_open_is_refused() -> None:
    good: dict[str, Any] = {
        "n": np.array(50), "coefficients": np.zeros(3), "variances": np.ones(3), "deviance": np.array(60.0)
    }  # fmt: skip
    check_opened(good)
    for wrong in (
        {"n": np.array(0)},
        {"variances": np.zeros(3)},
        {"events": np.array(51)},
        {"deviance": np.array(np.nan)},
    ):
        with pytest.raises(ProtocolError) as caught:
            check_opened({**good, **wrong})
        assert caught.value.code == "CO-P647"


def test_its_version_is_pinned_by_studies() -> None:
    assert rows_cohort().study.learner.version == SECURE_GLM.version
