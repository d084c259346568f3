"""A daemon's heartbeat, and what a site believes of those that it hears.

Invariants of `HeartbeatLog`: of each member it holds the newest heartbeat that the member's own key signed, for this
network, no older than `MAX_AGE` when it came, and newer than the one before. Everything else is refused under a name;
the newest one again changes nothing. It holds one heartbeat a member, and one count a member and reason: it does not
grow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, ValidationError

from coterie_chain.ledger.protocol import SiteEntry
from coterie_learners.study.document import Name
from coterie_node.network.membership.signed_statement import SignedStatement

# Room for the names of 253 sites four times.
MAX_HEARTBEAT_BYTES = 1 << 16
# Seconds by which the clocks of two sites, and the time on the way, may differ.
MAX_AGE = 300
# Heartbeats that name no member are counted under this name.
NOBODY = "?"
Names = Annotated[tuple[Name, ...], Field(max_length=253)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]


class Heartbeat(SignedStatement):
    """What a daemon says: when, of which version, how far its chain is, which sites it sees (None: it cannot look).

    `chain_unknown` and `swarm_unknown` are the sites whose keys it does not know, so that it cannot tell whether they
    are among its peers. `swarm_key` is the fingerprint of its key, `free` the free bytes of its disk.
    """

    purpose: ClassVar[str] = "heartbeat"
    network: Annotated[str, Field(max_length=200)]
    site: Name
    time: Count
    version: Annotated[str, Field(max_length=40, pattern=r"^[\x21-\x7e]*$")]
    head: Count
    chain_peers: Names | None
    swarm_peers: Names | None
    chain_unknown: Names = ()
    swarm_unknown: Names = ()
    swarm_key: Annotated[str, Field(pattern="^([0-9a-f]{32})?$")] = ""
    free: Count = 0

    @property
    def message(self) -> bytes:
        """The bytes that go out."""
        return self.model_dump_json().encode()


class Refusal(StrEnum):
    """Why a heartbeat is not believed."""

    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    FOREIGN = "of another network"
    STRANGER = "of no member"
    REVOKED = "of a revoked site"
    OLD = "too old"
    EARLY = "from the future"
    REPLAYED = "heard before"
    FORGED = "forged"


@dataclass(frozen=True)
class RefusalCount:
    """How many heartbeats were refused for one reason, and when the last one was (seconds since 1970)."""

    count: int
    last: float


@dataclass
class HeartbeatLog:
    """The newest heartbeat of each member of a network, and how many were refused, by member and reason."""

    network: str
    newest: dict[str, Heartbeat] = field(default_factory=dict)
    refused: dict[tuple[str, Refusal], RefusalCount] = field(default_factory=dict)

    def hear(self, messages: Iterable[bytes], sites: Sequence[SiteEntry], now: float) -> None:
        """Take what came from the swarm; what is cheap to see is looked at before the signature."""
        members = {site.name: site.address for site in sites if site.active}
        revoked = {site.name for site in sites} - members.keys()
        # These are from before this machine's clock was set back: everything that comes now would be older.
        ahead = {name for name, beat in self.newest.items() if beat.time > now + MAX_AGE}
        for name in self.newest.keys() - members.keys() | ahead:
            del self.newest[name]
        for message in messages:
            name, refusal = self._take(message, members, members.keys() | revoked, now)
            if refusal is Refusal.STRANGER and name in revoked:
                refusal = Refusal.REVOKED
            if refusal is not None:
                before = self.refused.get((name, refusal), RefusalCount(0, 0.0))
                self.refused[name, refusal] = RefusalCount(before.count + 1, now)

    def _take(
        self, message: bytes, members: Mapping[str, str], known: Collection[str], now: float
    ) -> tuple[str, Refusal | None]:
        """Take one; the site that it names, if there is or was such a site, and why it is refused."""
        if len(message) > MAX_HEARTBEAT_BYTES:
            return NOBODY, Refusal.OVERSIZED
        try:
            beat = Heartbeat.model_validate_json(message)
        except ValidationError:
            return NOBODY, Refusal.MALFORMED
        name = beat.site if beat.site in known else NOBODY
        if beat == self.newest.get(beat.site):
            return name, None
        refusal = self._judge(beat, members.get(beat.site, ""), now)
        if refusal is None:
            self.newest[beat.site] = beat
        return name, refusal

    def _judge(self, beat: Heartbeat, address: str, now: float) -> Refusal | None:
        last = self.newest.get(beat.site)
        checks = (
            (beat.network != self.network, Refusal.FOREIGN),
            (not address, Refusal.STRANGER),
            (beat.time < now - MAX_AGE, Refusal.OLD),
            (beat.time > now + MAX_AGE, Refusal.EARLY),
            (last is not None and beat.time <= last.time, Refusal.REPLAYED),
        )
        early = next((refusal for is_so, refusal in checks if is_so), None)
        if early is not None:
            return early
        return None if beat.signer.lower() == address.lower() else Refusal.FORGED
