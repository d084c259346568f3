"""The blocks of Kubo repositories as files, for an auditor who comes after the daemons have gone.

Kubo keeps each block in `blocks/<last letters but one>/<multihash in base32>.data` (go-ds-flatfs, next-to-last/2).
What is read is hashed like everything else, so that neither the daemon nor the file system is trusted.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

from coterie_chain.errors import BlobMissing, StoreFault
from coterie_chain.store.cid import MAX_BLOCK, parse_cid, read_blocks
from coterie_chain.store.protocol import MAX_BLOB

_SHA2_256 = b"\x12\x20"


class RepoBlobs:
    """A store that only reads: all blocks that any of these repositories holds."""

    def __init__(self, repos: Iterable[Path]) -> None:
        self._repos = tuple(repos)

    def put(self, data: bytes) -> str:
        """Refused: the repositories belong to their daemons."""
        raise StoreFault("CO-C212", "Repositories of Kubo are only read here; write through a Kubo that runs.")

    def get(self, cid: str, max_bytes: int = MAX_BLOB) -> bytes:
        """Verified bytes behind a CID."""
        return read_blocks(cid, self._read_block, max_bytes)

    def has(self, cid: str) -> bool:
        """Whether one of the repositories holds the root block."""
        return any(place.is_file() for place in self._list_paths(cid))

    def _read_block(self, cid: str) -> bytes:
        for place in self._list_paths(cid):
            if place.is_file():
                with place.open("rb") as file:
                    return file.read(MAX_BLOCK + 1)
        raise BlobMissing(
            "CO-C201", f"No block {cid} in {len(self._repos)} repositories. Start the daemon of the site that holds it."
        )

    def _list_paths(self, cid: str) -> list[Path]:
        key = base64.b32encode(_SHA2_256 + parse_cid(cid).digest).decode().rstrip("=")
        return [repo / "blocks" / key[-3:-1] / f"{key}.data" for repo in self._repos]
