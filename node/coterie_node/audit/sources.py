"""What an audit reads: a network's ledger and a store, from where the command's options say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import Network, discover
from coterie_chain.ledger.protocol import Ledger
from coterie_chain.ledger.urls import open_installed
from coterie_chain.store.protocol import BlobStore
from coterie_chain.store.urls import open_store
from coterie_learners.errors import pluralise
from coterie_node.data.cohort.flow import Flow
from coterie_node.errors import ConfigError
from coterie_node.run.study_files import load_study
from coterie_node.site.folder import SiteFolder, find_node
from coterie_node.site.run_folder import RunFolder
from coterie_node.site.statements.approvals import make_domain

# Every command of a study finds its number here; what a replay imports is for those that replay.
if TYPE_CHECKING:
    from coterie_node.audit.approvals.signatures import SignedJoin
    from coterie_node.audit.replay import Replay

FindFile = Callable[[bytes], Path | None]
ReadWarnings = Callable[[int, bytes], tuple[str, ...]]
ReadFlows = Callable[[int, bytes], Mapping[str, Flow]]


def _read_own_flow(folder: SiteFolder, number: int, study: bytes) -> Mapping[str, Flow]:
    flow = folder.read_flow(number, study)
    return {} if flow is None else {folder.name: flow}


@dataclass(frozen=True)
class AuditLocation:
    """The source of an audit: a node's folder, a run's folder, or a chain with its Catalog; and a store."""

    node: Path | None = None
    at: Path | None = None
    chain: str | None = None
    catalog: str | None = None
    store: str | None = None

    def __post_init__(self) -> None:
        named = [name for name in ("node", "at", "chain") if getattr(self, name) is not None]
        if len(named) > 1:
            message = f"{' and '.join(f'--{name}' for name in named)} name {len(named)} places to read from"
            raise ConfigError("CO-F303", f"{message}. Leave out all but one.")

    @property
    def empty(self) -> bool:
        """Whether no ledger is named."""
        return self.node is None and self.at is None and self.chain is None

    @property
    def options(self) -> dict[str, str]:
        """The command's options that name this place to somebody else, by name; folders are names of this machine."""
        texts = {"--chain": self.chain, "--catalog": self.catalog, "--store": self.store}
        return {name: text for name, text in texts.items() if text}

    def network(self) -> Network | None:
        """The network of the folder that is named, as its network.json has it; None without a folder."""
        if self.node is not None:
            return find_node(self.node).network()
        return None if self.at is None else RunFolder(self.at).network()


@dataclass(frozen=True)
class AuditSources:
    """A reader of a network, a store if one is named, and where the certificate of a study (by its hash) may lie.

    `read_row_warnings`: what the results here of a study (its number, its hash) warn of a site's own rows;
    `read_flows`: how many rows of a site were read, left out and used, exactly.
    """

    ledger: Ledger
    store: BlobStore | None
    find_certificate: FindFile = lambda _: None
    read_row_warnings: ReadWarnings = lambda *_: ()
    read_flows: ReadFlows = lambda *_: {}

    @property
    def network(self) -> Network:
        """The network of an Ethereum ledger; ConfigError (CO-F305) for a ledger of another package, which has none."""
        if isinstance(self.ledger, EthereumLedger):
            return self.ledger.network
        message = "This ledger is of another package, and a bundle or a report needs blocks of an Ethereum chain"
        raise ConfigError("CO-F305", f"{message}. Use `coterie audit replay` and `coterie audit history`.")

    @property
    def blobs(self) -> BlobStore:
        """The store; ConfigError if none is named."""
        if self.store is None:
            raise ConfigError("CO-F306", "A replay reads payloads, and no store is named. Name yours with --store.")
        return self.store

    def add_signatures(self, outcome: Replay, number: int) -> tuple[Replay, tuple[SignedJoin, ...]]:
        """A replay whose verdict covers the signatures of persons, and these; of another ledger's none are checked."""
        from coterie_node.audit.approvals.signatures import add_signatures

        if not isinstance(self.ledger, EthereumLedger):
            return outcome, ()
        return add_signatures(outcome, self.ledger, self.blobs, number, make_domain(self.network))

    def read_certificate(self, study: bytes) -> bytes | None:
        """The "equals pooled" certificate that lies with the study of this hash, if there is one."""
        path = self.find_certificate(study)
        return path.read_bytes() if path is not None and path.is_file() else None


def open_sources(stack: ExitStack, where: AuditLocation) -> AuditSources:
    """The ledger and the store that an audit reads, closed with the stack; ConfigError (CO-F303) if none is named."""
    own = None if where.store is None else open_store(where.store)
    if where.node is not None:
        folder = find_node(where.node)
        ledger = stack.enter_context(folder.open_ledger())
        return AuditSources(
            ledger,
            own or folder.open_archive(),
            folder.decisions.certificate,
            folder.read_row_warnings,
            partial(_read_own_flow, folder),
        )
    if where.at is not None:
        run = RunFolder(where.at)
        ledger, blobs = stack.enter_context(run.reader()), own or run.blobs()
        return AuditSources(ledger, blobs, lambda _: run.certificate, run.read_row_warnings, run.read_flows)
    if where.chain is None:
        message = "No ledger is named to read, and the working folder is not a node's folder"
        raise ConfigError("CO-F303", f"{message}. Give --node DIR, --at DIR, or --chain URL with --store URL.")
    installed = open_installed(where.chain)
    if installed is not None:
        return AuditSources(installed, own)
    return AuditSources(stack.enter_context(EthereumLedger(discover(where.chain, where.catalog), None)), own)


def note_seals(outcome: Replay, ledger: Ledger) -> Replay:
    """The replay whose verdict says so if the ledger is on an Ethereum chain without seals."""
    unsealed = isinstance(ledger, EthereumLedger) and ledger.sealing == "none"
    return replace(outcome, verdict=replace(outcome.verdict, unsealed=unsealed))


# Digits of a study's number: SQLite has no larger numbers, and Python reads none of more than 4,300 digits.
MOST_DIGITS = 18


def find_study_number(ledger: Ledger, study: str | None) -> int:
    """A study's number on the ledger by number, by hash (its first eight digits or more) or by file.

    The newest study for None; ConfigError (CO-F304) if the ledger has no such study.
    """
    numbers = ledger.studies()
    if study is None and numbers:
        return numbers[-1]
    if study is not None and study.isdecimal() and len(study) <= MOST_DIGITS and int(study) in numbers:
        return int(study)
    matches = [n for n in numbers if study is not None and _has_hash(ledger, n, _hash_text(study))]
    if not matches:
        name = "study" if study is None else f"study {study[:80]!r}"
        message = f"There is no {name} on this ledger, which has {pluralise(len(numbers), 'study', 'studies')}"
        soon = "A proposal is there some blocks after its `coterie study propose`."
        raise ConfigError("CO-F304", f"{message}. `coterie study list` or `coterie audit history` shows them. {soon}")
    return matches[-1]


def _hash_text(study: str) -> str:
    """A study's hash, or the start of one, in hexadecimal digits."""
    return load_study(Path(study)).hash.hex() if Path(study).suffix in (".toml", ".json") else study.lower()


def _has_hash(ledger: Ledger, number: int, start: str) -> bool:
    return len(start) >= 8 and ledger.view(number).terms.hash.hex().startswith(start)
