"""Masked sums: exact, uniform to whoever lacks the keys, and refused where they would hide nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from numpy.typing import NDArray
from support.learners import cohorts
from support.learners.cohorts import Array

from coterie_learners.core import masked_sum
from coterie_learners.core.masked_sum import (
    add_words,
    decode_fixed_point,
    encode_fixed_point,
    mask_sums,
    negate_words,
    sum_words,
    unmask_sums,
)
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Site
from coterie_learners.errors import DataError, ProtocolError
from coterie_learners.study.document import Study

STUDY = cohorts.study(count=5)
SHAPES: dict[str, tuple[int, ...]] = {"score": (3,), "information": (2, 2), "deviance": ()}
values = arrays_of.arrays("<f8", st.integers(1, 6), elements=st.floats(-1e15, 1e15))
UNIT = Fraction(1, 2**65)


def sites_with_keys(names: tuple[str, ...], study: Study = STUDY, attempt: int = 0) -> dict[str, Site]:
    """Sites that share a key with each other, at a step of all of them."""
    keys = {frozenset(pair): bytes([k + 1]) * 32 for k, pair in enumerate(itertools.combinations(sorted(names), 2))}
    shared = {name: {peer: keys[frozenset((name, peer))] for peer in names if peer != name} for name in names}
    return {name: Site(study, name, shared=shared[name], parties=names, attempt=attempt) for name in names}


def sums(seed: int, size: float = 1.0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: size * rng.normal(size=shape) for name, shape in SHAPES.items()}


def posts(sites: Mapping[str, Site], topic: str = "stats/0") -> dict[str, Payload]:
    return {name: mask_sums(site, topic, sums(k)) for k, (name, site) in enumerate(sites.items())}


def whole(words: NDArray[np.uint64]) -> list[int]:
    """Pairs of words as signed whole numbers of 128 bits."""
    numbers = [int(low) + (int(high) << 64) for low, high in words.tolist()]
    return [n - (1 << 128) if n >> 127 else n for n in numbers]


# Fixed point


@given(values)
@settings(deadline=None)
def test_a_number_is_encoded_to_the_nearest_of_the_grid(numbers: Array) -> None:
    for word, number in zip(whole(encode_fixed_point(numbers)), numbers.tolist(), strict=True):
        assert abs(Fraction(word, 2**64) - Fraction(number)) <= UNIT


@given(values)
@settings(deadline=None)
def test_a_number_of_ordinary_size_comes_back_to_its_last_bits(numbers: Array) -> None:
    np.testing.assert_allclose(decode_fixed_point(encode_fixed_point(numbers)), numbers, rtol=2**-51, atol=2**-65)


@given(st.lists(st.integers(-(2**127), 2**127 - 1), min_size=1, max_size=5), st.integers(-(2**127), 2**127 - 1))
@settings(deadline=None)
def test_addition_is_that_of_whole_numbers_modulo_two_to_128(numbers: list[int], other: int) -> None:
    def words(n: int) -> tuple[int, int]:
        return n & (2**64 - 1), (n >> 64) & (2**64 - 1)

    a = np.array([words(n) for n in numbers], np.uint64)
    b = np.array([words(other)] * len(numbers), np.uint64)
    assert np.array_equal(add_words(a, b), np.array([words(n + other) for n in numbers], np.uint64))
    assert np.array_equal(negate_words(a), np.array([words(-n) for n in numbers], np.uint64))
    assert np.array_equal(sum_words(len(a), [a, b, a]), np.array([words(2 * n + other) for n in numbers], np.uint64))
    assert not np.any(sum_words(len(a), []))


@pytest.mark.parametrize("size", [1, 66, 600])
@pytest.mark.parametrize("count", [15, 16, 255, 256, 257, 300])
def test_a_sum_of_many_terms_is_that_of_whole_numbers(size: int, count: int) -> None:
    rng = np.random.default_rng(count)
    terms = rng.integers(0, 2**64, (count, size, 2), np.uint64)
    terms[: count // 2] = 2**64 - 1
    expected = [sum(column) % 2**128 for column in zip(*(list_whole(term) for term in terms), strict=True)]
    assert list_whole(sum_words(size, iter(terms))) == expected


def list_whole(words: NDArray[np.uint64]) -> list[int]:
    return [low + (high << 64) for low, high in words.tolist()]


@given(st.lists(arrays_of.arrays("<f8", 3, elements=st.floats(-1e15, 1e15)), min_size=1, max_size=6))
@settings(deadline=None)
def test_a_sum_of_encoded_numbers_is_exact(parts: list[Array]) -> None:
    total = encode_fixed_point(parts[0])
    for part in parts[1:]:
        total = add_words(total, encode_fixed_point(part))
    exact = [sum(column) for column in zip(*(whole(encode_fixed_point(part)) for part in parts), strict=True)]
    assert whole(total) == exact
    for got, want in zip(decode_fixed_point(total).tolist(), exact, strict=True):
        assert got == pytest.approx(float(Fraction(want, 2**64)), rel=2**-52, abs=0)


def test_whole_numbers_are_summed_without_any_error() -> None:
    counts = [np.array([1.0, 12_345_678.0, 2.0**52]) for _ in range(7)]
    total = encode_fixed_point(counts[0])
    for part in counts[1:]:
        total = add_words(total, encode_fixed_point(part))
    np.testing.assert_array_equal(decode_fixed_point(total), 7 * counts[0])


@pytest.mark.parametrize("number", [0.0, -0.0, 2.0**-64, -(2.0**-64), 1 - 2**-53, -1.0, 2.0**53 + 2, -(2.0**62)])
def test_numbers_on_the_grid_come_back_as_they_were(number: float) -> None:
    assert decode_fixed_point(encode_fixed_point(np.array([number])))[0] == number


# Masks


@pytest.mark.parametrize("count", [3, 4, 5])
def test_masks_cancel_in_the_sum_whatever_the_parties(count: int) -> None:
    for names in itertools.combinations(STUDY.sites, count):
        sites = sites_with_keys(names)
        got = unmask_sums(posts(sites), SHAPES)
        for name in SHAPES:
            want = sum((sums(k)[name] for k in range(count)), np.zeros(SHAPES[name]))
            np.testing.assert_allclose(got[name], want, rtol=1e-14, atol=1e-15)


def test_the_sum_has_the_same_bits_in_any_order_of_sites() -> None:
    masked = posts(sites_with_keys(STUDY.sites))
    results = {
        tuple(value.tobytes() for value in unmask_sums({n: masked[n] for n in order}, SHAPES).values())
        for order in itertools.permutations(masked)
    }
    assert len(results) == 1


def test_the_sum_has_the_same_bits_under_other_masks() -> None:
    first = unmask_sums(posts(sites_with_keys(STUDY.sites)), SHAPES)
    other = unmask_sums(posts(sites_with_keys(STUDY.sites, attempt=1)), SHAPES)
    assert {n: v.tobytes() for n, v in first.items()} == {n: v.tobytes() for n, v in other.items()}


def test_one_post_fewer_or_from_another_attempt_leaves_only_noise() -> None:
    masked = posts(sites_with_keys(STUDY.sites))
    fewer = unmask_sums({n: p for n, p in masked.items() if n != "east"}, SHAPES)
    late = unmask_sums({**masked, "east": posts(sites_with_keys(STUDY.sites, attempt=1))["east"]}, SHAPES)
    for noise in (fewer, late):
        assert min(float(np.abs(value).min()) for value in noise.values()) > 1e6


@pytest.mark.parametrize("changed", ["attempt", "topic", "study"])
def test_another_attempt_topic_or_study_gives_other_masks(changed: str) -> None:
    site = sites_with_keys(STUDY.sites)["north"]
    topic = "stats/1" if changed == "topic" else "stats/0"
    if changed == "attempt":
        site = replace(site, attempt=1)
    if changed == "study":
        site = replace(site, study=cohorts.study(count=5, ridge=1.0))
    before = mask_sums(sites_with_keys(STUDY.sites)["north"], "stats/0", sums(0))["masked"]
    after = mask_sums(site, topic, sums(0))["masked"]
    assert not np.any(before == after)


def test_the_same_step_gives_the_same_post_again_after_a_restart() -> None:
    once, second = (mask_sums(sites_with_keys(STUDY.sites)["north"], "stats/0", sums(0))["masked"] for _ in range(2))
    np.testing.assert_array_equal(once, second)


def test_each_post_looks_uniform_even_where_the_sums_are_zero() -> None:
    """Chi-square on the bytes of 4,096 numbers; fixed keys, so that the test gives one answer for ever."""
    for name, site in sites_with_keys(STUDY.sites).items():
        post = mask_sums(site, "stats/0", {"zeros": np.zeros(4096)})["masked"]
        counted = np.bincount(np.frombuffer(post.tobytes(), np.uint8), minlength=256)
        expected = post.nbytes / 256
        chi_square = float(((counted - expected) ** 2 / expected).sum())
        assert 255 - 5 * 22.6 < chi_square < 255 + 5 * 22.6, name


def test_two_posts_of_a_site_share_nothing_that_their_sums_share() -> None:
    site = sites_with_keys(STUDY.sites)["north"]
    a, b = (mask_sums(site, topic, sums(0))["masked"] for topic in ("stats/0", "stats/1"))
    assert not np.any(a == b)


# Refusals


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_parties_are_refused_by_name(count: int) -> None:
    names = STUDY.sites[:count]
    with pytest.raises(ProtocolError) as caught:
        mask_sums(sites_with_keys(names)[names[0]], "stats/3", sums(0))
    assert caught.value.code == "CO-P401"
    assert (caught.value.site, caught.value.topic) == (names[0], "stats/3")


@pytest.mark.parametrize("number", [2.0**63, -1e300, np.inf, np.nan])
def test_a_number_beyond_the_words_is_refused(number: float) -> None:
    with pytest.raises(DataError) as caught:
        encode_fixed_point(np.array([1.0, number]))
    assert caught.value.code == "CO-D301"


@pytest.mark.parametrize("count", [3, 5])
def test_the_largest_sums_that_sites_may_post_do_not_wrap_round(count: int) -> None:
    sites = sites_with_keys(STUDY.sites[:count])
    largest = np.nextafter(masked_sum.LIMIT / count, 0)
    total = unmask_sums(
        {n: mask_sums(s, "t", {"a": np.array([largest, -largest])}) for n, s in sites.items()}, {"a": (2,)}
    )
    np.testing.assert_allclose(total["a"], [count * largest, -count * largest], rtol=1e-15)
    with pytest.raises(DataError, match="larger units"):
        mask_sums(sites["north"], "t", {"a": np.array([masked_sum.LIMIT / count])})


def test_the_form_of_a_post_follows_from_the_shapes() -> None:
    field = masked_sum.form_masked_field(SHAPES)
    post = posts(sites_with_keys(STUDY.sites))["north"]["masked"]
    assert (field.dtype, field.shape) == (post.dtype.str, post.shape) == ("<u8", (8, 2))


def over_bytes(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.frombuffer(words.tobytes(), "<u8").reshape(words.shape)


def test_a_finished_sum_is_shared_for_the_same_arrays_over_bytes_and_for_no_other() -> None:
    rng, sums_ = np.random.default_rng(5), masked_sum.FinishedSums(1 << 12)
    terms = tuple(over_bytes(rng.integers(0, 2**64, (4, 2), dtype=np.uint64)) for _ in range(20))
    first = sums_.add(4, terms)
    assert np.array_equal(first, sum_words(4, terms))
    assert sums_.add(4, terms) is first
    assert not first.flags.writeable
    other = (over_bytes(terms[0] + np.uint64(1)), *terms[1:])
    assert np.array_equal(sums_.add(4, other), sum_words(4, other))
    assert not np.array_equal(sums_.add(4, other), first)


def test_a_sum_of_arrays_that_can_be_written_to_is_added_anew() -> None:
    sums_ = masked_sum.FinishedSums(1 << 12)
    own = np.ones((2, 2), dtype=np.uint64)
    locked = own[:]
    locked.flags.writeable = False
    assert sums_.add(2, (locked, locked)).tolist() == [[2, 2], [2, 2]]
    own += np.uint64(1)
    assert sums_.add(2, (locked, locked)).tolist() == [[4, 4], [4, 4]]


def test_finished_sums_keep_bounded_memory() -> None:
    sums_ = masked_sum.FinishedSums(1_000)
    for k in range(50):
        terms = tuple(over_bytes(np.full((4, 2), k, dtype=np.uint64)) for _ in range(3))
        assert sums_.add(4, terms).tolist() == [[3 * k, 3 * k]] * 4
        assert sums_.kept_bytes <= 1_000


@pytest.mark.parametrize(("count", "size"), [(3, 2), (40, 3), (40, 600)])
def test_masks_of_many_sites_cancel_however_they_are_added(count: int, size: int) -> None:
    names = tuple(f"s{k:02d}" for k in range(count))
    keys = {frozenset(pair): k.to_bytes(32) for k, pair in enumerate(itertools.combinations(names, 2))}
    own = {
        n: Site(STUDY, n, shared={p: keys[frozenset((n, p))] for p in names if p != n}, parties=names) for n in names
    }
    made = {n: mask_sums(site, "t", {"a": np.full(size, k + 0.25)}) for k, (n, site) in enumerate(own.items())}
    total = unmask_sums(made, {"a": (size,)})["a"]
    assert total.tolist() == [count * (count - 1) / 2 + 0.25 * count] * size
