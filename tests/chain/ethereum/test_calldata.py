"""Structs of words are cut out of an answer as the ABI's decoder reads them, and refused where it refuses them."""

from __future__ import annotations

import pytest
from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie_chain.errors import LedgerMismatch
from coterie_chain.ethereum.calldata import load_codec, to_hex

CATALOG = load_codec("Catalog")
(STATUS,) = CATALOG._outputs["status"]
FIELDS = STATUS.count(",") + 1
# Most numbers fit, so that whole answers are read; some fit no type but the widest.
NUMBERS = st.one_of(st.integers(0, 1), st.integers(0, 255), st.integers(0, (1 << 256) - 1))


def test_a_status_is_a_struct_of_words_and_no_other_answer_is() -> None:
    assert list(CATALOG._words) == ["status"]
    assert len(CATALOG._words["status"]) == FIELDS


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 1), min_size=FIELDS, max_size=FIELDS),
    st.dictionaries(st.integers(0, FIELDS - 1), NUMBERS, max_size=3),
    st.binary(max_size=40),
)
def test_a_status_is_read_as_by_the_library(words: list[int], others: dict[int, int], rest: bytes) -> None:
    answer = b"".join(others.get(place, word).to_bytes(32) for place, word in enumerate(words)) + rest
    try:
        (want,) = decode([STATUS], answer)
    except DecodingError:
        with pytest.raises(LedgerMismatch, match="status"):
            CATALOG.decode("status", to_hex(answer))
        return
    got = CATALOG.decode("status", to_hex(answer))
    assert got == want
    assert list(map(type, got)) == list(map(type, want))


@pytest.mark.parametrize("size", [0, 31, 32 * FIELDS - 1])
def test_an_answer_that_is_too_short_is_refused(size: int) -> None:
    with pytest.raises(LedgerMismatch, match="status"):
        CATALOG.decode("status", to_hex(bytes(size)))
