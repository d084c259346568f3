"""A lock on a folder: one thread of one program at a time."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from coterie_node.privacy.files.durable_files import make_private_folder

# How long another program is waited for (seconds): it may judge a large file meanwhile.
LOG_LOCK_SECONDS = 120.0
_PAUSE_SECONDS = 0.02


class InUse(OSError):
    """Another program has kept the lock for too long."""


@dataclass
class FolderLock:
    """Lock on the file `.lock` of a folder; its holder may take it again. OSError if the file cannot be made."""

    folder: Path
    _threads: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)
    _depth: int = field(default=0, init=False)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock; InUse if another program keeps it."""
        with self._threads:
            if self._depth:
                yield
                return
            make_private_folder(self.folder)
            handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                _wait_for(handle)
                self._depth = 1
                yield
            finally:
                self._depth = 0
                os.close(handle)


def _wait_for(handle: int) -> None:
    deadline = time.monotonic() + LOG_LOCK_SECONDS
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > deadline:
            raise InUse(f"another program has kept it for {LOG_LOCK_SECONDS:.0f} s")
        time.sleep(_PAUSE_SECONDS)
