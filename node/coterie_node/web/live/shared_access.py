"""A site's folder whose ledger is the one that the page follows already, so that no verb opens a second one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from coterie_chain.ethereum.network import Network
from coterie_chain.ledger.protocol import Ledger
from coterie_chain.store.protocol import BlobStore
from coterie_node.site.folder import SiteAccess, SiteFolder


@dataclass(frozen=True)
class SharedAccess:
    """The way of a site, with a ledger and a store that stay open."""

    inner: SiteAccess
    ledger: Ledger
    blobs: BlobStore

    def read_network(self) -> Network:
        """The site's network."""
        return self.inner.read_network()

    def open_store(self) -> BlobStore:
        """The site's own store."""
        return self.blobs

    @contextmanager
    def open_ledger(self) -> Iterator[Ledger]:
        """The ledger that is open."""
        yield self.ledger

    def open_archive(self) -> BlobStore:
        """The site's own store."""
        return self.blobs


def share(folder: SiteFolder, ledger: Ledger, blobs: BlobStore) -> SiteFolder:
    """The folder with a ledger and a store that stay open."""
    return replace(folder, access=SharedAccess(folder.access, ledger, blobs))
