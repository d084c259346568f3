"""The log of what persons did at a site: one line for each act, append only, each with the hash of the one before it.

The head of the chain goes onto the ledger inside the digest of the next joining (approval_statement.py). A log that was
cut or changed afterwards does not reach that head.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from coterie_learners.study.document import Frozen, Text
from coterie_node.errors import AuditFailed, ConfigError
from coterie_node.persons.acts import ZEROS, Digest32, Seconds
from coterie_node.persons.register import encode_canonical

MAX_LINE_BYTES = 8192
_MAX_SUBJECT = 200


class LogHead(Frozen):
    """How many entries a log has, and the hash of the last one."""

    entries: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    hash: Digest32 = ZEROS


class LogEntry(Frozen):
    """One act: its number from 1, time, what was done, by which person, to what, and the hash of the entry before."""

    number: Annotated[int, Field(ge=1, lt=1 << 63)]
    time: Seconds
    act: Annotated[Text, Field(min_length=1)]
    person: Text = ""
    subject: Text = ""
    previous: Digest32

    @property
    def hash(self) -> str:
        """SHA-256 of the entry's canonical JSON, in hexadecimal digits."""
        return hashlib.sha256(encode_canonical(self.model_dump(mode="json"))).hexdigest()


class ActLog:
    """The log of one site, a file of mode 0600 with one JSON document in each line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, act: str, person: str, subject: str, time: int) -> LogHead:
        """Write an act down, safe on disk, and return the new head; other processes wait their turn."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            line, end = self._read_last(file.fileno())
            os.ftruncate(file.fileno(), end)
            head = self._read_head(line)
            entry = LogEntry(
                number=head.entries + 1, time=time, act=act, person=person, subject=_clip(subject), previous=head.hash
            )
            file.write(entry.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return LogHead(entries=entry.number, hash=entry.hash)

    @property
    def head(self) -> LogHead:
        """The newest head; of no entries if there is no log."""
        try:
            with self.path.open("rb") as file:
                return self._read_head(self._read_last(file.fileno())[0])
        except FileNotFoundError:
            return LogHead()

    def read(self) -> Iterator[LogEntry]:
        """Every whole entry in order; ConfigError (CO-F437) at a line that is none."""
        if self.path.exists():
            with self.path.open("rb") as file:
                while (line := file.readline(MAX_LINE_BYTES + 1)).endswith(b"\n") or len(line) > MAX_LINE_BYTES:
                    yield self._parse(line)

    def verify(self, anchors: Iterable[LogHead] = ()) -> LogHead:
        """The head, if each entry follows from the one before and each anchored head is in the chain.

        AuditFailed (CO-A215) names the first bad entry.
        """
        head, heads = LogHead(), {LogHead()}
        for entry in self.read():
            if (entry.number, entry.previous) != (head.entries + 1, head.hash):
                message = f"Entry {head.entries + 1} of {self.path} does not follow from the one before"
                raise AuditFailed("CO-A215", f"{message}. The log was changed: ask for its backup.")
            head = LogHead(entries=entry.number, hash=entry.hash)
            heads.add(head)
        for anchor in anchors:
            if anchor not in heads:
                message = f"A signed statement has entry {anchor.entries} of {self.path} with the hash {anchor.hash}"
                raise AuditFailed("CO-A215", f"{message}, which the log does not have. It was cut or changed.")
        return head

    def _read_last(self, handle: int) -> tuple[bytes, int]:
        """The last whole line, and where the file ends behind it: a crash may have cut a line that nobody relied on."""
        size = os.fstat(handle).st_size
        start = max(size - 2 * MAX_LINE_BYTES, 0)
        whole, newline, _ = os.pread(handle, 2 * MAX_LINE_BYTES, start).rpartition(b"\n")
        if start and not newline:
            raise self._explain()
        return whole.rsplit(b"\n", 1)[-1], start + len(whole) + len(newline)

    def _read_head(self, line: bytes) -> LogHead:
        if not line:
            return LogHead()
        entry = self._parse(line)
        return LogHead(entries=entry.number, hash=entry.hash)

    def _parse(self, line: bytes) -> LogEntry:
        try:
            entry = LogEntry.model_validate_json(line)
        except ValueError:
            raise self._explain() from None
        # A key that stands twice, or another order, would be read in one way here and in another way by a person.
        if line.rstrip(b"\n") != entry.model_dump_json().encode():
            raise self._explain()
        return entry

    def _explain(self) -> ConfigError:
        message = f"The log of acts {self.path} has a line that is no entry"
        return ConfigError("CO-F437", f"{message}. Look at it with `coterie person log --verify`; keep the file.")


def _clip(text: str) -> str:
    """What a line of the log has room for, without what steers a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:_MAX_SUBJECT]
