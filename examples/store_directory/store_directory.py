"""A store of blocks in one plain directory, as an example of a store: `directory:PATH`."""

from __future__ import annotations

from pathlib import Path

from coterie.sdk import MAX_BLOB, BlobMissing, read_blocks, write_blocks


class DirectoryStore:
    """Blocks as files of one directory, each named by its CID."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes) -> str:
        """Store bytes."""
        return write_blocks(data, lambda cid, block: (self._directory / cid).write_bytes(block))

    def get(self, cid: str, max_bytes: int = MAX_BLOB) -> bytes:
        """Verified bytes behind a CID."""
        return read_blocks(cid, self._read_block, max_bytes)

    def has(self, cid: str) -> bool:
        """Whether the root block is here."""
        return (self._directory / cid).is_file()

    def _read_block(self, cid: str) -> bytes:
        try:
            return (self._directory / cid).read_bytes()
        except FileNotFoundError:
            raise BlobMissing("CO-C201", f"No block {cid} in {self._directory}.") from None


def open_directory(url: str) -> DirectoryStore:
    """The store at `directory:PATH`."""
    return DirectoryStore(Path(url.partition(":")[2]))
