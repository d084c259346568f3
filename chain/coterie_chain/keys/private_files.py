"""Files that only their owner may read: key files, passphrases, tokens."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from coterie_chain.errors import KeyFault

OTHERS = stat.S_IRWXG | stat.S_IRWXO
# The folder in which systemd puts the files that a unit's LoadCredential= names.
CREDENTIALS = "CREDENTIALS_DIRECTORY"
_MAX_FILE_BYTES = 1 << 16


def read_private(path: Path, what: str) -> str:
    """Text of a private file; KeyFault if it is missing, readable by group or others, or no text of 64 KiB at most."""
    try:
        with path.open("rb") as file:
            # The file that is open is the one judged, whatever the path names by then.
            mode = os.fstat(file.fileno()).st_mode
            if not _is_credential(path):
                check_mode(path, mode, what, "600")
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as e:
        message = f"Cannot read {what} {path}: {e.strerror or e}"
        raise KeyFault("CO-C101", f"{message}. Put it back from your copy, or name the right file.") from e
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or len(data) > _MAX_FILE_BYTES:
        raise KeyFault(
            "CO-C104",
            f"{path} is no {what}: it must be UTF-8 text of 1 to {_MAX_FILE_BYTES} bytes. Name the right file.",
        )
    return text


def _is_credential(path: Path) -> bool:
    """Whether systemd hands the file to this service, in a folder that the service alone enters."""
    folder = os.environ.get(CREDENTIALS)
    return bool(folder) and path.parent == Path(str(folder))


def write_private(path: Path, text: str) -> None:
    """Write a new file that only its owner may read, safe on disk; FileExistsError rather than overwriting one."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def replace_private(path: Path, text: str) -> None:
    """Write a private file in the place of an old one, whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    try:
        write_private(aside, text)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def supply_private(path: Path, text: Callable[[], str]) -> None:
    """Write a private file, whole or not at all, unless it is there: who was cut short goes on."""
    if not path.exists():
        replace_private(path, text())


def check_mode(path: Path, mode: int, what: str, wanted: str) -> None:
    """KeyFault if group or others may do anything with what `mode` belongs to."""
    if mode & OTHERS:
        mode_text = f"{stat.S_IMODE(mode):o}"
        raise KeyFault("CO-C102", f"Others can reach {what} {path} (mode {mode_text}). Run: chmod {wanted} {path}")
