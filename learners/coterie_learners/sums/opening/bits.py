"""The pool's levels compared with the floor on shares: of the counts only answers of yes or no are opened.

The stricter opening (`opening = "bits"`): one bit for each level and rule, and nothing else, even if the study stops.
They are opened in the stages of `counts`: once a level is refused, nobody learns whether all of it have the outcome.

Theory of operation. A site's counts go through these states:

    state       what it is                                            who can read it
    counted     patients, events and 1 or 0 by level                  this site
    committed   SHA-256 of a secret salt and the counts               everybody; its release gate judges the counts here
    padded      counts plus a pad for each other site, modulo p       this site; two computing parties together
    shared      one Shamir share for each of three computing sites    one of these each; uniform
    summed      shares of the pool's counts: the pads have cancelled  nobody; two computing parties together
    answered    bits                                                  everybody

The first three sites compute; the others share their counts with them. Semi-honest parties. Two computing parties who
collude read the pool's counts, and those of no single site beyond what these and their own counts show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.payload import Field, Payload, Schema, canonical
from coterie_learners.core.protocol import Channel, Site
from coterie_learners.errors import DataError, ProtocolError
from coterie_learners.shares.comparison import negative_shares
from coterie_learners.shares.field import Elements, PrimeField
from coterie_learners.shares.session import Randomness, Session, open_session, pack_account
from coterie_learners.shares.shamir3 import COMPUTING, SECURITY, ThreePartyShamir, supply
from coterie_learners.sums.opening.counts import SITES, Opening, check_numbers
from coterie_learners.sums.opening.stages import Stages

BITS_TOPIC = "bits"
# Binary digits of the numbers that are compared: the pool's counts and their differences are below half of 2^32.
_DIGITS = 32
_FIELD = PrimeField.of_size(SECURITY + _DIGITS + 3)
COUNT_COMMITMENT = Schema({"commitment": Field("|u1", (32,))})

Bits = NDArray[np.uint8]


def commit_counts(site: Site, opening: Opening) -> Payload:
    """SHA-256 of a secret salt and this site's counts; DataError where a number has too few values at this site."""
    check_numbers(site, opening)
    digest = hashlib.sha256(site.stream("opening commitment", 32) + canonical(opening.count(site))).digest()
    return {"commitment": np.frombuffer(digest, np.uint8)}


def form_bits(opening: Opening) -> Schema:
    """Form of the opened answers: three for each level, and one for the pool."""
    fields = {
        "bits": Field("|u1", (3 * len(opening.names) + 1,)),
        "rounds": Field("<i8"),
        "sent": Field("<i8", (len(opening.design.study.sites),)),
        "transcript": Field("|u1", (32,)),
    }
    return Schema(fields, frozenset(), _check_answers)


def _check_answers(post: Payload) -> None:
    if np.max(post["bits"]) > 1:
        raise ProtocolError(
            "CO-P647", "The opened answers hold other numbers than 0 and 1. Compare the sites' versions."
        )


def check_bits(opening: Opening, post: Payload) -> None:
    """Withheld if an answer says that the sums that follow would show few patients, or one or two sites."""
    bits = np.asarray(post["bits"], dtype=bool)
    for level, answers in zip(opening.names, bits[:-1].reshape(3, -1).T.tolist(), strict=True):
        opening.refuse(level, *answers)
    if bits[-1]:
        opening.refuse_few_rows()


def compare_counts(site: Site, channel: Channel | None, opening: Opening) -> Payload:
    """One site's part: share its padded counts, compare the pool's with the floor or wait, and return the answers."""
    assert channel is not None
    terms = repr((opening.names, opening.floor, opening.events, _DIGITS)).encode()
    session, randomness = open_session(site, channel, BITS_TOPIC, terms)
    padded = pad_counts(site, opening, session, randomness)
    computing, others = site.parties[:COMPUTING], site.parties[COMPUTING:]
    if site.name in computing:
        trio = ThreePartyShamir(_FIELD, session, computing, randomness)
        bits = _open_answers(opening, trio, _add_shares(trio, padded, others))
        for name in others:
            session.send(name, bits.tobytes())
    else:
        supply(_FIELD, session, computing, padded, randomness)
        bits = _receive_bits(session, computing, 3 * len(opening.names) + 1)
    return {"bits": bits, **pack_account(session.account())}


def pad_counts(site: Site, opening: Opening, session: Session, randomness: Randomness) -> Elements:
    """Patients, events and presence by level (3 k,), plus a pad for each other site; the pads cancel in the sum."""
    counts = opening.count(site)
    values = np.concatenate([counts["patients"], counts["events"], counts["sites"]])
    if float(values.max()) * len(site.parties) >= 2.0 ** (_DIGITS - 1):
        message = f"{values.max():.0f} patients at {site.name} are more than bits can be compared of"
        raise DataError("CO-D301", f'{message}. Set opening to "counts".')
    total = _FIELD.encode(values, 0)
    for peer in session.peers:
        pad = _FIELD.uniform(randomness.shared[peer].take(_FIELD.width * len(values)), values.shape)
        total = total + pad if site.name < peer else total - pad
    return np.asarray(total % _FIELD.p)


def _add_shares(trio: ThreePartyShamir, padded: Elements, others: Sequence[str]) -> Elements:
    """Shares of the pool's counts (3 k,)."""
    dealt = [trio.deal(k, padded if k == trio.me else None, padded.shape) for k in range(COMPUTING)]
    return np.asarray(sum([*dealt, *(trio.gather(name, padded.shape) for name in others)]) % _FIELD.p)


def _open_answers(opening: Opening, trio: ThreePartyShamir, pool: Elements) -> Bits:
    """For each level: few patients, few sites, all with the outcome (3 k); and no more rows than columns."""
    patients, events, sites = np.split(pool, 3)
    compared = (patients - 1, patients - opening.floor, sites - SITES, patients - events - 1)
    few_rows = patients[:1] - len(opening.design.columns) - 1
    negative = negative_shares(trio, np.concatenate([*compared, few_rows]) % _FIELD.p, _DIGITS)
    none, small, few, full = np.split(negative[:-1], 4)
    some = 1 - none
    answers = trio.reshare(np.concatenate([some * small, some * few, some * full, negative[-1:]]) % _FIELD.p)
    answers = _judge_full(opening, trio, answers, len(patients))
    return _open_stages(opening, trio, answers)


def _open_stages(opening: Opening, trio: ThreePartyShamir, answers: Elements) -> Bits:
    """The answers, stage by stage; once one of them is yes those of later stages stay shares, and are written as 0."""
    out, stages = np.zeros(len(answers), np.uint8), _list_stages(opening)
    for number in range(1, int(stages.max()) + 1):
        at = np.flatnonzero(stages == number)
        out[at] = np.array(trio.open(answers[at], exact=True).tolist(), dtype=np.uint8)
        if out.any():
            break
    return out


def _list_stages(opening: Opening) -> Stages:
    """In which stage each answer (3 k + 1,) is opened: that all have the outcome comes when events are counted."""
    return np.concatenate([opening.levels_at, opening.levels_at, opening.events_at, [1]])


def _judge_full(opening: Opening, trio: ThreePartyShamir, answers: Elements, levels: int) -> Elements:
    """The answers with full cells as the study judges them: not at all, or of counts only where some are zero."""
    full = answers[2 * levels : 3 * levels]
    if not opening.judges_full:
        full = 0 * full
    elif not opening.is_binary:
        full = trio.reshare(np.asarray(full * (1 - full[0]) % _FIELD.p))
    return np.concatenate([answers[: 2 * levels], full, answers[-1:]])


def _receive_bits(session: Session, computing: Sequence[str], size: int) -> Bits:
    results = {session.receive(name, size) for name in computing}
    if len(results) != 1:
        message = f"{' and '.join(computing)} sent {session.me} different results"
        raise ProtocolError("CO-P646", f"{message}. Ask them to check their nodes and versions.", topic=BITS_TOPIC)
    return np.frombuffer(results.pop(), np.uint8)
