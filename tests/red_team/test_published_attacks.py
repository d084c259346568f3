"""Attacks A1 to A5 succeed on the published messages and fail on ours where they should; see docs/disclosure.md."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import special
from support.learners import attacks, vertical
from support.learners.cohorts import Array, Codes
from support.learners.published_attacks import Published, finish_site, solve, vertigo_ci
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit
from coterie_learners.errors import Withheld
from coterie_learners.vertical.factor_disclosure import binary_vectors
from coterie_learners.vertical.gram_factor import standardise, thin_factor
from coterie_learners.vertical.valoris import valoris

N = 600
NAMES = {site: tuple(name for name in names if name != "died") for site, names in vertical.COLUMNS_BY_SITE.items()}


@cache
def cohort() -> Codes:
    return vertical.draw(N)


@cache
def columns(site: str) -> Array:
    x = np.column_stack([cohort()[name] for name in NAMES[site]])
    return standardise(x, NAMES[site], centred=True).z


@cache
def published() -> Published:
    return solve({site: columns(site) @ columns(site).T for site in NAMES}, cohort()["died"])


def test_the_compatibility_solver_has_the_published_accuracy() -> None:
    x = np.column_stack([cohort()[name] for name in sum(NAMES.values(), ())])
    z = (x - x.mean(0)) / x.std(0, ddof=1)
    estimates, errors = vertical.pooled(vertical.study(), cohort())
    spread = x.std(0, ddof=1)
    found = [finish_site(columns(site), published().messages[site]) for site in NAMES]
    beta, se = (np.concatenate(parts) for parts in zip(*found, strict=True))
    # A penalised fit that cancels: near the maximum likelihood, and far from equal to it.
    assert 1e-6 < np.max(np.abs(beta - estimates[1:] * spread)) < 1e-2
    assert 1e-7 < np.max(np.abs(se - errors[1:] * spread)) < 1e-2
    whole = np.column_stack([np.ones(N), z])
    theta = np.concatenate([[published().intercept], beta])
    y = cohort()["died"]
    gradient = whole.T @ (y - special.expit(whole @ theta)) - 5e-6 * N * theta
    assert np.max(np.abs(gradient)) < 1e-4


def test_a1_the_centre_of_vertigo_ci_reads_every_column() -> None:
    message = vertigo_ci(columns("south"), published().alpha)
    assert attacks.distance(attacks.from_vertigo_ci(message, published().alpha), columns("south")) < 1e-13


@pytest.mark.parametrize("site", NAMES)
def test_a2_binary_columns_come_back_from_a_factor_as_they_do_from_a_gram_matrix(site: str) -> None:
    factor = thin_factor(columns(site)).factor
    size, vectors = np.linalg.eigh(columns(site) @ columns(site).T)
    for payload in (factor, vectors[:, -6:] * np.sqrt(size[-6:])):
        found = binary_vectors(payload)
        assert found is not None
        assert len(found) == 3
        for name in NAMES[site][3:]:
            truth = cohort()[name]
            assert any(np.array_equal(v, truth) or np.array_equal(1 - v, truth) for v in found)


def test_a3_who_knows_as_many_rows_as_columns_knows_all_rows() -> None:
    factor, z = thin_factor(columns("east")).factor, columns("east")
    known = np.arange(20, dtype=np.int64)
    assert attacks.distance(attacks.from_known_rows(factor, known, z[known]), z) < 1e-11


def test_a4_the_published_second_message_gives_variances_and_all_sites_columns_away() -> None:
    p = special.expit(vertical.matrix(vertical.study(), cohort()) @ vertical.pooled(vertical.study(), cohort())[0])
    message, q = published().messages["south"].m, 1 + sum(map(len, NAMES.values()))
    v = attacks.variances(message, q + 1)
    alpha = published().alpha
    assert np.max(np.abs(v / (alpha * (1 - alpha)) - 1)) < 1e-10
    assert np.max(np.abs(v - p * (1 - p))) < 1e-3
    assert attacks.share_outside(attacks.column_space(message, v, q), columns("north")) < 1e-2


@cache
def our_answer() -> dict[str, object]:
    study = vertical.study(learner="valoris")
    table = MemoryProtocol(valoris, study, vertical.split(study, cohort()))
    return {"table": table, "fits": table.play(), "study": study}


def test_a4_our_answer_is_the_site_s_own_result_and_nothing_else() -> None:
    """The answer can be computed from what the site publishes: it holds nothing more that an attack could work on."""
    table, fits = our_answer()["table"], our_answer()["fits"]
    assert isinstance(table, MemoryProtocol)
    assert isinstance(fits, dict)
    fit = fits["south"]
    assert isinstance(fit, Fit)
    assert fit.covariance is not None
    x = np.column_stack([cohort()[name] for name in NAMES["south"]])
    part = thin_factor(columns("south"))
    turn = part.rotation * x.std(0, ddof=1)[:, None]
    answer = table.posts("answer/south")["north"]
    np.testing.assert_allclose(turn.T @ fit.estimates, answer["gamma"], atol=1e-12)
    covariance = turn.T @ fit.covariance @ turn
    np.testing.assert_allclose(covariance[np.triu_indices(6)], answer["covariance"], atol=1e-12)
    # r + r (r + 1) / 2 numbers on 600 patients: the attacks on n x n matrices have nothing to begin with.
    assert sum(value.size for value in answer.values()) == 6 + 21


@pytest.mark.parametrize("mode", ["per_site", "aggregated"])
def test_no_message_to_a_covariate_site_has_n_entries(mode: str) -> None:
    """Test (5) of the method's description, for every message that a covariate site can open after the alignment."""
    study = vertical.study(learner="valoris", mode=mode)
    table = MemoryProtocol(valoris, study, vertical.split(study, cohort()))
    table.play()
    seen = 0
    for topic in table.topics:
        for poster, payload in table.posts(topic).items():
            readers = table.readers[topic]
            for site in ("south", "east"):
                if site != poster and site in readers and not topic.startswith(("align/", "keys")):
                    assert all(max(value.shape, default=1) < N for value in payload.values())
                    seen += 1
    assert seen >= 2


def test_in_a_masked_sum_the_response_site_sees_uniform_numbers_of_each_site() -> None:
    study = vertical.study(learner="valoris", mode="aggregated")
    table = MemoryProtocol(valoris, study, vertical.split(study, cohort()))
    table.play()
    for site in ("south", "east"):
        words = table.posts(f"factor/{site}")[site]["masked"].ravel()
        share = np.array([np.mean((words >> np.uint64(bit)) & np.uint64(1)) for bit in range(64)])
        # Each of 64 bits is set half the time, within five standard deviations of a fair coin.
        assert np.max(np.abs(share - 0.5)) < 5 * 0.5 / np.sqrt(len(words))
        assert np.linalg.matrix_rank(words.reshape(N + 1, -1).astype(float)) == 12


FEW = {"north": ("died",), "south": tuple(f"b{k}" for k in range(24))}


@cache
def draw_few() -> Codes:
    """26 patients, and a covariate site with nearly as many columns."""
    return vertical.draw(26, 5, FEW, effect=0.1)


def test_a5_a_site_with_nearly_as_many_columns_as_patients_solves_its_answer_for_the_outcome() -> None:
    codes, names, ridge = draw_few(), FEW["south"], 30.0
    z = standardise(np.column_stack([codes[name] for name in names]), names, centred=True).z
    theta = penalised(np.column_stack([np.ones(26), z]), codes["died"], ridge)
    # What the published c_k or our gamma_k says: X_k' x = lambda b_k; and the intercept's equation, 1' x = 0.
    scores = np.concatenate([[0.0], ridge * theta[1:]])
    found = attacks.outcomes(np.column_stack([np.ones(26), z]), scores)
    known = ~np.isnan(found)
    assert np.sum(known) >= 20
    np.testing.assert_array_equal(found[known], codes["died"][known])


def test_a5_the_response_site_returns_nothing_in_that_case() -> None:
    study = vertical.study(FEW, "valoris", ridge=30.0)
    table = MemoryProtocol(valoris, study, vertical.split(study, draw_few()))
    with pytest.raises(Withheld, match=r"south: \d\d of 26 outcomes follow from its coefficients") as caught:
        table.play()
    assert caught.value.code == "CO-D401"
    assert not any(topic.startswith("answer") for topic in table.topics)


def test_a5_many_patients_leave_every_outcome_open() -> None:
    codes = {name: column[:150] for name, column in cohort().items()}
    z = standardise(np.column_stack([codes[name] for name in NAMES["south"]]), NAMES["south"], centred=True).z
    p = special.expit(vertical.matrix(vertical.study(), codes) @ vertical.pooled(vertical.study(), codes)[0])
    design = np.column_stack([np.ones(150), z])
    assert np.all(np.isnan(attacks.outcomes(design, design.T @ (codes["died"] - p))))


def penalised(z: Array, y: Array, ridge: float) -> Array:
    theta, weights = np.zeros(z.shape[1]), np.r_[0.0, np.full(z.shape[1] - 1, ridge)]
    for _ in range(50):
        p = special.expit(z @ theta)
        hessian = (z * (p * (1 - p))[:, None]).T @ z + np.diag(weights)
        theta = theta + np.linalg.solve(hessian, z.T @ (y - p) - weights * theta)
    return theta
