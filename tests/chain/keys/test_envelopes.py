"""Sealed envelopes: who can open them, and that nobody can change them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings as sodium
from nacl.public import PrivateKey, PublicKey, SealedBox

from coterie_chain.errors import BlobCorrupt, KeyFault
from coterie_chain.keys.envelopes import (
    MAGIC,
    MAX_HEADER,
    is_sealed,
    list_readers,
    open_body_key,
    seal,
    unseal,
    unseal_with,
)

PRIVATE = {name: PrivateKey(name.encode().ljust(32)) for name in ("aarhus", "boston", "city-3")}
PUBLIC = {name: bytes(key.public_key) for name, key in PRIVATE.items()}
TWO = {name: PUBLIC[name] for name in ("boston", "aarhus")}
RAW = b"the payload" * 10


@given(st.binary(max_size=2000), st.sets(st.sampled_from(sorted(PUBLIC)), min_size=1), st.binary(max_size=20))
@settings(max_examples=30)
def test_every_reader_opens_it_and_nobody_else(raw: bytes, readers: set[str], context: bytes) -> None:
    blob = seal(raw, {name: PUBLIC[name] for name in readers}, context)
    for name, key in PRIVATE.items():
        assert unseal(blob, name, key, context) == (raw if name in readers else None)


def test_an_envelope_names_its_readers_in_order() -> None:
    blob = seal(RAW, TWO)
    assert is_sealed(blob)
    assert list_readers(blob) == ("aarhus", "boston")
    assert not is_sealed(RAW)
    assert RAW not in blob


def test_two_envelopes_of_the_same_bytes_differ() -> None:
    assert seal(RAW, TWO) != seal(RAW, TWO)


def test_any_flipped_byte_is_found() -> None:
    blob = seal(RAW, TWO)
    own_name = range(blob.index(b"boston"), blob.index(b"boston") + len(b"boston"))
    for at in range(len(blob)):
        altered = blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]
        if at in own_name:
            # Whoever is not named can judge nothing; the CID of the record stands for the bytes.
            assert unseal(altered, "boston", PRIVATE["boston"]) is None
        else:
            expect_refused(altered)


def test_any_shorter_or_longer_envelope_is_found() -> None:
    blob = seal(RAW, TWO)
    for size in range(len(blob)):
        expect_refused(blob[:size])
    expect_refused(blob + b"\0")


def test_an_envelope_cannot_be_passed_off_for_another_step() -> None:
    blob = seal(RAW, TWO, b"boston, step 3")
    expect_refused(blob, b"aarhus, step 3")
    expect_refused(blob)


def test_a_reader_with_a_new_key_gets_that_message() -> None:
    with pytest.raises(BlobCorrupt, match="replaced") as e:
        unseal(seal(RAW, TWO), "boston", PRIVATE["city-3"])
    assert e.value.code == "CO-C222"


def test_a_body_s_key_opens_this_envelope_and_no_other() -> None:
    blob, other = seal(RAW, TWO, b"step"), seal(RAW, TWO, b"step")
    key = open_body_key(blob, "boston", PRIVATE["boston"])
    assert key is not None
    assert unseal_with(blob, key, b"step") == RAW
    assert open_body_key(blob, "city-3", PRIVATE["city-3"]) is None
    for wrong, context in ((other, b"step"), (blob, b"another")):
        with pytest.raises(BlobCorrupt) as e:
            unseal_with(wrong, key, context)
        assert e.value.code == "CO-C221"


def test_two_readers_cannot_be_given_two_keys() -> None:
    blob = seal(RAW, TWO)
    at = len(MAGIC) + 4
    header = json.loads(blob[at : at + int.from_bytes(blob[len(MAGIC) : at], "little")])
    other = SealedBox(PublicKey(PUBLIC["boston"])).encrypt(bytes(32))
    header["readers"]["boston"] = bytes(other).hex()
    expect_refused(build_envelope(header, bytes(32)))


def test_an_envelope_made_by_the_format_alone_opens() -> None:
    key = bytes(range(32))
    box = bytes(SealedBox(PublicKey(PUBLIC["boston"])).encrypt(key)).hex()
    header = {"commitment": compute_commitment(key), "readers": {"boston": box}}
    assert unseal(build_envelope(header, key), "boston", PRIVATE["boston"]) == RAW


BOX = bytes(80).hex()
BAD_HEADERS: list[object] = [
    {},
    [],
    7,
    {"commitment": "00", "readers": {"boston": BOX}, "more": 1},
    {"commitment": "00", "readers": ["boston"]},
    {"commitment": "00", "readers": {"boston": 7}},
    {"commitment": "00", "readers": {"boston": "zz"}},
    {"commitment": "00", "readers": {"boston": BOX + "00"}},
    {"commitment": "00", "readers": {"boston": None}},
]


@pytest.mark.parametrize("header", BAD_HEADERS)
def test_a_header_of_another_form_is_refused(header: object) -> None:
    expect_refused(build_envelope(header, bytes(32)))


@pytest.mark.parametrize(
    "text",
    [
        b'{"readers":{},"commitment":""}',
        b'{"commitment": "","readers":{}}',
        b'{"commitment":"","readers":{"a":"' + BOX.encode() + b'","a":"' + BOX.encode() + b'"}}',
        b"[" * MAX_HEADER,
        b"1" * MAX_HEADER,
        b"\xff",
        b"",
    ],
)
def test_a_header_that_is_not_canonical_is_refused(text: bytes) -> None:
    expect_refused(frame(text, bytes(100)))


def test_a_header_beyond_its_bound_is_refused_unread() -> None:
    expect_refused(frame(b" " * (MAX_HEADER + 1), bytes(100)))
    expect_refused(MAGIC + b"\xff\xff\xff\xff" + bytes(1000))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(blob: bytes) -> None:
    for raw in (blob, MAGIC + blob):
        with suppress(BlobCorrupt):
            assert unseal(raw, "boston", PRIVATE["boston"]) is None


def test_it_takes_a_reader() -> None:
    with pytest.raises(KeyFault, match="0 readers"):
        seal(RAW, {})


def test_253_sites_fit_and_a_list_beyond_the_bound_does_not() -> None:
    names = [f"university-hospital-of-some-town-{n}" for n in range(1000)]
    blob = seal(RAW, dict.fromkeys(names[:253], PUBLIC["boston"]))
    assert len(list_readers(blob)) == 253
    with pytest.raises(KeyFault, match="1000 readers"):
        seal(RAW, dict.fromkeys(names, PUBLIC["boston"]))


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), bytes(32), (1).to_bytes(32, "little")])
def test_a_reader_without_a_usable_key_is_named(public: bytes) -> None:
    with pytest.raises(KeyFault, match="boston") as e:
        seal(RAW, {"aarhus": PUBLIC["aarhus"], "boston": public})
    assert e.value.code == "CO-C106"


def expect_refused(blob: bytes, context: bytes = b"") -> None:
    with pytest.raises(BlobCorrupt) as e:
        unseal(blob, "boston", PRIVATE["boston"], context)
    assert e.value.code in ("CO-C221", "CO-C222")


def compute_commitment(key: bytes) -> str:
    return sodium.crypto_hash_sha256(b"coterie/1 envelope key" + key).hex()


def build_envelope(header: Mapping[str, object] | object, key: bytes) -> bytes:
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    start, nonce = frame(text), bytes(24)
    return start + nonce + sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(RAW, start, nonce, key)


def frame(header: bytes, rest: bytes = b"") -> bytes:
    return MAGIC + len(header).to_bytes(4, "little") + header + rest
