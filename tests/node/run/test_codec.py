"""Bytes from a peer: every check, in its order, with the site and the topic in what it says."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.learners import cohorts
from support.node.worlds import keys_of

from coterie_chain.errors import BlobMissing
from coterie_chain.ledger.protocol import Post, Record
from coterie_chain.store.protocol import MemoryBlobs
from coterie_learners.core import payload as pay
from coterie_learners.core.payload import Field, Payload, Schema, Stamp
from coterie_learners.core.protocol import Sealed, Step
from coterie_learners.errors import ProtocolError
from coterie_node.errors import PayloadCorrupt
from coterie_node.run.codec import MAX_PAYLOAD_BYTES, DecodedPosts, Digests, PayloadCodec, fetch, pack

STUDY = cohorts.study()
HASH = STUDY.hash.hex()
DIRECTORY = {name: keys_of(name).sealing for name in STUDY.sites}
STAMP = Stamp(HASH, "stats/0", "north", 0)
GOOD: Payload = {"score": np.array([1.0, 2.0]), "n": np.int64(30)}


def never(*_: Any) -> Payload:
    raise AssertionError("a reader makes nothing")


def refuse_odd(payload: Payload) -> None:
    if int(payload["n"]) % 2:
        raise ProtocolError("CO-P599", f"{payload['n']} is odd.")


FORM = Schema({"score": Field("<f8", (2,)), "n": Field("<i8")}, check=refuse_odd)
STEP = Step("stats/0", "each", never, expects=FORM)
SEALED = replace(STEP, readers=("south",))


def make_codec(name: str = "south") -> PayloadCodec:
    return PayloadCodec(STUDY, name, keys_of(name) if name in STUDY.sites else None, DIRECTORY)


def record(blob: bytes, store: MemoryBlobs, **changes: Any) -> Record:
    """A record of north's over these bytes, which are put into the store."""
    post = Post(1, 0, 0, store.put(blob), hashlib.sha256(blob).digest(), len(blob), False, STUDY.hash)
    return Record("north", 5, "each", 0, replace(post, **changes), bytes(32), 9, 1_000, "")


def pack_blob(payload: Payload = GOOD, stamp: Stamp = STAMP, codec: int = pay.SHUFFLE_ZSTD) -> bytes:
    return pay.pack(pay.encode(stamp, payload), codec)


def read_error(step: Step, blob: bytes, **changes: Any) -> ProtocolError:
    store = MemoryBlobs()
    of = record(blob, store, **changes)
    with pytest.raises(ProtocolError) as caught:
        make_codec().read(step, of, store)
    assert (caught.value.site, caught.value.topic) == ("north", "stats/0")
    assert caught.value.message.startswith("north posted a bad 'stats/0' (record 5): ")
    return caught.value


# Out and in


@pytest.mark.parametrize("step", [STEP, replace(STEP, public=True), SEALED])
@pytest.mark.parametrize("compression", ["zstd", "deflate"])
def test_what_one_desk_writes_another_reads(step: Step, compression: str) -> None:
    study = STUDY.model_copy(update={"ledger": STUDY.ledger.model_copy(update={"compression": compression})})
    writer, reader = (replace(make_codec(name), study=study) for name in ("north", "south"))
    store = MemoryBlobs()
    payload = reader.read(step, record(writer.write(step, 0, GOOD), store), store)
    assert pay.canonical(payload) == pay.canonical(GOOD)


def test_a_server_post_is_stored_uncompressed_and_has_the_same_bytes_at_every_site() -> None:
    step = replace(STEP, public=True)
    blobs = {pack(STUDY, step, "north", 0, dict(order)) for order in (list(GOOD.items()), list(GOOD.items())[::-1])}
    assert blobs == {pack_blob(codec=pay.STORED)}
    assert make_codec("north").write(step, 0, GOOD) == pack_blob(codec=pay.STORED)


def test_large_payloads_of_several_blocks_come_back() -> None:
    store, big = MemoryBlobs(), {"score": np.random.default_rng(1).normal(size=400_000)}
    of = record(pack_blob(big, codec=pay.STORED), store)
    payload = make_codec().read(replace(STEP, expects=None), of, store)
    assert len(store.blocks) > 3
    np.testing.assert_array_equal(payload["score"], big["score"])


# Each check, in its order: whatever fails later fails too, and is not what is said


CHANGED_FORM: Payload = {"score": np.array([np.nan]), "more": 1.0}
FOREIGN = Stamp("00" * 32, "stats/9", "east", 7)
UNCANONICAL = pay.encode(FOREIGN, CHANGED_FORM).replace(b'"arrays":', b'"arrays" :', 1)
IN_ORDER: list[tuple[str, bytes, dict[str, Any]]] = [
    ("CO-P112", b"junk", {"size": 0, "sha256": bytes(32)}),
    ("CO-P112", b"junk", {"size": MAX_PAYLOAD_BYTES + 1, "sha256": bytes(32)}),
    ("CO-P113", b"junk", {"sha256": bytes(32)}),
    ("CO-P113", b"junk", {"size": 5}),
    ("CO-P101", b"junk", {}),
    ("CO-P101", pickle.dumps(GOOD), {}),
    ("CO-P102", pay.MAGIC + b"\x01" + (1 << 40).to_bytes(8, "little") + b"junk", {}),
    ("CO-P103", pay.MAGIC + b"\x01" + (99).to_bytes(8, "little") + b"junk", {}),
    ("CO-P104", pay.pack(b"junkjunk", pay.DEFLATE), {}),
    ("CO-P105", pay.pack(pay.encode(FOREIGN, CHANGED_FORM) + bytes(8), pay.DEFLATE), {}),
    ("CO-P110", pack_blob(CHANGED_FORM, FOREIGN), {}),
    ("CO-P107", pack_blob(CHANGED_FORM), {}),
    ("CO-P106", pack_blob({"score": np.ones(3), "more": 1.0, "n": np.int64(3)}), {}),
    ("CO-P108", pack_blob({"score": np.ones(3), "n": np.int64(3)}), {}),
    ("CO-P599", pack_blob({"score": np.ones(2), "n": np.int64(3)}), {"converged": True}),
    ("CO-P116", pack_blob(), {"converged": True}),
]


@pytest.mark.parametrize(("code", "blob", "changes"), IN_ORDER, ids=[f"{k} {e[0]}" for k, e in enumerate(IN_ORDER)])
def test_a_bad_payload_is_refused_at_the_first_check_that_fails(
    code: str, blob: bytes, changes: dict[str, Any]
) -> None:
    assert read_error(STEP, blob, **changes).code == code


@pytest.mark.parametrize(
    ("stamp", "word"),
    [
        (replace(STAMP, study="cd" * 32), "study cdcdcdcd"),
        (replace(STAMP, topic="stats/1"), "'stats/1'"),
        (replace(STAMP, site="south"), "'south'"),
        (replace(STAMP, attempt=1), "attempt 1"),
    ],
)
def test_a_payload_of_another_study_topic_site_or_attempt_is_refused(stamp: Stamp, word: str) -> None:
    error = read_error(STEP, pack_blob(stamp=stamp))
    assert error.code == "CO-P110"
    assert word in error.message
    assert f"not for 'stats/0' of 'north', attempt 0, study {HASH[:8]}" in error.message


def test_a_payload_of_an_older_attempt_does_not_pass_for_the_open_one() -> None:
    assert read_error(STEP, pack_blob(), attempt=1).code == "CO-P110"


@pytest.mark.parametrize("codec", [pay.STORED, pay.DEFLATE, pay.SHUFFLE_ZSTD])
def test_every_flipped_bit_in_the_store_is_found_and_named_with_site_and_topic(codec: int) -> None:
    blob = pack_blob(codec=codec)
    for at in range(0, 8 * len(blob), 5):
        store = MemoryBlobs()
        of = record(blob, store)
        bad = bytearray(blob)
        bad[at // 8] ^= 1 << at % 8
        store.blocks[of.post.cid] = bytes(bad)
        with pytest.raises(PayloadCorrupt) as caught:
            make_codec().read(STEP, of, store)
        assert (caught.value.site, caught.value.topic) == ("north", "stats/0")


def test_a_record_whose_digests_name_different_bytes_is_refused() -> None:
    store = MemoryBlobs()
    other_cid = store.put(pack_blob({"score": np.zeros(2), "n": np.int64(30)}))
    of = record(pack_blob(), store)
    with pytest.raises(ProtocolError) as caught:
        make_codec().read(STEP, replace(of, post=replace(of.post, cid=other_cid)), store)
    assert caught.value.code == "CO-P113"


def test_a_block_that_no_store_holds_is_a_matter_of_the_network() -> None:
    store = MemoryBlobs()
    of = record(pack_blob(), store)
    store.blocks.clear()
    with pytest.raises(BlobMissing) as caught:
        make_codec().read(STEP, of, store)
    assert caught.value.retry


def test_a_store_that_sends_more_than_the_record_declares_is_cut_off() -> None:
    store = MemoryBlobs()
    with pytest.raises(ProtocolError) as caught:  # the bytes are those of the CID: who recorded them is at fault
        fetch(replace(record(pack_blob(), store).post, size=10), store)
    assert caught.value.code == "CO-P113"


# Seals


def store_sealed() -> tuple[Record, MemoryBlobs]:
    store = MemoryBlobs()
    return record(make_codec("north").write(SEALED, 0, GOOD), store), store


@pytest.mark.parametrize("name", ["south", "north"])
def test_a_sealed_post_is_read_by_its_readers_and_by_its_poster(name: str) -> None:
    of, store = store_sealed()
    payload = make_codec(name).read(SEALED, of, store)
    assert pay.canonical(payload) == pay.canonical(GOOD)


@pytest.mark.parametrize("name", ["east", "auditor"])
def test_a_sealed_post_is_carried_unread_by_everybody_else(name: str) -> None:
    of, store = store_sealed()
    payload = make_codec(name).read(SEALED, of, store)
    assert isinstance(payload, Sealed)
    assert (payload.site, payload.topic) == ("north", "stats/0")


def test_the_bytes_of_a_sealed_post_show_neither_values_nor_names() -> None:
    of, store = store_sealed()
    blob = store.get(of.post.cid)
    assert [word for word in (b"score", b"stats/0", HASH.encode(), pay.MAGIC) if word in blob] == []
    assert make_codec("north").write(SEALED, 0, GOOD) != blob


@pytest.mark.parametrize(("step", "written"), [(STEP, SEALED), (SEALED, STEP)])
def test_a_seal_where_none_belongs_or_none_where_one_does_is_refused(step: Step, written: Step) -> None:
    store = MemoryBlobs()
    of = record(make_codec("north").write(written, 0, GOOD), store)
    for name in ("south", "auditor"):
        with pytest.raises(ProtocolError) as caught:
            make_codec(name).read(step, of, store)
        assert (caught.value.code, caught.value.site) == ("CO-P111", "north")


def attribute_to(site: str) -> Callable[[Record], Record]:
    return lambda of: replace(of, site=site)


def test_a_sealed_post_cannot_be_passed_off_as_another_sites_or_steps() -> None:
    of, store = store_sealed()
    with pytest.raises(ProtocolError) as caught:
        make_codec().read(SEALED, attribute_to("east")(of), store)
    assert (caught.value.code, caught.value.site) == ("CO-C221", "east")
    with pytest.raises(ProtocolError) as caught:
        make_codec().read(replace(SEALED, topic="stats/1"), of, store)
    assert (caught.value.code, caught.value.topic) == ("CO-C221", "stats/1")


def test_a_bad_payload_under_a_seal_is_refused_by_its_reader() -> None:
    blob = make_codec("north").seal(SEALED, pack_blob({"score": np.ones(2), "n": np.int64(3)}))
    assert read_error(SEALED, blob).code == "CO-P599"


def test_a_flipped_bit_under_a_seal_is_found() -> None:
    blob = make_codec("north").write(SEALED, 0, GOOD)
    for at in range(len(blob) - 60, len(blob), 7):
        bad = bytearray(blob)
        bad[at] ^= 1
        store = MemoryBlobs()
        of = record(bytes(bad), store)
        with pytest.raises(ProtocolError) as caught:
            make_codec().read(SEALED, of, store)
        assert (caught.value.code, caught.value.site) == ("CO-C221", of.site)


# Decoded posts that readers of one process share


def test_a_post_that_one_reader_has_decoded_is_checked_again_by_the_next() -> None:
    store, blob = MemoryBlobs(), pack_blob({"score": np.array([1.0, 2.0]), "n": np.int64(31)})
    of = record(blob, store)
    loose = replace(STEP, expects=replace(FORM, check=None))
    assert int(make_codec().read(loose, of, store)["n"]) == 31
    with pytest.raises(ProtocolError, match="31 is odd"):
        make_codec("east").read(STEP, of, store)
    with pytest.raises(ProtocolError, match="was made for"):
        make_codec("east").read(replace(loose, topic="stats/1"), of, store)
    with pytest.raises(PayloadCorrupt):
        make_codec("east").read(loose, of, damage(store))


def test_every_reader_of_one_process_refuses_another_form_and_values_that_are_not_finite() -> None:
    store, loose = MemoryBlobs(), replace(STEP, expects=replace(FORM, check=None))
    of = record(pack_blob(), store)
    other_form = replace(STEP, expects=Schema({"score": Field("<f8", (3,)), "n": Field("<i8")}))
    bad = record(pack_blob({"score": np.array([1.0, np.nan]), "n": np.int64(30)}), store)
    for name in ("south", "east"):
        assert int(make_codec(name).read(loose, of, store)["n"]) == 30
        with pytest.raises(ProtocolError) as caught:
            make_codec(name).read(other_form, of, store)
        assert caught.value.code == "CO-P108"
        with pytest.raises(ProtocolError) as caught:
            make_codec(name).read(loose, bad, store)
        assert caught.value.code == "CO-P107"


def damage(store: MemoryBlobs) -> MemoryBlobs:
    """The store with one bit turned in every block."""
    other = MemoryBlobs()
    other.blocks = {cid: bytes([block[0] ^ 1]) + block[1:] for cid, block in store.blocks.items()}
    return other


def test_no_reader_can_change_what_another_one_reads() -> None:
    store = MemoryBlobs()
    of = record(pack_blob(), store)
    first = make_codec().read(STEP, of, store)
    assert isinstance(first, dict)
    with pytest.raises(ValueError, match="read-only"):
        first["score"][0] = 9.0
    del first["score"]
    second = make_codec("east").read(STEP, of, store)
    assert isinstance(second, dict)
    assert second["score"].tolist() == [1.0, 2.0]


def test_decoded_posts_take_bounded_memory() -> None:
    posts = DecodedPosts(max_bytes=10_000)
    for k in range(50):
        posts.decode(pack_blob({"score": np.full(100, float(k))}))
        posts.decode(pack_blob({"score": np.full(5_000, float(k))}))
        assert posts.size <= 10_000
    assert posts.size > 5_000


def test_digests_of_known_objects_take_bounded_memory_and_are_those_of_the_bytes() -> None:
    digests, kept = Digests(max_bytes=1_000), []
    for k in range(300):
        blob = bytes([k % 256]) * (k + 1)
        kept.append(blob)
        for same in (blob, bytearray(blob), blob[:-1]):
            assert digests.compute(bytes(same)) == hashlib.sha256(same).digest()
        assert digests.size <= 1_000
    assert all(digests.compute(blob) == hashlib.sha256(blob).digest() for blob in kept)


def test_a_block_that_changes_after_it_was_read_is_found_by_the_next_reader() -> None:
    store = MemoryBlobs()
    of = record(pack_blob(), store)
    assert make_codec().read(STEP, of, store) == make_codec("east").read(STEP, of, store)
    block = store.blocks[of.post.cid]
    store.blocks[of.post.cid] = block[:-1] + bytes([block[-1] ^ 1])
    with pytest.raises(PayloadCorrupt):
        make_codec().read(STEP, of, store)


def test_what_one_reader_has_accepted_is_compared_by_the_next_with_its_own_study_step_record_and_store() -> None:
    store, loose = MemoryBlobs(), replace(STEP, expects=replace(FORM, check=None))
    of = record(pack_blob(), store)
    for name in ("south", "east", "east"):
        assert int(make_codec(name).read(loose, of, store)["n"]) == 30
    other_study = PayloadCodec(cohorts.study(count=5), "east", None, DIRECTORY)
    later = replace(of, post=replace(of.post, attempt=1))
    refused = [
        (other_study, loose, of, store, "CO-P110"),
        (make_codec("east"), replace(loose, topic="stats/1"), of, store, "CO-P110"),
        (make_codec("east"), loose, replace(of, site="west"), store, "CO-P110"),
        (make_codec("east"), loose, later, store, "CO-P110"),
        (make_codec("east"), loose, replace(of, post=replace(of.post, size=of.post.size + 1)), store, "CO-P113"),
        (make_codec("east"), replace(loose, readers=("south",)), of, store, "CO-P111"),
    ]
    for codec, step, post, blobs, code in refused:
        with pytest.raises(ProtocolError) as caught:
            codec.read(step, post, blobs)
        assert caught.value.code == code
    good = pay.pack(pay.encode(STAMP, {**GOOD, "converged": np.True_}), pay.STORED)
    form = Schema({**FORM.fields, "converged": Field("|b1")})
    ends = record(good, store, converged=True)
    assert make_codec().read(replace(STEP, expects=form), ends, store)["converged"]
    with pytest.raises(ProtocolError) as caught:
        make_codec("east").read(
            replace(STEP, expects=form), replace(ends, post=replace(ends.post, converged=False)), store
        )
    assert caught.value.code == "CO-P116"
    with pytest.raises(PayloadCorrupt):
        make_codec("east").read(loose, of, damage(store))
