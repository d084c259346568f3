"""Arithmetic in limbs against Python's integers: the same residues for every field, at the borders too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie_learners.numeric.limbs import read_limbs, write_limbs
from coterie_learners.shares.field import PRIMES, Elements, PrimeField, element_array

SIZES = st.sampled_from(list(PRIMES))


def draw_elements(bits: int, seed: int, count: int = 60) -> Elements:
    """Uniform residues, and those beside zero, the prime, its half, and what the gap folds into."""
    field, gap = PrimeField(bits), PRIMES[bits]
    borders = [0, 1, gap - 1, gap, field.p // 2, field.p - gap, field.p - 2, field.p - 1, (1 << bits - 1) - 1]
    uniform = field.uniform(np.random.default_rng(seed).bytes(field.width * count), (count,)) % field.p
    return element_array([*borders, *uniform.tolist()], (len(borders) + count,))


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(0, 10**6))
def test_products_are_those_of_integers(bits: int, seed: int) -> None:
    field = PrimeField(bits)
    a = draw_elements(bits, seed)
    left, right = np.repeat(a, len(a)), np.tile(a, len(a))
    product = field.limbs.multiply(field.to_limbs(left), field.to_limbs(right))
    assert (field.from_limbs(product, left.shape) == left * right % field.p).all()


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(0, 10**6), st.lists(st.integers(-(2**300), 2**300), min_size=1, max_size=7))
def test_sums_of_multiples_are_those_of_integers(bits: int, seed: int, factors: list[int]) -> None:
    field = PrimeField(bits)
    parts = [np.roll(draw_elements(bits, seed + k), k) for k in range(len(factors))]
    terms = [(factor, field.to_limbs(part)) for factor, part in zip(factors, parts, strict=True)]
    expected = (sum(f * part for f, part in zip(factors, parts, strict=True)) + factors[0]) % field.p
    assert (field.from_limbs(field.limbs.combine(terms, factors[0]), parts[0].shape) == expected).all()


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(0, 10**6), st.integers(0, 255))
def test_a_shift_drops_the_lowest_digits(bits: int, seed: int, digits: int) -> None:
    a, field = draw_elements(bits, seed), PrimeField(bits)
    shifted = field.limbs.shift_right(field.to_limbs(a), min(digits, bits))
    assert (field.from_limbs(shifted, a.shape) == a >> min(digits, bits)).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 32), st.integers(0, 40), st.integers(1, 256), st.integers(0, 10**6))
def test_bytes_are_read_and_written_as_little_endian_integers(width: int, count: int, bits: int, seed: int) -> None:
    raw = np.random.default_rng(seed).bytes(width * count)
    limbs = read_limbs(raw, width)
    assert write_limbs(limbs, width) == raw
    values = [int.from_bytes(raw[k * width : (k + 1) * width], "little") for k in range(count)]
    lowest = read_limbs(raw, width, bits)
    assert [sum(int(v) << 24 * k for k, v in enumerate(column)) for column in lowest.T] == [
        v & (1 << bits) - 1 for v in values
    ]


@pytest.mark.parametrize("bits", PRIMES)
def test_numbers_from_the_prime_on_are_noticed(bits: int) -> None:
    field = PrimeField(bits)
    for value, below in ((0, True), (field.p - 1, True), (field.p, False), (field.p + 1, False), (2**bits - 1, False)):
        assert field.limbs.is_below_prime(read_limbs(value.to_bytes(field.width, "little"), field.width)) is below
