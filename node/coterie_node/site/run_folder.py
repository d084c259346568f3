"""A run's folder: the study, the network, the store and the folders of all its sites (see `folder`).

    study.toml  study.json  certificate.json  place.json  network.json  result.json  chain/  store/
    talk.json (where the sites talk to each other in interactive steps)
    sites/<name>/{data.csv or data.parquet, keys/, passphrase, policy.toml, releases/, journal.sqlite, geth/, kubo/}

`coterie demo --keep DIR`, `coterie simulate --keep DIR` and `coterie devnet up DIR` make one; `--at DIR` opens it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import Network
from coterie_chain.keys.private_files import replace_private
from coterie_chain.store.protocol import BlobStore
from coterie_chain.store.urls import open_store
from coterie_learners.core.registry import list_learners
from coterie_node.data.cohort.flow import Flow, parse_flow
from coterie_node.errors import ConfigError
from coterie_node.peers.address import address_of
from coterie_node.release.policy import Policy
from coterie_node.site.config import CONFIG, NodeConfig, SitePolicy, load_config
from coterie_node.site.folder import SiteFolder

if TYPE_CHECKING:
    from coterie_chain.network.devnet import ChainLauncher, StoreLauncher

# What a site's rows are called in a run.
CSV, PARQUET = "data.csv", "data.parquet"


@dataclass(frozen=True)
class RunSettings:
    """What place.json holds: the kinds of chain and of store, the sites, seconds per block, whether the chain sleeps.

    The chain "running" belongs to somebody else and is not started here; network.json says where it is.
    """

    chain: str
    store: str
    sites: tuple[str, ...] = ()
    period: int | None = None
    sleep: bool = False


@dataclass(frozen=True)
class RunFolder:
    """A run's folder."""

    root: Path

    def site_root(self, name: str) -> Path:
        """The folder of one site, whether or not it is there yet."""
        return self.root / "sites" / name

    def site(self, name: str) -> SiteFolder:
        """One site of the run."""
        root = self.site_root(name)
        return SiteFolder(root, _settings_of_run(name, root), RunAccess(self, name))

    def find_site(self, name: str) -> SiteFolder:
        """One site of the run, by a name that somebody typed; ConfigError if the run has no such site."""
        names = sorted(path.name for path in (self.root / "sites").glob("*/"))
        if name not in names:
            self.settings()  # whether this is a run at all
            message = f"{name!r} is not a site of the run in {self.root}; its sites are {', '.join(names)}"
            raise ConfigError("CO-F302", f"{message}. Name one of them with --site.")
        return self.site(name)

    @property
    def study(self) -> Path:
        """The study as people wrote it."""
        return self.root / "study.toml"

    @property
    def certificate(self) -> Path:
        """How far the study's fit is from the pooled one on synthetic data."""
        return self.root / "certificate.json"

    @property
    def result(self) -> Path:
        """The result of the one study of a run that is kept."""
        return self.root / "result.json"

    def read_flows(self, number: int, study: bytes) -> dict[str, Flow]:
        """The flow of the rows of each site of the run into a study, where it is known."""
        names = sorted(path.name for path in (self.root / "sites").glob("*/"))
        flows = {name: self.site(name).read_flow(number, study) for name in names}
        kept = {name: parse_flow(rows.get("flow")) for name, rows in self._read_kept(study).get("rows", {}).items()}
        known = [*kept.items(), *flows.items()]
        return {name: flow for name, flow in known if flow is not None}

    def read_row_warnings(self, number: int, study: bytes) -> tuple[str, ...]:
        """What the results of a study (its number, its hash) warn of the rows of any site of the run."""
        names = sorted(path.name for path in (self.root / "sites").glob("*/"))
        by_site = (self.site(name).read_row_warnings(number, study) for name in names)
        kept = self._read_kept(study).get("row_warnings", ())
        return tuple(dict.fromkeys((*(text for texts in by_site for text in texts), *map(str, kept))))

    def _read_kept(self, study: bytes) -> dict[str, Any]:
        """The result of the run that is kept here, if it is of this study (its hash)."""
        try:
            same = hashlib.sha256((self.root / "study.json").read_bytes()).digest() == study
            kept = json.loads(self.result.read_bytes()) if same else {}
        except (OSError, ValueError):
            kept = {}
        return kept if isinstance(kept, dict) else {}

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
            raise ConfigError("CO-F342", f"{message}. Add it for every site.") from None

    def save(self, settings: RunSettings, network: Network) -> None:
        """Write place.json and network.json."""
        self.save_settings(settings)
        replace_private(self.root / "network.json", network.to_json())

    def save_settings(self, settings: RunSettings) -> None:
        """Write place.json."""
        replace_private(self.root / "place.json", json.dumps(asdict(settings), indent=2) + "\n")

    def settings(self) -> RunSettings:
        """Read place.json; ConfigError if the folder holds no run."""
        try:
            raw = json.loads((self.root / "place.json").read_text())
            return replace(RunSettings(**raw), sites=tuple(raw.get("sites", ())))
        except (OSError, ValueError, TypeError, AttributeError):
            message = f"{self.root} is not a run folder: its place.json cannot be read"
            remedy = (
                "Name a folder of `coterie demo --keep` or `coterie devnet up`; a node's own folder goes with --node"
            )
            raise ConfigError("CO-F201", f"{message}. {remedy}.") from None

    def chain(self) -> ChainLauncher:
        """The launcher of the run's chain."""
        from coterie_chain.network.devnet import CHAIN_LAUNCHERS  # slow to import

        settings = self.settings()
        return CHAIN_LAUNCHERS[settings.chain](self.root, settings.sites, settings.period, settings.sleep)

    def store(self) -> StoreLauncher:
        """The launcher of the run's store."""
        from coterie_chain.network.devnet import STORE_LAUNCHERS  # slow to import

        settings = self.settings()
        return STORE_LAUNCHERS[settings.store.partition(":")[0]](self.root, settings.sites)

    def network(self, site: str | None = None) -> Network:
        """Read network.json; with the site's own node, where each has one."""
        try:
            network = Network.from_json((self.root / "network.json").read_text())
        except OSError as error:
            raise ConfigError(
                "CO-F202", f"{self.root}/network.json cannot be read: {error.strerror}. Name the folder of a run."
            ) from None
        if site is None or not self._launches_chain():
            return network
        return replace(network, url=self.chain().url(site))

    def _launches_chain(self) -> bool:
        from coterie_chain.network.devnet import CHAIN_LAUNCHERS  # slow to import

        return self.settings().chain in CHAIN_LAUNCHERS

    def blobs(self, site: str | None = None) -> BlobStore:
        """A site's own store; for None all that the run's stores hold, for an auditor."""
        store = self.store()
        return store.open_reader() if site is None else open_store(store.url(site))

    @contextmanager
    def reader(self) -> Iterator[EthereumLedger]:
        """A reader of the run's ledger; a development chain that has ended is started again, read-only."""
        network = self.network()
        with ExitStack() as stack:
            if self._launches_chain():
                network = replace(network, url=stack.enter_context(self.chain().open_reader()))
            yield stack.enter_context(EthereumLedger(network, None, sleeps=self.settings().sleep))


@dataclass(frozen=True)
class RunAccess:
    """The way of a site of a run: the run's own chain and store, while they run or after they have ended."""

    run: RunFolder
    site: str

    def read_network(self) -> Network:
        """The run's network, through this site's own node where each site has one."""
        return self.run.network(self.site)

    def open_store(self) -> BlobStore:
        """This site's own store."""
        return self.run.blobs(self.site)

    def open_ledger(self) -> AbstractContextManager[EthereumLedger]:
        """The run's ledger; a development chain that has ended is started again, read-only."""
        return self.run.reader()

    def open_archive(self) -> BlobStore:
        """All that the run's stores hold: the site's own may be down."""
        return self.run.blobs()


def _settings_of_run(name: str, root: Path) -> NodeConfig:
    """Settings of a site of a run. A site without a daemon has no node.toml; its policy.toml stands for it."""
    if (root / CONFIG).exists():
        return load_config(root / CONFIG)
    rules = Policy.load(root / "policy.toml").model_dump()
    learners = list_learners()
    data = PARQUET if (root / PARQUET).exists() else CSV
    return NodeConfig(site=name, data=data, policy=SitePolicy.model_validate({**rules, "learners": learners}))
