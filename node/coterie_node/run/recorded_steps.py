"""A study's steps as a reader of the ledger sees them: each with its records and its opened payloads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from coterie_chain.ledger.protocol import Event, Ledger, Record, State, StudyView
from coterie_chain.store.protocol import BlobStore
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Machine, Sealed, Site, Step
from coterie_learners.core.registry import learner_of
from coterie_learners.errors import Collinear, NotConverged, Separation, StudyError
from coterie_learners.study.document import Study
from coterie_node.run.codec import PayloadCodec

AUDITOR = "auditor"


@dataclass(frozen=True)
class Done:
    """A finished step: its records in the study's order, and what was posted (Sealed where others alone may read)."""

    step: Step
    records: tuple[Record, ...]
    posts: Mapping[str, Payload | Sealed]


def steps(ledger: Ledger, blobs: BlobStore, number: int, study: Study, tolerance: float = 0.0) -> Iterator[Done]:
    """The finished steps in order, each checked and, where it is a server's, recomputed, as a replay does.

    Ends where a protocol without a fit ends. Raises what a replay finds.
    """
    codec = PayloadCodec(study, AUDITOR, None, {})
    machine = Machine(learner_of(study).script, Site(study, AUDITOR), tolerance)
    position = 0
    while machine.awaits is not None and (records := ledger.read_finished(number, position)) is not None:
        step = machine.awaits
        posts = {record.site: codec.read(step, record, blobs) for record in records}
        yield Done(step, records, posts)
        try:
            machine.advance(posts)
        except (NotConverged, Separation, Collinear, StudyError):
            return
        position += 1


def list_contributors(view: StudyView, entries: Iterable[Record | Event]) -> tuple[str, ...]:
    """The sites whose rows the result of a study holds, in the study's order.

    In a completed study these are the sites that posted at the last step of all sites: a site that leaves after that
    step is no party any more. In any other study, and without such a step, they are the parties.
    """
    each = [e for e in entries if isinstance(e, Record) and e.post.study == view.id and e.kind == "each"]
    last = max(((record.post.position, record.post.attempt) for record in each), default=None)
    if view.state != State.COMPLETED or last is None:
        return view.parties
    posters = {record.site for record in each if (record.post.position, record.post.attempt) == last}
    return tuple(site for site in view.terms.sites if site in posters)
