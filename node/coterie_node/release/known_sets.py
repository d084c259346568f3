"""Larger sets of patients whose own sums follow from plain releases: a difference is a release, and is judged as one.

Thirty patients more than in an earlier study are a plain sum over thirty patients. The log holds their value prints, so
that patients who have left the file are judged as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from coterie_node.privacy.entries import Head
from coterie_node.privacy.equations import judge_columns
from coterie_node.privacy.log import Candidate, PrivacyLog
from coterie_node.privacy.objections import Objection
from coterie_node.privacy.own_rows import RowSet, find_known_sets, rest_set
from coterie_node.privacy.patients import Indices, PatientMask
from coterie_node.privacy.prints import Fingerprints, RawRows, print_levels, print_numbers
from coterie_node.privacy.values import Sample, judge_values


@dataclass(frozen=True)
class KnownSet:
    """Patients (places in the dictionary) whose sums follow, the earlier study, and their value prints by column."""

    study: str
    places: Indices
    columns: Mapping[str, Fingerprints]
    terms: frozenset[str]


def judge_known_sets(log: PrivacyLog, candidate: Candidate, raw: RawRows, floor: int) -> Iterator[Objection]:
    """Objections to the sums of each set that follows from a plain release and the former ones."""
    zeros = {name: _print_zero(raw, name, log.key) for name in raw.values}
    for known in _list_known_sets(log, candidate):
        sample = Sample(known.columns, candidate.head.outcome, zeros=zeros)
        objections = [
            *judge_columns(len(known.places), len(known.terms), plain=False),
            *judge_values(sample, floor),
        ]
        for objection in objections:
            yield _name_difference(objection, known.study)


def _list_known_sets(log: PrivacyLog, candidate: Candidate) -> Iterator[KnownSet]:
    size = len(candidate.patients.prints)
    heads = [head for head in log.others(candidate.head) if _is_alike(head, candidate.head)]
    past = [RowSet(head.study, log.bits(head, size), {}) for head in heads]
    new = RowSet(candidate.head.study, candidate.bits, {})
    for other, mask in find_known_sets(new, past):
        head = next(head for head, row_set in zip(heads, past, strict=True) if row_set is other)
        yield _read_set(log, candidate, head, mask)
    rest = rest_set(new, past) if past else None
    if rest is not None and rest.any() and not np.array_equal(rest, new.bits):
        yield _read_set(log, candidate, heads[-1], rest)


def _is_alike(head: Head, new: Head) -> bool:
    return head.identified and head.kind == "plain" and not set(head.columns).isdisjoint(new.columns)


def _read_set(log: PrivacyLog, candidate: Candidate, head: Head, mask: PatientMask) -> KnownSet:
    """The set with the prints of the columns that both releases read."""
    places = np.flatnonzero(mask).astype(np.uint32)
    source = candidate.head if candidate.bits[places].all() else head
    columns = {
        name: candidate.columns[name].at_version(int(source.columns[name]), places)
        for name in candidate.head.columns
        if name in head.columns
    }
    return KnownSet(head.study, places, columns, frozenset(head.terms) & frozenset(candidate.head.terms))


def _print_zero(raw: RawRows, name: str, key: bytes) -> int:
    """The print of zero, or of a category's reference."""
    if name in raw.levels:
        return int(print_levels(np.zeros(1), raw.levels[name], name, key)[0])
    return int(print_numbers(np.zeros(1), name, key)[0])


def _name_difference(objection: Objection, study: str) -> Objection:
    sentence = (
        f"with the sums of the study {study!r} it shows those of the patients in only one of the two (difference), and "
        f"of these {objection.sentence} A declared cohort ([cohort] name, complete) keeps the patients the same."
    )
    return replace(objection, sentence=sentence, study=study, subject=f"difference: {objection.subject}")
