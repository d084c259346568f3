"""What the Catalog's views answer, as the ledger's values. Sites are ids in the answers and names in the values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from eth_utils.address import to_checksum_address

from coterie_chain.ethereum.decode import Decoder, decode_name
from coterie_chain.ledger.protocol import OpenStep, SiteEntry, State, StudyView, Terms
from coterie_chain.ledger.study_state import EACH, SERVER


@dataclass(frozen=True)
class Status:
    """The state of a study: ICatalog.Status, field by field; the sets of sites are bitmaps."""

    state: int
    position: int
    attempt: int
    round: int
    phase: int
    index: int
    turn: int
    deadline: int
    done: bool
    active: int
    able: int
    joined: int
    posted: int
    basis: bytes
    kind: int
    server: int
    proposer: int
    superseded: bool


def decode_seat(site: int, answer: Any) -> SiteEntry:
    """A site's entry from the answer of `seat`."""
    name, key, sealing, peer, _, active, _ = answer
    return SiteEntry(site, decode_name(name), to_checksum_address(key), sealing, peer, active)


def decode_terms(decoder: Decoder, answer: Any) -> tuple[tuple[int, ...], Terms]:
    """Ids of the participants in turn order, and the terms, from the answer of `terms`."""
    return tuple(answer[1]), decoder.terms(answer)


def build_study_view(study: int, order: tuple[int, ...], terms: Terms, status: Status, decoder: Decoder) -> StudyView:
    """A study from its terms and status."""

    def names(ids: Iterable[int]) -> tuple[str, ...]:
        return tuple(decoder.names[i] for i in ids)

    parties = _list_members(order, status.active)
    opened = None
    if status.state == State.RUNNING:
        posters = {EACH: parties, SERVER: (status.server,)}.get(status.kind, (status.kind,))
        opened = OpenStep(
            position=status.position,
            attempt=status.attempt,
            round=status.round,
            kind=decoder.kind(status.kind),
            posters=names(posters),
            posted=names(_list_members(order, status.posted)),
            parties=names(parties),
            basis=status.basis,
            deadline=status.deadline,
        )
    joined = names(_list_members(order, status.joined))
    able, proposer = names(_list_members(order, status.able)), decoder.names[status.proposer]
    state = State(status.state)
    return StudyView(
        study, terms, state, joined, names(parties), opened, able, proposer, status.deadline, status.superseded
    )


def _list_members(order: tuple[int, ...], bitmap: int) -> tuple[int, ...]:
    return tuple(site for site in order if bitmap >> site & 1)
