"""From a bundle or a network to the report on a study: replay, screen, and what the verdict rests on."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from coterie_node.audit.replay import replay
from coterie_node.audit.report.page import AuditReport, ReportSource, make_report, report_failure
from coterie_node.audit.sources import AuditLocation, find_study_number, note_seals, open_sources
from coterie_node.audit.verify import verify
from coterie_node.run.follower import Progress
from coterie_node.run.view_grants import View

Grants = Callable[[bytes], View]


def report_on_bundle(
    path: Path,
    genesis: str | None,
    tolerance: float,
    now: datetime,
    grants: Grants | None = None,
    catalog: str | None = None,
) -> AuditReport:
    """The report on a bundle, verified offline."""
    progress: list[Progress] = []
    open_grants, observe = grants or _grant_nothing, progress.append
    outcome = verify(path, genesis=genesis, catalog=catalog, tolerance=tolerance, observe=observe, grants=open_grants)
    named = {"--genesis": genesis, "--catalog": catalog}
    option_text = "".join(f" {name} {shlex.quote(value)}" for name, value in named.items() if value)
    certificate = None if outcome.bundle is None else _parse_certificate(outcome.bundle.certificate)
    source = ReportSource(
        tuple(outcome.trust()),
        f"coterie audit verify {shlex.quote(path.name)}{option_text}{_grant_options(grants)}",
        certificate,
        signed=outcome.signed,
    )
    if outcome.bundle is None or outcome.ledger is None or outcome.replay.study is None:
        return report_failure(outcome.replay, source, now)
    number = outcome.bundle.manifest.study.number
    return make_report(outcome.ledger, outcome.bundle.blobs(), number, outcome.replay, progress, source, now)


def report_on_study(
    stack: ExitStack,
    study: str | None,
    where: AuditLocation,
    tolerance: float,
    now: datetime,
    grants: Grants | None = None,
) -> AuditReport:
    """The report on a study of a network."""
    read = open_sources(stack, where)
    number = find_study_number(read.ledger, study)
    progress: list[Progress] = []
    study_hash = read.ledger.view(number).terms.hash
    view = (grants or _grant_nothing)(study_hash)
    outcome = replay(read.ledger, read.blobs, number, tolerance=tolerance, observe=progress.append, granted=view)
    outcome, network = note_seals(outcome, read.ledger), read.network
    outcome, signed = read.add_signatures(outcome, number)
    statement = (
        f"Read through one node of chain {network.chain_id} (block 0 is {network.genesis}), from the Catalog "
        f"{network.catalog}. A bundle (coterie audit export) shows that it is sealed, and each entry signed."
    )
    arguments = " ".join(f"{name} {shlex.quote(value)}" for name, value in where.options.items())
    folder = "--node NODE" if where.node is not None else "--at RUN"
    command = f"coterie audit replay {number} {arguments or folder}{_grant_options(grants)}"
    return make_report(
        read.ledger,
        read.blobs,
        number,
        outcome,
        progress,
        ReportSource(
            (statement,),
            command,
            _parse_certificate(read.read_certificate(study_hash)),
            read.read_row_warnings(number, study_hash),
            read.read_flows(number, study_hash),
            signed,
        ),
        now,
    )


def _grant_nothing(study: bytes) -> View:
    return {}


def _grant_options(grants: Grants | None) -> str:
    """What the command that repeats a check with grants needs besides."""
    return "" if grants is None else " --grant GRANT --keys KEYS --passphrase-file FILE"


def _parse_certificate(raw: bytes | None) -> Mapping[str, Any] | None:
    """A certificate as it lies beside a study; None for another file."""
    try:
        document = from_json(raw) if raw else None
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
