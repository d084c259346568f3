"""Connections that have not proved who they are: as many as the limit, and the oldest leaves for a new one."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from coterie_node.peers.pending_connections import PendingConnections

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """Connections: the end that waits here, and the caller's end."""
    ends = [socket.socketpair() for _ in range(4)]
    yield ends
    for pair in ends:
        for end in pair:
            end.close()


def is_open(caller: socket.socket) -> bool:
    """Whether the other end has not hung up."""
    caller.setblocking(False)
    try:
        return caller.recv(1) != b""
    except BlockingIOError:
        return True


@pytest.mark.parametrize("limit", [1, 3])
def test_as_many_stay_as_the_limit_allows_and_the_oldest_leaves_for_one_more(limit: int, pairs: list[Pair]) -> None:
    pending = PendingConnections(limit, 10.0)
    for waiting, _ in pairs[:limit]:
        pending.enter(waiting)
    assert all(is_open(caller) for _, caller in pairs[:limit])
    pending.enter(pairs[limit][0])
    assert [is_open(caller) for _, caller in pairs[: limit + 1]] == [False] + [True] * limit


def test_one_that_left_makes_room(pairs: list[Pair]) -> None:
    pending = PendingConnections(1, 10.0)
    pending.leave(pending.enter(pairs[0][0]))
    pending.enter(pairs[1][0])
    assert [is_open(caller) for _, caller in pairs[:2]] == [True, True]
