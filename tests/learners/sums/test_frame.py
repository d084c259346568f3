"""A frame changes the scale of the arithmetic and nothing else: carried back, coefficients are the raw columns'."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.learners import cohorts
from support.learners.cohorts import Array, Codes

from coterie_learners.study.design import Design
from coterie_learners.study.rows import Block
from coterie_learners.sums.frame import Frame, Layout, Moments, draw_frame, move_moments, power_of_two

FORMULAS = [
    "score ~ age + crp + male + stage",
    "score ~ age + age^2 + age^3 + crp",
    "score ~ age*crp*male + stage:age + stage + crp^2",
    "score ~ age:stage + crp^2",
    "score ~ 0 + age + crp + stage",
    "score ~ age + crp + offset(years)",
]


def rows(design: Design, codes: Codes | None = None) -> Block:
    return design.block(codes or cohorts.draw(200, family="gaussian"))


def moments(frame: Frame, raw: Block) -> Moments:
    block = frame.block(raw)
    squares = float(block.y @ block.y)
    return Moments(float(len(block)), block.x.T @ block.x, block.x.T @ block.y, squares, float(block.y.sum()))


def pooled(design: Design, raw: Block) -> tuple[Frame, bool]:
    frame = Frame.from_ranges(Layout.of(design, linear=True))
    return draw_frame(frame, moments(frame, raw))


def carried_fit(frame: Frame, raw: Block) -> tuple[Array, Array]:
    block = frame.block(raw)
    root = np.linalg.inv(np.linalg.qr(block.x)[1])
    return frame.outside(
        np.asarray(np.linalg.lstsq(block.x, block.y, rcond=None)[0], dtype=np.float64)
    ), frame.covariance(root) / frame.outcome_scale**2


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("drawn", [False, True])
def test_least_squares_in_a_frame_are_those_of_the_raw_columns(formula: str, drawn: bool) -> None:
    design = Design(cohorts.study(formula, family="gaussian"))
    raw = rows(design)
    frame = pooled(design, raw)[0] if drawn else Frame.from_ranges(Layout.of(design, linear=True))
    estimates, covariance = carried_fit(frame, raw)
    y = raw.y if raw.offset is None else raw.y - raw.offset
    np.testing.assert_allclose(estimates, np.linalg.lstsq(raw.x, y, rcond=None)[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(covariance, np.linalg.inv(raw.x.T @ raw.x), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("formula", FORMULAS)
def test_columns_of_a_drawn_frame_have_unit_spread_about_zero(formula: str) -> None:
    design = Design(cohorts.study(formula, family="gaussian"))
    frame, clear = pooled(design, rows(design))
    assert clear
    x = frame.block(rows(design)).x
    free = [j for j, centred in enumerate(frame.layout.centred) if centred]
    if design.formula.intercept:
        np.testing.assert_allclose(x[:, free].mean(axis=0), 0.0, atol=1e-12)
    size = np.sqrt((x[:, free] ** 2).mean(axis=0))
    assert np.all((size > 0.7) & (size < 1.42))


def test_powers_and_products_are_made_of_centred_variables_where_the_formula_holds_their_lower_terms() -> None:
    layout = Layout.of(Design(cohorts.study("died ~ age + age^2 + crp + age:crp + male + male:age")), linear=False)
    names = layout.design.names
    assert {names[j] for j in layout.derived} == {"age^2", "age:crp", "male:age"}
    alone = Layout.of(Design(cohorts.study("died ~ age^2 + age:crp + crp")), linear=False)
    assert alone.derived == ()
    assert Layout.of(Design(cohorts.study("died ~ 0 + age + age^2")), linear=False).derived == ()


@pytest.mark.parametrize("shift", [0.0, 1e6, -3e9])
def test_a_polynomial_far_from_zero_is_no_worse_conditioned_than_one_about_zero(shift: float) -> None:
    wide = {"age": {"type": "number", "range": [shift - 5, shift + 5]}}
    design = Design(cohorts.study("score ~ age + age^2 + age^3", family="gaussian", variables=wide))
    codes = cohorts.draw(200, family="gaussian")
    codes["age"] = codes["age"] + shift
    raw = rows(design, codes)
    frame, clear = pooled(design, raw)
    assert clear
    assert np.linalg.cond(frame.block(raw).x) < 30


@pytest.mark.parametrize("width", [1.0, 1e4, 1e9])
def test_a_wide_range_takes_another_look_and_no_digits(width: float) -> None:
    """The spread of a column that fills 1e-9 of its range is seen on the second look."""
    variables = {"age": {"type": "number", "range": [-width, 7 * width]}, "crp": cohorts.VARIABLES["crp"]}
    design = Design(cohorts.study("score ~ age + crp", family="gaussian", variables=variables))
    codes = cohorts.draw(200, family="gaussian")
    codes["age"] = np.clip(codes["age"], -1, 5)
    raw = rows(design, codes)
    frame, clear = pooled(design, raw)
    assert clear == (width < 1e6)
    for _ in range(2):
        frame, clear = draw_frame(frame, moments(frame, raw))
    assert clear
    estimates, _ = carried_fit(frame, raw)
    np.testing.assert_allclose(estimates, np.linalg.lstsq(raw.x, raw.y, rcond=None)[0], rtol=1e-12)


def test_moments_moved_to_another_frame_are_the_moments_there() -> None:
    design = Design(cohorts.study("score ~ age + crp + male + stage", family="gaussian"))
    raw, frame = rows(design), Frame.from_ranges(Layout.of(design, linear=True))
    drawn, _ = draw_frame(frame, moments(frame, raw))
    moved, there = move_moments(moments(frame, raw), frame, drawn), moments(drawn, raw)
    np.testing.assert_allclose(moved.gram, there.gram, atol=1e-10)
    np.testing.assert_allclose(moved.cross, there.cross, atol=1e-10)
    assert (moved.squares, moved.outcome) == pytest.approx((there.squares, there.outcome), abs=1e-9)


@pytest.mark.parametrize("scale", [2.0**-30, 0.5, 4.0, 3.0, 2.0**-1040])
def test_rows_are_divided_by_scales_to_the_last_bit(scale: float) -> None:
    """Powers of two take another path, and others, or one whose reciprocal is no number, do not."""
    design = Design(cohorts.study("score ~ age + crp", family="gaussian"))
    frame, _ = pooled(design, rows(design))
    scales = np.array([1.0, 0.25, scale])
    block = rows(design)
    with np.errstate(over="ignore"):
        placed = replace(frame, scale=scales).block(block)
        assert np.array_equal(placed.x, (block.x - frame.centre) / scales)


def test_a_posted_frame_is_the_same_frame() -> None:
    design = Design(cohorts.study("score ~ age + crp + offset(years)", family="gaussian"))
    frame, _ = pooled(design, rows(design))
    posted = Frame.from_payload(frame.layout, frame.payload())
    np.testing.assert_array_equal(posted.centre, frame.centre)
    np.testing.assert_array_equal(posted.scale, frame.scale)
    assert (posted.outcome_centre, posted.outcome_scale, posted.offset_centre) == (
        frame.outcome_centre,
        frame.outcome_scale,
        frame.offset_centre,
    )


@pytest.mark.parametrize(
    ("value", "power"), [(1.0, 1.0), (0.9, 1.0), (1.3, 1.0), (1.5, 2.0), (3e-7, 2.0**-22), (0.0, 1.0)]
)
def test_scales_are_powers_of_two(value: float, power: float) -> None:
    assert power_of_two(value) == power
