"""COLA-GLM equals the fit on the pooled rows, for every family, number of sites and split, from one round of tables."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn.metrics import brier_score_loss, roc_auc_score
from support.lanes import diagonal
from support.learners import cohorts, strata
from support.learners.cohorts import Array, Codes
from support.learners.strata import FULL, N
from support.learners.table import MemoryProtocol

from coterie_learners.cola.checks import check_table
from coterie_learners.cola.cola import build_table, cola, plan_table
from coterie_learners.cola.plan import TablePlan
from coterie_learners.cola.tables import pattern_counts
from coterie_learners.cola.tables.pattern_counts import count_patterns
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Payload, canonical
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import Collinear, DataError, ProtocolError, Separation, StudyError
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "logit": (f"died ~ {FULL}", {}),
    "logit from cells": (f"died ~ {FULL}", {"cells": True}),
    "logit, sandwich": (f"died ~ {FULL}", {"robust": True}),
    "probit": (f"died ~ {FULL}", {"link": "probit"}),
    "probit, sandwich": (f"died ~ {FULL}", {"link": "probit", "robust": True}),
    "cloglog": (f"died ~ {FULL}", {"link": "cloglog"}),
    "quasibinomial": (f"died ~ {FULL}", {"family": "quasibinomial"}),
    "poisson": (f"visits ~ {FULL}", {"family": "poisson"}),
    "poisson, sandwich": (f"visits ~ {FULL}", {"family": "poisson", "robust": True}),
    "poisson with offset": (f"visits ~ {FULL} + offset(years)", {"family": "poisson"}),
    "quasipoisson": (f"visits ~ {FULL}", {"family": "quasipoisson"}),
    "quasipoisson with offset": (f"visits ~ {FULL} + offset(years)", {"family": "quasipoisson"}),
    "gaussian": (f"stay ~ {FULL}", {"family": "gaussian"}),
    "gaussian, sandwich": (f"stay ~ {FULL}", {"family": "gaussian", "robust": True}),
    "gaussian with offset": (f"stay ~ {FULL} + offset(years)", {"family": "gaussian"}),
}
LAYOUTS = {
    "one site": [N],
    "three sites": [200, 200, 200],
    "five uneven sites": [3, 400, 17, 170, 10],
    "a site of one row": [1, 300, 299],
}


@cache
def codes() -> Codes:
    return strata.draw()


@cache
def truth(model: str) -> Any:
    formula, options = MODELS[model]
    return strata.pooled(strata.study(formula, **options), codes())


def federated(study: Study, rows: Codes, sizes: list[int] | None = None) -> tuple[Fit, MemoryProtocol]:
    """The fit of a study's sites; all must end with the same one."""
    table = MemoryProtocol(cola, study, strata.split(study, rows, sizes))
    results = table.play()
    ends = {fit.estimates.tobytes() + fit.std_errors.tobytes() for fit in results.values()}
    assert len(ends) == 1
    return results[study.sites[0]], table


def close(got: Array, want: Array, within: float = 1e-10) -> None:
    np.testing.assert_allclose(got, want, rtol=0, atol=within)


@pytest.mark.parametrize(("model", "layout"), diagonal(list(MODELS), list(LAYOUTS)))
def test_the_fit_equals_the_pooled_fit(model: str, layout: str) -> None:
    formula, options = MODELS[model]
    sizes = LAYOUTS[layout]
    fit, table = federated(strata.study(formula, len(sizes), **options), codes(), sizes)
    want = truth(model)
    close(fit.estimates, want.params)
    close(fit.std_errors, strata.sandwich(codes(), fit.estimates) if model == "probit, sandwich" else want.bse)
    assert table.topics == ["table", "fit", "conclusion"]
    assert (fit.n, fit.rounds, fit.converged) == (N, 1, True)


@pytest.mark.parametrize("model", [m for m in MODELS if "sandwich" not in m])
def test_deviances_likelihood_and_dispersion_equal_the_pooled_ones(model: str) -> None:
    formula, options = MODELS[model]
    fit, _ = federated(strata.study(formula, **options), codes())
    want = truth(model)
    assert fit.deviance == pytest.approx(want.deviance, abs=1e-9)
    assert fit.null_deviance == pytest.approx(want.null_deviance, abs=1e-9)
    if fit.family.startswith("quasi"):
        assert fit.dispersion == pytest.approx(want.scale, rel=1e-10)
        assert fit.aic is None
    elif fit.family == "gaussian":
        assert fit.dispersion == pytest.approx(want.scale, rel=1e-10)
    else:
        assert fit.log_likelihood == pytest.approx(want.llf, abs=1e-9)
    counted = next((name for law, name in (("binomial", "died"), ("poisson", "visits")) if law in fit.family), None)
    assert fit.events == (None if counted is None else int(codes()[counted].sum()))


def test_interactions_and_powers_equal_the_pooled_fit() -> None:
    study = strata.study("died ~ male*smoker + drugs^2 + stage:dose + dose")
    c = codes()
    one, two = c["stage"] == 1, c["stage"] == 2
    columns = [np.ones(N), c["male"], c["smoker"], c["drugs"] ** 2, c["dose"], c["male"] * c["smoker"]]
    want = strata.pooled(study, c, np.column_stack([*columns, one * c["dose"], two * c["dose"]]))
    fit, _ = federated(study, c)
    close(fit.estimates, want.params)
    close(fit.std_errors, want.bse)


@pytest.mark.parametrize("family", ["binomial", "poisson", "gaussian"])
def test_without_an_intercept_the_fit_equals_the_pooled_fit(family: str) -> None:
    outcome = {"binomial": "died", "poisson": "visits", "gaussian": "stay"}[family]
    study = strata.study(f"{outcome} ~ 0 + male + drugs + dose", family=family)
    fit, _ = federated(study, codes())
    want = strata.pooled(study, codes(), strata.matrix(codes())[:, [1, 5, 6]])
    close(fit.estimates, want.params)
    close(fit.std_errors, want.bse)
    assert fit.deviance == pytest.approx(want.deviance, abs=1e-9)


def test_a_multinomial_outcome_equals_the_pooled_fit() -> None:
    study = strata.study(f"went ~ {FULL}", family="multinomial")
    rows = codes() | {"went": np.random.default_rng(3).integers(0, 3, N).astype(float)}
    want = sm.MNLogit(rows["went"].astype(int), strata.matrix(rows)).fit(
        method="newton", tol=1e-14, disp=0, maxiter=100
    )
    fit, _ = federated(study, rows)
    close(fit.estimates, want.params.T.ravel())
    close(fit.std_errors, want.bse.T.ravel())
    assert fit.log_likelihood == pytest.approx(want.llf, abs=1e-9)
    counts = np.bincount(rows["went"].astype(int))
    assert fit.null_deviance == pytest.approx(-2 * np.sum(counts * np.log(counts / N)), abs=1e-9)
    assert (fit.terms[0], fit.terms[7]) == ("care:(Intercept)", "other:(Intercept)")


# Sites that differ


def test_a_site_that_lacks_a_level_or_a_covariate_s_value_does_no_harm() -> None:
    c = codes()
    order = np.lexsort([c["male"], c["stage"]])
    rows = {name: values[order] for name, values in c.items()}
    fit, table = federated(strata.study(), rows, [250, 200, 150])
    assert {len(p["keys"]) for p in table.posts("table").values()} != {60}
    close(fit.estimates, truth("logit").params)
    close(fit.std_errors, truth("logit").bse)


def test_the_order_of_sites_does_not_change_one_bit() -> None:
    for model in ("logit", "gaussian", "poisson with offset"):
        formula, options = MODELS[model]
        study = strata.study(formula, 5, **options)
        turned = Study.model_validate({**study.model_dump(), "sites": study.sites[::-1]})
        rows = strata.split(study, codes(), LAYOUTS["five uneven sites"])
        ends = []
        for of in (study, turned):
            table = MemoryProtocol(cola, of, rows)
            table.play()
            ends.append(canonical(table.last()))
        assert ends[0] == ends[1]


@pytest.mark.parametrize("family", ["binomial", "poisson", "gaussian"])
def test_an_intercept_for_each_site_equals_the_pooled_fit_with_indicators(family: str) -> None:
    outcome = {"binomial": "died", "poisson": "visits", "gaussian": "stay"}[family]
    study = strata.study(f"{outcome} ~ {FULL}", family=family, site_intercepts=True)
    sizes = [100, 300, 200]
    own = np.repeat(np.eye(3), sizes, axis=0)
    want = strata.pooled(study, codes(), np.column_stack([own, strata.matrix(codes())[:, 1:]]))
    fit, _ = federated(study, codes(), sizes)
    assert fit.terms[:4] == ("site[north]", "site[south]", "site[east]", "male")
    close(fit.estimates, want.params)
    close(fit.std_errors, want.bse)
    assert fit.deviance == pytest.approx(want.deviance, abs=1e-9)


# Firth and separation


def test_firth_equals_a_second_writing_of_it_also_where_the_outcome_is_separated() -> None:
    for rows in (codes(), draw_separated()):
        x = strata.matrix(rows)
        fit, _ = federated(strata.study(firth=True), rows)
        close(fit.estimates, strata.newton(x, np.ones(len(x)), rows["died"], firth=True), 1e-9)


def draw_separated() -> Codes:
    rows = strata.draw(300, seed=4)
    rows["died"] = np.where(rows["stage"] == 2, 1.0, rows["died"])
    return rows


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_separation_is_reported_with_the_columns_that_diverge(link: str) -> None:
    with pytest.raises(Separation, match=r"CO-N302|stage\[III\]") as caught:
        federated(strata.study(link=link), draw_separated())
    assert caught.value.code == "CO-N302"
    assert "male" not in caught.value.message


def test_separation_of_counts_and_of_levels_is_reported() -> None:
    rows = strata.draw(300, seed=4)
    rows["visits"] = np.where(rows["stage"] == 2, 0.0, rows["visits"])
    rows["went"] = np.where(rows["stage"] == 2, 0.0, np.arange(300) % 3)
    for formula, family in ((f"visits ~ {FULL}", "poisson"), (f"went ~ {FULL}", "multinomial")):
        with pytest.raises(Separation, match=r"stage\[III\]"):
            federated(strata.study(formula, family=family), rows)


def test_an_outcome_that_is_almost_separated_is_fitted() -> None:
    rows = draw_separated()
    rows["died"][np.flatnonzero(rows["stage"] == 2)[0]] = 0.0
    study = strata.study("died ~ male + stage")
    x = strata.matrix(rows)[:, [0, 1, 3, 4]]
    fit, _ = federated(study, rows)
    close(fit.estimates, strata.newton(x, np.ones(300), rows["died"]), 1e-9)


def test_one_value_of_the_outcome_and_collinear_columns_are_reported() -> None:
    rows = strata.draw(100)
    with pytest.raises(Separation, match="only one value"):
        federated(strata.study("died ~ male"), {**rows, "died": np.zeros(100)})
    with pytest.raises(Collinear, match="smoker"):
        federated(strata.study("died ~ male + smoker"), {**rows, "smoker": rows["male"]})


# What leaves a site


def test_a_canonical_model_s_table_holds_counts_and_x_y_and_nothing_else() -> None:
    _, table = federated(strata.study(), codes())
    for post in table.posts("table").values():
        assert set(post) == {"keys", "n", "cross", "outcome"}
        assert post["cross"].shape == (7,)


def test_only_models_that_need_the_outcome_per_pattern_ask_for_it() -> None:
    asked = {name: set(plan_table(strata.study(f, **o)).fields) for name, (f, o) in MODELS.items()}
    assert {name for name, fields in asked.items() if "s" in fields} == {
        name for name, (_, o) in MODELS.items() if o.keys() & {"cells", "robust", "link"} or "quasi" in name
    }
    assert all(("q" in fields) == (name in SQUARES) for name, fields in asked.items())


SQUARES = ("poisson, sandwich", "quasipoisson", "quasipoisson with offset", "gaussian, sandwich")


def test_with_an_offset_no_row_counts_leave() -> None:
    _, table = federated(strata.study(*MODELS["poisson with offset"][:1], family="poisson"), codes())
    assert all("n" not in post and "exposure" in post for post in table.posts("table").values())


# Small cells


@pytest.mark.parametrize("floor", [5, 11])
def test_dropped_cells_leave_counts_and_outcomes_alike(floor: int) -> None:
    """The fit is that of the rows in patterns that reach the floor at their site."""
    study, everyone = strata.study("died ~ male + smoker + stage + drugs", floor=floor), strata.draw(1500)
    shared = np.concatenate([mask_reaching(part, floor) for part in cohorts.split_sizes(everyone, [500] * 3)])
    rows = {name: values[shared] for name, values in everyone.items()}
    want = strata.pooled(study, rows, strata.matrix(rows)[:, :6])
    fit, table = federated(study, everyone)
    close(fit.estimates, want.params)
    close(fit.std_errors, want.bse)
    assert fit.n == shared.sum() < 1500
    assert all(post["n"].min() >= floor for post in table.posts("table").values())


def mask_reaching(part: Codes, floor: int) -> Array:
    keys = part["male"] * 1000 + part["smoker"] * 100 + part["stage"] * 10 + part["drugs"]
    _, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[place] >= floor)


@pytest.mark.parametrize(("floor", "instead"), [(5, 3), (11, 6)])
def test_imputed_cells_count_half_the_floor_and_leave_x_y_alone(floor: int, instead: int) -> None:
    study = strata.study("died ~ male + smoker + stage + drugs", floor=floor, suppress="impute")
    fit, table = federated(study, codes())
    exact, _ = federated(strata.study("died ~ male + smoker + stage + drugs"), codes())
    posts = table.posts("table").values()
    assert {int(v) for post in posts for v in post["n"] if v < floor} == {instead}
    assert sum(float(post["outcome"]) for post in posts) == codes()["died"].sum()
    assert np.abs(fit.estimates - exact.estimates).max() > 1e-3
    assert "biased" in fit.notes[0]


def test_dropping_is_nearer_to_the_exact_fit_than_imputing_where_many_cells_are_small() -> None:
    rows = strata.draw(4000, seed=2)
    far = {}
    exact, _ = federated(strata.study(f"visits ~ {FULL}", family="poisson"), rows)
    for how in ("drop", "impute"):
        fit, _ = federated(strata.study(f"visits ~ {FULL}", family="poisson", floor=11, suppress=how), rows)
        far[how] = float(np.max(np.abs(fit.estimates - exact.estimates) / exact.std_errors))
    assert far["drop"] < 0.5 * far["impute"]


def test_the_suppressed_share_is_reported_but_no_single_pattern_follows_from_it() -> None:
    study = strata.study("died ~ male + smoker + stage + drugs", floor=5)
    fit, table = federated(study, codes())
    reported = fit.details["suppression"]
    lost = N - fit.n
    assert reported["rows_at_most"] >= lost
    assert reported["rows_at_most"] % 5 == reported["cells_at_most"] % 5 == 0
    assert all(np.all(post["suppressed"] % 5 == 0) for post in table.posts("table").values())
    assert f"at most {reported['rows_at_most']} of" in fit.notes[0]
    assert "merge levels" in fit.notes[1]
    unsuppressed, _ = federated(strata.study("died ~ male + smoker + stage + drugs"), codes())
    assert "the study has no floor" in unsuppressed.notes[0]


def test_the_gate_reads_the_cells_and_the_outcomes_that_can_be_solved() -> None:
    study = strata.study("died ~ male + stage")
    table = MemoryProtocol(cola, study, strata.split(study, codes()))
    step = table.machines["north"].awaits
    assert step is not None
    assert step.reveals is not None
    cause = step.reveals(table.machines["north"].site, table.machines["north"].draft(study.sites, 0))
    part = cohorts.split_sizes(codes(), [200] * 3)[0]
    both = (part["male"] == 1) & (part["stage"] == 2)
    assert cause.cells["pattern male=1, stage[II]=0, stage[III]=1"] == both.sum()
    assert cause.cells["male=0 & died=1"] == ((part["male"] == 0) & (part["died"] == 1)).sum()
    assert cause.cells["stage, first level & died=0"] == ((part["stage"] == 0) & (part["died"] == 0)).sum()
    assert not any("male=1, stage[II]=0, stage[III]=1 & died" in name for name in cause.cells)
    assert cause.events == part["died"].sum()


def test_a_saturated_model_s_x_y_gives_the_outcome_of_every_pattern() -> None:
    study = strata.study("died ~ male*stage")
    table = MemoryProtocol(cola, study, strata.split(study, codes()))
    machine = table.machines["north"]
    assert machine.awaits is not None
    assert machine.awaits.reveals is not None
    cause = machine.awaits.reveals(machine.site, machine.draft(study.sites, 0)).cells
    part = cohorts.split_sizes(codes(), [200] * 3)[0]
    for male in (0, 1):
        here = (part["male"] == male) & (part["stage"] == 1)
        cell = f"pattern male={male}, stage[II]=1, stage[III]=0, male:stage[II]={male}, male:stage[III]=0"
        assert cause[f"{cell} & died=1"] == (here & (part["died"] == 1)).sum()


# What else the tables tell


def test_discrimination_and_calibration_are_those_of_the_rows() -> None:
    fit, _ = federated(strata.study(cells=True), codes())
    mean = 1 / (1 + np.exp(-(strata.matrix(codes()) @ fit.estimates)))
    died = codes()["died"]
    # Rows of one pattern differ by rounding in the matrix product; they are ties.
    assert fit.details["auc"] == pytest.approx(roc_auc_score(died, np.round(mean, 9)), abs=1e-12)
    assert fit.details["brier"] == pytest.approx(brier_score_loss(died, mean), abs=1e-12)
    groups = fit.details["calibration"]
    assert sum(g["rows"] for g in groups) == N
    assert sum(g["events"] for g in groups) == died.sum() == pytest.approx(sum(g["expected"] for g in groups))
    assert 8 <= len(groups) <= 10
    assert any(note.startswith(f"AUC {fit.details['auc']:.4f}") for note in fit.notes)
    observed = sum(
        (g["events"] - g["expected"]) ** 2 / g["expected"]
        + (g["events"] - g["expected"]) ** 2 / (g["rows"] - g["expected"])
        for g in groups
    )
    assert fit.details["hosmer_lemeshow"]["chi2"] == pytest.approx(observed)


def test_heterogeneity_is_that_of_site_intercepts_and_of_the_sites_own_fits() -> None:
    sizes = [200, 250, 150]
    study = strata.study("died ~ male + drugs")
    rows = dict(codes())
    rows["died"] = rows["died"].copy()
    rows["died"][:120] = 1.0  # the first site has another baseline
    fit, _ = federated(study, rows, sizes)
    reported = fit.details["heterogeneity"]
    x = strata.matrix(rows)[:, [0, 1, 5]]
    own = np.repeat(np.eye(3), sizes, axis=0)
    joint, apart = (strata.pooled(study, rows, m) for m in (x, np.column_stack([own, x[:, 1:]])))
    chi2 = 2 * (apart.llf - joint.llf)
    assert reported["site_intercepts"]["chi2"] == pytest.approx(chi2, abs=1e-8)
    assert reported["site_intercepts"]["p"] == pytest.approx(stats.chi2.sf(chi2, 2))
    assert any(note.startswith(f"The sites' baselines differ: chi-squared {chi2:.2f} on 2 df") for note in fit.notes)
    cut = np.split(np.arange(N), np.cumsum(sizes)[:-1])
    parts = [strata.pooled(study, {n: v[rows_] for n, v in rows.items()}, x[rows_]) for rows_ in cut]
    b, w = np.array([p.params[1] for p in parts]), np.array([1 / p.bse[1] ** 2 for p in parts])
    q = float(np.sum(w * (b - np.sum(w * b) / w.sum()) ** 2))
    line = reported["terms"][1]
    assert (line["term"], line["df"]) == ("male", 2)
    assert line["q"] == pytest.approx(q, rel=1e-9)
    assert line["i2"] == pytest.approx(max(0.0, 1 - 2 / q))


def test_a_site_too_small_for_its_own_fit_is_named() -> None:
    fit, _ = federated(strata.study("died ~ male + drugs"), codes(), [3, 300, 297])
    assert fit.details["heterogeneity"]["sites_without_own_fit"] == ["north"]
    assert fit.details["heterogeneity"]["terms"][0]["df"] == 1


# Counting


def test_blocks_and_small_types_do_not_change_the_table() -> None:
    plan = plan_table(strata.study())
    small = {
        n: v.astype(np.uint8) if n in ("male", "smoker", "stage", "died", "drugs") else v for n, v in codes().items()
    }
    tables = [
        build_table(plan, count_patterns(plan.tally, ArrayCodes(rows, size)))
        for rows, size in ((codes(), N), (codes(), 7), (small, 50))
    ]
    assert canonical(tables[0]) == canonical(tables[1]) == canonical(tables[2])


@pytest.mark.parametrize("size", [N, 130, 7])
def test_counting_by_what_occurs_gives_the_table_of_counting_all(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With blocks of 130 rows the first have a counter for each pattern and the last has not."""
    plan = plan_table(strata.study())
    want = build_table(plan, count_patterns(plan.tally, ArrayCodes(codes())))
    monkeypatch.setattr(pattern_counts, "DENSE", 1)
    monkeypatch.setattr(pattern_counts, "DENSE_PER_ROW", 2)
    assert plan.grid.size == 240
    assert canonical(build_table(plan, count_patterns(plan.tally, ArrayCodes(codes(), size)))) == canonical(want)


def test_a_grid_too_large_for_a_counter_each_is_counted_by_what_occurs() -> None:
    names = [f"v{k}" for k in range(9)]
    plain = {
        "name": "wide",
        "sites": ["a", "b"],
        "formula": f"died ~ {' + '.join(names)}",
        "variables": {"died": {"type": "binary"}, **{name: {"type": "count", "range": [0, 99]} for name in names}},
        "disclosure": {"cell": 0},
        "learner": {"name": "cola"},
    }
    study = complete_study(Study.model_validate(plain))
    plan = plan_table(study)
    assert plan.grid.size == 100**9
    rng = np.random.default_rng(0)
    rows = {name: rng.integers(0, 100, 700).astype(float) for name in names} | {"died": rng.integers(0, 2, 700) * 1.0}
    fit, _ = federated(study, rows)
    want = strata.pooled(study, rows, np.column_stack([np.ones(700), *(rows[name] for name in names)]))
    close(fit.estimates, want.params)
    close(fit.std_errors, want.bse)
    many = count_patterns(plan.tally, ArrayCodes(rows, 5))
    assert len(many.keys) == 700


def test_a_value_off_the_declared_grid_is_refused_at_its_site() -> None:
    rows = dict(codes()) | {"dose": np.full(N, 0.3)}
    with pytest.raises(DataError, match="dose has 200 values that are not on its declared grid"):
        federated(strata.study(), rows)


# Hostile tables


def table_at(study: Study) -> tuple[TablePlan, dict[str, Any]]:
    plan = plan_table(study)
    rows = strata.split(study, codes())[study.sites[0]]
    return plan, dict(build_table(plan, count_patterns(plan.tally, rows)))


def change_payload(payload: Payload, **changed: Any) -> dict[str, Any]:
    return dict(payload) | changed


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("CO-P511", lambda t: {"keys": t["keys"][::-1]}),
        ("CO-P511", lambda t: {"keys": t["keys"] - 1}),
        ("CO-P511", lambda t: {"keys": t["keys"] + 10**6}),
        ("CO-P511", lambda t: {"keys": np.concatenate([t["keys"][:1], t["keys"][:-1]])}),
        ("CO-P512", lambda t: {"n": t["n"][:-1]}),
        ("CO-P503", lambda t: {"n": np.zeros_like(t["n"])}),
        ("CO-P503", lambda t: {"n": -t["n"]}),
        ("CO-P503", lambda t: {"n": np.full_like(t["n"], 2**60)}),
        ("CO-P504", lambda t: {"outcome": np.asarray(1e9)}),
        ("CO-P504", lambda t: {"outcome": np.asarray(0.5)}),
        ("CO-P504", lambda t: {"outcome": np.asarray(-1.0)}),
        ("CO-P513", lambda t: {"cross": t["cross"] + 1e6}),
        ("CO-P513", lambda t: {"cross": -t["cross"]}),
        ("CO-P505", lambda t: {"cross": t["cross"] * 1e200}),
    ],
)
def test_a_table_that_no_rows_have_is_refused(code: str, change: Any) -> None:
    plan, table = table_at(strata.study())
    check_table(plan, table)
    with pytest.raises(ProtocolError) as caught:
        check_table(plan, change_payload(table, **change(table)))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("CO-P504", lambda t: {"s": t["s"] + 1000.0}),
        ("CO-P504", lambda t: {"s": -t["s"]}),
        ("CO-P504", lambda t: {"s": t["s"] * 0.5}),
        ("CO-P513", lambda t: {"outcome": t["outcome"] - 1.0}),
        ("CO-P512", lambda t: {"s": t["s"][:-1]}),
    ],
)
def test_outcomes_that_no_rows_have_are_refused(code: str, change: Any) -> None:
    plan, table = table_at(strata.study(cells=True))
    check_table(plan, table)
    with pytest.raises(ProtocolError) as caught:
        check_table(plan, change_payload(table, **change(table)))
    assert caught.value.code == code


# Studies that cannot be run


@pytest.mark.parametrize(
    ("code", "formula", "options"),
    [
        ("CO-S301", "stay ~ male", {}),
        ("CO-S301", "died ~ male", {"family": "multinomial"}),
        ("CO-S303", "died ~ male", {"link": "inverse"}),
        ("CO-S308", "stay ~ male", {"family": "gaussian", "link": "log"}),
        ("CO-S304", "died ~ male + offset(years)", {}),
        ("CO-S321", "died ~ male", {"grids": {"dose": [0, 1]}}),
        ("CO-S321", "died ~ male", {"grids": {"male": [0, 1]}}),
        ("CO-S321", "died ~ dose", {"grids": {"dose": [1, 0]}}),
        ("CO-S321", "died ~ dose", {"grids": {"dose": [0, 9]}}),
        ("CO-S321", "died ~ drugs", {"grids": {"drugs": [0, 0.5]}}),
        ("CO-S322", "died ~ dose", {"grids": {}}),
        ("CO-S322", "died ~ dose", {"grids": {"dose": [1]}}),
        ("CO-S324", "visits ~ male", {"family": "poisson", "firth": True}),
        ("CO-S324", "died ~ male", {"firth": True, "robust": True}),
        ("CO-S324", "visits ~ male + offset(years)", {"family": "poisson", "robust": True}),
        ("CO-S325", "died ~ 0 + male", {"site_intercepts": True}),
        ("CO-S326", "died ~ male", {"suppress": "impute"}),
        ("CO-S326", "died ~ male", {"suppress": "impute", "cells": True, "floor": 5}),
        ("CO-S326", "visits ~ male + offset(years)", {"family": "poisson", "suppress": "none", "floor": 5}),
        ("CO-S404", "died ~ male", {"suppress": "smear"}),
    ],
)
def test_a_study_that_cannot_be_run_is_refused(code: str, formula: str, options: dict[str, Any]) -> None:
    with pytest.raises(StudyError) as caught:
        strata.study(formula, **options)
    assert caught.value.code == code
