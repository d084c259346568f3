"""node.toml: everything that one hospital's node is told, in one commented file that holds no secret.

DIR/node.toml  network.json  card.json  keys/  passphrase  journal.sqlite  decisions/  results/  releases/  log.jsonl
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import AfterValidator, Field, ValidationError

from coterie_chain.errors import StoreFault
from coterie_chain.ethereum.network import Network
from coterie_chain.store.protocol import BlobStore
from coterie_chain.store.urls import open_store
from coterie_learners.core.registry import learner_of
from coterie_learners.errors import StudyError
from coterie_learners.study.design import Design
from coterie_learners.study.document import ColumnName, Frozen, LearnerName, Name, Study
from coterie_node.errors import ConfigError
from coterie_node.peers.tls import address_of
from coterie_node.release.gate import Policy

CONFIG = "node.toml"
# What an address may name: the file with the secret or token that opens it.
TOKENS = ("jwt_file", "token_file")
LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


class SitePolicy(Policy):
    """What a node may take part in: the gate's floors, and which learners and columns; None allows every column."""

    learners: tuple[LearnerName, ...] = ()
    columns: tuple[ColumnName, ...] | None = None

    def check(self, study: Study, site: str) -> None:
        """StudyError unless a study keeps to this policy."""
        super().check(study, site)
        if study.learner.name not in self.learners:
            allowed = ", ".join(self.learners) or "none"
            message = f"{site}'s policy allows the learners {allowed}, and the study {study.name!r} wants"
            raise StudyError("CO-S502", f"{message} {study.learner.name}. Decline it, or change [policy] in node.toml.")
        used = Design(study, site).read
        beyond = [name for name in used if self.columns is not None and name not in self.columns]
        if beyond:
            message = (
                f"{site}'s policy does not allow the columns {', '.join(beyond)}, which the study {study.name!r} uses"
            )
            raise StudyError("CO-S503", f"{message}. Decline it, or change [policy] in node.toml.")


class ChainPart(Frozen):
    """This site's own chain node. `confirmations`: blocks after which a result is final. `overlap`: see runner.py."""

    url: str = "http://127.0.0.1:8545"
    confirmations: Annotated[int, Field(ge=0, le=1000)] = 0
    overlap: Literal["auto", "off"] = "auto"


class StorePart(Frozen):
    """This site's own store."""

    url: str = "folder:store"


class ApiPart(Frozen):
    """Where health and metrics are told; off if there is no port."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    token_file: str = "api.token"


def _check_address(text: str) -> str:
    address_of(text)
    return text


AddressText = Annotated[str, AfterValidator(_check_address)]


class TalkPart(Frozen):
    """Where this node listens for its peers in interactive steps (Secure Lasso), and where they do; off if empty."""

    listen: AddressText | None = None
    peers: dict[Name, AddressText] = Field(default_factory=dict)

    def check(self, study: Study, site: str) -> None:
        """ConfigError if a study's sites talk to each other, and this one could not."""
        if not learner_of(study).talks:
            return
        missing = [peer for peer in study.sites if peer != site and peer not in self.peers]
        if self.listen is None or missing:
            message = f"In study {study.name!r} the sites talk to each other, and [talk] in {site}'s node.toml lacks"
            lacks = " and ".join(["`listen`"] * (self.listen is None) + [f"an address of {m}" for m in missing])
            raise ConfigError("CO-F342", f"{message} {lacks}.")


class NodeConfig(Frozen):
    """One site's settings; paths are relative to the folder of node.toml."""

    site: Name
    data: str = "data.csv"
    exclude: str = ""
    passphrase_file: str = "passphrase"
    chain: ChainPart = ChainPart()
    store: StorePart = StorePart()
    policy: SitePolicy = SitePolicy()
    api: ApiPart = ApiPart()
    talk: TalkPart = TalkPart()


class NodeFolder:
    """The folder of one site's node."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = _load(root / CONFIG)

    def path(self, name: str) -> Path:
        """A path that the configuration names, relative to the folder."""
        return self.root / Path(name).expanduser()

    @property
    def keys(self) -> Path:
        """The directory of the key files."""
        return self.root / "keys"

    @property
    def passphrase(self) -> Path:
        """The file whose first line opens the keys."""
        return self.path(self.config.passphrase_file)

    @property
    def journal(self) -> Path:
        """Signed transactions and private memory."""
        return self.root / "journal.sqlite"

    @property
    def data(self) -> Path:
        """This site's rows, unless a decision names another file."""
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
    def results(self) -> Path:
        """Where the fits of finished studies are left."""
        return self.root / "results"

    @property
    def chain(self) -> str:
        """Address of this site's chain node."""
        return self._resolve_url(self.config.chain.url)

    def _resolve_url(self, url: str) -> str:
        """An address whose token file is looked for in this folder, wherever the process was started."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return url  # whoever opens it tells what is wrong with it
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        query_pairs = [(name, str(self.path(value).absolute()) if name in TOKENS else value) for name, value in pairs]
        return urlunsplit(parts._replace(query=urlencode(query_pairs, safe="/"))) if query_pairs else url

    def network(self) -> Network:
        """The network that this site has joined, through its own chain node."""
        path = self.root / "network.json"
        try:
            network = Network.from_json(path.read_text())
        except OSError:
            raise ConfigError("CO-F321", f"{path} is missing. Join a network: coterie join INVITE.") from None
        return Network(self.chain, network.chain_id, network.catalog, network.genesis, network.block)

    def blobs(self) -> BlobStore:
        """This site's store."""
        kind, colon, path = self.config.store.url.partition(":")
        if kind == "folder" and colon:
            return open_store(f"folder:{self.path(path)}")
        if kind == "memory":
            raise StoreFault("CO-C210", "A node cannot keep its payloads in memory; name a store in node.toml.")
        return open_store(self._resolve_url(self.config.store.url))


def _load(path: Path) -> NodeConfig:
    try:
        return NodeConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError("CO-F320", f"{path} is missing. Make a node's folder with: coterie init.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("CO-F320", f"{path} cannot be read: {error}.") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = "there is no such setting" if first["type"] == "extra_forbidden" else first["msg"]
        raise ConfigError("CO-F320", f"{path}: {where}: {message}. See what `coterie init` writes.") from None
