"""CIDs: vectors from other implementations, hostile text, hostile blocks.

CIDs of `pattern(n)` come from npm ipfs-unixfs-importer 17 (CID version 1, raw leaves, chunks of 1 MiB, 174 links a
node); the CIDv0 comes from Kubo 0.22 (256 KiB chunks, leaves in dag-pb).
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coterie_chain.errors import BlobCorrupt
from coterie_chain.store.cid import (
    DAG_PB,
    FANOUT,
    MAX_BLOCK,
    RAW,
    Cid,
    compute_cid,
    compute_raw_cid,
    count_blocks,
    parse_cid,
    read_blocks,
    write_blocks,
)

_MIB = 1 << 20
HELLO = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
VECTORS = {
    0: "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    1: "bafkreidogqfzz75tpkmjzjke425xqcrmpcib2p5tg44hnbirumdbpl5adu",
    100_000: "bafkreibwexskorris6wmaauroiczefjzruyvrol2fbygjvw3g5kir4khlu",
    _MIB: "bafkreihjrrdhqgw4umob7b7odphyp75vdodiuq5ni46lygqsjbwk7g363e",
    _MIB + 1: "bafybeialftuo5rdgrn5lmno5wlt2dyh5nbhvd7ztiaii4dk3bluovpjrgy",
    5 * _MIB: "bafybeifhib3zxqjfwglqmkkx4mkvk5wdwg2iynvbsswlxnpdtw2xqf6wsa",
    175 * _MIB + 3: "bafybeifpronsxindeqyhdl5uv5534pecfratoxl3w7dmauaf7xfdmsykde",
}
V0 = "Qmf5S8JCEUSRGf9EvC7y4ARoZSwcJfwwUxE72We8t8ARzf"
PERIOD = bytes((i * 31 + (i >> 8) * 7) & 0xFF for i in range(1 << 16))


def build_pattern(size: int) -> bytes:
    return (PERIOD * (size // len(PERIOD) + 1))[:size]


@pytest.mark.parametrize(("size", "expected"), VECTORS.items())
def test_cids_equal_those_of_the_js_importer(size: int, expected: str) -> None:
    assert compute_cid(build_pattern(size)) == expected


def test_a_payload_of_one_mebibyte_is_one_raw_block_named_by_its_sha256() -> None:
    for data in (b"", b"hello world", build_pattern(_MIB)):
        cid = parse_cid(compute_cid(data))
        assert (cid.version, cid.codec, cid.digest) == (1, RAW, hashlib.sha256(data).digest())
        assert str(cid) == compute_raw_cid(data)
    assert compute_raw_cid(b"hello world") == HELLO


@pytest.mark.parametrize("size", [0, 100_000, _MIB, _MIB + 1, 5 * _MIB, (FANOUT + 1) * _MIB])
def test_what_was_written_reads_back(size: int) -> None:
    blocks: dict[str, bytes] = {}
    data = build_pattern(size)
    cid = write_blocks(data, blocks.__setitem__)
    assert next(reversed(blocks)) == cid
    assert read_blocks(cid, blocks.__getitem__, size) == data


def test_reads_a_version_0_dag_with_data_inside_dag_pb_leaves() -> None:
    data = bytes(range(256)) * 4096 * 3
    root, blocks = write_version_0(data)
    assert root == V0
    assert read_blocks(V0, blocks.__getitem__, len(data)) == data


@pytest.mark.parametrize("text", [HELLO, V0, VECTORS[_MIB + 1]])
def test_a_cid_keeps_its_spelling(text: str) -> None:
    assert str(parse_cid(text)) == text


@pytest.mark.parametrize(
    ("base58", "base32"),
    [
        ("zb2rhj7crUKTQYRGCRATFaQ6YFLTde2YzdqbbhAASkL9uRDXn", HELLO),
        ("zdj7WWBXHKp5NqD2nCifzy69EW4CwpSEXLn2K241ZfQFLdbr5", VECTORS[_MIB + 1]),
    ],
)
def test_base58_and_base32_name_the_same_block(base58: str, base32: str) -> None:
    # Spellings by npm multiformats.
    assert parse_cid(base58) == parse_cid(base32)


HOSTILE = [
    "",
    "b",
    "z",
    "Qm",
    "../../x",
    "/ipfs/" + HELLO,
    HELLO + "/../x",
    HELLO.upper(),
    HELLO + "=",
    HELLO[:-1],
    HELLO + "a",
    " " + HELLO,
    HELLO + "\n",
    HELLO[:-1] + "f",  # unused bits set: decodes to the same bytes
    "z1" + "1" * 40,
    "Q" * 46,
    "Qm" + "0" * 44,
    V0[:-1] + "l",
    "z" + V0,
    "b" * 100_000,
    "z" * 100_000,
    "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",  # dag-cbor
    "bafkrgqfk",
    "\ud800",
    "b\u0130\ufb01",
    "\x00",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_refused_with_a_code(text: str) -> None:
    with pytest.raises(BlobCorrupt) as e:
        parse_cid(text)
    assert e.value.code == "CO-C203"
    assert len(str(e.value)) < 400


CID_LETTERS = st.text("abcdefghijklmnopqrstuvwxyz234567QmzZ1=./", max_size=70)


@given(st.text(max_size=70) | CID_LETTERS | CID_LETTERS.map("b".__add__) | CID_LETTERS.map("z".__add__))
@example(HELLO)
@settings(max_examples=60)
def test_any_text_is_a_canonical_cid_or_refused(text: str) -> None:
    with suppress(BlobCorrupt):
        assert text[:1] == "z" or str(parse_cid(text)) == text


@given(st.sampled_from([(0, DAG_PB), (1, RAW), (1, DAG_PB)]), st.binary(min_size=32, max_size=32))
def test_every_cid_survives_its_text(kind: tuple[int, int], digest: bytes) -> None:
    cid = Cid(*kind, digest)
    assert parse_cid(str(cid)) == cid


@pytest.mark.parametrize("args", [(1, 0x71, bytes(32)), (0, RAW, bytes(32)), (2, RAW, bytes(32)), (1, RAW, b"short")])
def test_a_cid_of_another_kind_cannot_be_made(args: tuple[int, int, bytes]) -> None:
    with pytest.raises(BlobCorrupt, match="No CID of this system"):
        Cid(*args)


def store_pattern(size: int) -> tuple[str, dict[str, bytes]]:
    blocks: dict[str, bytes] = {}
    return write_blocks(build_pattern(size), blocks.__setitem__), blocks


@pytest.mark.parametrize("size", [1000, 3 * _MIB])
def test_a_flipped_byte_in_any_block_is_found_and_the_block_named(size: int) -> None:
    root, blocks = store_pattern(size)
    for name, block in blocks.items():
        bad = blocks | {name: block[:-1] + bytes([block[-1] ^ 1])}
        expect_corrupt(root, bad, size, name)
        expect_corrupt(root, blocks | {name: block[:-1]}, size, name)
        expect_corrupt(root, blocks | {name: b""}, size, name)


def test_a_payload_larger_than_recorded_is_refused() -> None:
    root, blocks = store_pattern(3 * _MIB)
    expect_corrupt(root, blocks, 3 * _MIB - 1)
    root, blocks = store_pattern(10)
    expect_corrupt(root, blocks, 9)


def test_a_block_larger_than_a_block_may_be_is_refused() -> None:
    data = bytes(MAX_BLOCK + 1)
    expect_corrupt(compute_raw_cid(data), {compute_raw_cid(data): data}, len(data))


def test_a_dag_that_blows_up_is_refused_early() -> None:
    # 30 levels of 100 links to the level below: 100**30 bytes for a few kilobytes of blocks.
    blocks = {compute_raw_cid(b"x"): b"x"}
    below = Cid(1, RAW, hashlib.sha256(b"x").digest())
    for _ in range(30):
        below = add_node(blocks, [below] * 100)
    asked: list[str] = []

    def get(name: str) -> bytes:
        asked.append(name)
        return blocks[name]

    with pytest.raises(BlobCorrupt, match="deeper"):
        read_blocks(str(below), get, 1 << 28)
    assert len(asked) < 20


def test_a_dag_of_countless_empty_blocks_is_refused() -> None:
    blocks = {compute_raw_cid(b""): b""}
    empty = Cid(1, RAW, hashlib.sha256(b"").digest())
    root = add_node(blocks, [add_node(blocks, [empty] * 10_000)] * 2)
    expect_corrupt(str(root), blocks, 1 << 28)


BAD_NODES = {
    "no data": b"",
    "directory": b"\x0a\x02\x08\x01",
    "no type": b"\x0a\x02\x18\x00",
    "two types": b"\x0a\x04\x08\x02\x08\x02",
    "data as a number": b"\x08\x05",
    "data twice": b"\x0a\x02\x08\x02\x0a\x02\x08\x02",
    "link as a number": b"\x10\x05\x0a\x02\x08\x02",
    "link without hash": b"\x12\x02\x12\x00\x0a\x02\x08\x02",
    "link with a number for a hash": b"\x12\x02\x08\x05\x0a\x02\x08\x02",
    "link to something else": b"\x12\x05\x0a\x03abc\x0a\x02\x08\x02",
    "field cut short": b"\x0a\xff\x01",
    "number cut short": b"\x0a\x80",
    "endless number": b"\x0a" + b"\x80" * 100,
    "group": b"\x0b\x01",
    "fixed32": b"\x0d\x00\x00\x00\x00",
    "text": b"<html>not a block</html>",
}


@pytest.mark.parametrize("name", BAD_NODES)
def test_a_node_that_is_no_unixfs_file_is_refused(name: str) -> None:
    refuse_node(BAD_NODES[name])


@given(st.binary(max_size=60))
def test_arbitrary_nodes_are_read_or_refused(block: bytes) -> None:
    cid = Cid(1, DAG_PB, hashlib.sha256(block).digest())

    def get(name: str) -> bytes:
        return {str(cid): block}[name]

    with suppress(BlobCorrupt):
        read_blocks(str(cid), get, 1000)


def refuse_node(block: bytes) -> None:
    name = str(Cid(1, DAG_PB, hashlib.sha256(block).digest()))
    expect_corrupt(name, {name: block}, 1000, name)


def expect_corrupt(root: str, blocks: dict[str, bytes], max_bytes: int, name: str = "") -> None:
    with pytest.raises(BlobCorrupt) as e:
        read_blocks(root, blocks.__getitem__, max_bytes)
    assert e.value.code == "CO-C202"
    assert not e.value.retry
    assert name in str(e.value)


def add_node(blocks: dict[str, bytes], links: list[Cid]) -> Cid:
    part = b"".join(b"\x12\x26\x0a\x24" + bytes(link) for link in links)
    block = part + b"\x0a\x02\x08\x02"
    cid = Cid(1, DAG_PB, hashlib.sha256(block).digest())
    blocks[str(cid)] = block
    return cid


def write_version_0(data: bytes) -> tuple[str, dict[str, bytes]]:
    """As `ipfs add` did by default for years: 256 KiB in dag-pb leaves, names in base58."""
    blocks: dict[str, bytes] = {}
    size, links, sizes = 1 << 18, b"", b""
    for at in range(0, len(data), size):
        part = data[at : at + size]
        inner = b"\x08\x02\x12" + encode_varint(len(part)) + part + b"\x18" + encode_varint(len(part))
        block = b"\x0a" + encode_varint(len(inner)) + inner
        cid = Cid(0, DAG_PB, hashlib.sha256(block).digest())
        blocks[str(cid)] = block
        link = b"\x0a\x22" + bytes(cid) + b"\x12\x00\x18" + encode_varint(len(block))
        links += b"\x12" + encode_varint(len(link)) + link
        sizes += b"\x20" + encode_varint(len(part))
    inner = b"\x08\x02\x18" + encode_varint(len(data)) + sizes
    root = links + b"\x0a" + encode_varint(len(inner)) + inner
    cid = Cid(0, DAG_PB, hashlib.sha256(root).digest())
    blocks[str(cid)] = root
    return str(cid), blocks


def encode_varint(value: int) -> bytes:
    head = []
    while value > 0x7F:
        head.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*head, value])


@pytest.mark.parametrize("size", [1, 1 << 18, _MIB, 3 * _MIB])
def test_a_payload_in_more_blocks_than_its_bytes_need_is_refused_after_so_many(size: int) -> None:
    """Its site serves each block, and could let a reader wait for each of thousands."""
    blocks = {compute_raw_cid(b"x"): b"x"}
    leaf = parse_cid(compute_raw_cid(b"x"))
    root = add_node(blocks, [add_node(blocks, [leaf] * 60)] * 60)
    asked: list[str] = []

    def get(name: str) -> bytes:
        asked.append(name)
        return blocks[name]

    with pytest.raises(BlobCorrupt, match=f"the {count_blocks(size)} blocks that {size} bytes need"):
        read_blocks(str(root), get, size)
    assert len(asked) <= count_blocks(size)


@pytest.mark.parametrize("size", [0, 1, _MIB, _MIB + 1, 5 * _MIB])
def test_no_payload_of_ours_has_more_blocks_than_are_read(size: int) -> None:
    blocks: dict[str, bytes] = {}
    write_blocks(bytes(size), lambda cid, block: blocks.__setitem__(f"{len(blocks)} {cid}", block))
    assert len(blocks) <= count_blocks(size)
