"""Check the persons' signatures of a study against the ledger, and say who signed what and when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from coterie_chain.errors import BlobCorrupt, BlobMissing
from coterie_chain.ledger.protocol import Event, Ledger, Record, StudyView
from coterie_chain.store.cid import RAW, Cid
from coterie_chain.store.protocol import BlobStore
from coterie_node.audit.replay import FAIL, Replay, failure
from coterie_node.errors import AuditFailed
from coterie_node.persons.acts import ActDomain
from coterie_node.persons.approval_statement import (
    MAX_STATEMENT_BYTES,
    ApprovalStatement,
    JoinFacts,
    PersonSignature,
    judge_statement,
)

# Entries of the ledger that give a site a key.
_SEATS = ("SiteAdmitted", "KeyChanged")


@dataclass(frozen=True)
class SignedJoin:
    """What one site put on the ledger about its persons' approvals, and the signatures if the statement is here."""

    site: str
    digest: str
    published: bool
    signatures: tuple[PersonSignature, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """The same in words, one for each signature."""
        if self.signatures:
            return [f"Signed by {signature.sentence}." for signature in self.signatures]
        if self.published:
            return [f"{self.site} published a statement that no person signed."]
        if self.digest:
            kept = "put the SHA-256 of its persons' signatures on the ledger and keeps them"
            return [f"{self.site} {kept}: {self.digest}."]
        return [f"{self.site} joined without signatures of persons: an unnamed operator of {self.site} approved."]

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        signers = [signature.__dict__ for signature in self.signatures]
        return {"site": self.site, "digest": self.digest, "published": self.published, "signatures": signers}


def check_signatures(ledger: Ledger, blobs: BlobStore, number: int, domain: ActDomain) -> tuple[SignedJoin, ...]:
    """The signers of a study's approvals; AuditFailed (CO-A210 to CO-A214) names a site whose approvals do not hold."""
    view, entries = ledger.view(number), list(ledger.history())
    keys = {site: frozenset(list_site_keys(entries, site)) for site in view.terms.sites}
    proposed = min((e.time for e in entries if _is_named(e, "StudyProposed", number)), default=0)
    joins = [e for e in entries if isinstance(e, Event) and _is_named(e, "StudyJoined", number)]
    return tuple(_check_join(event, view, keys[event.site], proposed, blobs, domain) for event in joins)


def add_signatures(
    outcome: Replay, ledger: Ledger, blobs: BlobStore, number: int, domain: ActDomain
) -> tuple[Replay, tuple[SignedJoin, ...]]:
    """A replay whose verdict covers the persons' signatures too, and these; of a record that does not hold none."""
    if outcome.verdict.verdict == FAIL:
        return outcome, ()
    try:
        return outcome, check_signatures(ledger, blobs, number, domain)
    except AuditFailed as error:
        return replace(outcome, verdict=failure(error), fit=None), ()


def list_statement_cids(entries: Iterable[Record | Event], number: int) -> Iterator[str]:
    """CIDs of the statements that sites named when they joined a study."""
    for event in entries:
        if isinstance(event, Event) and _is_named(event, "StudyJoined", number) and (digest := read_digest(event)):
            yield str(Cid(1, RAW, bytes.fromhex(digest)))


def list_site_keys(entries: Iterable[Record | Event], site: str) -> Iterator[str]:
    """Every address that a site has signed with, in small letters."""
    for event in entries:
        if isinstance(event, Event) and event.name in _SEATS and dict(event.details).get("name", event.site) == site:
            yield str(dict(event.details)["key"]).lower()


def read_statement(blobs: BlobStore, digest: str) -> bytes | None:
    """A published statement; None if no store within reach has it."""
    try:
        return blobs.get(str(Cid(1, RAW, bytes.fromhex(digest))), MAX_STATEMENT_BYTES)
    except (BlobMissing, BlobCorrupt):
        return None


def _check_join(
    event: Event, view: StudyView, keys: frozenset[str], proposed: int, blobs: BlobStore, domain: ActDomain
) -> SignedJoin:
    digest = read_digest(event)
    document = read_statement(blobs, digest) if digest else None
    if document is None or not document.startswith(b'{"acts":'):
        return SignedJoin(event.site, digest, False)  # a file of signatures in the site's own form
    facts = JoinFacts(
        event.site,
        view.terms.hash.hex(),
        view.id,
        domain,
        keys,
        view.proposer == event.site,
        proposed,
        event.time,
    )
    return SignedJoin(event.site, digest, True, judge_statement(ApprovalStatement.parse(document, event.site), facts))


def read_digest(event: Event) -> str:
    """The digest of a join, in hexadecimal digits; empty for none."""
    digest = str(dict(event.details)["approvals"]).removeprefix("0x")
    return digest if digest.strip("0") else ""


def _is_named(entry: Record | Event, name: str, number: int) -> bool:
    return isinstance(entry, Event) and (entry.name, entry.study) == (name, number)
