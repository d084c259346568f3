"""The dual of every family that has one: against the primal fit, by independent optimisers, and its edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import optimize, special
from support.lanes import diagonal
from support.learners import column_owners, vertical
from support.learners.cohorts import Array, Codes
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit, merge_fits
from coterie_learners.core.registry import learner_of
from coterie_learners.errors import StudyError
from coterie_learners.numeric.tall_matrix import TallMatrix
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.sums.families import choose_family
from coterie_learners.vertical.dual import Dual, find_predictor, has_dual
from coterie_learners.vertical.split_model import SplitOutcome
from coterie_learners.vertical.vertigo import vertigo

N = 200
RIDGES = (0.5, 20.0)
NAMES = ("gaussian_offset", "poisson_offset", "probit", "cloglog_offset", "quasipoisson", "logit_offset")


def list_later_pairs() -> list[Any]:
    """Models and ridges that wait for the long lane."""
    return [pytest.param(name, ridge, marks=pytest.mark.long) for name in NAMES[3:] for ridge in RIDGES]


def rows() -> Codes:
    return {name: values[:N] for name, values in column_owners.codes("stays").items()}


def run(study: Study) -> Fit:
    result = MemoryProtocol(vertigo, study, vertical.split(study, rows())).play()["hub"]
    assert isinstance(result, Fit)
    return result


@pytest.mark.parametrize(("model", "ridge"), diagonal(NAMES[:3], RIDGES) + list_later_pairs())
def test_both_exchanges_have_the_same_solution(model: str, ridge: float) -> None:
    thin, gram = (
        run(column_owners.study("stays", model, "3", name="vertigo", exchange=exchange, ridge=ridge))
        for exchange in ("thin", "gram")
    )
    assert np.max(np.abs(gram.estimates - thin.estimates) / thin.std_errors) < 1e-8
    np.testing.assert_allclose(gram.std_errors, thin.std_errors, rtol=1e-9)
    assert gram.deviance == pytest.approx(thin.deviance, rel=1e-10)
    assert gram.dispersion == pytest.approx(thin.dispersion, rel=1e-9)
    assert model != "gaussian_offset" or gram.rounds <= 3


def minimise(model: str, ridge: float) -> Array:
    """The penalised fit on standardised columns by scipy from the textbook's likelihood, in own units."""
    codes = rows()
    x = np.column_stack([codes["age"], codes["ward"] == 1, codes["ward"] == 2, codes["frail"], codes["w"], codes["f"]])
    sd = x.std(axis=0, ddof=1)
    z = np.column_stack([np.ones(N), (x - x.mean(axis=0)) / sd])
    offset = codes["time"] if "offset" in model else np.zeros(N)

    def loss(b: Array) -> float:
        eta, penalty = z @ b + offset, 0.5 * ridge * float(b[1:] @ b[1:])
        if model.startswith("gaussian"):
            return 0.5 * float(np.sum((codes["stay"] - eta) ** 2)) + penalty
        if "poisson" in model:
            return float(np.sum(np.exp(eta) - codes["count"] * eta)) + penalty
        yes, log_yes, log_no = codes["yes"], -special.log1p(np.exp(-eta)), -special.log1p(np.exp(eta))
        if model == "probit":
            log_yes, log_no = special.log_ndtr(eta), special.log_ndtr(-eta)
        if "cloglog" in model:
            log_yes, log_no = np.log(-np.expm1(-np.exp(eta))), -np.exp(eta)
        return -float(np.sum(yes * log_yes + (1.0 - yes) * log_no)) + penalty

    start = np.zeros(z.shape[1])
    best = optimize.minimize(loss, start, method="BFGS", options={"gtol": 1e-7, "maxiter": 5000})
    return np.asarray(best.x[1:] / sd)


@pytest.mark.long
@pytest.mark.parametrize("model", NAMES)
def test_the_penalised_fit_is_that_of_an_independent_optimiser(model: str) -> None:
    study = column_owners.study("stays", model, "3", name="valoris", ridge=2.0, standard_errors=False)
    from coterie_learners.core.fit import merge_fits
    from coterie_learners.study.design import Design
    from coterie_learners.vertical.valoris import valoris

    fit = merge_fits(MemoryProtocol(valoris, study, vertical.split(study, rows())).play(), Design(study).names)
    estimates = dict(zip(fit.terms, fit.estimates.tolist(), strict=True))
    names = ("age", "ward[surgical]", "ward[intensive]", "frail", "w", "f")
    expected = minimise(model, 2.0)
    np.testing.assert_allclose([estimates[name] for name in names], expected, rtol=2e-4, atol=2e-5)


LINKS = (("binomial", "logit"), ("binomial", "probit"), ("binomial", "cloglog"), ("poisson", "log"))


@pytest.mark.parametrize(("name", "link"), LINKS)
def test_the_predictor_of_a_residual_is_found_back(name: str, link: str) -> None:
    family, rng = choose_family(name, link), np.random.default_rng(3)
    eta, y = rng.normal(size=400) * 2.0, (rng.random(400) < 0.5).astype(float)
    eta[:4], y[:4] = (3.0, -6.0, 3.0, -6.0), (0.0, 0.0, 1.0, 1.0)
    curve = family.curve(eta)
    residual = curve.slope * (y - curve.mean)
    back, outside = find_predictor(family, residual, y)
    assert not np.any(outside)
    bend = family.bend(eta, y, residual, curve.weight)
    assert np.max(np.abs(back - eta) * bend) < 1e-13


@pytest.mark.parametrize(("name", "link"), LINKS)
def test_a_residual_that_no_row_has_makes_the_objective_infinite(name: str, link: str) -> None:
    y, f = np.array([0.0, 1.0, 1.0]), TallMatrix.of([np.array([[1.0], [-1.0], [0.5]])])
    dual = Dual(f, SplitOutcome(choose_family(name, link), y, np.zeros(3)), 1.0, True, ("f",))
    start = dual.start()
    assert np.isfinite(dual.objective(start))
    assert abs(float(np.sum(start))) < 1e-12
    # An outcome of 0 has no residual above 0.
    assert dual.objective(np.array([0.5, *start[1:]])) == np.inf
    assert np.array_equal(dual.finish(start, np.full(3, 2.0)), start)


def test_a_family_without_a_written_dual_is_pointed_to_the_thin_exchange() -> None:
    assert not has_dual(choose_family("gamma", "log"))
    with pytest.raises(StudyError, match='exchange = "thin"') as caught:
        column_owners.study("stays", "gamma_log", "3", name="vertigo", exchange="gram", ridge=1.0)
    assert caught.value.code == "CO-S303"


@pytest.mark.parametrize("learner", ["valoris", "vertigo"])
@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"family": "binomial", "link": "identity"}, "CO-S303"),
        ({"family": "gaussian"}, "CO-S301"),
        ({"family": "nothing"}, "CO-S303"),
    ],
)
def test_families_that_do_not_go_with_split_columns_are_refused(
    learner: str, options: dict[str, Any], code: str
) -> None:
    with pytest.raises(StudyError) as caught:
        vertical.study(learner=learner, **options)
    assert caught.value.code == code


def test_an_offset_that_another_site_holds_is_refused() -> None:
    with pytest.raises(StudyError, match="'c1' is not at north") as caught:
        vertical.study(formula="died ~ b1 + offset(c1)")
    assert caught.value.code == "CO-S304"


def test_a_linear_model_has_no_penalised_intercept() -> None:
    with pytest.raises(StudyError) as caught:
        column_owners.study("stays", "gaussian", "3", name="vertigo", ridge=1.0, penalise_intercept=True)
    assert caught.value.code == "CO-S333"


@pytest.mark.parametrize(("model", "learner"), [("gaussian", "vertigo"), ("gamma_log", "valoris")])
def test_an_exact_outcome_is_fitted_and_said_to_be_exact(model: str, learner: str) -> None:
    eta = 2.0 + 0.01 * rows()["age"] + rows()["frail"]
    codes = {**rows(), "stay": np.exp(eta) if model == "gamma_log" else eta}
    study = column_owners.study("stays", model, "3", name=learner)
    script = learner_of(study).script
    fit = merge_fits(MemoryProtocol(script, study, vertical.split(study, codes)).play(), Design(study).names)
    assert dict(zip(fit.terms, fit.estimates.tolist(), strict=True))["age"] == pytest.approx(0.01, rel=1e-9)
    assert fit.dispersion == 0.0
    assert any("essentially perfect fit" in warning for warning in fit.warnings)
    # Without any error nothing can be tested, nor compared by a likelihood.
    np.testing.assert_array_equal(fit.std_errors, 0.0)
    assert fit.log_likelihood is None or not np.isfinite(fit.log_likelihood)
