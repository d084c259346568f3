"""What database servers of tests share: an account, a port, and the wait for their first answer."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PASSWORD = "not a secret: of a test"
PATIENCE = 60.0


def choose_user(name: str) -> str:
    """The account of a server: this name where the tests run as root, as which servers refuse to run."""
    return name if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name


def make_folder(prefix: str, user: str) -> Path:
    """A folder of the account for a server's data and sockets."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    if os.getuid() == 0:
        shutil.chown(folder, user)
    return folder


def prepare(words: Sequence[str], **options: Any) -> None:
    """Run a program to its end; an AssertionError has what it printed where it fails."""
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=PATIENCE, **options)
    assert done.returncode == 0, f"{words[0]} ended with {done.returncode}: {done.stdout[-2000:]} {done.stderr[-2000:]}"


def await_answer(connect: Callable[[], None], what: str) -> None:
    """Wait until a connection succeeds."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            connect()
        except OSError:
            assert time.monotonic() < end, f"{what} does not answer"
            time.sleep(0.05)
        else:
            return
