"""Three parties: exact products, truncation within two units, right signs; and what each of them sees on the way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.learners.parties import NAMES, RecordedWire, run_parties

from coterie_learners.errors import ProtocolError
from coterie_learners.shares.comparison import Q, negative_shares
from coterie_learners.shares.field import Elements, PrimeField, element_array
from coterie_learners.shares.shamir3 import ThreePartyShamir

BITS = 40
FIELD = PrimeField(144)


def vector(values: Sequence[int]) -> Elements:
    return element_array(list(values), (len(values),))


def deal_values(trio: ThreePartyShamir, values: Sequence[int], dealer: int = 1) -> Elements:
    given_ = vector(values)
    return trio.deal(dealer, given_ % trio.field.p if trio.me == dealer else None, given_.shape)


@pytest.mark.parametrize("dealer", range(3))
def test_what_one_party_deals_opens_at_all_and_products_are_exact(dealer: int) -> None:
    values = [0, 1, -1, 2**60, -(2**60)]

    def program(trio: ThreePartyShamir) -> tuple[list[int], list[int], list[int]]:
        x = deal_values(trio, values, dealer)
        product = trio.reshare(x * x)
        opened = trio.open(x, exact=True), trio.open(product, exact=True), trio.open(x * x)
        first, second, third = (list(trio.field.to_signed(v)) for v in opened)
        return first, second, third

    for plain, shared, local in run_parties(program):
        assert plain == values
        assert shared == local == [v * v for v in values]


def test_any_one_share_of_a_value_says_nothing_about_it() -> None:
    """Shares of two values under the same streams differ, at each party, by what the other party's stream hides."""

    def program(trio: ThreePartyShamir) -> list[int]:
        return list(deal_values(trio, [7] * 3))

    first, rerun = run_parties(program, seed=1), run_parties(program, seed=2)
    assert all(a != b for a, b in zip(first, rerun, strict=True))
    assert len({tuple(share) for share in first}) == 3


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(-(2 ** (BITS - 1)) + 1, 2 ** (BITS - 1) - 1), min_size=1, max_size=30),
    st.integers(1, 24),
    st.integers(0, 1000),
)
def test_truncation_is_within_two_units(values: list[int], digits: int, seed: int) -> None:
    def program(trio: ThreePartyShamir) -> list[int]:
        shares = trio.truncate(deal_values(trio, values), digits, BITS)
        return list(trio.field.to_signed(trio.open(shares, exact=True)))

    for found in run_parties(program, seed=seed):
        assert all(abs(f - v / 2**digits) < 2 for f, v in zip(found, values, strict=True))


def test_truncation_has_no_bias_and_swallows_a_product() -> None:
    values = [int(v) for v in np.random.default_rng(3).integers(-(2**34), 2**34, 3000)]

    def program(trio: ThreePartyShamir) -> list[int]:
        x = deal_values(trio, values)
        return list(trio.field.to_signed(trio.open(trio.truncate(x * x, 28, 72), exact=True)))

    error = np.array([f - v * v / 2**28 for f, v in zip(run_parties(program)[0], values, strict=True)])
    assert np.abs(error).max() < 2
    assert abs(error.mean()) < 0.05
    assert 0.4 < error.std() < 0.7


EDGES = [0, 1, -1, 2, -2, 2 ** (BITS - 1) - 1, -(2 ** (BITS - 1))]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1), max_size=30), st.integers(0, 10_000))
def test_signs_are_right(values: list[int], seed: int) -> None:
    def program(trio: ThreePartyShamir) -> list[int]:
        return list(trio.open(negative_shares(trio, deal_values(trio, EDGES + values), BITS), exact=True))

    for found in run_parties(program, seed=seed):
        assert found == [int(v < 0) for v in EDGES + values]


@pytest.mark.parametrize("bits", [2, 3, 8, 96])
def test_signs_of_narrow_and_wide_numbers(bits: int) -> None:
    values = [0, -1, 1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))]

    def program(trio: ThreePartyShamir) -> list[int]:
        return list(trio.open(negative_shares(trio, deal_values(trio, values), bits), exact=True))

    assert run_parties(program)[0] == [0, 1, int(2 ** (bits - 1) <= 1), 0, 1]


# What is seen


def record_messages(value: int, count: int = 2000) -> RecordedWire:
    wire = RecordedWire()
    run_parties(lambda trio: negative_shares(trio, deal_values(trio, [value] * count, 2), BITS), wire=wire, seed=5)
    return wire


def answers(wire: RecordedWire, count: int = 2000) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The digits that the third party sees."""
    parts = [data for sender, to, data in wire.log if to == NAMES[2] and len(data) == count * BITS]
    assert len(parts) == 2
    return sum(np.frombuffer(p, np.uint8).astype(np.int64) for p in parts).reshape(count, BITS) % Q  # type: ignore


@pytest.mark.parametrize("value", [0, -1, 2 ** (BITS - 1) - 1, -(2 ** (BITS - 1)), 12345])
def test_the_third_party_sees_a_fair_coin_and_a_uniform_place_whatever_the_sign(value: int) -> None:
    found = answers(record_messages(value)) == 0
    assert set(found.sum(axis=1).tolist()) <= {0, 1}
    hits = found.any(axis=1)
    assert abs(hits.mean() - 0.5) < 0.06  # more than five standard deviations
    places = np.bincount(np.argmax(found[hits], axis=1), minlength=BITS)
    expected = hits.sum() / BITS
    assert ((places - expected) ** 2 / expected).sum() < 100  # chi-squared, 39 degrees of freedom


@pytest.mark.parametrize("name", NAMES)
def test_every_element_that_a_party_sees_is_uniform(name: str) -> None:
    """Two inputs that could not be further apart; the bytes of what is seen pass the same test of uniformity."""
    for value in (0, -(2 ** (BITS - 1))):
        messages = [d for d in record_messages(value).seen_by(name) if len(d) == 2000 * FIELD.width]
        digits = np.frombuffer(b"".join(messages), np.uint8).reshape(-1, FIELD.width)[:, :-1].ravel()
        counts = np.bincount(digits, minlength=256)
        expected = len(digits) / 256
        assert ((counts - expected) ** 2 / expected).sum() < 400  # chi-squared, 255 degrees of freedom


def test_the_sizes_of_messages_do_not_depend_on_values() -> None:
    def sizes(value: int) -> list[tuple[str, str, int]]:
        return sorted((a, b, len(data)) for a, b, data in record_messages(value, 50).log)

    assert sizes(0) == sizes(-5)


# Faults


def test_a_wrong_share_of_a_result_is_noticed() -> None:
    def flip(to: str, data: bytes) -> bytes:
        return bytes([data[0] ^ 1]) + data[1:]

    def program(trio: ThreePartyShamir) -> Elements:
        return trio.open(vector([trio.me + 1]), exact=True)

    with pytest.raises(ProtocolError) as caught:
        run_parties(program, tamper={"bob": flip})
    assert caught.value.code == "CO-P645"


def test_a_message_of_another_size_names_its_sender() -> None:
    def program(trio: ThreePartyShamir) -> Elements:
        return trio.open(vector([1]), exact=True)

    with pytest.raises(ProtocolError) as caught:
        run_parties(program, tamper={"cyd": lambda to, data: data + b"\0"})
    assert (caught.value.code, caught.value.site) == ("CO-P641", "cyd")


def test_a_party_that_falls_silent_is_named() -> None:
    def program(trio: ThreePartyShamir) -> Elements:
        if trio.me == 1:
            return vector([])
        return trio.open(vector([1]), exact=True)

    with pytest.raises(ProtocolError) as caught:
        run_parties(program, wire=RecordedWire(0.2))
    assert (caught.value.code, caught.value.site) == ("CO-P601", "bob")
