"""Channels over TLS: who may speak, who is named when it fails, and that strangers get nothing."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from learners import joins
from node.worlds import keys_of
from sklearn.linear_model import Lasso

from coterie_chain.keys import SiteKeys
from coterie_chain.ledger import SiteEntry
from coterie_chain.memory import MemoryChain
from coterie_chain.network import Network
from coterie_learners.errors import ProtocolError
from coterie_node import tls
from coterie_node.commands import serve
from coterie_node.errors import ConfigError, StudyStopped
from coterie_node.log import Log
from coterie_node.pairing import Pairing
from coterie_node.place import Place
from coterie_node.simulate import World, found, run, runner_of
from coterie_node.site_config import Home
from coterie_node.tls import MAGIC, Patience, TlsChannel, TlsExchange

NAMES = ("ana", "bob", "cyd")
SESSION = (1, 5, 0)
LOOPBACK = ("127.0.0.1", 0)
USUAL = Patience(10, 5)


@contextmanager
def exchanges(
    keys: dict[str, SiteKeys] | None = None, scopes: dict[str, str] | None = None, patience: Patience = USUAL
) -> Iterator[dict[str, TlsExchange]]:
    """An exchange for each site; `keys` replaces what a site itself holds, not what the Catalog lists."""
    listed = {name: keys_of(name) for name in NAMES}
    held = listed | (keys or {})
    made: dict[str, TlsExchange] = {}
    for name in NAMES:
        secret = lambda peer, me=name: held[me].shared(listed[peer].sealing)  # noqa: E731
        made[name] = TlsExchange(
            name, dict.fromkeys(NAMES, LOOPBACK), secret, (scopes or {}).get(name, "chain"), patience
        )
    for exchange in made.values():
        exchange.addresses.update({name: other.addresses[name] for name, other in made.items()})
    try:
        yield made
    finally:
        for exchange in made.values():
            exchange.close()


def channels(made: dict[str, TlsExchange]) -> dict[str, TlsChannel]:
    return {name: exchange.channel(name, SESSION) for name, exchange in made.items()}


def test_bytes_arrive_in_order_and_sessions_do_not_hear_each_other() -> None:
    with exchanges() as made:
        ends = channels(made)
        other = made["ana"].channel("ana", (1, 6, 0)), made["bob"].channel("bob", (1, 6, 0))
        for k in range(5):
            ends["ana"].send("bob", bytes([k]) * k)
        other[0].send("bob", b"another session")
        ends["cyd"].send("bob", b"from cyd")
        assert [ends["bob"].receive("ana") for _ in range(5)] == [bytes([k]) * k for k in range(5)]
        assert ends["bob"].receive("cyd") == b"from cyd"
        assert other[1].receive("ana") == b"another session"


def test_large_messages_in_both_directions_at_once_do_not_block_each_other() -> None:
    data = hashlib.shake_256(b"x").digest(1 << 23)

    def part(ends: dict[str, TlsChannel], me: str) -> bool:
        peers = [name for name in NAMES if name != me]
        for name in peers:
            ends[me].send(name, data)
        return all(ends[me].receive(name) == data for name in peers)

    with exchanges() as made, ThreadPoolExecutor(3) as pool:
        ends = channels(made)
        assert list(pool.map(lambda me: part(ends, me), NAMES)) == [True] * 3


def test_a_peer_with_another_key_than_the_catalog_s_is_refused_and_named() -> None:
    with exchanges(keys={"bob": keys_of("somebody else")}) as made:
        ends = channels(made)
        with pytest.raises(ProtocolError) as caught:
            ends["ana"].send("bob", b"secret")
        assert (caught.value.code, caught.value.site) == ("CO-P661", "bob")
        assert "does not prove" in caught.value.message
        # Nor is bob let in where it calls itself.
        with pytest.raises(ProtocolError) as turned_away:
            ends["bob"].send("ana", b"let me in")
        assert turned_away.value.code == "CO-P661"
        assert ends["ana"]._frames["bob"].empty()


def test_a_peer_on_another_ledger_never_comes_to_the_session() -> None:
    with exchanges(scopes={"bob": "another chain"}, patience=Patience(0.5, 0.5)) as made:
        ends = channels(made)
        with pytest.raises(ProtocolError) as caught:
            ends["ana"].send("bob", b"hello")
        assert (caught.value.code, caught.value.site) == ("CO-P601", "bob")


def test_a_peer_that_comes_late_is_waited_for() -> None:
    with exchanges() as made:
        ana = made["ana"].channel("ana", SESSION)
        later: list[TlsChannel] = []
        timer = threading.Timer(0.3, lambda: later.append(made["bob"].channel("bob", SESSION)))
        timer.start()
        ana.send("bob", b"at last")
        timer.join()
        assert later[0].receive("ana") == b"at last"


def test_silence_and_a_broken_session_name_the_peer() -> None:
    with exchanges(patience=Patience(5, 0.2)) as made:
        ends = channels(made)
        ends["bob"].send("ana", b"one")
        assert ends["ana"].receive("bob") == b"one"
        with pytest.raises(ProtocolError) as silent:
            ends["ana"].receive("bob")
        assert (silent.value.code, silent.value.site) == ("CO-P601", "bob")
        ends["bob"].send("ana", b"two")
        ends["bob"].close()
        assert ends["ana"].receive("bob") == b"two"
        with pytest.raises(ProtocolError) as broken:
            ends["ana"].receive("bob")
        assert (broken.value.code, broken.value.site) == ("CO-P662", "bob")


def test_frames_have_a_limit_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    with exchanges() as made:
        ends = channels(made)
        monkeypatch.setattr(tls, "MAX_FRAME", 100)
        with pytest.raises(ProtocolError) as caught:
            ends["ana"].send("bob", bytes(101))
        assert caught.value.code == "CO-P663"
        ends["ana"].send("bob", bytes(100))
        assert ends["bob"].receive("ana") == bytes(100)
        ends["ana"]._out["bob"].sendall((1 << 60).to_bytes(8, "big"))
        with pytest.raises(ProtocolError) as broken:
            ends["bob"].receive("ana")
        assert broken.value.code == "CO-P662"


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


@pytest.mark.parametrize("kind", STRANGERS)
def test_strangers_get_a_closed_connection_and_harm_nobody(kind: str) -> None:
    with exchanges() as made:
        ends = channels(made)
        with socket.create_connection(made["ana"].addresses["ana"], timeout=5) as stranger:
            assert answer(stranger, STRANGERS[kind]) == b""
        ends["bob"].send("ana", b"still here")
        assert ends["ana"].receive("bob") == b"still here"


def test_who_names_itself_a_peer_without_its_key_is_not_heard() -> None:
    with exchanges() as made:
        ends = channels(made)
        digest = ends["ana"].digest
        eve = Pairing(b"e" * 32, digest, "bob", "ana")
        with socket.create_connection(made["ana"].addresses["ana"], timeout=5) as plain:
            plain.sendall(MAGIC + digest + b"\x03bob")
            with pytest.raises(ssl.SSLError):
                eve.client_context().wrap_socket(plain).recv(1)
        assert ends["ana"]._in == {}


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


def test_an_address_in_use_is_told_in_words() -> None:
    with socket.create_server(LOOPBACK) as held, pytest.raises(ConfigError) as caught:
        TlsExchange("ana", {"ana": held.getsockname()[:2]}, lambda _: b"", "chain")
    assert caught.value.code == "CO-F341"


@pytest.mark.parametrize("text", ["[]", '{"ana": "nowhere"}', "{", '{"ana": 7}'])
def test_a_file_of_addresses_that_is_none_is_told_in_words(text: str, tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert place.addresses() is None
    place.talk.write_text(text)
    with pytest.raises(ConfigError) as caught:
        place.addresses()
    assert caught.value.code == "CO-F342"
    place.talk.write_text('{"ana": "127.0.0.1:7401", "bob": "[::1]:7402"}')
    assert place.addresses() == {"ana": ("127.0.0.1", 7401), "bob": ("::1", 7402)}


@contextmanager
def lasso_over_tls(patience: Patience) -> Iterator[tuple[joins.Cohort, World, dict[str, TlsExchange]]]:
    """A study of Secure Lasso that all have joined, and an exchange for each of its sites."""
    c = joins.cohort(owners=("ana", "bob"), helper="cyd", alpha=0.5)
    w = found(c.study)
    entries = {e.name: e.sealing for e in w.ledger().sites()}
    made = {}
    for name in NAMES:
        secret = lambda peer, me=name: w.keys[me].shared(entries[peer])  # noqa: E731
        made[name] = TlsExchange(name, dict.fromkeys(NAMES, LOOPBACK), secret, "memory", patience)
    for exchange in made.values():
        exchange.addresses.update({name: other.addresses[name] for name, other in made.items()})
    try:
        yield c, w, made
    finally:
        for exchange in made.values():
            exchange.close()


def test_secure_lasso_runs_over_tls() -> None:
    with lasso_over_tls(Patience(20, 20)) as (c, w, made):
        runners = {name: runner_of(w, name, c.data.get(name), made[name]) for name in NAMES}
        run(runners.values())
        fit = Lasso(alpha=0.5, tol=1e-12, max_iter=10**6).fit(c.x, c.y)
        result = runners["cyd"].machine.result
        assert abs(result.estimates[1:] - fit.coef_).max() < 5e-4


class Dying(TlsChannel):
    """The channel of a party that dies in the middle of the computation."""

    left = 25

    def send(self, to: str, data: bytes) -> None:
        self.left -= 1
        if self.left < 0:
            self.close()
            raise ProtocolError("CO-P603", "killed")
        super().send(to, data)


@pytest.mark.parametrize("dead", NAMES)
def test_a_party_that_dies_in_the_middle_is_named_and_nothing_is_opened(
    dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lasso_over_tls(Patience(5, 5)) as (c, w, made):

        def channel(me: str, session: object) -> TlsChannel:
            digest = hashlib.sha256(f"memory/{session!r}".encode()).digest()
            made[dead]._open[digest] = dying = Dying(made[dead], digest)
            return dying

        monkeypatch.setattr(made[dead], "channel", channel)
        runners = {name: runner_of(w, name, c.data.get(name), made[name]) for name in NAMES}
        told: dict[str, str] = {}
        alive = [name for name in NAMES if name != dead]
        while len(told) < 2:
            if runners[dead]._talk is None:  # then it talks, and dies; its process would post nothing any more
                runners[dead].turn()
            for name in (n for n in alive if n not in told):
                try:
                    runners[name].turn()
                except ProtocolError as error:
                    told[name] = f"{error.code} {error.site}"
                except StudyStopped:
                    told[name] = "stopped by the other"
        assert set(told.values()) <= {f"CO-P662 {dead}", f"CO-P601 {dead}", "stopped by the other"}
        assert set(told.values()) != {"stopped by the other"}
        assert w.ledger().finished(w.number, 5) is None


def test_who_ends_a_session_for_another_s_fault_says_whose_it_was() -> None:
    with exchanges(patience=Patience(5, 5)) as made:
        ends = channels(made)
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
        assert second.value.message == "cyd ended the session because ana broke it off."


def test_a_peer_without_an_address_here_is_told_in_words() -> None:
    with exchanges() as made:
        del made["ana"].addresses["cyd"]
        ana = made["ana"].channel("ana", SESSION)
        for use in (lambda: ana.send("cyd", b"hello"), lambda: ana.receive("cyd")):
            with pytest.raises(ProtocolError) as caught:
                use()
            assert (caught.value.code, caught.value.site) == ("CO-P664", "cyd")


def test_a_node_s_settings_name_where_it_listens_and_where_its_peers_do(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(
        'site = "ana"\n[talk]\nlisten = "127.0.0.1:0"\npeers = { bob = "[::1]:7402", eve = "127.0.0.1:7403" }\n'
    )
    home, keys = Home(tmp_path), {name: keys_of(name) for name in NAMES}
    entries = [SiteEntry(k, name, one.address, one.sealing) for k, (name, one) in enumerate(keys.items(), 1)]
    with ExitStack() as stack:
        network = Network("", 1, "0x" + "1" * 40, "0x" + "2" * 64, 1)
        made = serve._exchange(stack, home, keys["ana"], MemoryChain(entries).ledger(None), network, Log())
        assert isinstance(made, TlsExchange)
        assert (made.addresses["bob"], made.addresses["ana"][0]) == (("::1", 7402), "127.0.0.1")
        assert made.secret("bob") == keys["bob"].shared(keys["ana"].sealing)
        with pytest.raises(ConfigError) as caught:
            made.channel("ana", SESSION)
        assert caught.value.code == "CO-F342"
        assert "eve" in caught.value.message


def test_a_node_s_settings_refuse_what_is_no_address(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('site = "ana"\n[talk]\nlisten = "here"\n')
    with pytest.raises(ConfigError) as caught:
        Home(tmp_path)
    assert (caught.value.code, "talk.listen" in caught.value.message) == ("CO-F320", True)
