"""VERTIGO against fits on the joined columns, in both exchanges, and against sites that send what they may not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from support.lanes import later, one_of_each
from support.learners import vertical
from support.learners.cohorts import Array, Codes
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit
from coterie_learners.errors import Collinear, DataError, NotConverged, ProtocolError, Separation, StudyError
from coterie_learners.study.document import Study
from coterie_learners.study.rows import OwnColumns
from coterie_learners.vertical.vertigo import (
    VertigoProblem,
    assemble_parts,
    newton_step_of,
    plan_vertigo,
    start_model,
    vertigo,
)


def run(study: Study, codes: Codes) -> tuple[Fit, MemoryProtocol]:
    table = MemoryProtocol(vertigo, study, vertical.split(study, codes))
    results = table.play()
    first = results[study.sites[0]]
    for fit in results.values():
        assert isinstance(fit, Fit)
        np.testing.assert_array_equal(fit.estimates, first.estimates)
    return first, table


def remove_columns(columns_by_site: Mapping[str, Sequence[str]], *names: str) -> dict[str, tuple[str, ...]]:
    return {site: tuple(n for n in own if n not in names) for site, own in columns_by_site.items()}


SPLITS: dict[str, Mapping[str, Sequence[str]]] = {
    "three sites": vertical.COLUMNS_BY_SITE,
    "in another order": dict(reversed(vertical.COLUMNS_BY_SITE.items())),
    "two sites": {
        "a": (*vertical.COLUMNS_BY_SITE["north"], *vertical.COLUMNS_BY_SITE["south"]),
        "b": vertical.COLUMNS_BY_SITE["east"],
    },
    "only the outcome": {"hub": ("died",), **remove_columns(vertical.COLUMNS_BY_SITE, "died")},
    "one column": {"north": vertical.COLUMNS_BY_SITE["north"], "one": ("b1",), "two": ("q1",)},
}


N = 600


@pytest.mark.parametrize("name", [*list(SPLITS)[:2], *later(*list(SPLITS)[2:])])
def test_without_a_ridge_it_equals_the_pooled_maximum_likelihood(name: str) -> None:
    study = vertical.study(SPLITS[name])
    codes = vertical.draw(N)
    fit, _ = run(study, codes)
    estimates, errors = vertical.pooled(study, codes)
    np.testing.assert_allclose(fit.estimates, estimates, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fit.std_errors, errors, rtol=0, atol=1e-8)
    x = vertical.matrix(study, codes)
    p = 1 / (1 + np.exp(-(x @ estimates)))
    y = codes["died"]
    assert fit.deviance == pytest.approx(-2 * float(np.sum(np.log(np.where(y > 0, p, 1 - p)))), abs=1e-8)
    m = float(y.mean())
    assert fit.null_deviance == pytest.approx(-2 * N * (m * np.log(m) + (1 - m) * np.log(1 - m)), abs=1e-8)
    assert (fit.n, fit.events, fit.ratio, fit.converged) == (N, int(y.sum()), "OR", True)


def test_each_term_is_its_site_s_and_covariances_between_sites_are_nobody_s() -> None:
    fit, _ = run(vertical.study(), vertical.draw(400))
    assert fit.sites == ("north",) * 7 + ("south",) * 6 + ("east",) * 6
    assert fit.covariance is not None
    assert not np.any(np.isnan(fit.covariance[7:13, 7:13]))
    assert np.all(np.isnan(fit.covariance[7:13, 13:]))
    assert fit.details["alignment"]["common"] == 400


def penalised(study: Study, codes: Codes, ridge: float, intercept: bool) -> Array:
    """scikit-learn on standardised columns; `intercept`: penalised, as a column of ones."""
    x = vertical.matrix(study, codes)[:, 1:]
    sd, mean = x.std(axis=0, ddof=1), x.mean(axis=0)
    z = (x - mean) / sd
    model = LogisticRegression(
        C=1 / ridge, fit_intercept=not intercept, solver="newton-cholesky", tol=1e-14, max_iter=999
    )
    model.fit(np.column_stack([np.ones(len(z)), z]) if intercept else z, codes["died"])
    beta = model.coef_[0]
    first, rest = (beta[0], beta[1:]) if intercept else (model.intercept_[0], beta)
    return np.concatenate([[first - (rest / sd) @ mean], rest / sd])


@pytest.mark.parametrize(
    ("ridge", "penalise"), one_of_each([(0.5, False), (0.5, True), (20.0, False), (20.0, True)], lambda _: "ridge")
)
def test_with_a_ridge_both_exchanges_equal_scikit_learn_and_each_other(ridge: float, penalise: bool) -> None:
    codes = vertical.draw(800)
    fits = {
        exchange: run(vertical.study(exchange=exchange, ridge=ridge, penalise_intercept=penalise), codes)[0]
        for exchange in ("thin", "gram")
    }
    expected = penalised(vertical.study(), codes, ridge, penalise)
    np.testing.assert_allclose(fits["thin"].estimates, expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(fits["gram"].estimates, fits["thin"].estimates, rtol=0, atol=1e-8)
    np.testing.assert_allclose(fits["gram"].std_errors, fits["thin"].std_errors, rtol=0, atol=1e-8)
    assert fits["gram"].deviance == pytest.approx(fits["thin"].deviance, abs=1e-8)


def test_the_dual_solution_is_the_residual_of_the_primal_one() -> None:
    codes, study = vertical.draw(500), vertical.study(exchange="gram", ridge=2.0)
    fit, table = run(study, codes)
    last = [topic for topic in table.topics if topic.startswith("step")][-1]
    residual = next(iter(table.posts(last).values()))["residual"]
    probability = 1 / (1 + np.exp(-vertical.matrix(study, codes) @ fit.estimates))
    np.testing.assert_allclose(np.sort(residual), np.sort(codes["died"] - probability), atol=1e-8)


def test_without_an_intercept_it_equals_the_pooled_fit_too() -> None:
    import statsmodels.api as sm

    names = [n for own in vertical.COLUMNS_BY_SITE.values() for n in own if n != "died"]
    study, codes = vertical.study(formula="died ~ " + " + ".join(names) + " - 1"), vertical.draw(900)
    done = sm.Logit(codes["died"], vertical.matrix(study, codes)).fit(disp=0, method="newton", tol=1e-14)
    fit, _ = run(study, codes)
    np.testing.assert_allclose(fit.estimates, done.params, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fit.std_errors, done.bse, rtol=0, atol=1e-8)


def test_patients_who_are_not_everywhere_are_left_out() -> None:
    study, codes = vertical.study(), vertical.draw(700)
    rows = vertical.split(study, codes)
    mask = np.ones(700, dtype=bool)
    for name, gone in (("south", range(40)), ("east", range(30, 90))):
        rows[name], mask[list(gone)] = remove_patients(rows[name], {f"patient {k:05d}" for k in gone}), False
    fit = MemoryProtocol(vertigo, study, rows).play()["north"]
    estimates, errors = vertical.pooled(study, {name: column[mask] for name, column in codes.items()})
    np.testing.assert_allclose(fit.estimates, estimates, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fit.std_errors, errors, rtol=0, atol=1e-8)
    assert fit.n == 610
    assert fit.details["alignment"]["unmatched"] == {"north": 90, "south": 50, "east": 30}


def remove_patients(rows: OwnColumns, gone: set[str]) -> OwnColumns:
    keep = [k for k, (code,) in enumerate(rows.identifiers) if code not in gone]
    identifiers = tuple(rows.identifiers[k] for k in keep)
    return replace(rows, identifiers=identifiers, x=rows.x[keep], y=None if rows.y is None else rows.y[keep])


def test_an_auditor_without_keys_has_the_result_and_checks_what_is_open() -> None:
    fit, table = run(vertical.study(), vertical.draw(400))
    auditor = table.auditor()
    np.testing.assert_array_equal(auditor.result.estimates, fit.estimates)
    np.testing.assert_array_equal(auditor.result.std_errors, fit.std_errors)
    steps = sum(topic.startswith("step") for topic in table.topics)
    assert (auditor.checked, auditor.unchecked) == (1, 1 + steps)


def test_what_leaves_a_site_is_what_the_docstring_says() -> None:
    fit, table = run(vertical.study(), vertical.draw(400))
    assert table.topics == [
        "keys",
        "align/points",
        "align/raise/1",
        "align/raise/2",
        "align/report",
        "factor",
        "start",
    ] + [f"step/{t}" for t in range(fit.rounds)] + ["part", "model", "conclusion"]
    forms = {site: {k: v.shape for k, v in post.items()} for site, post in table.posts("factor").items()}
    assert forms["north"] == {"factor": (400, 6), "shift": (6,), "outcome": (400,)}
    assert forms["south"] == forms["east"] == {"factor": (400, 6), "shift": (6,)}
    sealed = {topic for topic in table.topics if table.sealed[topic]}
    assert sealed == set(table.topics) - {"keys", "part", "model", "conclusion"}


# What cannot be fitted


def separate_outcome(codes: Codes) -> Codes:
    return {**codes, "q1": codes["died"]}


def test_separation_names_the_site() -> None:
    with pytest.raises(Separation, match="coefficients at south grow") as caught:
        run(vertical.study(), separate_outcome(vertical.draw(500)))
    assert caught.value.code == "CO-N302"


def test_separated_columns_can_be_fitted_with_a_ridge() -> None:
    fit, _ = run(vertical.study(ridge=1.0), separate_outcome(vertical.draw(500)))
    assert np.all(np.isfinite(fit.estimates))


def test_columns_that_are_collinear_between_sites_name_both() -> None:
    codes = vertical.draw(500)
    codes["c1"] = 0.5 * codes["b1"]
    with pytest.raises(Collinear, match=r"component . of east is a combination of .*south"):
        run(vertical.study(), codes)


def test_columns_that_are_collinear_at_one_site_are_named_there() -> None:
    codes = vertical.draw(500)
    codes["b3"] = codes["b1"] - codes["b2"]
    with pytest.raises(Collinear, match="b3 is a combination of b1, b2"):
        run(vertical.study(), codes)


def test_if_the_study_allows_them_collinear_columns_share_their_effect() -> None:
    codes = vertical.draw(900)
    codes["b3"] = codes["b1"]
    fit, _ = run(vertical.study(rows={"collinear": "allow"}), codes)
    columns_by_site = remove_columns(vertical.COLUMNS_BY_SITE, "b3")
    estimates, _ = vertical.pooled(vertical.study(columns_by_site), codes)
    estimates_by_term = dict(zip(fit.terms, fit.estimates.tolist(), strict=True))
    expected = dict(
        zip(vertical.study(columns_by_site).formula.split(" ~ ")[1].split(" + "), estimates[1:].tolist(), strict=True)
    )
    assert estimates_by_term["b1"] == pytest.approx(estimates_by_term["b3"], abs=1e-9)
    assert estimates_by_term["b1"] + estimates_by_term["b3"] == pytest.approx(expected["b1"], abs=1e-9)
    assert estimates_by_term["c2"] == pytest.approx(expected["c2"], abs=1e-9)


def test_fewer_patients_than_coefficients_are_refused() -> None:
    with pytest.raises(StudyError, match="18 patients in common cannot carry 19 coefficients"):
        run(vertical.study(rows={"collinear": "allow"}), vertical.draw(18))


def test_one_value_of_the_outcome_is_refused() -> None:
    codes = vertical.draw(200)
    codes["died"][:] = 1.0
    with pytest.raises(Separation, match="only one value"):
        run(vertical.study(), codes)


def test_a_column_that_is_constant_over_the_common_patients_is_named() -> None:
    codes = vertical.draw(200)
    codes["q2"][:] = 0.0
    with pytest.raises(DataError, match="q2"):
        run(vertical.study(), codes)


def test_rounds_that_run_out_are_reported() -> None:
    with pytest.raises(NotConverged, match="in 2 rounds"):
        run(vertical.study(max_rounds=2), vertical.draw(300))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"exchange": "gram"}, "CO-S334"),
        ({"penalise_intercept": True}, "CO-S333"),
        ({"formula": "a1 ~ b1 + c1"}, "CO-S301"),
        ({"formula": "died ~ b1 + offset(c1)"}, "CO-S304"),
        ({"formula": "died ~ 1"}, "CO-S201"),
        ({"columns_by_site": {"only": ("died", "a1")}}, "CO-S331"),
        ({"columns_by_site": {**vertical.COLUMNS_BY_SITE, "helper": ()}}, "CO-S330"),
    ],
)
def test_studies_that_it_cannot_run_are_refused(change: dict[str, Any], code: str) -> None:
    with pytest.raises(StudyError) as caught:
        vertical.study(**change)
    assert caught.value.code == code


def test_a_silent_site_cannot_be_excluded() -> None:
    study = vertical.study()
    plain = study.model_dump()
    plain["ledger"]["silent_site"] = "exclude"
    from coterie_learners.core.registry import check_choice

    with pytest.raises(StudyError) as caught:
        check_choice(Study.model_validate(plain))
    assert caught.value.code == "CO-S332"


# Hostile posts


def factors(study: Study, codes: Codes) -> dict[str, dict[str, Array]]:
    _, table = run(study, codes)
    return {site: dict(post) for site, post in table.posts("factor").items()}


@pytest.mark.parametrize(
    ("site", "change", "code"),
    [
        ("north", {"outcome": np.full(60, 2, dtype=np.uint8)}, "CO-P545"),
        ("north", {"outcome": np.zeros(0, dtype=np.uint8)}, "CO-P545"),
        ("south", {"factor": np.ones((59, 2))}, "CO-P543"),
        ("south", {"factor": np.ones((60, 7))}, "CO-P544"),
        ("south", {"factor": np.full((60, 6), 1e200)}, "CO-P544"),
        ("south", {"factor": np.ones((60, 6))}, "CO-P544"),
        ("south", {"shift": np.ones(5)}, "CO-P544"),
    ],
)
def test_factors_that_no_site_could_have_are_refused_and_named(site: str, change: dict[str, Any], code: str) -> None:
    study = vertical.study()
    posts = factors(study, vertical.draw(60, effect=0.1))
    posts[site] |= change
    with pytest.raises(ProtocolError) as caught:
        newton_step_of(
            VertigoProblem(plan_vertigo(study), posts), start_model(VertigoProblem(plan_vertigo(study), posts))
        )
    assert (caught.value.code, caught.value.site) == (code, site)


def test_a_gram_matrix_of_another_size_is_refused() -> None:
    study = vertical.study(exchange="gram", ridge=1.0)
    posts = factors(study, vertical.draw(60))
    posts["east"]["gram"] = posts["east"]["gram"][:-1]
    with pytest.raises(ProtocolError, match="east") as caught:
        start_model(VertigoProblem(plan_vertigo(study), posts))
    assert caught.value.code == "CO-P543"


@pytest.mark.parametrize(
    ("site", "field", "value"),
    [
        ("south", "estimates", np.zeros(5)),
        ("south", "covariance", np.zeros((5, 6))),
        ("south", "covariance", -np.eye(6)),
        ("north", "summary", None),
        ("north", "intercept", None),
    ],
)
def test_parts_that_no_site_could_have_are_refused_and_named(site: str, field: str, value: Array | None) -> None:
    study = vertical.study()
    _, table = run(study, vertical.draw(300))
    posts = {name: dict(post) for name, post in table.posts("part").items()}
    if value is None:
        del posts[site][field]
    else:
        posts[site][field] = value
    with pytest.raises(ProtocolError) as caught:
        assemble_parts(plan_vertigo(study), posts)
    assert (caught.value.code, caught.value.site) == ("CO-P546", site)


def test_too_many_patients_for_a_gram_matrix_get_the_thin_exchange_as_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie_learners.vertical.vertigo.MAX_GRAM", 100)
    with pytest.raises(StudyError, match='exchange = "thin"') as caught:
        run(vertical.study(exchange="gram", ridge=1.0), vertical.draw(200))
    assert caught.value.code == "CO-N206"
