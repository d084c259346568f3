"""A Clique chain and a Kubo swarm of this machine to time: a sealing Geth and a Kubo for each site, in processes.

They start once for the same sites and end with the measurement; each study has a new Catalog on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import Ledger, SiteEntry
from coterie_chain.network.clique import CliqueChain
from coterie_chain.network.deploy import deploy
from coterie_chain.network.swarm import KuboSwarm
from coterie_chain.store.protocol import BlobStore
from coterie_chain.store.urls import open_store
from coterie_node.network.devnet import await_catalog


@dataclass
class CliqueNetworks:
    """The networks that run, by the addresses of their sites; `stack` ends them."""

    stack: ExitStack
    running: dict[tuple[str, ...], tuple[CliqueChain, KuboSwarm]] = field(default_factory=dict)

    @contextmanager
    def connect(self, keys: Mapping[str, SiteKeys]) -> Iterator[tuple[dict[str, Ledger], dict[str, BlobStore]]]:
        """Each site's ledger, on a new Catalog, and store, by its own Geth and Kubo."""
        chain, swarm = self._find(keys)
        entries = [SiteEntry(k, name, own.address, own.sealing) for k, (name, own) in enumerate(keys.items(), 1)]
        first = next(iter(keys))
        network = deploy(chain.url(first), entries, keys[first].signer, confirmations=chain.confirmations)
        with ExitStack() as stack:
            ledgers: dict[str, Ledger] = {}
            for name, own in keys.items():
                here = replace(network, url=chain.url(name))
                await_catalog(here)
                ledger = EthereumLedger(here, own.signer)
                stack.callback(ledger.close)
                ledgers[name] = ledger
            yield ledgers, {name: open_store(swarm.url(name)) for name in keys}

    def _find(self, keys: Mapping[str, SiteKeys]) -> tuple[CliqueChain, KuboSwarm]:
        """The network of these sites, which is started if it does not run."""
        addresses = tuple(own.address for own in keys.values())
        if addresses not in self.running:
            folder = Path(self.stack.enter_context(TemporaryDirectory(prefix="coterie-", ignore_cleanup_errors=True)))
            chain, swarm = CliqueChain(folder, tuple(keys)), KuboSwarm(folder, tuple(keys))
            self.stack.callback(swarm.stop)
            self.stack.callback(chain.stop)
            swarm.prepare()
            chain.prepare(addresses)
            chain.start()
            swarm.start()
            self.running[addresses] = chain, swarm
        return self.running[addresses]
