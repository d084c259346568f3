"""Audits that a node makes of its own ledger and store: a replay, and a bundle for others."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from coterie_chain.errors import BlobCorrupt, BlobMissing
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ledger.protocol import Record, State
from coterie_chain.proof.evidence import gather
from coterie_chain.proof.verified_ledger import VerifiedLedger
from coterie_node.audit.bundle import collect, save_bundle
from coterie_node.audit.replay import Replay, replay
from coterie_node.audit.sources import AuditSources, find_study_number, note_seals
from coterie_node.errors import ConfigError
from coterie_node.run.study_files import check_permit, document_on_ledger
from coterie_node.site.folder import SiteFolder


@dataclass(frozen=True)
class BundleSummary:
    """A bundle that was written: the study, the last block of its evidence, and how many payload blocks it has."""

    study: int
    last_block: int
    blocks: int


def replay_study(folder: SiteFolder, which: str) -> Replay:
    """Recompute every server step of a study from this site's ledger and store, without keys."""
    with folder.open_ledger() as ledger:
        outcome = replay(ledger, folder.open_archive(), find_study_number(ledger, which))
        return note_seals(outcome, ledger)


def save_study_bundle(folder: SiteFolder, which: str, path: Path) -> BundleSummary:
    """Put a study of this site and all that proves it into a new bundle."""
    with folder.open_ledger() as ledger:
        if not isinstance(ledger, EthereumLedger):
            raise ConfigError("CO-F305", "A bundle rests on blocks of an Ethereum chain. Replay the study instead.")
        read = AuditSources(ledger, folder.open_archive(), folder.decisions.certificate)
        check_export(read, which)
        return export_bundle(read, which, path)


def check_export(read: AuditSources, which: str) -> None:
    """StudyError (CO-S506) if a site may not export this study any more: its data permit has ended.

    A study that ended in the time of its permit can be exported for good: an audit comes later than the study.
    """
    view = read.ledger.view(find_study_number(read.ledger, which))
    times = [entry.time for entry in read.ledger.history(view.id) if isinstance(entry, Record)]
    has_ended = view.state in (State.COMPLETED, State.ABORTED)
    last = max(times, default=0) if has_ended else int(time.time())
    try:
        study = document_on_ledger(view, read.blobs)
    except (BlobMissing, BlobCorrupt):
        return  # the export names what the store lacks
    check_permit(study, last)


def export_bundle(
    read: AuditSources, which: str, path: Path, first: int | None = None, confirmations: int = 0
) -> BundleSummary:
    """Write a study's bundle from where an audit reads; `first`: first block of the evidence."""
    evidence = gather(read.network, first, confirmations)
    number = find_study_number(read.ledger, which)
    proved = VerifiedLedger(evidence, number)
    certificate = read.read_certificate(proved.view(number).terms.hash)
    document = collect(read.network, evidence, proved, read.blobs, number, certificate)
    save_bundle(document, path)
    return BundleSummary(number, proved.anchor.last, len(document.blocks))
