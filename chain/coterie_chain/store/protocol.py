"""Content-addressed stores: the Protocol that every store obeys, the memory twin, and a folder that sites share."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Protocol

from coterie_chain.errors import BlobMissing, StoreFault
from coterie_chain.store.cid import MAX_BLOCK, Cid, compute_cid, parse_cid, read_blocks, write_blocks

# The most bytes of one payload, here and in the contracts (Catalog.sol, MAX_SIZE).
MAX_BLOB = 1 << 27


class BlobStore(Protocol):
    """Bytes by CID. The CID is computed and verified in our own process; a store is never trusted."""

    def put(self, data: bytes) -> str:
        """Store bytes, pinned; returns their CID (version 1, sha2-256, raw leaves of 1 MiB)."""

    def get(self, cid: str, max_bytes: int = MAX_BLOB) -> bytes:
        """The bytes behind a CID, verified block by block; BlobMissing, or BlobCorrupt with the block's name."""

    def has(self, cid: str) -> bool:
        """Whether the store holds the root block itself, without asking others."""


class MemoryBlobs:
    """The memory twin: a dictionary of blocks; `remedy` is what to do about one that is not there."""

    def __init__(self, remedy: str = "Wait for the site that holds it.") -> None:
        self._remedy = remedy
        self.blocks: dict[str, bytes] = {}
        # Blocks that were found to match their CIDs: the very objects, whose bytes cannot change.
        self._verified: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        """Store bytes."""
        return write_blocks(data, self.blocks.__setitem__)

    def get(self, cid: str, max_bytes: int = MAX_BLOB) -> bytes:
        """Verified bytes behind a CID."""
        block = self.blocks.get(cid)
        if type(block) is bytes and self._verified.get(cid) is block and len(block) <= max_bytes:
            return block
        data = read_blocks(cid, self._read_block, max_bytes)
        if data is block:  # one raw block, by its canonical name
            self._verified[cid] = data
        return data

    def has(self, cid: str) -> bool:
        """Whether the root block is here."""
        return str(parse_cid(cid)) in self.blocks

    def _read_block(self, cid: str) -> bytes:
        if cid not in self.blocks:
            raise BlobMissing("CO-C201", f"No block {cid} in this store. {self._remedy}")
        return self.blocks[cid]


class FolderBlobs:
    """Blocks as files in a folder that several processes or sites share, `<two letters>/<CID>`.

    A block appears whole or not at all: it is written aside, synced and renamed. What a crashed writer leaves behind
    starts with a dot and is never read. A block that was damaged is healed by the next `put` of the same bytes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with _translate_os_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes) -> str:
        """Store bytes."""
        return write_blocks(data, self._write)

    def get(self, cid: str, max_bytes: int = MAX_BLOB) -> bytes:
        """Verified bytes behind a CID."""
        return read_blocks(cid, self._read_block, max_bytes)

    def has(self, cid: str) -> bool:
        """Whether the root block is here."""
        with _translate_os_errors(self.path):
            return self._locate(cid).is_file()

    def _locate(self, cid: str) -> Path:
        # One name for all spellings of a CID, in letters that no file system folds: hostile text never gets this far.
        known = parse_cid(cid)
        name = str(Cid(1, known.codec, known.digest))
        return self.path / name[-3:-1] / name

    def _read_block(self, cid: str) -> bytes:
        place = self._locate(cid)
        with _translate_os_errors(place):
            try:
                return _read(place)
            except FileNotFoundError:
                raise BlobMissing(
                    "CO-C201", f"No block {cid} in the folder {self.path}. Wait for the site that holds it."
                ) from None

    def _write(self, cid: str, block: bytes) -> None:
        place = self._locate(cid)
        with suppress(OSError):
            if _read(place) == block:
                return
        with _translate_os_errors(place):
            place.parent.mkdir(exist_ok=True)
            # The subfolder's name and the block's bytes wait for the disk side by side; then the block's name.
            beside = Thread(target=_sync_directory, args=(self.path,))
            beside.start()
            try:
                _write_then_rename(place, block)
            finally:
                beside.join()
            _sync_directory(place.parent)


def _read(place: Path) -> bytes:
    # Another site may write here: no links, no pipes that block, never more than a block.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(place, "rb", opener=lambda path, _: os.open(path, flags)) as file:
        return file.read(MAX_BLOCK + 1)


def _write_then_rename(place: Path, block: bytes) -> None:
    # Not tempfile: its mode 0600 would hide the block from the other sites. The umask decides.
    aside = place.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(aside, "xb") as file:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, place)
    finally:
        aside.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    # The name must outlive a power cut too. Network shares may refuse this; then their server answers for it.
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _translate_os_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise StoreFault(
            "CO-C204",
            f"The folder store refused {place}: {e.strerror or e}. "
            "Check the free space, and that this user may read and write there.",
        ) from e


__all__ = ["MAX_BLOB", "BlobStore", "FolderBlobs", "MemoryBlobs", "compute_cid"]
