"""Thin factors: they say what the Gram matrix says, no more, and nothing less."""

from __future__ import annotations

import numpy as np
import pytest
from support.learners.cohorts import Array

from coterie_learners.errors import Collinear, DataError
from coterie_learners.vertical.gram_factor import (
    ThinFactor,
    check_equivalent,
    factor_of_gram,
    gram_upper_triangle,
    rotation_of,
    standardise,
    thin_factor,
    unstandardise,
)


def columns(n: int = 300, m: int = 7, seed: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, m)) @ (np.eye(m) + rng.normal(size=(m, m)) / 2)
    x[:, m // 2 :] = x[:, m // 2 :] > 0.3
    return standardise(x, [f"x{j}" for j in range(m)], centred=True).z


def rotation(m: int, seed: int = 9) -> Array:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(m, m)))[0]


def test_a_factor_has_the_gram_matrix_of_its_columns() -> None:
    z = columns()
    thin = thin_factor(z)
    assert thin.factor.shape == (300, 7)
    np.testing.assert_allclose(thin.factor @ thin.factor.T, z @ z.T, atol=1e-11)
    np.testing.assert_allclose(thin.factor @ thin.rotation.T, z, atol=1e-12)


def test_a_factor_is_a_function_of_the_gram_matrix() -> None:
    """Columns that are turned, and so have the same Gram matrix, have the same factor up to the grid."""
    z = columns()
    turned = z @ rotation(7)
    np.testing.assert_allclose(z @ z.T, turned @ turned.T, atol=1e-11)
    np.testing.assert_allclose(thin_factor(z).factor, thin_factor(turned).factor, atol=1e-11)
    np.testing.assert_allclose(
        factor_of_gram(gram_upper_triangle(z), 300, 7), factor_of_gram(gram_upper_triangle(turned), 300, 7), atol=1e-10
    )


def test_only_the_rank_of_the_columns_is_disclosed_not_their_number() -> None:
    z = columns()
    twice = np.column_stack([z, z[:, :2] / np.sqrt(2), z[:, 0]])
    assert thin_factor(twice).factor.shape == (300, 7)
    assert thin_factor(z[:, :1]).factor.shape == (300, 1)
    assert thin_factor(z[:, :0]).factor.shape == (300, 0)


def test_more_columns_than_rows_have_a_factor_too() -> None:
    z = np.random.default_rng(0).normal(size=(9, 20))
    thin = thin_factor(z)
    assert thin.factor.shape == (9, 9)
    np.testing.assert_allclose(thin.factor @ thin.factor.T, z @ z.T, atol=1e-11)


def test_a_payload_that_is_not_equivalent_is_refused() -> None:
    z = columns()
    thin = thin_factor(z)
    spoilt = thin.factor.copy()
    spoilt[17, 3] += 1e-6
    with pytest.raises(Collinear) as caught:
        check_equivalent(ThinFactor(spoilt, thin.rotation), z)
    assert caught.value.code == "CO-N204"
    with pytest.raises(Collinear):
        check_equivalent(ThinFactor(thin.factor, 1.001 * thin.rotation), z / 1.001)


def test_a_column_that_is_almost_a_combination_of_others_is_refused_by_its_factor() -> None:
    z = columns()
    almost = np.column_stack([z, z[:, 0] + 3e-11 * np.random.default_rng(2).normal(size=300)])
    with pytest.raises(Collinear):
        thin_factor(almost)


def test_the_factor_of_a_gram_matrix_is_its_cholesky_factor() -> None:
    z = columns()
    upper = gram_upper_triangle(z)
    factor = factor_of_gram(upper, 300, 7)
    np.testing.assert_allclose(factor @ factor.T, z @ z.T, atol=1e-10)
    turn = rotation_of(factor, z)
    np.testing.assert_allclose(turn.T @ turn, np.eye(7), atol=1e-10)
    assert factor_of_gram(upper, 300, 3).shape == (300, 3)
    assert factor_of_gram(np.zeros(6), 3, 3).shape == (3, 0)


def test_constant_columns_are_named() -> None:
    x = np.column_stack([np.arange(9.0), np.full(9, 0.3), np.arange(9.0) ** 2])
    with pytest.raises(DataError, match=r"columns b are the same for all 9") as caught:
        standardise(x, ("a", "b", "c"), centred=True)
    assert caught.value.code == "CO-D120"


def test_without_an_intercept_columns_are_not_centred() -> None:
    x = np.arange(10.0)[:, None]
    standardised = standardise(x, ("a",), centred=False)
    assert standardised.mean.tolist() == [0.0]
    np.testing.assert_allclose(standardised.z * standardised.sd, x)


def test_estimates_come_back_from_the_rotated_columns() -> None:
    z = columns()
    thin, beta, sd = thin_factor(z), np.arange(7.0), np.linspace(0.5, 2, 7)
    estimates, covariance = unstandardise(thin.rotation, sd, thin.rotation.T @ beta, np.eye(7))
    np.testing.assert_allclose(estimates, beta / sd, atol=1e-12)
    np.testing.assert_allclose(covariance, np.diag(1 / sd**2), atol=1e-12)
