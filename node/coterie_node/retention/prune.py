"""Let go of the payloads of an ended study: unpinned in this site's store, and unreadable where they are sealed.

Nothing goes before its date, while the study runs, or without a bundle in this site's hands that verifies. The ledger
keeps who posted what and when; the bundle keeps the payloads. Other sites decide for themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from coterie_chain.ethereum.network import Network
from coterie_chain.ledger.protocol import Ledger, Record, State, StudyView
from coterie_chain.store.protocol import BlobStore
from coterie_learners.errors import pluralise
from coterie_node.audit.replay import FAIL, NOT_CHECKED
from coterie_node.audit.verify import Verified, verify
from coterie_node.errors import ConfigError
from coterie_node.run.study_keys import destroy, has_key

SECONDS_A_YEAR = 365.25 * 86400


@runtime_checkable
class PinnedStore(Protocol):
    """A store that keeps pinned payloads, and deletes the rest on request."""

    def unpin(self, cid: str) -> None:
        """Let the next collection take a payload; no error if it was not pinned."""

    def collect(self) -> None:
        """Delete from the disk what is not pinned."""


@dataclass(frozen=True)
class Pruning:
    """What was, or would be, deleted of one study: payloads and their bytes; whether a sealing key was destroyed."""

    study: int
    payloads: int
    size: int
    bundle: str
    key_destroyed: bool

    def as_dict(self) -> dict[str, object]:
        """The stable JSON keys."""
        return asdict(self)

    @property
    def text(self) -> str:
        """The same in words."""
        key = "; this site's sealing key of it goes with them" if self.key_destroyed else ""
        return f"study {self.study}: {pluralise(self.payloads, 'payload')}, {self.size} bytes, in {self.bundle}{key}"


def check_age(ledger: Ledger, view: StudyView, years: float, now: float) -> None:
    """ConfigError for a study that has not ended (CO-F521), or before its date (CO-F522); `now` in seconds since 1970.

    The earlier of two clocks counts, the ledger's or this machine's, because the later one could delete too early.
    """
    if view.state not in (State.COMPLETED, State.ABORTED):
        message = f"Study {view.id} is {view.state.name.lower()}: its sites may need each payload yet"
        raise ConfigError("CO-F521", f"{message}. Wait for its end.")
    ended = max(entry.time for entry in ledger.history(view.id))
    due = ended + years * SECONDS_A_YEAR
    if min(now, ledger.now()) < due:
        message = f"Study {view.id} ended {_format(ended)} and is kept until {_format(due)} ({years:g} years)"
        raise ConfigError("CO-F522", f"{message}. Wait, or change `years` under [retention] in node.toml.")


def find_bundle(folder: Path, network: Network, view: StudyView) -> Path:
    """The bundle of a study, of this network, that verifies; ConfigError (CO-F523) if there is none in the folder."""
    problems = []
    for path in sorted([*folder.glob("*.zip"), *(place.parent for place in folder.glob("*/bundle.json"))]):
        outcome = verify(path, network=network)
        if not _is_of(outcome, view):
            continue
        if outcome.verdict.verdict not in (FAIL, NOT_CHECKED):
            return path
        problems.append(f"{path.name}: {outcome.verdict.verdict} {outcome.verdict.code}".rstrip())
    cause = "; ".join(problems) or f"{folder} has none"
    message = f"No bundle of study {view.id} verifies ({cause}), and without one nothing could be shown any more"
    raise ConfigError("CO-F523", f"{message}. Make one: coterie audit export {view.id} {folder}/study-{view.id}.zip")


def prune(
    ledger: Ledger,
    store: BlobStore,
    vault: MutableMapping[str, bytes],
    view: StudyView,
    network: Network,
    bundle: Path,
    *,
    dry: bool = False,
) -> Pruning:
    """Unpin a study's payloads, and destroy this site's sealing key of its run; ConfigError (CO-F524) for other stores.

    The study's document stays: it is small, and lists of studies name it.
    """
    if not isinstance(store, PinnedStore):
        message = "This store is a folder that several sites may share; it has no pins"
        raise ConfigError("CO-F524", f"{message}. Prune at a node with a Kubo of its own.")
    payloads = list_payloads(ledger, view.id)
    session = f"{network.scope}/{view.id}"
    sealed = has_key(vault, session)
    if not dry:
        for cid in payloads:
            store.unpin(cid)
        # Last: a destroyed key cannot be restored if a payload could not be deleted.
        if sealed:
            destroy(vault, session)
    return Pruning(view.id, len(payloads), sum(payloads.values()), bundle.name, sealed)


def list_payloads(ledger: Ledger, study: int) -> Mapping[str, int]:
    """CIDs of the payloads of a study that no other study has, with their bytes."""
    own: dict[str, int] = {}
    others: set[str] = set()
    for record in _list_records(ledger):
        if record.post.study == study:
            own[record.post.cid] = record.post.size
        else:
            others.add(record.post.cid)
    return {cid: size for cid, size in own.items() if cid not in others}


def _list_records(ledger: Ledger) -> Iterable[Record]:
    return (entry for entry in ledger.history() if isinstance(entry, Record))


def _is_of(outcome: Verified, view: StudyView) -> bool:
    """Whether a bundle says that it is of this study; of one that cannot be read, nobody knows."""
    if outcome.bundle is None:
        return False
    declared = outcome.bundle.manifest.study
    return (declared.number, declared.hash) == (view.id, view.terms.hash.hex())


def _format(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
