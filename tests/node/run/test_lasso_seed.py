"""A seed of the study decides which rows a Secure Lasso holds out, and its text has what they show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Lasso
from support.lanes import later
from support.learners import joins
from support.learners.joins import JoinCohort

from coterie_learners.core.fit import Fit
from coterie_learners.errors import ProtocolError
from coterie_learners.numeric.array import Array
from coterie_learners.secure import secure_join
from coterie_learners.secure.identifier_tags import Deal
from coterie_learners.secure.lasso_plan import LassoPlan
from coterie_learners.secure.secure_join import JoinPosts
from coterie_learners.study.document import Study
from coterie_learners.study.identifiers import normalise_rows
from coterie_node.run.simulate import simulate

ALPHA, SHARE = 0.05, 0.25


def fit(c: JoinCohort) -> Fit:
    _, runners, _ = simulate(c.study, c.data)
    result = runners[c.study.sites[0]].machine.result
    assert isinstance(result, Fit)
    return result


def dealt(c: JoinCohort, seed: int) -> JoinCohort:
    """The same patients under a study with this seed."""
    plain = c.study.model_dump()
    plain["learner"] |= {"seed": seed}
    return replace(c, study=Study.model_validate(plain))


def groups_of(c: JoinCohort, seed: int, folds: int = 1) -> Array:
    """The group of each joint patient, from its identifiers."""
    names = [(f"Pat {k}", f"19{k % 90:02d}") for k in range(len(c.y))]
    return np.asarray(Deal(seed, folds, SHARE).assign(normalise_rows(c.study, "ana", names)))


@pytest.mark.long
@pytest.mark.parametrize("linkage", ["masks", *later("paillier")])
def test_the_seed_holds_the_same_patients_out_in_every_run(linkage: str) -> None:
    n, columns, extra = (40, 2, 4) if linkage == "paillier" else (120, 4, 15)
    if linkage == "paillier":
        pytest.importorskip("tno.mpc.encryption_schemes.paillier")
    c = dealt(joins.cohort(n, columns, extra, alpha=ALPHA, held_out=SHARE, linkage=linkage), 7)
    out = groups_of(c, 7) == 1
    first, second = fit(c), fit(c)
    assert first.details["held_out"]["n"] == second.details["held_out"]["n"] == int(out.sum())
    want = Lasso(alpha=ALPHA, tol=1e-14, max_iter=10**6).fit(c.x[~out], c.y[~out])
    error = float(np.mean((want.predict(c.x[out]) - c.y[out]) ** 2))
    for got in (first, second):
        np.testing.assert_allclose(got.estimates[1:], want.coef_, atol=5e-4)
        assert got.details["held_out"]["mse"][0] == pytest.approx(error, rel=1e-4)


def test_other_seeds_hold_other_patients_out() -> None:
    counts = [groups_of(joins.cohort(), seed) for seed in range(8)]
    assert len({tuple(groups.tolist()) for groups in counts}) == 8
    assert np.mean(np.array(counts) == 1) == pytest.approx(SHARE, abs=0.06)


def test_folds_and_rows_held_out_have_the_shares_of_the_study() -> None:
    c = joins.cohort()
    groups = np.concatenate([groups_of(c, seed, folds=4) for seed in range(40)])
    shares = np.bincount(groups, minlength=5) / len(groups)
    assert shares.tolist() == pytest.approx([0.1875] * 4 + [0.25], abs=0.02)


@pytest.mark.long
def test_rows_split_over_sites_are_held_out_by_the_seed_too() -> None:
    c = dealt(joins.rows_cohort(alpha=ALPHA, held_out=SHARE), 11)
    first, second = fit(c), fit(c)
    assert first.details["held_out"]["n"] == second.details["held_out"]["n"]
    assert first.details["held_out"]["mse"] == pytest.approx(second.details["held_out"]["mse"], rel=1e-7)
    np.testing.assert_allclose(first.estimates, second.estimates, rtol=1e-6)
    by_chance = [fit(joins.rows_cohort(alpha=ALPHA, held_out=SHARE)).details["held_out"]["mse"] for _ in range(2)]
    assert by_chance[0] != pytest.approx(by_chance[1], rel=1e-4)


@pytest.mark.long
def test_the_text_of_the_result_has_the_figures_of_the_rows_held_out() -> None:
    c = dealt(joins.cohort(200, alpha=(2.0, ALPHA), folds=3, held_out=SHARE, absolute_error=True), 3)
    got = fit(c)
    details, notes = got.details, " ".join(got.notes)
    assert f"{details['held_out']['n']} rows held out by seed 3: R2 {details['held_out']['r2'][0]:.6f}" in notes
    assert f"mean absolute error {details['mae'][1][0]:.6g}" in notes
    assert f"least mean squared error {min(details['cross_validation_mse']):.6g}" in notes


@pytest.mark.long
def test_a_helper_that_deals_more_matches_than_there_are_is_named() -> None:
    c = dealt(joins.cohort(alpha=ALPHA, held_out=SHARE), 7)
    plan = LassoPlan.of(c.study)
    answer = {"enough": np.True_, "places": np.arange(120), "groups": np.array([100, 21])}
    posts = JoinPosts({}, {}, {"ana": answer})
    world, runners, _ = simulate(c.study, c.data)
    with pytest.raises(ProtocolError, match="hub deals 120 matches to groups of 100, 21"):
        secure_join.read_groups(runners["ana"].machine.site, plan.link, posts)
    assert world.number == 1
