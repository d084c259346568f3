"""Field elements: primes, bytes, fixed point, exact Gram matrices."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie_learners.errors import ProtocolError, StudyError
from coterie_learners.shares.field import PRIMES, PrimeField, bits_of, element_array

FIELD = PrimeField(144)


def is_prime(n: int, rounds: int = 40) -> bool:
    """Miller and Rabin, with witnesses that are the same in every run."""
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    draw = random.Random(7)
    for _ in range(rounds):
        x = pow(draw.randrange(2, n - 1), odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


@pytest.mark.parametrize("bits", PRIMES)
def test_the_moduli_are_the_largest_primes_of_their_size(bits: int) -> None:
    assert is_prime(PrimeField(bits).p)
    assert not any(is_prime(2**bits - c) for c in range(1, PRIMES[bits], 2))


def test_a_field_is_as_small_as_it_may_be_and_no_study_gets_one_that_is_too_small() -> None:
    assert [PrimeField.of_size(bits).bits for bits in (100, 112, 113, 160, 161)] == [112, 112, 128, 160, 176]
    with pytest.raises(StudyError) as caught:
        PrimeField.of_size(257)
    assert caught.value.code == "CO-S545"


@given(st.lists(st.integers(0, FIELD.p - 1), max_size=20))
def test_elements_survive_their_bytes(values: list[int]) -> None:
    raw = FIELD.pack(element_array(values, (len(values),)))
    assert len(raw) == FIELD.width * len(values)
    assert FIELD.unpack(raw, (len(values),)).tolist() == values


@pytest.mark.parametrize("raw", [b"\xff" * 18, b"\0" * 17, b"", b"\0" * 36])
def test_bytes_that_are_no_elements_are_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        FIELD.unpack(raw, (1,))
    assert caught.value.code == "CO-P643"


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=8))
def test_fixed_point_is_exact_to_half_a_unit(values: list[float]) -> None:
    back = FIELD.decode(FIELD.encode(np.array(values), 28), 28)
    assert np.all(np.abs(back - values) <= 2.0**-29)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 70), st.integers(1, 5), st.sampled_from(list(PRIMES)))
def test_a_gram_matrix_in_limbs_is_that_of_exact_integers(n: int, m: int, bits: int) -> None:
    field = PrimeField(bits)
    z = field.uniform(np.random.default_rng(n).bytes(field.width * n * m), (n, m))
    z[0] = field.p - 1
    assert ((z.T.dot(z)) % field.p == field.gram(z)).all()


def test_digits_come_highest_first() -> None:
    assert bits_of([5, 2**12 + 2], 2, 4).tolist() == [[0, 1, 0, 1], [0, 0, 1, 0]]
