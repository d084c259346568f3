"""Settings that a process of ours has before it imports a library."""

from __future__ import annotations

import atexit
import gc
import os


def set_up_process() -> None:
    """Settings that a process has to have before it imports libraries of numbers.

    Python looks for cycles of garbage after every 700 new objects, and an import makes a hundred thousand objects that
    stay. At the end of the process it would look at all of them once more, for 0.15 s; files and connections are closed
    by then. OpenBLAS lets each of its idle threads turn for 2^26 ticks (some 30 ms) after each product: 2^4 is its
    least. Pydantic would read the metadata of every installed package for a plugin of its own, and load what it finds.
    """
    gc.set_threshold(50_000, 20, 20)
    atexit.register(gc.freeze)
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
