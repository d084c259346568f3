"""When there is no fit, GLORE says why in words; when sums cannot come from rows, it says that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.learners import cohorts, pooled
from support.learners.cohorts import Codes
from support.learners.table import MemoryProtocol

from coterie_learners.core import masked_sum
from coterie_learners.core.fit import Fit, coefficient_table
from coterie_learners.core.payload import Payload, check
from coterie_learners.core.protocol import Site
from coterie_learners.errors import Collinear, LearnerError, NotConverged, ProtocolError, Separation, StudyError
from coterie_learners.glore.glore import GlorePlan, compute_local_sums, glore, next_model
from coterie_learners.glore.glore import pool_stats as pool
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Rows
from coterie_learners.sums import newton
from coterie_learners.sums.frame import Frame
from coterie_learners.sums.newton import MAX_HALVINGS

LINKS = ["logit", "probit", "cloglog"]


def fit(study: Study, codes: Codes) -> Fit:
    result = MemoryProtocol(glore, study, cohorts.split(study, codes)).play()[study.sites[0]]
    assert isinstance(result, Fit)
    return result


def message_of_end(kind: type[LearnerError], code: str, study: Study, codes: Codes) -> str:
    with pytest.raises(kind) as caught:
        fit(study, codes)
    assert caught.value.code == code
    return caught.value.message


# Separation


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
@pytest.mark.parametrize("link", LINKS)
def test_complete_separation_is_named_with_its_column(link: str, aggregation: str) -> None:
    codes = cohorts.draw(120)
    codes["died"] = (codes["age"] > 0.3).astype(float)
    cause = message_of_end(
        Separation, "CO-N302", cohorts.study("died ~ crp + age", link=link, aggregation=aggregation), codes
    )
    assert "coefficients of age grow without bound" in cause


@pytest.mark.parametrize("all_die", [True, False])
@pytest.mark.parametrize("link", LINKS)
def test_a_level_with_one_outcome_only_is_named(link: str, all_die: bool) -> None:
    codes = cohorts.draw(150)
    codes["died"] = np.where(codes["stage"] == 2, float(all_die), codes["died"])
    cause = message_of_end(Separation, "CO-N302", cohorts.study(link=link), codes)
    assert "coefficients of stage[III] grow without bound" in cause


def test_a_level_without_counts_is_named_in_a_poisson_model() -> None:
    codes = cohorts.draw(150)
    codes["visits"] = np.where(codes["stage"] == 1, 0.0, codes["visits"])
    cause = message_of_end(Separation, "CO-N302", cohorts.study(f"visits ~ {cohorts.FULL}", family="poisson"), codes)
    assert "coefficients of stage[II] grow without bound" in cause


def test_separation_by_two_columns_names_both() -> None:
    codes = cohorts.draw(150)
    codes["died"] = (codes["age"] - codes["crp"] > 0).astype(float)
    cause = message_of_end(Separation, "CO-N302", cohorts.study("died ~ age + crp + male"), codes)
    assert "coefficients of age, crp grow without bound" in cause


def draw_sharp(n: int, noise: float, seed: int) -> Codes:
    """An outcome that age decides almost, but not quite, without error."""
    codes = cohorts.draw(n, seed=seed)
    codes["died"] = (codes["age"] + noise * np.random.default_rng(seed + 100).normal(size=n) > 1.0).astype(float)
    return codes


@pytest.mark.parametrize(
    ("link", "n", "noise", "seed"),
    [
        ("logit", 100, 0.5, 3),
        ("probit", 100, 0.5, 3),
        ("probit", 40, 0.5, 3),
        ("probit", 200, 0.25, 7),
        ("cloglog", 100, 1.0, 10),
        ("cloglog", 500, 0.5, 3),
        ("cloglog", 500, 0.25, 2),
    ],
)
def test_a_sharp_but_overlapping_outcome_is_not_taken_for_separated(link: str, n: int, noise: float, seed: int) -> None:
    """Fisher scoring takes many steps of nearly one length there; most of these were once called separated."""
    codes = draw_sharp(n, noise, seed)
    study = cohorts.study("died ~ age + crp", link=link, max_rounds=200)
    want = pooled.fit(study, codes, np.column_stack([np.ones(n), codes["age"], codes["crp"]]))
    got = fit(study, codes)
    np.testing.assert_allclose(got.estimates, want.estimates, rtol=1e-8)
    np.testing.assert_allclose(got.std_errors, want.std_errors, rtol=1e-7)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_value_of_the_outcome_at_all_sites_is_reported_at_once(value: float) -> None:
    codes = cohorts.draw(60)
    codes["died"][:] = value
    assert "only one value of the outcome" in message_of_end(Separation, "CO-N301", cohorts.study(), codes)


def test_counts_that_are_all_zero_are_reported_at_once() -> None:
    codes = cohorts.draw(60)
    codes["visits"][:] = 0.0
    study = cohorts.study("visits ~ age", family="poisson")
    assert "All counts at all sites are zero" in message_of_end(Separation, "CO-N301", study, codes)


def test_one_value_of_the_outcome_at_one_site_is_no_hindrance() -> None:
    codes = cohorts.draw(150)
    codes["died"][:50] = 0.0
    want = pooled.fit(cohorts.study(), codes)
    np.testing.assert_allclose(fit(cohorts.study(), codes).estimates, want.estimates, rtol=0, atol=1e-10)


# Designs without a unique solution


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
def test_a_column_that_follows_from_others_is_named_with_them(aggregation: str) -> None:
    codes = cohorts.draw(90)
    codes["years"] = 0.5 * codes["age"] - 0.25 * codes["crp"]
    study = cohorts.study("died ~ age + crp + male + years", aggregation=aggregation)
    assert "The column years is a combination of" in message_of_end(Collinear, "CO-N202", study, codes)
    assert "combination of age, crp:" in message_of_end(Collinear, "CO-N202", study, codes)


def test_a_constant_column_is_a_multiple_of_the_intercept() -> None:
    codes = cohorts.draw(90)
    codes["age"][:] = 2.0
    cause = message_of_end(Collinear, "CO-N202", cohorts.study("died ~ crp + age"), codes)
    assert "The column age is a combination of (Intercept):" in cause


def test_a_level_that_no_site_has_is_named() -> None:
    codes = cohorts.draw(90)
    codes["stage"] = np.minimum(codes["stage"], 1.0)
    assert "no variation in stage[III]" in message_of_end(Collinear, "CO-N201", cohorts.study(), codes)


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
@pytest.mark.parametrize("formula", ["died ~ stage", "died ~ age + stage + male"])
def test_a_reference_level_that_nobody_has_is_named_and_not_its_other_levels(formula: str, aggregation: str) -> None:
    codes = cohorts.draw(90)
    codes["stage"] = np.maximum(codes["stage"], 1.0)
    cause = message_of_end(Collinear, "CO-N202", cohorts.study(formula, aggregation=aggregation), codes)
    assert cause.startswith("No row has the reference level of stage")
    assert "stage[II] and stage[III] add up to one" in cause
    assert "Leave one of them out" not in cause


def test_a_level_that_only_one_site_has_is_no_hindrance() -> None:
    codes = cohorts.draw(150)
    codes["stage"][:100] = np.minimum(codes["stage"][:100], 1.0)
    want = pooled.fit(cohorts.study(), codes)
    np.testing.assert_allclose(fit(cohorts.study(), codes).estimates, want.estimates, rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [4, 6])
def test_no_more_rows_than_coefficients_are_refused(n: int) -> None:
    codes = cohorts.draw(n)
    codes["died"][:] = np.arange(n) % 2
    assert f"{n} rows at all sites together cannot carry 6 coefficients" in message_of_end(
        StudyError, "CO-N203", cohorts.study(aggregation="plain", count=2), codes
    )


# Rounds


def test_rounds_that_run_out_are_reported_with_the_length_of_the_next_step() -> None:
    cause = message_of_end(NotConverged, "CO-N101", cohorts.study(max_rounds=2), cohorts.draw(90))
    assert "No convergence in 2 rounds" in cause
    assert "standard errors long" in cause
    assert "Raise max_rounds" in cause


def test_a_looser_tolerance_needs_fewer_rounds() -> None:
    codes = cohorts.draw(90)
    loose, strict = (fit(cohorts.study(tolerance=t), codes) for t in (1e-2, 1e-10))
    assert loose.rounds < strict.rounds
    np.testing.assert_allclose(loose.estimates, strict.estimates, rtol=0, atol=1e-2 * strict.std_errors.max())


def sums_after(plan: GlorePlan, rows: dict[str, Rows], model: Payload) -> dict[str, Payload]:
    """The plain sums of all sites that a server post asks for."""
    return {name: compute_local_sums(plan, Site(plan.study, name, mine), model) for name, mine in rows.items()}


def last_model(plan: GlorePlan, codes: Codes, **changes: Any) -> tuple[Payload, dict[str, Payload]]:
    """The first step over a cohort with values of its post replaced, and the sums at the coefficients that it holds."""
    rows = cohorts.split(plan.study, codes)
    model = newton.begin(plan.rules)
    for _ in range(2):
        model = next_model(plan, model, sums_after(plan, rows, model))
    model = {**model, **changes}
    return model, sums_after(plan, rows, model)


def test_halvings_come_to_an_end() -> None:
    plan = GlorePlan.of(cohorts.study(aggregation="plain"))
    model, sums = last_model(plan, cohorts.draw(60), objective=np.float64(0.0))
    for count in range(1, MAX_HALVINGS + 1):
        model = next_model(plan, model, sums)
        assert int(model["halvings"]) == count
        np.testing.assert_array_equal(model["beta"], model["base"] + model["step"] * 0.5**count)
    with pytest.raises(NotConverged) as caught:
        next_model(plan, model, sums)
    assert caught.value.code == "CO-N102"


# Sums that no rows could have


def refusal_of(change: Callable[[dict[str, Any]], None], **options: Any) -> ProtocolError:
    """What is said about a plain first post that was changed."""
    plan = GlorePlan.of(cohorts.study(aggregation="plain", **options))
    post: dict[str, Any] = dict(first_look(plan, cohorts.rows(plan.study, cohorts.draw(60))))
    check(post, plan.form(newton.begin(plan.rules)))
    change(post)
    with pytest.raises(ProtocolError) as caught:
        check(post, plan.form(newton.begin(plan.rules)))
    return caught.value


def first_look(plan: GlorePlan, rows: Rows) -> dict[str, Array]:
    """The first plain sums of some rows."""
    return plan.model.look(rows, Frame.from_ranges(plan.model.layout))


def setter(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda post: post.__setitem__(name, np.asarray(value, dtype=float))


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        (lambda post: post.update(information=-post["information"]), "CO-P501", "positive semi-definite"),
        (lambda post: post["information"].__setitem__(1, 1e6), "CO-P501", "positive semi-definite"),
        (setter("deviance", -1.0), "CO-P502", "negative"),
        (setter("n", 0), "CO-P503", "0 cannot be a number of rows"),
        (setter("n", -60), "CO-P503", "-60"),
        (setter("n", 59.5), "CO-P503", "59.5"),
        (setter("outcome", 61), "CO-P504", "61 events cannot come from 60 rows"),
        (setter("outcome", -1), "CO-P504", "-1 events"),
        (setter("outcome", 0.5), "CO-P504", "0.5 events"),
        (setter("deviance", 1e300), "CO-P505", "1e+300"),
        (lambda post: post["score"].__setitem__(0, -1e200), "CO-P505", "1e+200"),
        (lambda post: post["information"].__setitem__(0, 1e308), "CO-P505", "1e+308"),
        (lambda post: post.pop("n"), "CO-P106", "'n'"),
        (lambda post: post.update(score=post["score"][:5]), "CO-P108", "(5,)"),
        (lambda post: post.update(information=np.zeros((6, 6))), "CO-P108", "(6, 6)"),
    ],
)
def test_a_plain_post_that_no_rows_could_have_is_refused(
    change: Callable[[dict[str, Any]], None], code: str, word: str
) -> None:
    error = refusal_of(change)
    assert error.code == code
    assert word in error.message


@pytest.mark.parametrize("outcome", [-1.0, 2.5, -4.0])
def test_counts_that_are_negative_or_broken_are_refused(outcome: float) -> None:
    error = refusal_of(setter("outcome", outcome), formula="visits ~ age", family="poisson")
    assert error.code == "CO-P504"


def test_a_plain_gaussian_post_may_have_any_outcome() -> None:
    plan = GlorePlan.of(cohorts.study("score ~ age", aggregation="plain", family="gaussian"))
    post = first_look(plan, cohorts.rows(plan.study, cohorts.draw(60)))
    score = np.array([-7.25, *np.asarray(post["score"])[1:]])  # with an intercept, its first entry is that sum
    check({**post, "outcome": np.asarray(-7.25), "score": score}, plan.form(newton.begin(plan.rules)))


def masked_posts(plan: GlorePlan, change: Callable[[dict[str, Any]], None]) -> dict[str, Payload]:
    """Posts of three sites whose masks are zero, the first site's sums having been changed."""
    posts: dict[str, Payload] = {}
    for name, rows in cohorts.split(plan.study, cohorts.draw(90)).items():
        sums: dict[str, Any] = dict(first_look(plan, rows))
        if name == plan.study.sites[0]:
            change(sums)
        flat = np.concatenate([np.ravel(sums[n]) for n in sorted(sums)])
        posts[name] = {"masked": masked_sum.encode_fixed_point(flat)}
    return posts


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda sums: sums.update(information=-1e3 * sums["information"]), "CO-P501"),
        (setter("deviance", -1e6), "CO-P502"),
        (setter("n", -1000), "CO-P503"),
        (setter("n", 30.5), "CO-P503"),
        (setter("outcome", 1000), "CO-P504"),
    ],
)
def test_masked_sums_are_checked_once_they_are_pooled(change: Callable[[dict[str, Any]], None], code: str) -> None:
    plan = GlorePlan.of(cohorts.study())
    with pytest.raises(ProtocolError) as caught:
        pool(plan, newton.begin(plan.rules), masked_posts(plan, change))
    assert caught.value.code == code


def test_a_look_whose_intercept_does_not_weigh_its_rows_is_refused() -> None:
    """A site under masks can make the pooled cross-products anything; the intercept's is the number of rows."""
    plan = GlorePlan.of(cohorts.study("visits ~ 1", family="poisson"))
    with pytest.raises(ProtocolError) as caught:
        next_model(plan, newton.begin(plan.rules), masked_posts(plan, setter("information", [-60.0])))
    assert caught.value.code == "CO-P508"


def test_a_round_whose_information_is_nothing_is_refused() -> None:
    plan = GlorePlan.of(cohorts.study("visits ~ 1", family="poisson", aggregation="plain", count=1))
    _, sums = last_model(plan, cohorts.draw(60))
    with pytest.raises(ProtocolError) as caught:
        check({**sums["north"], "information": np.zeros(1)}, plan.model.form("round"))
    assert caught.value.code == "CO-P508"


def test_sums_that_lead_to_no_finite_step_are_refused() -> None:
    plan = GlorePlan.of(cohorts.study("died ~ 1", aggregation="plain", count=1))
    model, sums = last_model(plan, cohorts.draw(60))
    tiny = {"north": {**sums["north"], "information": np.array([1e-60]), "score": np.array([1e60])}}
    with pytest.raises(ProtocolError) as caught:
        next_model(plan, {**model, "objective": np.float64(1e9)}, tiny)
    assert caught.value.code == "CO-P507"


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
def test_an_outcome_that_the_columns_give_without_error_is_fitted_with_a_warning(aggregation: str) -> None:
    """As R does; there is no chance to measure anything against."""
    rows = cohorts.draw(90, family="gaussian")
    rows["score"] = np.clip(1.0 + 0.5 * rows["age"], -8, 8)
    got = fit(cohorts.study("score ~ age", family="gaussian", aggregation=aggregation), rows)
    np.testing.assert_allclose(got.estimates, [1.0, 0.5], rtol=0, atol=1e-14)
    assert got.dispersion == 0.0
    assert got.warnings[0].startswith("The columns give the outcome without error")
    assert np.isnan([(row.z, row.p_value) for row in coefficient_table(got)]).all()
