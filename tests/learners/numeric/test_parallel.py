"""Work on blocks: the same results in order, and one block on the caller's own thread."""

from __future__ import annotations

import threading

import numpy as np

from coterie_learners.numeric import parallel


def test_results_come_in_the_order_of_the_blocks() -> None:
    assert list(parallel.in_parallel(lambda block: block * block, range(50))) == [k * k for k in range(50)]
    assert list(parallel.in_parallel(lambda block: block, [])) == []


def test_a_single_block_is_measured_on_the_thread_that_asks() -> None:
    assert list(parallel.in_parallel(lambda _: threading.get_ident(), [0])) == [threading.get_ident()]


def test_a_single_block_has_the_same_bits_as_the_first_of_many() -> None:
    blocks = [np.random.default_rng(k).normal(size=(400, 60)) for k in range(4)]
    (alone,) = parallel.in_parallel(lambda block: block.T @ block, blocks[:1])
    beside, *_ = parallel.in_parallel(lambda block: block.T @ block, blocks)
    assert np.array_equal(alone, beside)
