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
from support.chain.kubo_server import Answer, KuboServer, Query, answer_error, answer_ok, serve_kubo

from coterie_chain.broker.broker_blobs import BrokerBlobs
from coterie_chain.broker.message_log import MemoryBroker
from coterie_chain.errors import BlobCorrupt, BlobMissing, BlobUnusable, KeyFault, StoreFault
from coterie_chain.store import kubo as kubo_store
from coterie_chain.store.cid import compute_cid, compute_raw_cid, write_blocks
from coterie_chain.store.kubo import HttpClientBlobs, KuboBlobs
from coterie_chain.store.protocol import BlobStore, FolderBlobs, MemoryBlobs
from coterie_chain.store.urls import open_store

_MIB = 1 << 20
TOKEN = "s3cret-token"
Daemon = KuboBlobs | HttpClientBlobs
DAEMONS: dict[str, type[Daemon]] = {"kubo": KuboBlobs, "ipfshttpclient": HttpClientBlobs}


@pytest.fixture
def kubo() -> Iterator[KuboServer]:
    with serve_kubo(KuboServer(token=TOKEN)) as served:
        yield served


@pytest.fixture(params=[KuboBlobs, HttpClientBlobs])
def daemon(request: pytest.FixtureRequest, kubo: KuboServer) -> Iterator[Daemon]:
    store: Daemon = request.param(kubo.url, TOKEN, timeout=0.1)
    yield store
    store.close()


# A store, and the block that it holds under each CID: reading, replacing and removing them behind its back.
Blocks = tuple[BlobStore, Callable[[], list[str]], Callable[[str, bytes | None], None]]


@pytest.fixture(params=["memory", "folder", "kubo", "ipfshttpclient", "broker"])
def blocks(request: pytest.FixtureRequest, tmp_path: Path, kubo: KuboServer) -> Iterator[Blocks]:
    block_map: dict[str, bytes] = kubo.blocks
    if request.param == "folder":
        yield (
            FolderBlobs(tmp_path),
            lambda: [p.name for p in list_files(tmp_path)],
            lambda c, b: replace_block(tmp_path, c, b),
        )
        return
    store: BlobStore
    if request.param == "memory":
        store = MemoryBlobs()
        block_map = store.blocks
    elif request.param == "broker":
        store = BrokerBlobs(MemoryBroker().open("blocks"), patience=0.01)
        block_map = store.blocks
    else:
        store = DAEMONS[request.param](kubo.url, TOKEN, timeout=0.1)

    def put(cid: str, block: bytes | None) -> None:
        store.has(cid)  # the broker's store has read its log by then, and no message puts a block back
        if block is None:
            del block_map[cid]
        else:
            block_map[cid] = block

    yield store, lambda: list(block_map), put
    if isinstance(store, KuboBlobs | HttpClientBlobs):
        store.close()


@pytest.fixture
def store(blocks: Blocks) -> BlobStore:
    return blocks[0]


def list_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def replace_block(folder: Path, cid: str, block: bytes | None) -> None:
    path = folder / cid[-3:-1] / cid
    if block is None:
        path.unlink()
    else:
        path.write_bytes(block)


def build_payload(size: int) -> bytes:
    return hashlib.shake_128(b"coterie").digest(size)


@pytest.mark.parametrize("size", [0, 1, 100_000, _MIB, _MIB + 1, 5 * _MIB])
def test_what_was_put_is_there_and_comes_back(store: BlobStore, size: int) -> None:
    data = build_payload(size)
    assert not store.has(compute_cid(data))
    cid = store.put(data)
    assert cid == compute_cid(data)
    assert store.has(cid)
    assert store.get(cid) == data
    assert store.get(cid, max_bytes=size) == data


def test_putting_twice_is_putting_once(blocks: Blocks) -> None:
    store, list_blocks, _ = blocks
    assert store.put(build_payload(1000)) == store.put(build_payload(1000))
    assert list_blocks() == [compute_cid(build_payload(1000))]


@pytest.mark.parametrize("size", [1000, 2 * _MIB])
def test_damage_in_any_block_is_named_and_never_retried(blocks: Blocks, size: int) -> None:
    store, list_blocks, put = blocks
    data, original = build_payload(size), split_blocks(build_payload(size))
    cid = store.put(data)
    assert sorted(list_blocks()) == sorted(original)
    for name, block in original.items():
        for bad in (bytes([block[0] ^ 1]) + block[1:], block[:-1], b"", bytes(3 * _MIB)):
            put(name, bad)
            with pytest.raises(BlobCorrupt, match=name) as e:
                store.get(cid)
            assert e.value.code == "CO-C202"
        put(name, block)
    assert store.get(cid) == data


@pytest.mark.parametrize("size", [1000, 2 * _MIB])
def test_a_missing_block_is_missing_and_may_be_asked_for_again(blocks: Blocks, size: int) -> None:
    store, _, put = blocks
    cid = store.put(build_payload(size))
    for name, block in split_blocks(build_payload(size)).items():
        put(name, None)
        with pytest.raises(BlobMissing) as e:
            store.get(cid)
        assert e.value.code == "CO-C201"
        assert e.value.retry
        assert store.has(cid) is (name != cid)
        put(name, block)


def test_a_payload_above_the_limit_is_refused(store: BlobStore) -> None:
    cid = store.put(build_payload(1000))
    with pytest.raises(BlobCorrupt, match="999"):
        store.get(cid, max_bytes=999)


@pytest.mark.parametrize("text", ["../../x", "", "/etc/passwd", "bafk/../../x", "Qm" + "/" * 44, "b\x00", "?arg=x&y"])
def test_hostile_cids_never_reach_the_store(store: BlobStore, text: str) -> None:
    for ask in (store.get, store.has):
        with pytest.raises(BlobCorrupt) as e:
            ask(text)
        assert e.value.code == "CO-C203"


def test_ten_threads_write_the_same_payload(blocks: Blocks) -> None:
    store, list_blocks, _ = blocks
    data = build_payload(_MIB + 1)
    with ThreadPoolExecutor(10) as pool:
        cids = set(pool.map(store.put, [data] * 10))
    assert cids == {compute_cid(data)}
    assert len(list_blocks()) == 3
    assert store.get(compute_cid(data)) == data


def split_blocks(data: bytes) -> dict[str, bytes]:
    block_map: dict[str, bytes] = {}
    write_blocks(data, block_map.__setitem__)
    return block_map


# The folder


_WRITER = """
import sys
from coterie_chain.store.protocol import FolderBlobs
store = FolderBlobs(sys.argv[1])
for n in range(40):
    store.put(bytes([n]) * 50_000)
"""


def test_ten_processes_write_the_same_blocks(tmp_path: Path) -> None:
    path = os.pathsep.join(p for p in sys.path if p)
    command = [sys.executable, "-c", _WRITER, str(tmp_path)]
    writers = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) for _ in range(10)]
    assert [w.wait(60) for w in writers] == [0] * 10
    assert [p.name for p in list_files(tmp_path)] == sort_names(bytes([n]) * 50_000 for n in range(40))


def sort_names(payloads: Iterator[bytes]) -> list[str]:
    names = [compute_raw_cid(p) for p in payloads]
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
    replace_block(tmp_path, cid, b"Hello world")
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
    assert [p.stat().st_mode & 0o777 for p in list_files(tmp_path)] == [0o644]


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
    assert list_files(tmp_path) == []


def test_a_block_and_all_names_on_its_way_are_on_the_disk_when_put_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, flushed, block_flushed = os.fsync, list[str](), threading.Event()

    def watch(handle: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{handle}")).relative_to(tmp_path)
        if not name.parts:
            assert block_flushed.wait(60)  # that of the store's own folder comes last of the two side by side
        flush(handle)
        flushed.append("the block" if name.name.endswith(".part") else str(name))
        block_flushed.set()

    store = FolderBlobs(tmp_path)
    monkeypatch.setattr(os, "fsync", watch)
    cid = store.put(b"hello world")
    assert sorted(flushed) == sorted([".", "the block", cid[-3:-1]])
    assert flushed.index(cid[-3:-1]) > flushed.index("the block")


def test_a_folder_that_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFault, match="file"):
        FolderBlobs(tmp_path / "file" / "store")


@pytest.mark.skipif(os.getuid() == 0, reason="cannot run here: root may read everything")
def test_a_block_that_may_not_be_read_is_said_in_words(tmp_path: Path) -> None:
    store = FolderBlobs(tmp_path)
    cid = store.put(b"hello world")
    list_files(tmp_path)[0].chmod(0)
    with pytest.raises(StoreFault, match="Permission denied"):
        store.get(cid)


# The daemon


def test_small_payloads_are_pinned_as_they_are_put_and_large_ones_by_their_root(
    kubo: KuboServer, daemon: Daemon
) -> None:
    small, large = daemon.put(build_payload(10)), daemon.put(build_payload(2 * _MIB))
    assert kubo.pins == {small, large}
    assert [command for command, _ in kubo.requests] == ["block/put"] * 4 + ["pin/add"]


def test_unpinning_twice_is_unpinning_once(kubo: KuboServer, daemon: Daemon) -> None:
    cid = daemon.put(build_payload(10))
    daemon.unpin(cid)
    daemon.unpin(cid)
    assert kubo.pins == set()
    daemon.pin(cid)
    assert kubo.pins == {cid}


def test_a_collection_takes_what_is_unpinned_and_nothing_else(kubo: KuboServer, daemon: Daemon) -> None:
    kept, gone = daemon.put(build_payload(2 * _MIB)), daemon.put(build_payload(10))
    daemon.unpin(gone)
    assert daemon.has(gone)
    daemon.collect()
    assert not daemon.has(gone)
    assert daemon.get(kept) == build_payload(2 * _MIB)


def test_pinning_what_is_not_there_says_so(daemon: Daemon) -> None:
    with pytest.raises(BlobMissing):
        daemon.pin(compute_cid(b"nowhere"))


def test_the_daemon_reports_its_version(daemon: Daemon) -> None:
    assert daemon.version() == "0.43.1"


def test_has_does_not_ask_the_swarm(kubo: KuboServer, daemon: Daemon) -> None:
    assert not daemon.has(compute_cid(b"nowhere"))
    assert kubo.requests[-1][0] == "block/stat"
    assert kubo.requests[-1][1]["offline"] == "true"


@pytest.mark.parametrize("token", ["wrong", None])
@pytest.mark.parametrize("kind", [KuboBlobs, HttpClientBlobs])
def test_a_wrong_token_is_my_fault_and_stays_secret(kubo: KuboServer, kind: type[Daemon], token: str | None) -> None:
    store = kind(kubo.url, token)
    for ask in (lambda: store.put(b"x"), lambda: store.get(compute_cid(b"x")), lambda: store.has(compute_cid(b"x"))):
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
    for ask in (lambda: store.put(b"x"), lambda: store.get(compute_cid(b"x")), lambda: store.has(compute_cid(b"x"))):
        with pytest.raises(BlobMissing, match=url) as e:
            ask()
        assert e.value.code == "CO-C206"
        assert e.value.retry
        assert TOKEN not in str(e.value)


@pytest.mark.parametrize("kind", [KuboBlobs, HttpClientBlobs])
def test_a_daemon_that_says_nothing_is_retried(kind: type[Daemon], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubo_store, "_GRACE", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        store = kind(f"http://127.0.0.1:{silent.getsockname()[1]}", TOKEN, timeout=0.1)
        with pytest.raises(BlobMissing) as e:
            store.get(compute_cid(b"x"))
        store.close()
    assert e.value.code == "CO-C205"


def catch_fault_behind(behave: Callable[[socket.socket], None], kind: type[Daemon], timeout: float) -> str:
    """The code of the fault with which a daemon that behaves so cannot be read."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=behave, args=(server,))
        thread.start()
        store = kind(f"http://127.0.0.1:{server.getsockname()[1]}", TOKEN, timeout=timeout)
        with pytest.raises(BlobMissing) as e:
            store.get(compute_cid(b"x"))
        store.close()
        thread.join()
    return e.value.code


@pytest.mark.parametrize("kind", [KuboBlobs, HttpClientBlobs])
def test_a_daemon_that_drips_is_given_up(kind: type[Daemon], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubo_store, "_GRACE", 0.1)
    assert catch_fault_behind(drip_bytes, kind, 0.2) == "CO-C205"


def drip_bytes(server: socket.socket) -> None:
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
    assert catch_fault_behind(break_off, kind, 2) == "CO-C206"


def break_off(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe")


def lie_with(answers: dict[str, Answer]) -> Callable[[str, Query], Answer | None]:
    return lambda command, query: answers.get(command)


_OTHER = compute_cid(b"something else")
BAD_KEYS = [
    answer_ok({"Key": _OTHER, "Size": 1}),
    answer_ok({"Size": 1}),
    answer_ok({"Key": 7}),
    answer_ok([1]),
]


@pytest.mark.parametrize("answer", BAD_KEYS)
def test_a_daemon_that_answers_with_another_cid_is_caught(kubo: KuboServer, daemon: Daemon, answer: Answer) -> None:
    kubo.lie = lie_with({"block/put": answer, "block/stat": answer})
    for ask in (lambda: daemon.put(b"x"), lambda: daemon.has(compute_cid(b"x"))):
        with pytest.raises(BlobCorrupt) as e:
            ask()
        assert e.value.code == "CO-C209"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 500, b"{}{}", b"\xff"])
@pytest.mark.parametrize("status", [200, 301, 404, 500])
def test_an_answer_that_is_not_kubos_is_never_a_crash(
    kubo: KuboServer, daemon: Daemon, status: int, body: bytes
) -> None:
    kubo.lie = lambda command, query: (status, body)
    for ask in (lambda: daemon.put(b"x"), lambda: daemon.has(compute_cid(b"x")), lambda: daemon.get(compute_cid(b"x"))):
        with pytest.raises((BlobCorrupt, StoreFault)) as e:
            ask()
        assert len(str(e.value)) < 500


def test_an_endless_answer_is_cut(kubo: KuboServer, daemon: Daemon) -> None:
    kubo.lie = lie_with({"block/get": (200, bytes(50 * _MIB))})
    with pytest.raises(BlobCorrupt, match=str(2 * _MIB + 1)):
        daemon.get(compute_cid(b"x"))


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_daemon_behind_a_busy_proxy_is_retried(kubo: KuboServer, daemon: Daemon, status: int) -> None:
    kubo.lie = lambda command, query: (status, b"busy")
    with pytest.raises(BlobMissing) as e:
        daemon.put(b"x")
    assert e.value.code == "CO-C206"
    with pytest.raises(BlobMissing):
        daemon.has(compute_cid(b"x"))


def test_a_daemon_that_cannot_store_says_why(kubo: KuboServer, daemon: Daemon) -> None:
    kubo.lie = lie_with({"block/put": answer_error("write /data/ipfs: no space left on device\x1b[2J")})
    with pytest.raises(StoreFault, match="no space left on device") as e:
        daemon.put(b"x")
    assert "\x1b" not in str(e.value)


def test_the_environments_proxy_and_netrc_see_nothing(
    kubo: KuboServer, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert daemon.get(daemon.put(b"x")) == b"x"


def test_a_store_that_nobody_closes_leaves_no_open_socket(kubo: KuboServer) -> None:
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
    assert kubo_store._to_multiaddr(url) == expected


# Addresses


def write_token_file(folder: Path, mode: int = 0o600) -> Path:
    path = folder / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("kind", ["kubo", "ipfshttpclient"])
def test_a_daemons_address_names_its_token_file(kubo: KuboServer, tmp_path: Path, kind: str) -> None:
    store = open_store(f"{kind}+{kubo.url}?token_file={write_token_file(tmp_path)}")
    assert isinstance(store, DAEMONS[kind])
    assert store.get(store.put(b"x")) == b"x"
    store.close()


def test_a_token_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFault, match="chmod 600"):
        open_store(f"kubo+http://127.0.0.1:5001?token_file={write_token_file(tmp_path, 0o640)}")


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


def test_the_memory_twin_checks_a_block_again_when_it_is_another_one() -> None:
    store = MemoryBlobs()
    cid = store.put(b"payload")
    assert store.get(cid) is store.get(cid)
    with pytest.raises(BlobUnusable):
        store.get(cid, 3)
    store.blocks[cid] = b"payloaD"
    with pytest.raises(BlobCorrupt):
        store.get(cid)
