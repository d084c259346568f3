"""Development networks: which chains and stores can be launched on this machine, and what each launcher does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from coterie_chain.network.clique import CliqueChain
from coterie_chain.network.programs.anvil import Anvil as Anvil
from coterie_chain.network.programs.anvil import AnvilChain
from coterie_chain.network.programs.anvil import find_anvil as find_anvil
from coterie_chain.network.programs.service import Service
from coterie_chain.network.swarm import KuboSwarm
from coterie_chain.store.protocol import BlobStore, FolderBlobs


class ChainLauncher(Protocol):
    """The chain of a network: programs for the sites in a folder.

    `note` is what people must know about such a chain; `confirmations` is the number of blocks after which a block is
    final.
    """

    note: str
    confirmations: int

    def prepare(self, funded: Sequence[str]) -> None:
        """Make keys and files; the accounts that will send transactions can pay for them."""

    def start(self) -> None:
        """Start what does not run; returns when transactions are taken."""

    def stop(self) -> None:
        """End everything."""

    def services(self) -> Mapping[str, Service]:
        """The programs, by site."""

    def url(self, site: str) -> str:
        """Address of a site's own node."""

    def facts(self, site: str) -> Mapping[str, int]:
        """Newest block and number of peers of a site's node, as far as they are known; nothing if it is down."""

    def open_reader(self) -> AbstractContextManager[str]:
        """Address of a node for an auditor, while the network runs or after it has ended."""


class StoreLauncher(Protocol):
    """The store of a network: programs for the sites in a folder."""

    def prepare(self) -> None:
        """Make keys and files."""

    def start(self) -> None:
        """Start what does not run; returns when all sites reach all blocks."""

    def stop(self) -> None:
        """End everything."""

    def services(self) -> Mapping[str, Service]:
        """The programs, by site."""

    def url(self, site: str) -> str:
        """Address of a site's own store, for `open_store`."""

    def facts(self, site: str) -> Mapping[str, int]:
        """Number of peers and of blocks of a site's store, as far as they are known; nothing if it is down."""

    def open_reader(self) -> BlobStore:
        """All blocks, for an auditor, while the network runs or after it has ended."""


class SharedFolder:
    """The store of a network as one folder that all sites share; a StoreLauncher without programs."""

    def __init__(self, root: Path, sites: Sequence[str]) -> None:
        self._path = root / "store"

    def prepare(self) -> None:
        """Make the folder."""
        self._path.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to end."""

    def services(self) -> dict[str, Service]:
        """No programs."""
        return {}

    def url(self, site: str) -> str:
        """Address of the folder."""
        return f"folder:{self._path.absolute()}"

    def facts(self, site: str) -> dict[str, int]:
        """Nothing to tell."""
        return {}

    def open_reader(self) -> BlobStore:
        """The folder."""
        return FolderBlobs(self._path)


CHAIN_LAUNCHERS: Mapping[str, Callable[[Path, Sequence[str], int | None, bool], ChainLauncher]] = {
    "anvil": AnvilChain,
    "clique": CliqueChain,
}
STORE_LAUNCHERS: Mapping[str, Callable[[Path, Sequence[str]], StoreLauncher]] = {
    "folder": SharedFolder,
    "kubo": KuboSwarm,
}
