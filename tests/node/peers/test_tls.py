"""Channels over TLS: who may speak, who is named when it fails, and that strangers get nothing."""

from __future__ import annotations

import errno
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from sklearn.linear_model import Lasso
from support.learners import joins
from support.node.worlds import keys_of

from coterie_chain.ethereum.network import Network
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.memory import MemoryChain
from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.retry import RetryPolicy
from coterie_learners.errors import ProtocolError, SessionLost
from coterie_node.cli.site import serve
from coterie_node.errors import ConfigError, StudyStopped
from coterie_node.peers import tls, transport
from coterie_node.peers.pairing import Pairing
from coterie_node.peers.tls import TlsExchange
from coterie_node.peers.transport import BLAME, MAGIC, Timeouts, TlsChannel
from coterie_node.run.simulate import World, make_runner, make_world, run
from coterie_node.site.folder import find_node
from coterie_node.site.run_folder import RunFolder
from coterie_node.site.watch.log import EventLog

NAMES = ("ana", "bob", "cyd")
SESSION = (1, 5, 0)
LOOPBACK = ("127.0.0.1", 0)
USUAL = Timeouts(10, 5)


@contextmanager
def exchanges(
    keys: dict[str, SiteKeys] | None = None, scopes: dict[str, str] | None = None, timeouts: Timeouts = USUAL
) -> Iterator[dict[str, TlsExchange]]:
    """An exchange for each site; `keys` replaces what a site itself holds, not what the Catalog lists."""
    listed = {name: keys_of(name) for name in NAMES}
    connection_held = listed | (keys or {})
    exchanges_by_name: dict[str, TlsExchange] = {}
    for name in NAMES:
        secret = lambda peer, me=name: connection_held[me].derive_shared_secret(listed[peer].sealing)  # noqa: E731
        exchanges_by_name[name] = TlsExchange(
            name, dict.fromkeys(NAMES, LOOPBACK), secret, (scopes or {}).get(name, "chain"), timeouts
        )
    for exchange in exchanges_by_name.values():
        exchange.addresses.update({name: other.addresses[name] for name, other in exchanges_by_name.items()})
    try:
        yield exchanges_by_name
    finally:
        for exchange in exchanges_by_name.values():
            exchange.close()


def open_channels(exchanges_by_name: dict[str, TlsExchange], session: Hashable = SESSION) -> dict[str, TlsChannel]:
    """A channel for each site, before it has met anybody."""
    return {
        name: exchange.channel(name, session, tuple(exchanges_by_name)) for name, exchange in exchanges_by_name.items()
    }


def connect_all(ends: dict[str, TlsChannel], seconds: float = 20.0) -> dict[str, tuple[str, ...]]:
    """Let all of them meet at once; who is absent, as each of them says."""
    with ThreadPoolExecutor(len(ends)) as pool:
        return dict(zip(ends, pool.map(lambda end: end.connect(seconds), ends.values()), strict=True))


def channels(exchanges_by_name: dict[str, TlsExchange], session: Hashable = SESSION) -> dict[str, TlsChannel]:
    """A channel for each site, and all have met."""
    ends = open_channels(exchanges_by_name, session)
    assert set(connect_all(ends).values()) == {()}
    return ends


def test_bytes_arrive_in_order_and_sessions_do_not_hear_each_other() -> None:
    with exchanges() as exchanges_by_name:
        ends, other = channels(exchanges_by_name), channels(exchanges_by_name, (1, 6, 0))
        for k in range(5):
            ends["ana"].send("bob", bytes([k]) * k)
        other["ana"].send("bob", b"another session")
        ends["cyd"].send("bob", b"from cyd")
        assert [ends["bob"].receive("ana") for _ in range(5)] == [bytes([k]) * k for k in range(5)]
        assert ends["bob"].receive("cyd") == b"from cyd"
        assert other["bob"].receive("ana") == b"another session"


def test_large_messages_in_both_directions_at_once_do_not_block_each_other() -> None:
    data = hashlib.shake_256(b"x").digest(1 << 23)

    def part(ends: dict[str, TlsChannel], me: str) -> bool:
        peers = [name for name in NAMES if name != me]
        for name in peers:
            ends[me].send(name, data)
        return all(ends[me].receive(name) == data for name in peers)

    with exchanges() as exchanges_by_name, ThreadPoolExecutor(3) as pool:
        ends = channels(exchanges_by_name)
        assert list(pool.map(lambda me: part(ends, me), NAMES)) == [True] * 3


def eventually(there: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    while not there():
        time.sleep(0.01)


# Meeting


def test_a_peer_with_another_key_than_the_catalog_s_is_let_in_by_nobody_and_named() -> None:
    with exchanges(keys={"bob": keys_of("somebody else")}) as exchanges_by_name:
        ends = open_channels(exchanges_by_name)
        missing = connect_all(ends, 0.5)
        for me in ("ana", "cyd"):
            (named,) = missing[me]
            assert named.startswith("bob (the program that answers does not prove the key in the Catalog")
            assert ends[me]._lines["bob"].connection is None
        assert [name.partition(" ")[0] for name in missing["bob"]] == ["ana", "cyd"]


def test_a_peer_on_another_ledger_never_comes_to_the_session() -> None:
    with exchanges(scopes={"bob": "another chain"}) as exchanges_by_name:
        ends = open_channels(exchanges_by_name)
        assert connect_all(ends, 0.5) == {"ana": ("bob",), "bob": ("ana", "cyd"), "cyd": ("bob",)}


def test_a_peer_that_comes_late_is_waited_for_by_all() -> None:
    with exchanges() as exchanges_by_name:
        early = {name: exchanges_by_name[name].channel(name, SESSION, NAMES) for name in ("ana", "cyd")}
        assert connect_all(early, 0.2) == {"ana": ("bob",), "cyd": ("bob",)}
        late = exchanges_by_name["bob"].channel("bob", SESSION, NAMES)
        assert set(connect_all({**early, "bob": late}).values()) == {()}
        early["ana"].send("bob", b"at last")
        assert late.receive("ana") == b"at last"


def test_nobody_begins_before_all_have_met_all() -> None:
    """Cyd is there for ana, but not for bob: ana waits with them."""
    with exchanges() as exchanges_by_name:
        right = exchanges_by_name["bob"].addresses["cyd"]
        exchanges_by_name["bob"].addresses["cyd"] = LOOPBACK
        ends = open_channels(exchanges_by_name)
        assert connect_all(ends, 0.5) == {"ana": ("bob", "cyd"), "bob": ("cyd",), "cyd": ("bob",)}
        ends["bob"].abandon()
        ends["bob"].close()
        exchanges_by_name["bob"].addresses["cyd"] = right
        ends["bob"] = exchanges_by_name["bob"].channel("bob", SESSION, NAMES)
        assert set(connect_all(ends).values()) == {()}


@pytest.mark.parametrize("polite", [True, False])
def test_a_peer_that_goes_before_the_beginning_may_come_again(polite: bool) -> None:
    with exchanges() as exchanges_by_name:
        ends = {name: exchanges_by_name[name].channel(name, SESSION, NAMES) for name in ("ana", "bob")}
        assert connect_all(ends, 0.3) == {"ana": ("cyd",), "bob": ("cyd",)}
        if not polite:
            ends["bob"].abandon()
        ends["bob"].close()
        ends["bob"] = exchanges_by_name["bob"].channel("bob", SESSION, NAMES)
        ends["cyd"] = exchanges_by_name["cyd"].channel("cyd", SESSION, NAMES)
        assert set(connect_all(ends).values()) == {()}
        for me in NAMES:
            for to in NAMES:
                if to != me:
                    ends[me].send(to, me.encode())
        assert all(ends[me].receive(peer) == peer.encode() for me in NAMES for peer in NAMES if peer != me)


def test_a_peer_that_is_back_is_called_at_once_however_seldom_it_was_called_while_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "CALL_RETRY", RetryPolicy(first=1000.0, longest=1000.0))
    with exchanges() as exchanges_by_name:
        ana = exchanges_by_name["ana"].channel("ana", SESSION, NAMES[:2])
        assert ana.connect(0.1) == ("bob",)
        bob = exchanges_by_name["bob"].channel("bob", SESSION, NAMES[:2])
        assert connect_all({"ana": ana, "bob": bob}) == {"ana": (), "bob": ()}


def test_a_peer_that_stays_away_is_called_more_and_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    usual = TlsChannel._handshake

    def counted(self: TlsChannel, name: str, pairing: Pairing) -> ssl.SSLSocket:
        calls.append(name)
        return usual(self, name, pairing)

    monkeypatch.setattr(TlsChannel, "_handshake", counted)
    with exchanges() as exchanges_by_name:
        assert exchanges_by_name["ana"].channel("ana", SESSION, NAMES[:2]).connect(1.0) == ("bob",)
    assert 1 < len(calls) < 7


def test_a_call_that_is_answered_while_the_session_ends_does_not_keep_the_peer_from_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the peer would hold on to a connection that nobody reads, and never call again."""
    with exchanges() as exchanges_by_name:
        ends = {name: exchanges_by_name[name].channel(name, SESSION, NAMES[:2]) for name in NAMES[:2]}
        usual, answered, gone = TlsChannel.hear, threading.Event(), threading.Event()

        def late(self: TlsChannel, name: str, connection: ssl.SSLSocket) -> None:
            if self is ends["ana"] and not gone.is_set():
                answered.set()
                gone.wait(20)
            usual(self, name, connection)

        monkeypatch.setattr(TlsChannel, "hear", late)
        with ThreadPoolExecutor(1) as pool:
            early = pool.submit(ends["bob"].connect, 0.3)
            answered.wait(20)
            channel_left = ends["ana"]
            channel_left.close()
            gone.set()
            assert early.result() == ("ana",)
        reconnected = exchanges_by_name["ana"].channel("ana", SESSION, NAMES[:2])
        assert connect_all({"ana": reconnected, "bob": ends["bob"]}) == {"ana": (), "bob": ()}


def test_a_session_does_not_begin_before_every_peer_knows_that_this_one_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection to a peer that has said so itself may break at that very moment."""
    usual, broken = TlsChannel._tell_ready, threading.Event()

    def breaking(self: TlsChannel, name: str) -> None:
        if (self._me, name) == ("ana", "bob") and not broken.is_set():
            if not self._lines[name].ready:
                return  # later
            broken.set()
            self._out[name].close()
        usual(self, name)

    monkeypatch.setattr(TlsChannel, "_tell_ready", breaking)
    with exchanges() as exchanges_by_name:
        ends = channels(exchanges_by_name)
        assert broken.is_set()
        ends["ana"].send("bob", b"heard")
        assert ends["bob"].receive("ana") == b"heard"


def test_a_peer_holds_one_connection_however_often_it_calls() -> None:
    with exchanges() as exchanges_by_name:
        ends = open_channels(exchanges_by_name)
        calls = [ends["bob"]._call("ana") for _ in range(5)]
        for replaced in calls[:-1]:
            assert replaced is not None
            with suppress(ConnectionError):
                assert replaced.recv(1) == b""
            replaced.close()
        assert calls[-1] is not None
        ends["bob"]._out["ana"] = calls[-1]
        assert set(connect_all(ends).values()) == {()}


def test_what_comes_before_a_peer_is_ready_is_not_kept() -> None:
    with exchanges() as exchanges_by_name:
        ends = open_channels(exchanges_by_name)
        early = ends["bob"]._call("ana")
        assert early is not None
        early.sendall((4).to_bytes(8, "big") + b"rows")
        with suppress(ConnectionError):
            assert early.recv(1) == b""
        early.close()
        assert set(connect_all(ends).values()) == {()}
        ends["bob"].send("ana", b"first")
        assert ends["ana"].receive("bob") == b"first"


def test_both_ends_ask_whether_the_other_machine_is_still_there() -> None:
    with exchanges() as exchanges_by_name:
        ends = channels(exchanges_by_name)
        for connection in (ends["ana"]._out["bob"], ends["bob"]._lines["ana"].connection):
            assert connection is not None
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == transport.ALIVE_AFTER


def test_parties_of_a_session_are_the_study_s_and_not_the_network_s() -> None:
    with exchanges() as exchanges_by_name:
        ends = {name: exchanges_by_name[name].channel(name, SESSION, ("ana", "bob")) for name in ("ana", "bob")}
        assert set(connect_all(ends).values()) == {()}
        stranger = exchanges_by_name["cyd"].channel("cyd", SESSION, NAMES)
        assert stranger.connect(0.2) == ("ana", "bob")
        ends["ana"].send("bob", b"between us")
        assert ends["bob"].receive("ana") == b"between us"


# Talking


def test_silence_and_a_broken_session_name_the_peer() -> None:
    with exchanges(timeouts=Timeouts(5, 0.2)) as exchanges_by_name:
        ends = channels(exchanges_by_name)
        ends["bob"].send("ana", b"one")
        assert ends["ana"].receive("bob") == b"one"
        with pytest.raises(SessionLost) as silent:
            ends["ana"].receive("bob")
        assert (silent.value.code, silent.value.site) == ("CO-P601", "bob")
        ends["bob"].send("ana", b"two")
        ends["bob"].close()
        assert ends["ana"].receive("bob") == b"two"
        with pytest.raises(SessionLost) as broken:
            ends["ana"].receive("bob")
        assert (broken.value.code, broken.value.site) == ("CO-P662", "bob")


def test_a_party_that_abandons_a_session_from_outside_ends_it_for_all() -> None:
    with exchanges() as exchanges_by_name, ThreadPoolExecutor(1) as pool:
        ends = channels(exchanges_by_name)
        waiting = pool.submit(ends["ana"].receive, "bob")
        ends["ana"].abandon()
        with pytest.raises(SessionLost):
            waiting.result(timeout=10)
        with pytest.raises(SessionLost) as caught:
            ends["bob"].receive("ana")
        assert caught.value.site == "ana"


def test_a_second_connection_in_a_peer_s_name_is_refused_once_they_talk() -> None:
    with exchanges() as exchanges_by_name:
        ends = channels(exchanges_by_name)
        reconnected = exchanges_by_name["bob"].channel("bob", SESSION, NAMES)
        assert reconnected.connect(0.3) != ()
        reconnected.close()
        ends["bob"].send("ana", b"still me")
        assert ends["ana"].receive("bob") == b"still me"
        ends["bob"].close()


def test_frames_have_a_limit_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    with exchanges() as exchanges_by_name:
        ends = channels(exchanges_by_name)
        monkeypatch.setattr(transport, "MAX_FRAME", 100)
        with pytest.raises(ProtocolError) as caught:
            ends["ana"].send("bob", bytes(101))
        assert caught.value.code == "CO-P663"
        ends["ana"].send("bob", bytes(100))
        assert ends["bob"].receive("ana") == bytes(100)
        ends["ana"]._out["bob"].sendall((1 << 60).to_bytes(8, "big"))
        with pytest.raises(ProtocolError) as broken:
            ends["bob"].receive("ana")
        assert broken.value.code == "CO-P662"


def test_a_session_that_is_over_keeps_nothing_of_a_peer_that_holds_its_end_open() -> None:
    with exchanges() as exchanges_by_name:
        ends = channels(exchanges_by_name)
        ends["bob"].send("ana", b"unread")
        ends["ana"].close()
        for line in ends["ana"]._lines.values():
            connection_held = line.connection
            assert connection_held is not None
            eventually(lambda connection_held=connection_held: connection_held.fileno() == -1)  # type: ignore[misc]
            assert not line.frames.put(b"more")


def test_a_peer_that_reads_nothing_and_says_more_and_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LAST_WORD_SECONDS", 0.1)
    with exchanges() as exchanges_by_name, ThreadPoolExecutor(1) as pool:
        ends = channels(exchanges_by_name)
        over = threading.Event()

        def babble() -> None:
            with suppress(OSError):
                while not over.is_set():
                    ends["bob"]._out["ana"].sendall(bytes(8))

        talking = pool.submit(babble)
        transport.hang_up(ends["ana"]._out["bob"])
        with pytest.raises(SessionLost) as caught:
            ends["ana"].send("bob", b"hello")
        assert caught.value.site == "bob"
        ends["ana"].close()
        over.set()
        talking.result(timeout=20)


STRANGERS = {
    "silence": b"",
    "noise": bytes(range(256)) * 4,
    "http": b"GET / HTTP/1.1\r\n\r\n" + bytes(60),
    "a site that there is not": MAGIC + bytes(32) + b"\x03eve",
    "another session": MAGIC + bytes(32) + b"\x03bob",
}


def answer(connection: socket.socket, data: bytes) -> bytes:
    """What comes back for some bytes before the connection is closed, or cut."""
    with suppress(OSError):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(100)
    return b""


def answer_in_tls(plain: socket.socket, context: ssl.SSLContext) -> bytes:
    """What a caller is sent after its handshake; nothing if the connection ends first."""
    with suppress(OSError), context.wrap_socket(plain) as secured:
        return secured.recv(1)
    return b""


@pytest.mark.parametrize("kind", STRANGERS)
def test_strangers_get_a_closed_connection_and_harm_nobody(kind: str) -> None:
    with exchanges() as exchanges_by_name:
        ends = channels(exchanges_by_name)
        with socket.create_connection(exchanges_by_name["ana"].addresses["ana"], timeout=5) as stranger:
            assert answer(stranger, STRANGERS[kind]) == b""
        ends["bob"].send("ana", b"still here")
        assert ends["ana"].receive("bob") == b"still here"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_caller_with_an_older_tls_or_without_a_certificate_is_not_welcomed(version: ssl.TLSVersion) -> None:
    """It knows session and site, so that it gets as far as the handshake: the attack n2."""
    with exchanges() as exchanges_by_name:
        ends = open_channels(exchanges_by_name)
        digest = next(iter(exchanges_by_name["ana"]._open))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        with socket.create_connection(exchanges_by_name["ana"].addresses["ana"], timeout=5) as plain:
            plain.sendall(MAGIC + digest + b"\x03bob")
            assert answer_in_tls(plain, context) == b""
        assert set(connect_all(ends).values()) == {()}
        ends["bob"].send("ana", b"still here")
        assert ends["ana"].receive("bob") == b"still here"


def test_strangers_who_stand_at_the_door_do_not_bar_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "MAX_CALLS", 4)
    monkeypatch.setattr(tls, "GREET_SECONDS", 1000.0)
    with exchanges() as exchanges_by_name, ExitStack() as standing:
        for _ in range(9):
            standing.enter_context(socket.create_connection(exchanges_by_name["ana"].addresses["ana"], timeout=5))
        assert set(connect_all(open_channels(exchanges_by_name)).values()) == {()}


def test_a_stranger_who_speaks_slowly_is_given_no_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "GREET_SECONDS", 0.2)
    frames_sent = 0
    with (
        exchanges() as exchanges_by_name,
        socket.create_connection(exchanges_by_name["ana"].addresses["ana"], timeout=5) as stranger,
    ):
        stranger.setblocking(False)
        with suppress(ConnectionError):
            while frames_sent < 41:
                stranger.send(b"x")
                frames_sent += 1
                time.sleep(0.05)
                with suppress(BlockingIOError):
                    if stranger.recv(1) == b"":
                        break
    assert frames_sent < 41


class Busy:
    """A listener in a process that has too many open files, for a moment."""

    def __init__(self, inner: socket.socket) -> None:
        self.inner, self.failures = inner, 3

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def accept(self) -> object:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self.inner.accept()


def test_a_node_with_too_many_open_files_answers_again_when_there_are_fewer() -> None:
    with exchanges() as exchanges_by_name:
        exchanges_by_name["ana"]._listener = busy = Busy(exchanges_by_name["ana"]._listener)  # type: ignore[assignment]
        with socket.create_connection(exchanges_by_name["ana"].addresses["ana"], timeout=5):
            eventually(lambda: not busy.failures)
        assert set(connect_all(open_channels(exchanges_by_name)).values()) == {()}


def test_an_exchange_that_is_closed_gives_its_port_back() -> None:
    with exchanges() as exchanges_by_name:
        address = exchanges_by_name["ana"].addresses["ana"]
    eventually(lambda: free(address))


def free(address: tuple[str, int]) -> bool:
    try:
        socket.create_server(address).close()
    except OSError:
        return False
    return True


def test_who_names_itself_a_peer_without_its_key_is_not_heard() -> None:
    with exchanges() as exchanges_by_name:
        ends = open_channels(exchanges_by_name)
        digest = ends["ana"].digest
        eve = Pairing(b"e" * 32, digest, "bob", "ana")
        with socket.create_connection(exchanges_by_name["ana"].addresses["ana"], timeout=5) as plain:
            plain.sendall(MAGIC + digest + b"\x03bob")
            with pytest.raises(ssl.SSLError):
                eve.client_context().wrap_socket(plain).recv(1)
        assert ends["ana"]._lines["bob"].connection is None


def test_a_certificate_serves_one_direction_of_one_pair_in_one_session() -> None:
    secret = b"s" * 32
    base = Pairing(secret, b"1" * 32, "ana", "bob")
    others = [
        Pairing(secret, b"2" * 32, "ana", "bob"),
        Pairing(secret, b"1" * 32, "bob", "ana"),
        Pairing(b"t" * 32, b"1" * 32, "ana", "bob"),
    ]
    mine = {role: base._certificate(role).public_bytes(Encoding.DER) for role in ("client", "server")}
    assert mine["client"] != mine["server"]
    assert base.is_peer(mine["client"], "client")
    assert not base.is_peer(mine["client"], "server")
    assert not any(other.is_peer(mine[role], role) for other in others for role in mine)
    assert not base.is_peer(None, "client")
    assert "s" * 8 not in repr(base)


def test_an_address_in_use_is_named_in_words() -> None:
    with socket.create_server(LOOPBACK) as connection_held, pytest.raises(ConfigError) as caught:
        TlsExchange("ana", {"ana": connection_held.getsockname()[:2]}, lambda _: b"", "chain")
    assert caught.value.code == "CO-F341"


NO_ADDRESSES = ["[]", '{"ana": "nowhere"}', "{", '{"ana": 7}', '{"ana": "a..b:80"}', '{"ana": "127.0.0.1:70000"}']


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_a_file_of_addresses_that_is_none_is_refused_in_words(text: str, tmp_path: Path) -> None:
    place = RunFolder(tmp_path)
    assert place.addresses() is None
    place.talk.write_text(text)
    with pytest.raises(ConfigError) as caught:
        place.addresses()
    assert caught.value.code == "CO-F342"
    place.talk.write_text('{"ana": "127.0.0.1:7401", "bob": "[::1]:7402"}')
    assert place.addresses() == {"ana": ("127.0.0.1", 7401), "bob": ("::1", 7402)}


@contextmanager
def lasso_over_tls(timeouts: Timeouts) -> Iterator[tuple[joins.JoinCohort, World, dict[str, TlsExchange]]]:
    """A study of Secure Lasso that all have joined, and an exchange for each of its sites."""
    c = joins.cohort(owners=("ana", "bob"), helper="cyd", alpha=0.5)
    w = make_world(c.study)
    entries = {e.name: e.sealing for e in w.ledger().sites()}
    exchanges_by_name = {}
    for name in NAMES:
        secret = lambda peer, me=name: w.keys[me].derive_shared_secret(entries[peer])  # noqa: E731
        exchanges_by_name[name] = TlsExchange(name, dict.fromkeys(NAMES, LOOPBACK), secret, "memory", timeouts)
    for exchange in exchanges_by_name.values():
        exchange.addresses.update({name: other.addresses[name] for name, other in exchanges_by_name.items()})
    try:
        yield c, w, exchanges_by_name
    finally:
        for exchange in exchanges_by_name.values():
            exchange.close()


def test_secure_lasso_runs_over_tls() -> None:
    with lasso_over_tls(Timeouts(20, 20)) as (c, w, exchanges_by_name):
        runners = {name: make_runner(w, name, c.data.get(name), exchanges_by_name[name]) for name in NAMES}
        run(runners.values())
        fit = Lasso(alpha=0.5, tol=1e-12, max_iter=10**6).fit(c.x, c.y)
        result = runners["cyd"].machine.result
        assert abs(result.estimates[1:] - fit.coef_).max() < 5e-4


class Dying(TlsChannel):
    """The channel of a party that dies in the middle of the computation."""

    channel_left = 25

    def send(self, to: str, data: bytes) -> None:
        self.channel_left -= 1
        if self.channel_left < 0:
            self.close()
            raise ProtocolError("CO-P603", "killed")
        super().send(to, data)


@pytest.mark.parametrize("dead", NAMES)
def test_a_party_that_dies_in_the_middle_is_named_and_nothing_is_opened(
    dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lasso_over_tls(Timeouts(5, 5)) as (c, w, exchanges_by_name):
        usual = exchanges_by_name[dead].channel

        def channel(me: str, session: Hashable, parties: Sequence[str]) -> TlsChannel:
            open_channels = usual(me, session, parties)
            open_channels.__class__ = Dying
            return open_channels

        monkeypatch.setattr(exchanges_by_name[dead], "channel", channel)
        runners = {name: make_runner(w, name, c.data.get(name), exchanges_by_name[name]) for name in NAMES}
        messages: dict[str, str] = {}
        alive = [name for name in NAMES if name != dead]
        while len(messages) < 2:
            if runners[dead]._session is None:  # then it talks, and dies; its process would post nothing any more
                runners[dead].turn()
            for name in (n for n in alive if n not in messages):
                try:
                    runners[name].turn()
                except ProtocolError as error:
                    messages[name] = f"{error.code} {error.site}"
                except StudyStopped:
                    messages[name] = "stopped by the other"
        assert set(messages.values()) <= {f"CO-P662 {dead}", f"CO-P601 {dead}", "stopped by the other"}
        assert set(messages.values()) != {"stopped by the other"}
        assert w.ledger().read_finished(w.number, 5) is None


def test_who_ends_a_session_for_another_s_fault_says_whose_it_was() -> None:
    with exchanges(timeouts=Timeouts(5, 5)) as exchanges_by_name:
        ends = channels(exchanges_by_name)
        for me, to in (("ana", "cyd"), ("cyd", "bob"), ("cyd", "ana"), ("bob", "cyd")):
            ends[me].send(to, b"hello")
        assert ends["cyd"].receive("ana") == b"hello"
        ends["ana"].close()
        with pytest.raises(ProtocolError) as first:
            ends["cyd"].receive("ana")
        assert (first.value.code, first.value.site) == ("CO-P662", "ana")
        ends["cyd"].close()
        assert ends["bob"].receive("cyd") == b"hello"
        with pytest.raises(ProtocolError) as second:
            ends["bob"].receive("cyd")
        assert (second.value.code, second.value.site) == ("CO-P662", "ana")
        blame = "cyd ended the session because ana broke it off. Ask ana, then propose the study again."
        assert second.value.message == blame


@pytest.mark.parametrize("accused", ["bob", "cyd"])
def test_a_peer_that_breaks_off_and_accuses_another_gets_nobody_named(accused: str) -> None:
    """Ana ends its sessions and tells one peer that the other one did it: nobody who is honest votes against that."""
    with exchanges(timeouts=Timeouts(5, 5)) as exchanges_by_name:
        ends = channels(exchanges_by_name)
        witness = "cyd" if accused == "bob" else "bob"
        ends["ana"]._out[accused].close()
        ends["ana"]._culprit = accused
        ends["ana"].close()
        sites: dict[str, str] = {}

        def listen(me: str) -> None:
            with pytest.raises(ProtocolError) as caught:
                ends[me].receive("ana")
            sites[me] = caught.value.site
            ends[me].close()

        listeners = [threading.Thread(target=listen, args=(me,)) for me in (witness, accused)]
        for listener in listeners:
            listener.start()
        for listener in listeners:
            listener.join()
        assert sites == {accused: "ana", witness: ""}


def test_a_peer_that_accuses_each_of_two_before_the_other_gets_nobody_named() -> None:
    with exchanges(timeouts=Timeouts(5, 5)) as exchanges_by_name:
        ends = channels(exchanges_by_name)
        out = ends["ana"]._out
        for to, culprit in (("bob", b"cyd"), ("cyd", b"bob")):
            out[to].sendall(BLAME.to_bytes(8, "big") + bytes([3]) + culprit)
        sites: dict[str, str] = {}

        def listen(me: str) -> None:
            with pytest.raises(ProtocolError) as caught:
                ends[me].receive("ana")
            sites[me] = caught.value.site

        listeners = [threading.Thread(target=listen, args=(me,)) for me in ("bob", "cyd")]
        for listener in listeners:
            listener.start()
        for listener in listeners:
            listener.join()
        assert sites == {"bob": "", "cyd": ""}


def test_a_peer_without_an_address_here_is_named_in_words() -> None:
    with exchanges() as exchanges_by_name:
        del exchanges_by_name["ana"].addresses["cyd"]
        with pytest.raises(ConfigError, match="has no address of cyd") as caught:
            exchanges_by_name["ana"].channel("ana", SESSION, NAMES)
        assert caught.value.code == "CO-F342"


def test_a_node_s_settings_name_where_it_listens_and_where_its_peers_do(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(
        'site = "ana"\n[talk]\nlisten = "127.0.0.1:0"\npeers = { bob = "[::1]:7402", eve = "127.0.0.1:7403" }\n'
    )
    home, keys = find_node(tmp_path), {name: keys_of(name) for name in NAMES}
    entries = [SiteEntry(k, name, one.address, one.sealing) for k, (name, one) in enumerate(keys.items(), 1)]
    with ExitStack() as stack:
        network = Network("", 1, "0x" + "1" * 40, "0x" + "2" * 64, 1)
        exchanges_by_name = serve._exchange(
            stack, home, keys["ana"], MemoryChain(entries).ledger(None), network, EventLog()
        )
        assert isinstance(exchanges_by_name, TlsExchange)
        assert (exchanges_by_name.addresses["bob"], exchanges_by_name.addresses["ana"][0]) == (
            ("::1", 7402),
            "127.0.0.1",
        )
        assert exchanges_by_name.secret("bob") == keys["bob"].derive_shared_secret(keys["ana"].sealing)
        with pytest.raises(ConfigError) as caught:
            exchanges_by_name.channel("ana", SESSION, ("ana", "eve"))
        assert caught.value.code == "CO-F342"
        assert "eve" in caught.value.message


def test_a_node_s_settings_refuse_what_is_no_address(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('site = "ana"\n[talk]\nlisten = "here"\n')
    with pytest.raises(ConfigError) as caught:
        find_node(tmp_path)
    assert (caught.value.code, "talk.listen" in caught.value.message) == ("CO-F320", True)
