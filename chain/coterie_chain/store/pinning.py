"""A store that keeps what it is asked for: whatever a study's site has read once stays pinned at that site."""

from __future__ import annotations

from coterie_chain.store.protocol import MAX_BLOB, BlobStore

# Payloads that a store remembers to have; any other is put once more when it is read again.
REMEMBERED = 4096


class PinningStore:
    """Another site's payload that was read is put into this site's own store, so that it outlives the one who made it.

    Nothing is unpinned when a study ends: an auditor needs the payloads.
    """

    def __init__(self, inner: BlobStore) -> None:
        self._inner = inner
        # The newest of what was kept, in the order of their arrival: a daemon runs for years.
        self._kept: dict[str, None] = {}

    def put(self, data: bytes) -> str:
        """Store bytes, pinned."""
        cid = self._inner.put(data)
        self._remember(cid)
        return cid

    def get(self, cid: str, max_bytes: int = MAX_BLOB) -> bytes:
        """Verified bytes behind a CID, which are kept from then on."""
        data = self._inner.get(cid, max_bytes)
        if cid not in self._kept:
            self._inner.put(data)
            self._remember(cid)
        return data

    def has(self, cid: str) -> bool:
        """Whether this site's store holds the root block itself."""
        return self._inner.has(cid)

    def _remember(self, cid: str) -> None:
        self._kept[cid] = None
        if len(self._kept) > REMEMBERED:
            del self._kept[next(iter(self._kept))]
