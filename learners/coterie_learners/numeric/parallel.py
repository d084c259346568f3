"""Blocks of rows on all processors: one thread per processor, each with single-threaded BLAS.

Small products are faster side by side than each one split over the processors, and what is not BLAS runs side by side
too. Results come back in the order of the blocks, so sums over them do not depend on the number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import chain, islice
from threading import local
from typing import TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from coterie_learners.numeric.array import Array

Item = TypeVar("Item")
Out = TypeVar("Out")
# A larger array than this is not kept for the next block.
_KEPT_BYTES = 8 << 20
_SCRATCH = local()


def in_parallel(work: Callable[[Item], Out], items: Iterable[Item]) -> Iterator[Out]:
    """work(item) for every item, in order; at most a few items are in memory at once.

    As many threads as BLAS may use here (OPENBLAS_NUM_THREADS): a site's share of a machine is set in one place.
    """
    workers, coming = _blas_threads(), iter(items)
    first = list(islice(coming, 2))
    if workers == 1 or len(first) < 2:
        # One item is quicker here than on a thread that is started for it. BLAS keeps one thread, for the same bits.
        with one_thread():
            yield from map(work, chain(first, coming))
        return
    running: deque[Future[Out]] = deque()
    with one_thread(), ThreadPoolExecutor(workers) as pool:
        for item in chain(first, coming):
            running.append(pool.submit(work, item))
            if len(running) > 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def lend_scratch(use: str, shape: tuple[int, int]) -> Array:
    """An array (m, p) in columns with any content, which the same thread is lent again for the same use.

    What is written to it is gone at the next call. Fresh memory for each block costs the system more than the sums.
    """
    size = shape[0] * shape[1]
    kept: Array | None = getattr(_SCRATCH, use, None)
    if kept is None or len(kept) < size:
        kept = np.empty(size)
        if kept.nbytes <= _KEPT_BYTES:
            setattr(_SCRATCH, use, kept)
    return kept[:size].reshape(shape, order="F")


def find_libraries() -> None:
    """Find the libraries of linear algebra in this process now: one that forks others does it once for all of them."""
    _blas_threads()


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS with one thread: many small products wait longer for a second one than they take."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@cache
def _blas_threads() -> int:
    pools = _controller().select(user_api="blas").info()
    return max((int(pool["num_threads"]) for pool in pools), default=1)
