"""A blob with a digest of its name and content before it, so that a cut, changed or renamed file is no other blob.

The digest finds accidents. Anybody who may write into the folder has the key of the log as well.
"""

from __future__ import annotations

import hashlib

_MARK = b"coterie-log-1\n"
_DIGEST_BYTES = 16


def mark_blob(name: str, content: bytes) -> bytes:
    """The content as it lies in a file: a mark, the digest, the content."""
    return b"".join((_MARK, _digest(name, content), content))


def open_blob(name: str, raw: bytes) -> bytes | None:
    """The content of a file, None if it is damaged; a file of a release before these marks has its content alone."""
    if not raw.startswith(_MARK):
        return raw or None  # an empty file is what a crash of the disk leaves
    start = len(_MARK) + _DIGEST_BYTES
    content = raw[start:]
    return content if raw[len(_MARK) : start] == _digest(name, content) else None


def _digest(name: str, content: bytes) -> bytes:
    out = hashlib.blake2b(name.encode() + b"\0", digest_size=_DIGEST_BYTES)
    out.update(content)
    return out.digest()
