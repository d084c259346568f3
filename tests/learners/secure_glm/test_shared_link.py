"""The logistic link on shares against float64, over a grid: the error budget of its documentation."""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from support.learners.parties import RecordedWire, run_parties

from coterie_learners.numeric.array import Array
from coterie_learners.secure_glm.shared_link import EDGES, RESPONSE, evaluate_link
from coterie_learners.shares.field import element_array
from coterie_learners.shares.shamir3 import ThreePartyShamir

DIGITS = 68
BITS = 176


def evaluate(x: Array, y: Array | None = None, wire: RecordedWire | None = None) -> tuple[Array, Array, float]:
    """p, w and half the deviance of linear predictors, as three parties compute them."""

    def program(trio: ThreePartyShamir) -> tuple[Array, Array, float]:
        eta = [int(v) for v in np.rint(x * 2.0**40).tolist()]
        encoded = element_array([(v << DIGITS - 40) % trio.field.p for v in eta], x.shape)
        shares = trio.deal(0, encoded if trio.me == 0 else None, x.shape)
        events = None
        if y is not None:
            events = trio.deal(1, element_array([int(v) for v in y], y.shape) if trio.me == 1 else None, y.shape)
        response = evaluate_link(trio, shares, DIGITS, events)
        deviance = np.zeros(1)
        if response.deviance is not None:
            deviance = trio.field.decode(trio.open(trio.truncate(response.deviance, RESPONSE, 110)), RESPONSE)
        mean, weight = (trio.field.decode(trio.open(v), RESPONSE) for v in (response.mean, response.weight))
        return mean, weight, float(deviance[0])

    return run_parties(program, BITS, wire=wire)[0]


def exact(x: Array) -> Array:
    return np.asarray(expit(x))


def make_grid() -> Array:
    """Even places, places around each border, and far ones."""
    near = np.linspace(-0.05, 0.05, 81)
    borders = np.concatenate([near + side * edge for edge in (0.0, *EDGES) for side in (-1.0, 1.0)])
    return np.concatenate([np.linspace(-22.0, 22.0, 1500), borders, np.array([-1900.0, -60.0, 35.0, 200.0, 2000.0])])


def test_probabilities_and_weights_are_within_2e_8_of_float64_everywhere() -> None:
    x = make_grid()
    mean, weight, _ = evaluate(x)
    p = exact(x)
    assert np.abs(mean - p).max() < 2e-8
    assert np.abs(weight - p * (1.0 - p)).max() < 2e-8
    assert np.sqrt(np.mean((mean - p) ** 2)) < 6e-9


def test_the_deviance_is_that_of_float64() -> None:
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.normal(0.0, 4.0, 600), [-50.0, 40.0, 0.0]])
    y = (rng.random(len(x)) < exact(x)).astype(float)
    _, _, half = evaluate(x, y)
    assert abs(half - float(np.sum(np.logaddexp(0.0, x) - y * x))) < len(x) * 2e-8


def test_rounds_do_not_depend_on_the_number_of_rows() -> None:
    few, many = RecordedWire(), RecordedWire()
    evaluate(np.linspace(-3.0, 3.0, 4), wire=few)
    evaluate(np.linspace(-30.0, 30.0, 400), wire=many)
    assert [(a, b) for a, b, _ in few.log if a == "ana"] == [(a, b) for a, b, _ in many.log if a == "ana"]
