"""Idempotency keys: a request that is sent again under its key gets the answer of the first, and does nothing.

A key belongs to its token. With it stand the digest of the request and the answer. Another request under the same key
is refused. An answer of the server's fault (500 and above) is not kept, so that the request can be tried again.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from coterie_node.web.api.tokens import Refused

IDEMPOTENCY = "api-requests.sqlite"
KEPT_SECONDS = 86_400
# A request that has no answer after so long was cut off, and may be sent again.
RUNNING_SECONDS = 900
# The most keys of each token.
MAX_KEYS = 2000
_FORM = re.compile(r"[A-Za-z0-9._:-]{8,128}")


@dataclass(frozen=True)
class Stored:
    """An answer: its status, its kind, and its body."""

    status: int
    kind: str
    body: bytes


class IdempotencyKeys:
    """The keys of one site, in a private file."""

    def __init__(self, path: Path, most: int = MAX_KEYS) -> None:
        self._most = most
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._lock = threading.Lock()
        self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._base.execute(
            "CREATE TABLE IF NOT EXISTS requests (id TEXT PRIMARY KEY, token TEXT NOT NULL, digest TEXT NOT NULL, "
            "at REAL NOT NULL, status INTEGER, kind TEXT, body BLOB)"
        )

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def begin(self, token: str, key: str, request: bytes, now: float) -> Stored | None:
        """The answer that the request has had; None if it is new, and is to be answered now.

        Refused: CO-H107 for a malformed key, CO-H108 if the key stands for another request, CO-H109 while the first
        is at work.
        """
        name, digest = _name(token, key), hashlib.sha256(request).hexdigest()
        with self._lock:
            self._prune(token, now)
            row = self._base.execute(
                "SELECT digest, at, status, kind, body FROM requests WHERE id = ?", (name,)
            ).fetchone()
            if row is None:
                values = (name, token, digest, now)
                self._base.execute("INSERT INTO requests (id, token, digest, at) VALUES (?, ?, ?, ?)", values)
                return None
        if row[0] != digest:
            raise Refused("CO-H108", "The idempotency key was used for another request. Take a new key.", 422)
        if row[2] is None:
            raise Refused("CO-H109", "The first request of this idempotency key is at work. Ask again later.", 409)
        return Stored(row[2], row[3], row[4])

    def finish(self, token: str, key: str, answer: Stored) -> None:
        """Keep the answer of a request, or forget the request if the server could not answer it."""
        name = _name(token, key)
        with self._lock:
            if answer.status >= 500:
                self._base.execute("DELETE FROM requests WHERE id = ?", (name,))
                return
            values = (answer.status, answer.kind, answer.body, name)
            self._base.execute("UPDATE requests SET status = ?, kind = ?, body = ? WHERE id = ?", values)

    def _prune(self, token: str, now: float) -> None:
        self._base.execute(
            "DELETE FROM requests WHERE at < ? OR (status IS NULL AND at < ?)",
            (now - KEPT_SECONDS, now - RUNNING_SECONDS),
        )
        (count,) = self._base.execute("SELECT COUNT(*) FROM requests WHERE token = ?", (token,)).fetchone()
        if count >= self._most:
            message = f"{count} idempotency keys of this token are in use"
            raise Refused("CO-H110", f"{message}. Wait a while, or send none.", 429)


def _name(token: str, key: str) -> str:
    """The key's name in the file: of this token alone."""
    if _FORM.fullmatch(key) is None:
        message = "An idempotency key has 8 to 128 letters, digits, dots, colons, dashes or underscores"
        raise Refused("CO-H107", f"{message}. Take a random UUID.", 422)
    return hashlib.sha256(f"{token}\n{key}".encode()).hexdigest()
