"""A run's folder: the study, the network, the store and, for each site, its data, keys and journal.

    study.toml  study.json  certificate.json  place.json  network.json  result.json  chain/  store/
    talk.json (where the sites talk to each other in interactive steps)
    sites/<name>/{data.csv, keys/, passphrase, policy.toml, releases/, journal.sqlite, geth/, kubo/}

`coterie demo --keep DIR` and `coterie devnet up DIR` leave one behind; `--at DIR` opens it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import Network
from coterie_chain.keys.journal import SqliteJournal
from coterie_chain.keys.site_keys import SiteKeys, read_passphrase
from coterie_chain.network.devnet import CHAIN_LAUNCHERS, STORE_LAUNCHERS, ChainLauncher, StoreLauncher
from coterie_chain.store.protocol import BlobStore
from coterie_chain.store.urls import open_store
from coterie_node.errors import ConfigError
from coterie_node.peers.tls import address_of
from coterie_node.run.study_keys import current_keys


@dataclass(frozen=True)
class SiteFolder:
    """One site's part of a run's folder."""

    root: Path

    @property
    def data(self) -> Path:
        """The site's rows."""
        return self.root / "data.csv"

    @property
    def keys(self) -> Path:
        """The directory of its key files."""
        return self.root / "keys"

    @property
    def passphrase(self) -> Path:
        """The file with the passphrase of its keys."""
        return self.root / "passphrase"

    @property
    def policy(self) -> Path:
        """The site's own rules for what leaves, if it has any."""
        return self.root / "policy.toml"

    @property
    def releases(self) -> Path:
        """The folder of payloads that wait for a person's yes."""
        return self.root / "releases"

    @property
    def privacy(self) -> Path:
        """The folder of its privacy log."""
        return self.root / "privacy"

    @property
    def journal(self) -> Path:
        """Its journal of signed transactions and private memory."""
        return self.root / "journal.sqlite"


@dataclass(frozen=True)
class RunSettings:
    """What place.json holds: the kinds of chain and of store, the sites, seconds per block.

    The chain "running" is not ours to start; network.json says where it is.
    """

    chain: str
    store: str
    sites: tuple[str, ...] = ()
    period: int | None = None


@dataclass(frozen=True)
class RunFolder:
    """A run's folder."""

    root: Path

    def site(self, name: str) -> SiteFolder:
        """One site's part."""
        return SiteFolder(self.root / "sites" / name)

    @property
    def study(self) -> Path:
        """The study as people wrote it."""
        return self.root / "study.toml"

    @property
    def certificate(self) -> Path:
        """How far the study's fit is from the pooled one on made-up data."""
        return self.root / "certificate.json"

    @property
    def chain_state(self) -> Path:
        """Anvil's state."""
        return self.root / "chain" / "state.json"

    @property
    def talk(self) -> Path:
        """Addresses at which the sites talk to each other, if the study has interactive steps."""
        return self.root / "talk.json"

    def addresses(self) -> dict[str, tuple[str, int]] | None:
        """Host and port of every site, from talk.json ({"site": "host:port"}); None without such a file."""
        if not self.talk.exists():
            return None
        try:
            return {name: address_of(text) for name, text in json.loads(self.talk.read_text()).items()}
        except (OSError, ValueError, AttributeError):
            message = f'{self.talk} does not give each site an address such as "127.0.0.1:7401"'
            raise ConfigError("CO-F342", f"{message}.") from None

    def save(self, settings: RunSettings, network: Network) -> None:
        """Write place.json and network.json."""
        self.save_settings(settings)
        (self.root / "network.json").write_text(network.to_json())

    def save_settings(self, settings: RunSettings) -> None:
        """Write place.json."""
        (self.root / "place.json").write_text(json.dumps(asdict(settings), indent=2) + "\n")

    def settings(self) -> RunSettings:
        """Read place.json; ConfigError if the folder holds no run."""
        try:
            raw = json.loads((self.root / "place.json").read_text())
            return replace(RunSettings(**raw), sites=tuple(raw.get("sites", ())))
        except (OSError, ValueError, TypeError, AttributeError):
            message = f"{self.root} holds no run of Coterie (no readable place.json)."
            raise ConfigError(
                "CO-F201", f"{message} Make one with `coterie demo --keep {self.root}` or `coterie devnet up`."
            ) from None

    def chain(self) -> ChainLauncher:
        """The launcher of the run's chain."""
        settings = self.settings()
        return CHAIN_LAUNCHERS[settings.chain](self.root, settings.sites, settings.period)

    def store(self) -> StoreLauncher:
        """The launcher of the run's store."""
        settings = self.settings()
        return STORE_LAUNCHERS[settings.store.partition(":")[0]](self.root, settings.sites)

    def network(self, site: str | None = None) -> Network:
        """Read network.json; with the site's own node, where each has one."""
        try:
            network = Network.from_json((self.root / "network.json").read_text())
        except OSError as error:
            raise ConfigError("CO-F202", f"{self.root}/network.json cannot be read: {error.strerror}.") from None
        if site is None or self.settings().chain not in CHAIN_LAUNCHERS:
            return network
        return replace(network, url=self.chain().url(site))

    def blobs(self, site: str | None = None) -> BlobStore:
        """A site's own store; for None all that the run's stores hold, for an auditor."""
        store = self.store()
        return store.open_reader() if site is None else open_store(store.url(site))

    @contextmanager
    def reader(self) -> Iterator[EthereumLedger]:
        """A reader of the run's ledger; a development chain that was left behind is started again, read-only."""
        network = self.network()
        with ExitStack() as stack:
            if self.settings().chain in CHAIN_LAUNCHERS:
                network = replace(network, url=stack.enter_context(self.chain().open_reader()))
            yield stack.enter_context(EthereumLedger(network, None))


def load_study_keys(place: RunFolder, name: str, session: str) -> tuple[SiteKeys, ...]:
    """The keys with which a site of a run's folder can open payloads of a session."""
    part = place.site(name)
    keys = SiteKeys.load(part.keys, read_passphrase(part.passphrase))
    journal = SqliteJournal(part.journal)
    try:
        return current_keys(keys, journal.vault, session)
    finally:
        journal.close()
