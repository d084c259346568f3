"""What the routes of the API work with, and how much of it may run at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from coterie_node.site.folder import SiteFolder
from coterie_node.web.api.idempotency import IDEMPOTENCY, IdempotencyKeys
from coterie_node.web.api.signatures import NoRegister, PersonSignatures, RegisterSignatures
from coterie_node.web.api.tokens import TOKENS, TokenFile
from coterie_node.web.live.places import WorkPlaces


@dataclass(frozen=True)
class ApiServices:
    """The seams are the site's folder (its ledger and store), the clock and the persons who sign.

    `streams`: open event streams. `audits`: replays and bundles, which take a processor each.
    """

    folder: SiteFolder
    tokens: TokenFile
    keys: IdempotencyKeys
    signatures: PersonSignatures = field(default_factory=NoRegister)
    clock: Callable[[], float] = time.time
    streams: WorkPlaces = field(default_factory=lambda: WorkPlaces(32, 4, "event streams"))
    audits: WorkPlaces = field(default_factory=lambda: WorkPlaces(2, 1, "audits"))
    stream_seconds: float = 600.0
    poll_seconds: float = 1.0


def open_services(folder: SiteFolder, signatures: PersonSignatures | None = None) -> ApiServices:
    """The services of a site's API, in its folder."""
    keys = IdempotencyKeys(folder.root / IDEMPOTENCY)
    return ApiServices(folder, TokenFile(folder.root / TOKENS), keys, signatures or RegisterSignatures(folder))
