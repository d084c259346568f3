"""Small files from outside: read whole, and never more of them than a bound."""

from __future__ import annotations

from pathlib import Path


def read_bounded(path: Path, most: int) -> bytes:
    """A file's bytes; OSError if it cannot be read, ValueError if it has more than `most` bytes."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than the {most} bytes that are allowed here")
    return content


def read_bounded_text(path: Path, most: int) -> str:
    """A file's UTF-8 text; OSError if it cannot be read, ValueError if it is too large or not UTF-8."""
    return read_bounded(path, most).decode("utf-8")
