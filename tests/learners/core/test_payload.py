"""Payloads from friends come back as they were; payloads from enemies end in a ProtocolError and nothing else."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from support.lanes import later

from coterie_learners.core import payload as pay
from coterie_learners.core.payload import DEFLATE, SHUFFLE_ZSTD, STORED, Field, Payload, Schema, Stamp
from coterie_learners.errors import ProtocolError

STAMP = Stamp("ab" * 32, "stats/0", "north", 0)
CODECS = (STORED, DEFLATE, SHUFFLE_ZSTD)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.\-]{0,20}", fullmatch=True)
values = st.one_of(
    [
        arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
        for dtype in ("<f8", ">f8", "<f4", "<i8", ">i4", "|i1", "<u8", "<u2", "|u1", "|b1", "|S5")
    ]
)
payloads = st.dictionaries(names, values, max_size=5)


def raw(listed: Any, body: bytes = b"", stamp: Any = ("s", "t", "x", 0), **more: Any) -> bytes:
    """Canonical-looking bytes with any header."""
    text = json.dumps({"arrays": listed, "stamp": stamp, **more}, sort_keys=True, separators=(",", ":")).encode()
    return with_header(text, body)


def with_header(text: bytes, body: bytes = b"") -> bytes:
    head = len(text).to_bytes(4, "little") + text
    return head + bytes(-len(head) % 8) + body


def refusal(code: str, blob: Callable[[], Any]) -> str:
    with pytest.raises(ProtocolError) as caught:
        blob()
    assert caught.value.code == code
    return caught.value.message


def are_equal(a: Payload, b: Payload) -> bool:
    """Equal names, shapes and values; NaN equals NaN, types may have become wider."""
    return a.keys() == b.keys() and all(
        a[k].shape == b[k].shape and np.array_equal(a[k], b[k], equal_nan=a[k].dtype.kind == "f") for k in a
    )


# Canonical bytes


@given(payloads)
@settings(deadline=None)
def test_any_payload_comes_back_from_every_codec(payload: Payload) -> None:
    raw = pay.encode(STAMP, payload)
    for codec in CODECS:
        stamp, back = pay.decode(pay.unpack(pay.pack(raw, codec)))
        assert stamp == STAMP
        assert are_equal(back, payload)
        assert pay.canonical(back) == pay.canonical(payload)


@given(payloads)
@settings(deadline=None)
def test_another_package_packs_to_the_same_bytes(payload: Payload) -> None:
    """Releases until 0.2.0 pack with `zstandard`: a site of one and a site of another post equal blobs."""
    raw = pay.encode(STAMP, payload)
    frame = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(pay._shuffle(raw))
    assert pay.pack(raw, SHUFFLE_ZSTD)[13:] == frame


@pytest.mark.parametrize("rows", [0, 1, 17_000, later(1 << 21)[0]])
def test_large_arrays_have_the_same_bytes_as_well(rows: int) -> None:
    rng = np.random.default_rng(rows)
    columns = {"a": rng.normal(size=rows), "b": rng.integers(0, 9, rows), "c": np.zeros(rows)}
    raw = pay.encode(STAMP, {**columns, "d": np.round(columns["a"], 2)})
    packed = pay.pack(raw, SHUFFLE_ZSTD)
    shuffled = pay._shuffle(raw)
    assert packed[13:] == zstandard.ZstdCompressor(level=1, write_content_size=False).compress(shuffled)
    # A frame of the other package, which may have its size and a sum of checks, is read too.
    other = zstandard.ZstdCompressor(level=19 if rows < 1 << 20 else 3, write_checksum=True).compress(shuffled)
    assert pay.unpack(packed) == pay.unpack(packed[:13] + other) == raw


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame[:-1],
        lambda frame: frame + b"\0",
        lambda frame: frame + frame,
        lambda frame: frame + zstandard.compress(b""),
        lambda frame: frame + b"\x50\x2a\x4d\x18" + bytes(4),
        lambda frame: b"",
    ],
    ids=["cut", "extended", "twice", "an empty frame behind it", "a frame to skip behind it", "nothing"],
)
def test_a_payload_is_one_whole_frame(change: Callable[[bytes], bytes]) -> None:
    packed = pay.pack(pay.encode(STAMP, {"a": np.arange(9.0)}), SHUFFLE_ZSTD)
    blob = packed[:13] + change(packed[13:])
    assert "cut, or bytes follow" in refusal("CO-P103", lambda: pay.unpack(blob))


def test_two_frames_are_refused_even_where_their_lengths_add_up() -> None:
    packed = pay.pack(pay.encode(STAMP, {"a": np.arange(9.0)}), SHUFFLE_ZSTD)
    shuffled = pay._shuffle(pay.unpack(packed))
    frames = zstandard.compress(shuffled[:40]) + zstandard.compress(shuffled[40:])
    refusal("CO-P103", lambda: pay.unpack(packed[:13] + frames))


@given(payloads, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_equal_values_give_equal_bytes_in_any_order_layout_and_byte_order(payload: Payload, random: Any) -> None:
    shuffled = list(payload)
    random.shuffle(shuffled)
    other = {k: payload[k].astype(payload[k].dtype.newbyteorder(), order="F") for k in shuffled}
    assert pay.encode(STAMP, other) == pay.encode(STAMP, payload)


def test_the_bytes_are_those_that_the_docstring_promises() -> None:
    payload = {"b": np.array([1, 2, 3], np.uint8), "a": 1.5}
    header = b'{"arrays":[["a","<f8",[]],["b","|u1",[3]]]}'
    want = (43).to_bytes(4, "little") + header + bytes(1) + b"\0\0\0\0\0\0\xf8\x3f" + b"\1\2\3\0\0\0\0\0"
    assert pay.canonical(payload) == want


def test_minus_zero_is_written_as_zero() -> None:
    assert pay.canonical({"a": -0.0}) == pay.canonical({"a": 0.0})
    assert pay.canonical({"a": np.array([-0.0, 1.0])}) == pay.canonical({"a": np.array([0.0, 1.0])})


@pytest.mark.parametrize(
    ("given_type", "written"),
    [
        ("<i2", "<i8"),
        (">i8", "<i8"),
        ("|i1", "<i8"),
        ("<u2", "<i8"),
        (">u4", "<i8"),
        ("|u1", "|u1"),
        (">u8", "<u8"),
        ("<f4", "<f8"),
        (">f8", "<f8"),
        ("|b1", "|b1"),
        ("|S3", "|S3"),
    ],
)
def test_each_kind_of_number_is_written_in_one_width(given_type: str, written: str) -> None:
    _, back = pay.decode(pay.encode(STAMP, {"a": np.ones(2).astype(given_type)}))
    assert back["a"].dtype.str == written


def test_python_numbers_are_arrays_without_dimensions() -> None:
    _, back = pay.decode(pay.encode(STAMP, {"a": 1.5, "b": 3, "c": True}))
    assert {k: (v.dtype.str, v.shape, v.item()) for k, v in back.items()} == {
        "a": ("<f8", (), 1.5),
        "b": ("<i8", (), 3),
        "c": ("|b1", (), True),
    }


def test_numbers_of_a_stamp_and_of_an_array_are_bound_to_each_other() -> None:
    payload = {"a": np.arange(3.0)}
    others = [
        Stamp("cd" * 32, "stats/0", "north", 0),
        Stamp("ab" * 32, "stats/1", "north", 0),
        Stamp("ab" * 32, "stats/0", "south", 0),
        Stamp("ab" * 32, "stats/0", "north", 1),
    ]
    assert len({pay.encode(stamp, payload) for stamp in [STAMP, *others]}) == 5


@pytest.mark.parametrize(
    "value",
    [
        np.ones(2, complex),
        np.array([object()]),
        np.array(["text"]),
        np.array(["2020-01-01"], "M8[D]"),
        np.zeros(2, "V4"),
    ],
)
def test_what_is_no_number_cannot_be_written(value: Any) -> None:
    refusal("CO-P104", lambda: pay.canonical({"a": value}))


@pytest.mark.parametrize("name", ["", "1a", "a b", "a/b", "a\n", "é", "x" * 65])
def test_names_that_could_mean_something_elsewhere_cannot_be_written(name: str) -> None:
    refusal("CO-P104", lambda: pay.canonical({name: 1.0}))


# P1, P2: flipped bits, cut and added bytes


def decode_flipped(codec: int) -> list[tuple[Stamp, bytes]]:
    """What each flipped bit of a small payload decodes to, where it decodes at all."""
    blob, found = pay.pack(pay.encode(STAMP, SMALL), codec), []
    for at in range(8 * len(blob)):
        bad = bytearray(blob)
        bad[at // 8] ^= 1 << at % 8
        try:
            stamp, other = pay.decode(pay.unpack(bytes(bad)))
        except ProtocolError:
            continue
        found.append((stamp, pay.canonical(other)))
    return found


SMALL = {"a": np.linspace(0, 1, 20), "b": np.arange(5), "c": np.array([True, False])}


def test_a_flipped_bit_of_a_stored_payload_is_refused_or_changes_what_it_says() -> None:
    """The record's SHA-256 finds all flips (test_letters); the reader of the bytes must survive them."""
    found = decode_flipped(STORED)
    assert (STAMP, pay.canonical(SMALL)) not in found
    assert len(set(found)) == len(found)


def test_a_flipped_bit_of_a_compressed_payload_never_crashes_and_deflate_finds_it_alone() -> None:
    assert set(decode_flipped(DEFLATE)) <= {(STAMP, pay.canonical(SMALL))}
    decode_flipped(SHUFFLE_ZSTD)  # anything but a ProtocolError would come out here


@pytest.mark.parametrize("codec", CODECS)
def test_a_cut_or_extended_payload_is_refused(codec: int) -> None:
    blob = pay.pack(pay.encode(STAMP, {"a": np.linspace(0, 1, 40)}), codec)
    for end in range(len(blob)):
        with pytest.raises(ProtocolError):
            pay.decode(pay.unpack(blob[:end]))
    for more in (b"\0", b"zz", bytes(8), blob):
        with pytest.raises(ProtocolError):
            pay.decode(pay.unpack(blob + more))


def test_bytes_behind_the_last_array_are_refused() -> None:
    packed_array = pay.encode(STAMP, {"a": np.arange(3.0)})
    refusal("CO-P105", lambda: pay.decode(packed_array + bytes(8)))
    refusal("CO-P105", lambda: pay.decode(packed_array[:-8]))


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_no_bytes_crash_the_reader(blob: bytes) -> None:
    for candidate in (blob, pay.MAGIC + blob):
        with pytest.raises(ProtocolError):
            pay.unpack(candidate)
    with pytest.raises(ProtocolError):
        pay.decode(blob)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(st.fixed_dictionaries({"arrays": json_values, "stamp": json_values}), st.binary(max_size=40))
@settings(deadline=None)
def test_no_header_crashes_the_reader(header: Any, body: bytes) -> None:
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(ProtocolError):
        pay.decode(with_header(text, body))


@given(st.lists(st.integers(min_value=0), max_size=6), st.sampled_from(["<f8", "|b1", "|S9999", "<u8"]))
@settings(deadline=None)
def test_no_shape_crashes_the_reader(shape: list[int], dtype: str) -> None:
    try:
        _, back = pay.decode(raw([["a", dtype, shape]], bytes(64)))
        assert list(back["a"].shape) == shape
    except ProtocolError:
        pass


# P3: bombs

BOMB = """
import resource, sys
from coterie_learners.core import payload as pay
from coterie_learners.errors import ProtocolError
blob = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    pay.unpack(blob)
    print("unpacked")
except ProtocolError as error:
    print(error.code, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
GIB = 1 << 30


def deflate_bomb() -> bytes:
    """A DEFLATE stream of 10 GiB of zeros: one block of 16 MiB, over and over."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\xda" + block * (10 * GIB >> 24)


def zstd_bomb() -> bytes:
    """A zstd frame of 10 GiB of zeros: blocks of 128 KiB, each "repeat this byte" (RFC 8878, section 3.1.1)."""
    size = 1 << 17
    head = b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x38"
    block = (1 << 1 | size << 3).to_bytes(3, "little") + b"\x00"
    last = (1 | 1 << 1 | size << 3).to_bytes(3, "little") + b"\x00"
    return head + block * (10 * GIB // size - 1) + last


def zstd_wide() -> bytes:
    """A tiny zstd frame that asks for a window of 1 GiB."""
    return b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([20 << 3]) + b"\x01\x00\x00"


@pytest.mark.parametrize(
    ("codec", "body", "claimed", "code"),
    [
        (DEFLATE, deflate_bomb, 10 * GIB, "CO-P102"),
        (SHUFFLE_ZSTD, zstd_bomb, 10 * GIB, "CO-P102"),
        (STORED, lambda: b"", 10 * GIB, "CO-P102"),
        (DEFLATE, deflate_bomb, 1000, "CO-P103"),
        (SHUFFLE_ZSTD, zstd_bomb, 1000, "CO-P103"),
        (SHUFFLE_ZSTD, zstd_wide, 1000, "CO-P103"),
        (SHUFFLE_ZSTD, lambda: b"", 1 << 27, "CO-P103"),
    ],
)
def test_a_bomb_of_ten_gigabytes_is_refused_in_little_memory(
    codec: int, body: Callable[[], bytes], claimed: int, code: str
) -> None:
    blob = pay.MAGIC + bytes([codec]) + claimed.to_bytes(8, "little") + body()
    done = subprocess.run([sys.executable, "-c", BOMB], input=blob, capture_output=True, check=True)
    output, megabytes = done.stdout.decode().split()
    assert output == code
    assert int(megabytes) < 32


def test_a_frame_that_asks_for_a_giant_window_is_refused_before_it_gets_it() -> None:
    blob = pay.MAGIC + bytes([SHUFFLE_ZSTD]) + (1000).to_bytes(8, "little") + zstd_wide()
    assert "too much memory" in refusal("CO-P103", lambda: pay.unpack(blob))


def test_the_bombs_would_have_worked() -> None:
    """So that the test above proves something: both streams really go on past what was claimed."""
    assert len(zlib.decompressobj().decompress(deflate_bomb(), 1 << 25)) == 1 << 25
    with zstandard.ZstdDecompressor().stream_reader(zstd_bomb()) as reader:
        assert len(reader.read(1 << 25)) == 1 << 25


# P4 to P10: wrong forms


@pytest.mark.parametrize(
    ("listed", "code"),
    [
        ([["a", ">f8", [1]]], "CO-P104"),
        ([["a", "<f4", [1]]], "CO-P104"),
        ([["a", "|O", [1]]], "CO-P104"),
        ([["a", "<c16", [1]]], "CO-P104"),
        ([["a", "|S0", [1]]], "CO-P104"),
        ([["a", "|V8", [1]]], "CO-P104"),
        ([["a", "<f8,<f8", [1]]], "CO-P104"),
        ([["a\n", "<f8", [1]]], "CO-P104"),
        ([["../a", "<f8", [1]]], "CO-P104"),
        ([["a", "<f8", [-1]]], "CO-P104"),
        ([["a", "<f8", [1.0]]], "CO-P104"),
        ([["a", "<f8", [True]]], "CO-P104"),
        ([["a", "<f8"]], "CO-P104"),
        ([["a", "<f8", 1]], "CO-P104"),
        ({"a": 1}, "CO-P104"),
        (None, "CO-P104"),
        ([["a", "<f8", [1, 1, 1, 1, 1]]], "CO-P105"),
        ([["a", "<f8", [2]]], "CO-P105"),
        ([["a", "<f8", [2**62, 2]]], "CO-P105"),
        ([["a", "<f8", [0, 2**62]]], "CO-P105"),
        ([["a", "<f8", [0, 10**30]]], "CO-P105"),
        ([["a", "<f8", [10**4000]]], "CO-P105"),
        ([["a", "|S9999", [10**9]]], "CO-P105"),
        ([["a", "<f8", [1]], ["a", "<f8", [1]]], "CO-P104"),
        ([["b", "<f8", []], ["a", "<f8", []]], "CO-P109"),
        ([[f"a{k:03}", "<f8", [0]] for k in range(300)], "CO-P104"),
    ],
)
def test_a_malformed_list_of_arrays_is_refused(listed: Any, code: str) -> None:
    bodies = bytes(16) if code == "CO-P109" or (isinstance(listed, list) and len(listed) == 2) else bytes(8)
    refusal(code, lambda: pay.decode(raw(listed, bodies)))


@pytest.mark.parametrize(
    "stamp", [None, [], ["s", "t", "x"], ["s", "t", "x", "0"], ["s", "t", 1, 0], ["s", "t", "x", True], {"s": 1}]
)
def test_a_malformed_stamp_is_refused(stamp: Any) -> None:
    refusal("CO-P104", lambda: pay.decode(raw([], stamp=stamp)))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"9" * 60_000,
        b'{"arrays":[],"stamp":["\\ud800","t","x",0]}',
    ],
)
def test_a_header_that_is_no_json_object_is_refused_however_deep(text: bytes) -> None:
    refusal("CO-P104", lambda: pay.decode(with_header(text)))


@pytest.mark.parametrize(
    "spelling",
    [
        b'{"arrays": [],"stamp":["s","t","x",0]}',
        b'{"stamp":["s","t","x",0],"arrays":[]}',
        b'{"arrays":[],"arrays":[],"stamp":["s","t","x",0]}',
        b'{"arrays":[],"more":1,"stamp":["s","t","x",0]}',
        b'{"arrays":[],"stamp":["\\u0073","t","x",0]}',
        b'{"arrays":[],"stamp":["s","t","x",-0]}',
        b'{"arrays":[],"stamp":["\xc3\xa9","t","x",0]}',
    ],
)
def test_another_spelling_of_the_same_header_is_refused(spelling: bytes) -> None:
    refusal("CO-P109", lambda: pay.decode(with_header(spelling)))


@pytest.mark.parametrize(
    ("listed", "body"),
    [
        ([["a", "<f8", []]], b"\0\0\0\0\0\0\0\x80"),  # -0.0
        ([["a", "<f8", []]], b"\1\0\0\0\0\0\xf0\x7f"),  # a signalling NaN
        ([["a", "|u1", [1]]], b"\1\1\0\0\0\0\0\0"),  # padding that is not zero
        ([["a", "|b1", [1]]], b"\2\0\0\0\0\0\0\0"),  # a boolean that is neither
    ],
)
def test_another_spelling_of_the_same_values_is_refused(listed: Any, body: bytes) -> None:
    refusal("CO-P109", lambda: pay.decode(raw(listed, body)))


def test_a_header_length_beyond_the_bytes_is_refused() -> None:
    for size in (9, 1 << 16, (1 << 16) + 1, (1 << 32) - 1):
        refusal("CO-P104", lambda size=size: pay.decode(size.to_bytes(4, "little") + b"{}"))  # type: ignore[misc]


class ReducingArray:
    def __reduce__(self) -> tuple[Any, ...]:
        return (sys.exit, (3,))


@pytest.mark.parametrize(
    "blob",
    [
        pickle.dumps({"a": np.arange(3.0)}),
        pickle.dumps(ReducingArray()),
        b"\xac\xed\x00\x05sr\x00\x05Model",
        b"CTR0" + bytes(20),
        b"CTR1\x03" + bytes(20),
        b"CTR1",
        b"",
    ],
)
def test_pickles_java_objects_and_unknown_versions_are_refused_unread(blob: bytes) -> None:
    refusal("CO-P101", lambda: pay.unpack(blob))
    for codec in CODECS:
        packed = pay.pack(blob + bytes(-len(blob) % 8), codec)
        with pytest.raises(ProtocolError):
            pay.decode(pay.unpack(packed))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.array([[0.0, np.nan]])])
def test_values_that_are_not_finite_are_refused_by_name(value: Any) -> None:
    cause = refusal("CO-P107", lambda: pay.check_finite({"fine": np.ones(2), "score": value, "n": 3}))
    assert "'score'" in cause


SCHEMA = Schema(
    {"score": Field("<f8", (3,)), "n": Field("<i8"), "notes": Field("|u1", (None, 2))}, optional=frozenset({"notes"})
)


def test_what_fits_its_schema_passes_with_and_without_the_optional_fields() -> None:
    pay.check({"score": np.ones(3), "n": 4}, SCHEMA)
    pay.check({"score": np.ones(3, np.float32), "n": np.int16(4), "notes": np.zeros((7, 2), np.uint8)}, SCHEMA)


@pytest.mark.parametrize(
    ("payload", "code", "word"),
    [
        ({"score": np.ones(3)}, "CO-P106", "'n'"),
        ({"score": np.ones(3), "n": 1, "age": 1.0}, "CO-P106", "'age'"),
        ({"score": np.ones(4), "n": 1}, "CO-P108", "(4,)"),
        ({"score": np.ones((3, 1)), "n": 1}, "CO-P108", "(3, 1)"),
        ({"score": 1.0, "n": 1}, "CO-P108", "()"),
        ({"score": np.ones(3, np.int64), "n": 1}, "CO-P108", "<i8"),
        ({"score": np.ones(3), "n": 1.0}, "CO-P108", "'n'"),
        ({"score": np.ones(3), "n": 1, "notes": np.zeros((7, 3), np.uint8)}, "CO-P108", "(7, 3)"),
    ],
)
def test_what_does_not_fit_its_schema_is_refused_with_the_field(payload: Payload, code: str, word: str) -> None:
    assert word in refusal(code, lambda: pay.check(payload, SCHEMA))


def test_the_learners_own_check_comes_after_the_form() -> None:
    checked_payloads: list[Payload] = []
    schema = Schema({"a": Field("<f8")}, check=checked_payloads.append)
    refusal("CO-P108", lambda: pay.check({"a": np.ones(2)}, schema))
    assert checked_payloads == []
    pay.check({"a": 1.0}, schema)
    assert checked_payloads == [{"a": 1.0}]
