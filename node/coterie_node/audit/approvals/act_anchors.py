"""The heads of a site's log of acts that the ledger holds, inside the digests of the statements at the site's joins."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from coterie_chain.ledger.protocol import Event, Record
from coterie_node.audit.approvals.signatures import read_digest
from coterie_node.errors import AuditFailed
from coterie_node.persons.act_log import LogHead
from coterie_node.persons.approval_statement import ApprovalStatement

# Seconds by which a join without a statement may be later on the ledger than the register: it was on its way, and
# clocks differ.
CLOCK_SECONDS = 300


def find_anchors(
    entries: Iterable[Record | Event],
    site: str,
    statements: Iterable[ApprovalStatement],
    files: Collection[str],
    registered: int | None = None,
) -> tuple[LogHead, ...]:
    """The heads in a site's statements whose digests are on the ledger, in the order of the joins.

    `statements`: those in the site's folder. `files`: SHA-256 of its files of signatures in another form, which have no
    head. `registered`: since when the site has a register, in seconds since 1970; from then on it joins on statements
    alone, so that nobody passes a statement for a file. AuditFailed (CO-A215) for a digest on the ledger of neither: a
    statement was taken away or changed.
    """
    heads = {hashlib.sha256(statement.document).hexdigest(): statement.log for statement in statements}
    joins = [e for e in entries if isinstance(e, Event) and (e.name, e.site) == ("StudyJoined", site)]
    digests = [(event, digest) for event in joins if (digest := read_digest(event))]
    for event, digest in digests:
        had_register = registered is not None and event.time > registered + CLOCK_SECONDS
        if digest not in heads and (had_register or digest not in files):
            message = f"At its join of study {event.study} {site} put the digest {digest} of a statement on the ledger"
            raise AuditFailed("CO-A215", f"{message}, and its folder has no such statement (any more).", site)
    return tuple(heads[digest] for _, digest in digests if digest in heads)
