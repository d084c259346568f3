"""From a bundle or a network to the report on a study: replay, screen, and what the verdict rests on."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from coterie_node.audit import replay
from coterie_node.grants import View
from coterie_node.place import Place
from coterie_node.reading import number_of, open_reading
from coterie_node.report import Report, Source, failed_report, report_of
from coterie_node.runner import Progress
from coterie_node.verify import verify

Grants = Callable[[bytes], View]
Where = tuple[Path | None, str | None, str | None, str | None]


def report_on_bundle(
    path: Path,
    genesis: str | None,
    tolerance: float,
    now: datetime,
    grants: Grants | None = None,
    catalog: str | None = None,
) -> Report:
    """The report on a bundle, verified offline."""
    progress: list[Progress] = []
    given, observe = grants or _none, progress.append
    found = verify(path, genesis=genesis, catalog=catalog, tolerance=tolerance, observe=observe, grants=given)
    named = {"--genesis": genesis, "--catalog": catalog}
    known = "".join(f" {name} {shlex.quote(value)}" for name, value in named.items() if value)
    certificate = None if found.bundle is None else _certificate(found.bundle.certificate)
    source = Source(
        tuple(found.trust()), f"coterie audit verify {shlex.quote(path.name)}{known}{_with(grants)}", certificate
    )
    if found.bundle is None or found.ledger is None or found.replay.study is None:
        return failed_report(found.replay, source, now)
    number = found.bundle.manifest.study.number
    return report_of(found.ledger, found.bundle.blobs(), number, found.replay, progress, source, now)


def report_on_study(
    stack: ExitStack,
    study: str | None,
    where: Where,
    tolerance: float,
    now: datetime,
    grants: Grants | None = None,
) -> Report:
    """The report on a study of a network; `where` is a run's folder, or a chain, a Catalog and a store."""
    read = open_reading(stack, *where)
    number = number_of(read.ledger, study)
    progress: list[Progress] = []
    view = (grants or _none)(read.ledger.view(number).terms.hash)
    found = replay(read.ledger, read.blobs, number, tolerance=tolerance, observe=progress.append, granted=view)
    network = read.ledger.network
    told = (
        f"Read through one node of chain {network.chain_id} (block 0 is {network.genesis}), from the Catalog "
        f"{network.catalog}. A bundle (coterie audit export) shows that it is sealed, and each entry signed."
    )
    at, chain, catalog, store = where
    options = {"--at": at, "--chain": chain, "--catalog": catalog, "--store": store}
    given = " ".join(f"{name} {shlex.quote(str(value))}" for name, value in options.items() if value and name != "--at")
    command = f"coterie audit replay {number} {given or '--at RUN'}{_with(grants)}"
    kept = None if at is None else _read(Place(at).certificate)
    return report_of(
        read.ledger, read.blobs, number, found, progress, Source((told,), command, _certificate(kept)), now
    )


def _none(study: bytes) -> View:
    return {}


def _with(grants: Grants | None) -> str:
    """What the command that repeats a check with grants needs besides."""
    return "" if grants is None else " --grant GRANT --keys KEYS --passphrase-file FILE"


def _certificate(raw: bytes | None) -> Mapping[str, Any] | None:
    """A certificate as it lies beside a study; None for what is none."""
    try:
        found = from_json(raw) if raw else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
