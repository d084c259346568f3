"""One site's folder: its settings, keys, journal, decisions and results, and the way to its ledger and its store.

    DIR/node.toml  network.json  card.json  keys/  passphrase  journal.sqlite
        decisions/  ballots/  copies/  faults/  persons/  privacy/  releases/  results/

Two finders open one: `find_node` the folder that `coterie init` made, and `RunFolder.site` a site's part of a run's
folder (`coterie demo --keep`, `coterie devnet up`). Every command works on the folder that they return, whichever it
is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from coterie_chain.errors import StoreFault
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import Network
from coterie_chain.keys.journal import SqliteJournal
from coterie_chain.keys.private_files import CREDENTIALS
from coterie_chain.keys.site_keys import SiteKeys, read_passphrase
from coterie_chain.ledger.protocol import Ledger
from coterie_chain.store.protocol import BlobStore
from coterie_chain.store.urls import open_store
from coterie_node.data.cohort.flow import Flow, parse_flow
from coterie_node.errors import ConfigError
from coterie_node.run.study_keys import current_keys
from coterie_node.site.config import CONFIG, NodeConfig, load_config
from coterie_node.site.decisions import DecisionFolder

if TYPE_CHECKING:
    from coterie_node.data.installed_source import RowsAddress
    from coterie_node.data.row_copies import RowCopies
    from coterie_node.persons.folder import PersonsFolder
    from coterie_node.site.votes import BallotBox

KEYS, PASSPHRASE, NETWORK = "keys", "passphrase", "network.json"
# The keys of an address that may name a file with its secret or token.
TOKEN_OPTIONS = ("jwt_file", "token_file")


class SiteAccess(Protocol):
    """The way to a site's ledger and store. A node goes through its own programs, a site of a run through the run."""

    def read_network(self) -> Network:
        """The site's network, with the address of the site's own chain node."""

    def open_store(self) -> BlobStore:
        """The site's own store."""

    def open_ledger(self) -> AbstractContextManager[Ledger]:
        """The ledger to read from, without the site's key."""

    def open_archive(self) -> BlobStore:
        """A store to read finished studies from."""


@dataclass(frozen=True)
class SiteFolder:
    """The folder of one site."""

    root: Path
    config: NodeConfig
    access: SiteAccess

    @property
    def name(self) -> str:
        """The site's name."""
        return self.config.site

    def path(self, name: str) -> Path:
        """A path that the settings name, relative to the folder."""
        return _resolve(self.root, name)

    @property
    def keys(self) -> Path:
        """The directory of the key files."""
        return self.root / KEYS

    @property
    def passphrase(self) -> Path:
        """The file whose first line opens the keys: the one that systemd hands over, or that node.toml names."""
        handed = Path(os.environ.get(CREDENTIALS, "/nonexistent")) / PASSPHRASE
        if handed.is_file():
            return handed
        return self.path(self.config.passphrase_file)

    @property
    def journal(self) -> Path:
        """Signed transactions and private memory."""
        return self.root / "journal.sqlite"

    @property
    def history(self) -> Path:
        """A copy of the ledger's entries, which may be deleted at any time."""
        return self.root / "history.sqlite"

    @property
    def data(self) -> Path:
        """The file of this site's rows, where node.toml names a file; `locate_rows` serves every source."""
        return self.path(self.config.data)

    @property
    def exclude(self) -> Path | None:
        """The file with the identifiers of patients who object, if there is one."""
        return self.path(self.config.exclude) if self.config.exclude else None

    @property
    def privacy(self) -> Path:
        """The privacy log: prints of all rows that ever left in sums."""
        return self.root / "privacy"

    @property
    def decisions(self) -> DecisionFolder:
        """What this site's people decided about studies."""
        return DecisionFolder(self.root / "decisions")

    @property
    def ballots(self) -> BallotBox:
        """Statements of this site's people for the ledger, besides decisions."""
        from coterie_node.site.votes import BallotBox  # a reader needs no votes

        return BallotBox(self.root / "ballots")

    @property
    def persons(self) -> PersonsFolder:
        """This site's persons: register, keys, log of acts, signed statements."""
        from coterie_node.persons.folder import PersonsFolder  # a reader needs none of them

        return PersonsFolder(self.root / "persons")

    @property
    def releases(self) -> Path:
        """Payloads that wait for approval: here, or in a folder for each study."""
        return self.root / "releases"

    @property
    def copies(self) -> RowCopies:
        """Checked copies of the rows of studies that have not ended."""
        from coterie_node.data.row_copies import RowCopies  # Arrow is slow to import

        return RowCopies(self.root / "copies")

    @property
    def results(self) -> Path:
        """The fits of finished studies."""
        return self.root / "results"

    def read_row_warnings(self, number: int, study: bytes) -> tuple[str, ...]:
        """Warnings about this site's rows in the result of a study (its number, its hash); none without a result."""
        return tuple(map(str, self._read_result(number, study).get("row_warnings", ())))

    def read_gain(self, number: int, study: bytes) -> str:
        """What this site gained by joining a study (its number, its hash), in one sentence; empty without a result."""
        return str(self._read_result(number, study).get("gain", ""))

    def read_flow(self, number: int, study: bytes) -> Flow | None:
        """The flow of this site's rows into a study (its number, its hash), exact; None without a result."""
        return parse_flow(self._read_result(number, study).get("flow"))

    def _read_result(self, number: int, study: bytes) -> dict[str, Any]:
        """The result that the node wrote about an ended study; nothing for another study or an unreadable file."""
        try:
            result = json.loads((self.results / f"{number}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return result if isinstance(result, dict) and result.get("hash") == study.hex() else {}

    @property
    def chain(self) -> str:
        """Address of this site's chain node, as the settings have it."""
        return resolve_url(self.root, self.config.chain.url)

    @property
    def ipc(self) -> Path:
        """The administrator's socket of this site's chain node."""
        return self.path(self.config.chain.ipc)

    def locate_rows(self, decided: str) -> RowsAddress:
        """The rows that a decision names, a file or an address; "" for those that node.toml names."""
        from coterie_node.data.installed_source import parse_rows_address  # Arrow is slow to import

        return parse_rows_address(decided or self.config.data, self.root)

    def find_rows(self, study: bytes) -> RowsAddress:
        """The rows with which this site takes part in the study of this hash."""
        decision = self.decisions.latest(study)
        return self.locate_rows("" if decision is None else decision.data)

    def load_keys(self) -> SiteKeys:
        """This site's keys."""
        return SiteKeys.load(self.keys, read_passphrase(self.passphrase))

    def load_study_keys(self, session: str) -> tuple[SiteKeys, ...]:
        """The keys with which this site can open payloads of a session; its journal must be free."""
        keys = self.load_keys()
        with SqliteJournal(self.journal) as journal:
            return current_keys(keys, journal.vault, session)

    def network(self) -> Network:
        """The network of this site, through its own chain node."""
        return self.access.read_network()

    def blobs(self) -> BlobStore:
        """This site's store."""
        return self.access.open_store()

    def open_ledger(self) -> AbstractContextManager[Ledger]:
        """The ledger to read from, without this site's key."""
        return self.access.open_ledger()

    def open_archive(self) -> BlobStore:
        """A store to read finished studies from; of a run all that its sites hold, after it has ended too."""
        return self.access.open_archive()


@dataclass(frozen=True)
class NodeAccess:
    """The way of a node: its own chain node and store, as node.toml and network.json name them."""

    root: Path
    config: NodeConfig

    def read_network(self) -> Network:
        """The network that this site has joined; ConfigError (CO-F321) if it has joined none."""
        path = self.root / NETWORK
        try:
            network = Network.from_json(path.read_text())
        except OSError:
            message = f"{path} is missing: this site has joined no network"
            raise ConfigError("CO-F321", f"{message}. Join one: coterie join INVITE.") from None
        url = resolve_url(self.root, self.config.chain.url)
        return replace(network, url=url)

    def open_store(self) -> BlobStore:
        """The store that node.toml names."""
        kind, colon, path = self.config.store.url.partition(":")
        if kind == "folder" and colon:
            return open_store(f"folder:{_resolve(self.root, path)}")
        if kind == "memory":
            raise StoreFault("CO-C210", "A node cannot keep its payloads in memory. Name a store in node.toml.")
        return open_store(resolve_url(self.root, self.config.store.url))

    @contextmanager
    def open_ledger(self) -> Iterator[EthereumLedger]:
        """The ledger through this site's own chain node."""
        with EthereumLedger(self.read_network(), None, sleeps=self.config.chain.sleep) as ledger:
            yield ledger

    def open_archive(self) -> BlobStore:
        """The node's own store: it keeps what the site has read."""
        return self.open_store()


def find_node(root: Path) -> SiteFolder:
    """The folder of a node; ConfigError (CO-F320) if `root` holds no readable node.toml."""
    config = load_config(root / CONFIG)
    return SiteFolder(root, config, NodeAccess(root, config))


def resolve_url(root: Path, url: str) -> str:
    """An address whose token file is looked for in the site's folder, wherever the process was started."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url  # who opens it reports what is wrong with it
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query_pairs = [
        (name, str(_resolve(root, value).absolute()) if name in TOKEN_OPTIONS else value) for name, value in pairs
    ]
    return urlunsplit(parts._replace(query=urlencode(query_pairs, safe="/"))) if query_pairs else url


def _resolve(root: Path, name: str) -> Path:
    return root / Path(name).expanduser()
