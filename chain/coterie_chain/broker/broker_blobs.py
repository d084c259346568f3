"""A store over a broker: each block of a payload is a message, and each reader keeps the blocks that it has read."""

from __future__ import annotations

import time

from coterie_chain.broker.message_log import MessageLog
from coterie_chain.errors import BlobMissing
from coterie_chain.store.cid import parse_cid, read_blocks, write_blocks
from coterie_chain.store.protocol import MAX_BLOB

# A block is appended before the record that names it, but to another log: it may come a little later.
PATIENCE = 5.0


class BrokerBlobs:
    """One site's handle on the blocks of a log; `sent` counts the bytes of blocks that this site appended."""

    def __init__(self, log: MessageLog, patience: float = PATIENCE) -> None:
        self._log, self._patience = log, patience
        self.blocks: dict[str, bytes] = {}
        self.sent = 0

    def close(self) -> None:
        """Leave the broker."""
        self._log.close()

    def put(self, data: bytes) -> str:
        """Send bytes to all readers."""
        return write_blocks(data, self._send)

    def get(self, cid: str, max_bytes: int = MAX_BLOB) -> bytes:
        """Verified bytes behind a CID."""
        return read_blocks(cid, self._await_block, max_bytes)

    def has(self, cid: str) -> bool:
        """Whether the root block has come."""
        self._take(0.0)
        return str(parse_cid(cid)) in self.blocks

    def _send(self, cid: str, block: bytes) -> None:
        if cid not in self.blocks:
            self.blocks[cid] = block
            self.sent += len(block)
            self._log.append(cid.encode() + b"\n" + block)

    def _await_block(self, cid: str) -> bytes:
        deadline = time.monotonic() + self._patience
        while cid not in self.blocks:
            left = deadline - time.monotonic()
            if left <= 0:
                raise BlobMissing(
                    "CO-C201", f"No block {cid} has come from the broker. Wait for the site that sends it."
                )
            self._take(left)
        return self.blocks[cid]

    def _take(self, seconds: float) -> None:
        # What a message says of itself is checked where it is used: read_blocks compares every block with its CID.
        for message in self._log.read(seconds):
            cid, _, block = message.partition(b"\n")
            self.blocks.setdefault(cid.decode("ascii", "replace"), block)
