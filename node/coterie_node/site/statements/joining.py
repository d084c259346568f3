"""What a site commits itself to when it joins a study: its rows, its people's signatures, its software."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import NamedTuple

from coterie_chain.ledger.protocol import ZERO, Event, Record

_VERSION = re.compile(r"(\d{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?(?!\d)")


class Joining(NamedTuple):
    """What a joining puts on the ledger, in the order in which the ledger takes it.

    `snapshot` and `approvals` are digests of 32 bytes, zero if there is nothing to commit to. `release` is that of the
    software, as `encode_release` writes it.
    """

    snapshot: bytes = ZERO
    approvals: bytes = ZERO
    release: int = 0


def encode_release(text: str) -> int:
    """A version as the ledger holds it: major * 1,000,000 + minor * 1,000 + patch; 0 for what is no such version."""
    match = _VERSION.match(text)
    if match is None:
        return 0
    major, minor, patch = (int(digits or 0) for digits in match.groups())
    return major * 1_000_000 + minor * 1_000 + patch


def format_release(number: int) -> str:
    """A version as people read it; "unsaid" for 0."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}" if number else "unsaid"


def read_own_release() -> int:
    """The release of this installation."""
    return encode_release(version("coterie"))


def list_software_releases(entries: Iterable[Record | Event]) -> tuple[str, ...]:
    """The releases with which sites joined a study, by its entries, each once; none that is unsaid."""
    joinings = [dict(e.details) for e in entries if isinstance(e, Event) and e.name == "StudyJoined"]
    numbers = {int(details["release"]) for details in joinings} - {0}
    return tuple(format_release(number) for number in sorted(numbers))


def describe_joinings(entries: Iterable[Record | Event]) -> dict[str, str]:
    """Two lines of a study's status: each site's release, and the digest of its persons' signatures."""
    joinings = {e.site: dict(e.details) for e in entries if isinstance(e, Event) and e.name == "StudyJoined"}
    releases = [f"{site} {format_release(int(details['release']))}" for site, details in joinings.items()]
    digests = {site: str(details["approvals"]).removeprefix("0x") for site, details in joinings.items()}
    approvals = [f"{site} {digest[:16] if digest.strip('0') else 'none signed'}" for site, digest in digests.items()]
    return {"releases": ", ".join(releases), "approvals": ", ".join(approvals)} if joinings else {}
