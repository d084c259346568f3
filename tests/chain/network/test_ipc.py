"""Questions over the administrator's socket, and what a node may answer."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.network.programs.geth import read_static_nodes, render_geth_config
from coterie_chain.network.programs.ipc import ask, ask_all

Answer = Callable[[list[dict[str, Any]]], bytes]


@contextmanager
def run_node(path: Path, answer: Answer) -> Iterator[None]:
    """A node that answers each request and keeps the line open, as Geth does."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.request.sendall(answer(json.loads(self.request.recv(1 << 16))))
            self.request.recv(1)

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield
        server.shutdown()


def echo(requests: list[dict[str, Any]]) -> bytes:
    """Every method's name, in another order than asked."""
    return json.dumps([{"id": r["id"], "result": [r["method"], *r["params"]]} for r in reversed(requests)]).encode()


def refuse(requests: list[dict[str, Any]]) -> bytes:
    return json.dumps([{"id": r["id"], "error": {"message": "no funds"}} for r in requests]).encode()


def test_several_questions_are_answered_in_their_order(tmp_path: Path) -> None:
    with run_node(tmp_path / "ipc", echo):
        assert ask_all(tmp_path / "ipc", [("a", ()), ("b", (1, "x")), ("c", ())]) == [["a"], ["b", 1, "x"], ["c"]]
        assert ask(tmp_path / "ipc", "a", 2) == ["a", 2]
    assert ask_all(tmp_path / "nothing there", []) == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refuse, "CO-C302"),
        (lambda _: b"[]", "CO-C301"),
        (lambda _: b"[1]", "CO-C301"),
        (lambda _: b'{"id": null, "error": {}}', "CO-C301"),
    ],
)
def test_an_answer_that_is_none_is_named(answer: Answer, code: str, tmp_path: Path) -> None:
    with run_node(tmp_path / "ipc", answer), pytest.raises(LedgerUnreachable) as caught:
        ask(tmp_path / "ipc", "a")
    assert caught.value.code == code


def test_a_node_that_is_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnreachable) as caught:
        ask(tmp_path / "ipc", "a")
    assert caught.value.code == "CO-C301"


def test_the_peers_of_a_configuration_are_read_back(tmp_path: Path) -> None:
    peers = ("enode://aa@10.0.0.1:30303?discport=0", "enode://bb@10.0.0.2:30303?discport=0")
    (tmp_path / "config.toml").write_text(render_geth_config("127.0.0.1", 30303, peers))
    assert read_static_nodes(tmp_path / "config.toml") == peers
    assert read_static_nodes(tmp_path / "nothing there") == ()
