"""What waits to be read of one peer: in order, bounded in bytes, and gone when nobody reads any more."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from coterie_node.peers.inbox import OVERHEAD, Ended, Inbox


def test_frames_come_in_order_and_the_last_word_after_them_again_and_again() -> None:
    box = Inbox()
    for k in range(3):
        assert box.put(bytes([k]))
    box.end(Ended("bob"))
    box.end(Ended("cyd"))
    assert [box.get(0.0) for _ in range(5)] == [b"\0", b"\1", b"\2", Ended("bob"), Ended("bob")]


def test_nothing_comes_of_a_peer_that_is_silent() -> None:
    assert Inbox().get(0.01) is None


def test_a_frame_larger_than_the_room_has_it_alone() -> None:
    box = Inbox(10)
    assert box.put(bytes(1000))
    assert box.get(0.0) == bytes(1000)


def test_who_sends_more_than_there_is_room_for_waits_until_it_is_read() -> None:
    box = Inbox(2 * (OVERHEAD + 10))
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(lambda: [box.put(bytes([k]) * 10) for k in range(50)])
        assert box.get(20.0) == bytes(10)
        assert box._held <= 2 * (OVERHEAD + 10)
        assert [box.get(20.0) for _ in range(49)] == [bytes([k]) * 10 for k in range(1, 50)]
        assert sending.result(timeout=20) == [True] * 50


def test_frames_without_data_need_room_as_well() -> None:
    box = Inbox(OVERHEAD)
    with ThreadPoolExecutor(1) as pool:
        assert box.put(b"")
        second = pool.submit(box.put, b"")
        assert box._held == OVERHEAD
        assert box.get(0.0) == b""
        assert second.result(timeout=20)


def test_who_waits_for_room_is_let_go_when_nobody_reads_any_more() -> None:
    box = Inbox(1)
    with ThreadPoolExecutor(1) as pool:
        assert box.put(b"first")
        waiting = pool.submit(box.put, b"second")
        box.shut()
        assert not waiting.result(timeout=20)
    assert not box.put(b"third")
    assert box._held == 0


def test_a_last_word_is_found_behind_frames_and_not_waited_for_behind_endless_ones() -> None:
    box, over = Inbox(), threading.Event()
    box.put(b"unread")
    box.end(Ended("cyd"))
    assert box.last_word(20.0) == Ended("cyd")
    babbler = Inbox(10)
    with ThreadPoolExecutor(1) as pool:
        talking = pool.submit(lambda: [babbler.put(b"more") for _ in iter(over.is_set, True)])
        assert babbler.last_word(0.05) is None
        over.set()
        babbler.shut()
        talking.result(timeout=20)
