"""One conformance suite for every store, then what only one kind of store can do wrong."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from chain.kubo_server import Answer, Kubo, Query, error, ok, serving

from coterie_chain import ipfs
from coterie_chain.blobs import BlobStore, FolderBlobs, MemoryBlobs
from coterie_chain.cid import cid_of, raw_cid, write_blocks
from coterie_chain.errors import BlobCorrupt, BlobMissing, KeyFault, StoreFault
from coterie_chain.ipfs import HttpClientBlobs, KuboBlobs
from coterie_chain.stores import open_store

MIB = 1 << 20
TOKEN = "s3cret-token"
Daemon = KuboBlobs | HttpClientBlobs
DAEMONS: dict[str, type[Daemon]] = {"kubo": KuboBlobs, "ipfshttpclient": HttpClientBlobs}


@pytest.fixture
def kubo() -> Iterator[Kubo]:
    with serving(Kubo(token=TOKEN)) as served:
        yield served


@pytest.fixture(params=[KuboBlobs, HttpClientBlobs])
def daemon(request: pytest.FixtureRequest, kubo: Kubo) -> Iterator[Daemon]:
    store: Daemon = request.param(kubo.url, TOKEN, timeout=0.1)
    yield store
    store.close()


# A store, and the block that it holds under each CID: reading, replacing and removing them behind its back.
Blocks = tuple[BlobStore, Callable[[], list[str]], Callable[[str, bytes | None], None]]


@pytest.fixture(params=["memory", "folder", "kubo", "ipfshttpclient"])
def blocks(request: pytest.FixtureRequest, tmp_path: Path, kubo: Kubo) -> Iterator[Blocks]:
    held: dict[str, bytes] = kubo.blocks
    if request.param == "folder":
        yield FolderBlobs(tmp_path), lambda: [p.name for p in files(tmp_path)], lambda c, b: replace(tmp_path, c, b)
        return
    store: BlobStore
    if request.param == "memory":
        store = MemoryBlobs()
        held = store.blocks
    else:
        store = DAEMONS[request.param](kubo.url, TOKEN, timeout=0.1)

    def put(cid: str, block: bytes | None) -> None:
        if block is None:
            del held[cid]
        else:
            held[cid] = block

    yield store, lambda: list(held), put
    if isinstance(store, KuboBlobs | HttpClientBlobs):
        store.close()


@pytest.fixture
def store(blocks: Blocks) -> BlobStore:
    return blocks[0]


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def replace(folder: Path, cid: str, block: bytes | None) -> None:
    path = folder / cid[-3:-1] / cid
    if block is None:
        path.unlink()
    else:
        path.write_bytes(block)


def payload(size: int) -> bytes:
    return hashlib.shake_128(b"coterie").digest(size)


@pytest.mark.parametrize("size", [0, 1, 100_000, MIB, MIB + 1, 5 * MIB])
def test_what_was_put_is_there_and_comes_back(store: BlobStore, size: int) -> None:
    data = payload(size)
    assert not store.has(cid_of(data))
    cid = store.put(data)
    assert cid == cid_of(data)
    assert store.has(cid)
    assert store.get(cid) == data
    assert store.get(cid, max_bytes=size) == data


def test_putting_twice_is_putting_once(blocks: Blocks) -> None:
    store, held, _ = blocks
    assert store.put(payload(1000)) == store.put(payload(1000))
    assert held() == [cid_of(payload(1000))]


@pytest.mark.parametrize("size", [1000, 2 * MIB])
def test_damage_in_any_block_is_named_and_never_retried(blocks: Blocks, size: int) -> None:
    store, held, put = blocks
    data, original = payload(size), blocks_of(payload(size))
    cid = store.put(data)
    assert sorted(held()) == sorted(original)
    for name, block in original.items():
        for bad in (bytes([block[0] ^ 1]) + block[1:], block[:-1], b"", bytes(3 * MIB)):
            put(name, bad)
            with pytest.raises(BlobCorrupt, match=name) as e:
                store.get(cid)
            assert e.value.code == "CO-C202"
        put(name, block)
    assert store.get(cid) == data


@pytest.mark.parametrize("size", [1000, 2 * MIB])
def test_a_missing_block_is_missing_and_may_be_asked_for_again(blocks: Blocks, size: int) -> None:
    store, _, put = blocks
    cid = store.put(payload(size))
    for name, block in blocks_of(payload(size)).items():
        put(name, None)
        with pytest.raises(BlobMissing) as e:
            store.get(cid)
        assert e.value.code == "CO-C201"
        assert e.value.retry
        assert store.has(cid) is (name != cid)
        put(name, block)


def test_a_payload_above_the_limit_is_refused(store: BlobStore) -> None:
    cid = store.put(payload(1000))
    with pytest.raises(BlobCorrupt, match="999"):
        store.get(cid, max_bytes=999)


@pytest.mark.parametrize("text", ["../../x", "", "/etc/passwd", "bafk/../../x", "Qm" + "/" * 44, "b\x00", "?arg=x&y"])
def test_hostile_cids_never_reach_the_store(store: BlobStore, text: str) -> None:
    for ask in (store.get, store.has):
        with pytest.raises(BlobCorrupt) as e:
            ask(text)
        assert e.value.code == "CO-C203"


def test_ten_threads_write_the_same_payload(blocks: Blocks) -> None:
    store, held, _ = blocks
    data = payload(MIB + 1)
    with ThreadPoolExecutor(10) as pool:
        cids = set(pool.map(store.put, [data] * 10))
    assert cids == {cid_of(data)}
    assert len(held()) == 3
    assert store.get(cid_of(data)) == data


def blocks_of(data: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    write_blocks(data, found.__setitem__)
    return found


# The folder


WRITER = """
import sys
from coterie_chain.blobs import FolderBlobs
store = FolderBlobs(sys.argv[1])
for n in range(40):
    store.put(bytes([n]) * 50_000)
"""


def test_ten_processes_write_the_same_blocks(tmp_path: Path) -> None:
    path = os.pathsep.join(p for p in sys.path if p)
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) for _ in range(10)]
    assert [w.wait(60) for w in writers] == [0] * 10
    assert [p.name for p in files(tmp_path)] == sorted_names(bytes([n]) * 50_000 for n in range(40))


def sorted_names(payloads: Iterator[bytes]) -> list[str]:
    names = [raw_cid(p) for p in payloads]
    return sorted(names, key=lambda name: (name[-3:-1], name))


def test_what_a_crashed_writer_left_is_harmless(tmp_path: Path) -> None:
    store = FolderBlobs(tmp_path)
    cid = store.put(b"hello world")
    (tmp_path / cid[-3:-1] / ".0123456789abcdef.part").write_bytes(b"hel")
    assert store.get(cid) == b"hello world"
    assert store.put(b"hello world") == cid


def test_a_damaged_block_is_healed_by_the_next_put(tmp_path: Path) -> None:
    store = FolderBlobs(tmp_path)
    cid = store.put(b"hello world")
    replace(tmp_path, cid, b"Hello world")
    store.put(b"hello world")
    assert store.get(cid) == b"hello world"


def test_all_spellings_of_a_cid_name_one_file(tmp_path: Path) -> None:
    store = FolderBlobs(tmp_path)
    store.put(b"hello world")
    assert store.get("zb2rhj7crUKTQYRGCRATFaQ6YFLTde2YzdqbbhAASkL9uRDXn") == b"hello world"


def test_other_sites_may_read_the_blocks(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        FolderBlobs(tmp_path).put(b"hello world")
    finally:
        os.umask(before)
    assert [p.stat().st_mode & 0o777 for p in files(tmp_path)] == [0o644]


def test_links_and_pipes_in_a_shared_folder_are_not_followed(tmp_path: Path) -> None:
    store = FolderBlobs(tmp_path / "store")
    cid = store.put(b"hello world")
    path = tmp_path / "store" / cid[-3:-1] / cid
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreFault):
        store.get(cid)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BlobCorrupt):
        store.get(cid)
    store.put(b"hello world")
    assert store.get(cid) == b"hello world"


def test_a_full_disk_is_said_in_words_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreFault, match="No space left on device") as e:
        FolderBlobs(tmp_path).put(b"hello world")
    assert e.value.code == "CO-C204"
    assert not e.value.retry
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFault, match="file"):
        FolderBlobs(tmp_path / "file" / "store")


@pytest.mark.skipif(os.getuid() == 0, reason="cannot run here: root may read everything")
def test_a_block_that_may_not_be_read_is_said_in_words(tmp_path: Path) -> None:
    store = FolderBlobs(tmp_path)
    cid = store.put(b"hello world")
    files(tmp_path)[0].chmod(0)
    with pytest.raises(StoreFault, match="Permission denied"):
        store.get(cid)


# The daemon


def test_small_payloads_are_pinned_as_they_are_put_and_large_ones_by_their_root(kubo: Kubo, daemon: Daemon) -> None:
    small, large = daemon.put(payload(10)), daemon.put(payload(2 * MIB))
    assert kubo.pins == {small, large}
    assert [command for command, _ in kubo.seen] == ["block/put"] * 4 + ["pin/add"]


def test_unpinning_twice_is_unpinning_once(kubo: Kubo, daemon: Daemon) -> None:
    cid = daemon.put(payload(10))
    daemon.unpin(cid)
    daemon.unpin(cid)
    assert kubo.pins == set()
    daemon.pin(cid)
    assert kubo.pins == {cid}


def test_pinning_what_is_not_there_says_so(daemon: Daemon) -> None:
    with pytest.raises(BlobMissing):
        daemon.pin(cid_of(b"nowhere"))


def test_the_daemon_reports_its_version(daemon: Daemon) -> None:
    assert daemon.version() == "0.43.1"


def test_has_does_not_ask_the_swarm(kubo: Kubo, daemon: Daemon) -> None:
    assert not daemon.has(cid_of(b"nowhere"))
    assert kubo.seen[-1][0] == "block/stat"
    assert kubo.seen[-1][1]["offline"] == "true"


@pytest.mark.parametrize("token", ["wrong", None])
@pytest.mark.parametrize("kind", [KuboBlobs, HttpClientBlobs])
def test_a_wrong_token_is_my_fault_and_stays_secret(kubo: Kubo, kind: type[Daemon], token: str | None) -> None:
    store = kind(kubo.url, token)
    for ask in (lambda: store.put(b"x"), lambda: store.get(cid_of(b"x")), lambda: store.has(cid_of(b"x"))):
        with pytest.raises(StoreFault, match="AllowedPaths") as e:
            ask()
        assert e.value.code == "CO-C207"
        assert "wrong" not in str(e.value)
    store.close()


@pytest.mark.parametrize("token", ["", "two words", "line\n", "\u00fc"])
def test_a_token_that_no_header_can_carry_is_refused(token: str) -> None:
    with pytest.raises(StoreFault) as e:
        KuboBlobs("http://127.0.0.1:1", token)
    assert not token or token not in str(e.value)


@pytest.mark.parametrize("kind", [KuboBlobs, HttpClientBlobs])
def test_a_daemon_that_is_down_is_named_and_retried(kind: type[Daemon]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    store = kind(url, TOKEN)
    for ask in (lambda: store.put(b"x"), lambda: store.get(cid_of(b"x")), lambda: store.has(cid_of(b"x"))):
        with pytest.raises(BlobMissing, match=url) as e:
            ask()
        assert e.value.code == "CO-C206"
        assert e.value.retry
        assert TOKEN not in str(e.value)


@pytest.mark.parametrize("kind", [KuboBlobs, HttpClientBlobs])
def test_a_daemon_that_says_nothing_is_retried(kind: type[Daemon], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipfs, "GRACE", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        store = kind(f"http://127.0.0.1:{silent.getsockname()[1]}", TOKEN, timeout=0.1)
        with pytest.raises(BlobMissing) as e:
            store.get(cid_of(b"x"))
        store.close()
    assert e.value.code == "CO-C205"


@pytest.mark.parametrize("kind", [KuboBlobs, HttpClientBlobs])
def test_a_daemon_that_drips_is_given_up(kind: type[Daemon], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipfs, "GRACE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        drip = threading.Thread(target=drips, args=(server,))
        drip.start()
        store = kind(f"http://127.0.0.1:{server.getsockname()[1]}", TOKEN, timeout=0.2)
        with pytest.raises(BlobMissing) as e:
            store.get(cid_of(b"x"))
        store.close()
        drip.join()
    assert e.value.code == "CO-C205"


def drips(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            try:
                connection.sendall(b"1\r\nx\r\n")
            except OSError:
                return
            threading.Event().wait(0.05)


@pytest.mark.parametrize("kind", [KuboBlobs, HttpClientBlobs])
def test_an_answer_that_breaks_off_is_retried(kind: type[Daemon]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        half = threading.Thread(target=breaks_off, args=(server,))
        half.start()
        store = kind(f"http://127.0.0.1:{server.getsockname()[1]}", TOKEN, timeout=2)
        with pytest.raises(BlobMissing) as e:
            store.get(cid_of(b"x"))
        store.close()
        half.join()
    assert e.value.code == "CO-C206"


def breaks_off(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe")


def lying(answers: dict[str, Answer]) -> Callable[[str, Query], Answer | None]:
    return lambda command, query: answers.get(command)


OTHER = cid_of(b"something else")
BAD_KEYS = [
    ok({"Key": OTHER, "Size": 1}),
    ok({"Size": 1}),
    ok({"Key": 7}),
    ok([1]),
]


@pytest.mark.parametrize("answer", BAD_KEYS)
def test_a_daemon_that_answers_with_another_cid_is_caught(kubo: Kubo, daemon: Daemon, answer: Answer) -> None:
    kubo.lie = lying({"block/put": answer, "block/stat": answer})
    for ask in (lambda: daemon.put(b"x"), lambda: daemon.has(cid_of(b"x"))):
        with pytest.raises(BlobCorrupt) as e:
            ask()
        assert e.value.code == "CO-C209"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 500, b"{}{}", b"\xff"])
@pytest.mark.parametrize("status", [200, 301, 404, 500])
def test_an_answer_that_is_not_kubos_is_never_a_crash(kubo: Kubo, daemon: Daemon, status: int, body: bytes) -> None:
    kubo.lie = lambda command, query: (status, body)
    for ask in (lambda: daemon.put(b"x"), lambda: daemon.has(cid_of(b"x")), lambda: daemon.get(cid_of(b"x"))):
        with pytest.raises((BlobCorrupt, StoreFault)) as e:
            ask()
        assert len(str(e.value)) < 500


def test_an_endless_answer_is_cut(kubo: Kubo, daemon: Daemon) -> None:
    kubo.lie = lying({"block/get": (200, bytes(50 * MIB))})
    with pytest.raises(BlobCorrupt, match=str(2 * MIB + 1)):
        daemon.get(cid_of(b"x"))


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_daemon_behind_a_busy_proxy_is_retried(kubo: Kubo, daemon: Daemon, status: int) -> None:
    kubo.lie = lambda command, query: (status, b"busy")
    with pytest.raises(BlobMissing) as e:
        daemon.put(b"x")
    assert e.value.code == "CO-C206"
    with pytest.raises(BlobMissing):
        daemon.has(cid_of(b"x"))


def test_a_daemon_that_cannot_store_says_why(kubo: Kubo, daemon: Daemon) -> None:
    kubo.lie = lying({"block/put": error("write /data/ipfs: no space left on device\x1b[2J")})
    with pytest.raises(StoreFault, match="no space left on device") as e:
        daemon.put(b"x")
    assert "\x1b" not in str(e.value)


def test_the_environments_proxy_and_netrc_see_nothing(
    kubo: Kubo, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert daemon.get(daemon.put(b"x")) == b"x"


def test_a_store_that_nobody_closes_leaves_no_open_socket(kubo: Kubo) -> None:
    # An unclosed socket is a ResourceWarning, which this suite turns into a failure.
    for kind in (KuboBlobs, HttpClientBlobs):
        kind(kubo.url, TOKEN).put(b"x")


def test_the_optional_client_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipfshttpclient", None)
    with pytest.raises(StoreFault, match="pip install") as e:
        HttpClientBlobs("http://127.0.0.1:1")
    assert e.value.code == "CO-C211"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:5001", "/ip4/127.0.0.1/tcp/5001/http"),
        ("http://[::1]:5001", "/ip6/::1/tcp/5001/http"),
        ("https://kubo.example", "/dns/kubo.example/tcp/443/https"),
    ],
)
def test_a_url_becomes_a_multiaddr(url: str, expected: str) -> None:
    assert ipfs._multiaddr(url) == expected


# Addresses


def token_file(folder: Path, mode: int = 0o600) -> Path:
    path = folder / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("kind", ["kubo", "ipfshttpclient"])
def test_a_daemons_address_names_its_token_file(kubo: Kubo, tmp_path: Path, kind: str) -> None:
    store = open_store(f"{kind}+{kubo.url}?token_file={token_file(tmp_path)}")
    assert isinstance(store, DAEMONS[kind])
    assert store.get(store.put(b"x")) == b"x"
    store.close()


def test_a_token_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFault, match="chmod 600"):
        open_store(f"kubo+http://127.0.0.1:5001?token_file={token_file(tmp_path, 0o640)}")


def test_addresses_of_folders_and_memory(tmp_path: Path) -> None:
    assert isinstance(open_store("memory:"), MemoryBlobs)
    for url in (f"folder:{tmp_path}/a b", f"file://{tmp_path}/a%20b", f"file:{tmp_path}/a%20b"):
        store = open_store(url)
        assert isinstance(store, FolderBlobs)
        assert store.path == tmp_path / "a b"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "folder:",
        "file://other-host/share",
        "http://127.0.0.1:5001",
        "kubo+http://",
        "kubo+http://host:port",
        "kubo+http://host:99999",
        "kubo+http://host/api/v0",
        "kubo+http://host?token=hunter2",
        "kubo+http://user:hunter2@host:5001",
        "kubo+ftp://host",
        "kubo+http://[::1",
        "ipfs://hunter2",
        "memory:x",
    ],
)
def test_an_address_that_names_no_store_is_refused_without_repeating_secrets(url: str) -> None:
    with pytest.raises(StoreFault) as e:
        open_store(url)
    assert e.value.code == "CO-C210"
    assert "hunter2" not in str(e.value)
