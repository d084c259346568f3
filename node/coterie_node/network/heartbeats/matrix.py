"""The whole network as any one site sees it: which site sees which, of which version, how far each chain is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from coterie_chain.ledger.protocol import SiteEntry
from coterie_learners.errors import pluralise
from coterie_node.errors import ConfigError
from coterie_node.network.heartbeats.heartbeat import NOBODY, Heartbeat, Refusal

# A site whose newest heartbeat is older has missed more than two.
SILENT_SECONDS = 400
# A refusal is of interest for so long.
RECENT_SECONDS = 600
# Blocks by which a site may be behind what another one said before it.
MAX_BEHIND = 12
_REKEY = (
    "Compare the row `swarm key` of `coterie doctor` at both, and take over the newest order: coterie network rekey."
)
BOTH, CHAIN, SWARM, NEITHER, _UNKNOWN, SELF = "both", "chain", "swarm", "none", "?", "-"


@dataclass(frozen=True)
class SitePulse:
    """One row: a site, its newest heartbeat's age in seconds (None: none was heard), and what it says of each other."""

    site: str
    age: int | None
    version: str
    head: int
    swarm_key: str
    free: int
    sees: Mapping[str, str]


@dataclass(frozen=True)
class NamedRefusal:
    """How often the daemon refused heartbeats under a member's name, why, and when last (seconds since 1970)."""

    site: str
    why: str
    count: int
    last: float


@dataclass(frozen=True)
class Trouble:
    """What is wrong somewhere in the network, and what to do."""

    site: str
    what: str
    cure: str


@dataclass(frozen=True)
class NetworkMatrix:
    """All members' rows, and what is wrong."""

    rows: tuple[SitePulse, ...]
    troubles: tuple[Trouble, ...]

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        return asdict(self)


def read_answer(raw: object) -> tuple[tuple[Heartbeat, ...], tuple[NamedRefusal, ...], str]:
    """Heartbeats, refusals and last fault in what a daemon answers; ConfigError (CO-F519) for something else."""
    try:
        answer: Any = raw
        beats = tuple(Heartbeat.model_validate(beat) for beat in answer["heartbeats"])
        refused = tuple(
            NamedRefusal(str(n), str(why), int(count), float(last)) for n, why, count, last in answer["refused"]
        )
        return beats, refused, str(answer["fault"])
    except (ValidationError, KeyError, TypeError, ValueError):
        message = "The daemon's answer has no heartbeats: it is of an older version, or another program answers there"
        raise ConfigError("CO-F519", f"{message}. Start it again: coterie site restart.") from None


def make_matrix(
    sites: Sequence[SiteEntry],
    beats: Iterable[Heartbeat],
    refused: Sequence[NamedRefusal],
    now: float,
) -> NetworkMatrix:
    """The matrix of the active sites from their newest heartbeats, whose signatures are checked here once more."""
    members = {site.name: site.address.lower() for site in sites if site.active}
    known = {beat.site: beat for beat in beats if beat.signer.lower() == members.get(beat.site, "none")}
    rows = tuple(_make_row(name, known.get(name), members, now) for name in members)
    return NetworkMatrix(rows, (*_find_troubles(rows), *_name_refusals(refused, now)))


def _make_row(name: str, beat: Heartbeat | None, members: Iterable[str], now: float) -> SitePulse:
    others = [other for other in members if other != name]
    if beat is None:
        return SitePulse(name, None, "", 0, "", 0, {name: SELF} | dict.fromkeys(others, _UNKNOWN))
    sees = {other: _name_cell(other, beat) for other in others}
    age = max(int(now - beat.time), 0)
    return SitePulse(name, age, beat.version, beat.head, beat.swarm_key, beat.free, {name: SELF} | sees)


def _name_cell(other: str, beat: Heartbeat) -> str:
    """What one site says of another; a program that could not be asked counts for neither side."""
    chain = _judge_peer(other, beat.chain_peers, beat.chain_unknown)
    swarm = _judge_peer(other, beat.swarm_peers, beat.swarm_unknown)
    if chain is None and swarm is None:
        return _UNKNOWN
    cells = {(True, True): BOTH, (True, False): CHAIN, (False, True): SWARM, (False, False): NEITHER}
    return cells[chain is not False, swarm is not False]


def _judge_peer(other: str, seen: Sequence[str] | None, unknown: Sequence[str]) -> bool | None:
    """Whether a site is among the peers; None where the one that looks cannot tell."""
    return None if seen is None or other in unknown else other in seen


def _find_troubles(rows: Sequence[SitePulse]) -> Iterator[Trouble]:
    alive = [row for row in rows if row.age is not None and row.age <= SILENT_SECONDS]
    versions = sorted({row.version for row in alive})
    for row in rows:
        if row not in alive:
            yield _explain_silence(row, alive)
            continue
        if (behind := _count_behind(row, alive)) > MAX_BEHIND:
            cure = "Ask its people for `coterie doctor`: its chain node reads blocks late, or is on its own."
            yield Trouble(row.site, f"its chain is {pluralise(behind, 'block')} behind", cure)
        yield from _find_gaps(row, alive)
    if len(versions) > 1:
        names = "; ".join(f"{v}: {', '.join(r.site for r in alive if r.version == v)}" for v in versions)
        cure = "docs/node.md says which versions work together; bring all sites to the newest one."
        yield Trouble(NOBODY, f"the daemons are of several versions ({names})", cure)


def _count_behind(row: SitePulse, alive: Iterable[SitePulse]) -> int:
    """Blocks that others had when they spoke, and this site not yet when it spoke at the same time or later.

    In the two minutes between two heartbeats the chain makes 24 blocks or more, so an older heartbeat may be behind
    without a fault.
    """
    before = (other.head for other in alive if (other.age or 0) >= (row.age or 0))
    return max(before, default=0) - row.head


def _explain_silence(row: SitePulse, alive: Sequence[SitePulse]) -> Trouble:
    """Why a site is not heard: heartbeats go through the swarm, so that one with another key is heard no more."""
    heard = "no heartbeat was heard" if row.age is None else f"its last heartbeat is {row.age} s old"
    cure = "Ask its people: does its daemon run, has its store the swarm's key of the others, is it cut off?"
    others = sorted({other.swarm_key for other in alive if other.swarm_key})
    if row.swarm_key and others and row.swarm_key not in others:
        heard += f", of another swarm key ({row.swarm_key[:8]}) than is used now ({_shorten(others)})"
        cure = f"The swarm's key was changed: has {row.site} taken over the new one? {_REKEY}"
    return Trouble(row.site, heard, cure)


def _find_gaps(row: SitePulse, alive: Iterable[SitePulse]) -> Iterator[Trouble]:
    """The sites that speak and that a site does not see."""
    words = {CHAIN: "in the swarm", SWARM: "on the chain", NEITHER: "at all"}
    for other in sorted(alive, key=lambda other: other.site):
        seen = row.sees.get(other.site, SELF)
        if seen not in words:
            continue
        what = f"does not see {other.site} {words[seen]}"
        cure = (
            f"Look at the firewalls between {row.site} and {other.site} (30303 chain, 4001 swarm), and at their peers."
        )
        if seen != SWARM and _has_other_key(row, other):
            what += f": their swarm keys differ ({_shorten([row.swarm_key, other.swarm_key])})"
            cure = f"One of the two has not taken over the network's swarm key. {_REKEY}"
        yield Trouble(row.site, what, cure)


def _has_other_key(row: SitePulse, other: SitePulse) -> bool:
    return bool(row.swarm_key and other.swarm_key and row.swarm_key != other.swarm_key)


def _shorten(fingerprints: Iterable[str]) -> str:
    return ", ".join(fingerprint[:8] for fingerprint in fingerprints)


def _name_refusals(refused: Sequence[NamedRefusal], now: float) -> Iterator[Trouble]:
    for refusal in refused:
        if now - refusal.last > RECENT_SECONDS:
            continue
        who = "that name no member" if refusal.site == NOBODY else f"under the name of {refusal.site}"
        cure = "A clock is wrong (NTP), or somebody in the swarm makes them up: ask that site, and look at its peers."
        if refusal.why == Refusal.REVOKED:
            cure = "It still has the swarm's key: all sites take over a new one (coterie network rekey)."
        yield Trouble(refusal.site, f"{refusal.count} heartbeats {who} were refused: {refusal.why}", cure)
