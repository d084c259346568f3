"""What an audit reads: a network's ledger and a store, found by the options that the commands share."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import discover
from coterie_chain.ledger.protocol import Ledger
from coterie_chain.store.protocol import BlobStore
from coterie_chain.store.urls import open_store
from coterie_node.errors import ConfigError
from coterie_node.run.study_files import load_study
from coterie_node.site.run_folder import RunFolder


@dataclass(frozen=True)
class AuditSources:
    """A reader of a network, and a store if one was named."""

    ledger: EthereumLedger
    store: BlobStore | None

    @property
    def blobs(self) -> BlobStore:
        """The store; ConfigError if none was named."""
        if self.store is None:
            raise ConfigError("CO-F306", "A replay reads payloads: name your store with --store.")
        return self.store


def open_sources(
    stack: ExitStack, at: Path | None, chain: str | None, catalog: str | None, store: str | None
) -> AuditSources:
    """The ledger and the store that an audit reads, closed with the stack."""
    if at is not None:
        place = RunFolder(at)
        return AuditSources(stack.enter_context(place.reader()), open_store(store) if store else place.blobs())
    if chain is None:
        raise ConfigError("CO-F303", "Name what to read: --at DIR, or --chain URL and --store URL.")
    ledger = stack.enter_context(EthereumLedger(discover(chain, catalog), None))
    return AuditSources(ledger, open_store(store) if store else None)


def find_study_number(ledger: Ledger, study: str | None) -> int:
    """A study's number on the ledger by number, hash or file; the last one for None."""
    numbers = ledger.studies()
    if not numbers:
        raise ConfigError("CO-F304", "There is no study on this ledger.")
    if study is None:
        return numbers[-1]
    if study.isdecimal() and int(study) in numbers:
        return int(study)
    wanted = load_study(Path(study)).hash.hex() if Path(study).suffix in (".toml", ".json") else study.lower()
    matches = [n for n in numbers if len(wanted) >= 8 and ledger.view(n).terms.hash.hex().startswith(wanted)]
    if not matches:
        raise ConfigError("CO-F304", f"There is no study {study!r} on this ledger; there are {len(numbers)}.")
    return matches[-1]
