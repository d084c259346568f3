"""Larger sets of patients whose own sums follow from releases: a difference is a release, and is judged as one.

Thirty patients more than in an earlier study are a plain sum over thirty patients. The log holds their value prints, so
that patients who have left the file are judged as well. Of masked sums the sites know the pool's counts of levels: what
these differ by is the count of the patients who came or left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from coterie_learners.core.disclosure import name_events
from coterie_node.privacy.entries import Head
from coterie_node.privacy.equations import judge_columns
from coterie_node.privacy.log import Candidate, PrivacyLog
from coterie_node.privacy.multisets import find_excess
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.own_rows import RowSet, find_known_sets, rest_set
from coterie_node.privacy.patients import Indices, PatientMask
from coterie_node.privacy.prints import Fingerprints, RawRows, print_levels, print_numbers
from coterie_node.privacy.values import Sample, judge_values


@dataclass(frozen=True)
class KnownSet:
    """Patients whose sums follow: the earlier study, and their value prints (n,) by column that both read.

    `terms`: the design's columns of both. `rows`: the patients' places among the new release's rows, if all are there.
    """

    study: str
    columns: Mapping[str, Fingerprints]
    terms: frozenset[str]
    rows: Indices | None = None

    @property
    def n(self) -> int:
        """Number of patients."""
        return len(next(iter(self.columns.values())))

    @property
    def products(self) -> list[tuple[str, ...]]:
        """The raw columns of each product of both formulas."""
        names = (re.sub(r"\[[^]]*\]", "", term).split(":") for term in self.terms)
        return [tuple(dict.fromkeys(parts)) for parts in names if len(set(parts)) > 1]


def judge_known_sets(log: PrivacyLog, candidate: Candidate, raw: RawRows, floor: int) -> Iterator[Objection]:
    """Objections to the sums of each set that follows from a plain release and the former ones."""
    if any(_shows_all(head, candidate.head) for head in log.others(candidate.head)):
        return
    find = _list_known_sets if candidate.head.identified else _list_unnamed_sets
    for known in find(log, candidate):
        objections = [
            *judge_columns(known.n, len(known.terms), plain=False),
            *judge_values(_sample(known, candidate, raw, log.key), floor),
        ]
        for objection in objections:
            yield _name_difference(objection, known.study)


def _sample(known: KnownSet, candidate: Candidate, raw: RawRows, key: bytes) -> Sample:
    """What is judged of a set: its raw values where its patients are still in the file, else their prints."""
    outcome, categories = candidate.head.outcome, raw.levels.keys()
    if known.rows is not None:
        values = {name: raw.values[name][known.rows] for name in known.columns}
        return Sample(values, outcome, known.products, categories=categories)
    zeros = {name: _print_zero(raw, name, key) for name in raw.values}
    return Sample(known.columns, outcome, known.products, zeros=zeros, categories=categories)


def _list_known_sets(log: PrivacyLog, candidate: Candidate) -> Iterator[KnownSet]:
    size = len(candidate.patients.prints)
    heads = [head for head in log.others(candidate.head) if head.identified and _is_alike(head, candidate.head)]
    past = [RowSet(head.study, log.bits(head, size), {}) for head in heads]
    new = RowSet(candidate.head.study, candidate.bits, {})
    for other, mask in find_known_sets(new, past):
        head = next(head for head, row_set in zip(heads, past, strict=True) if row_set is other)
        yield _read_set(candidate, head, mask)
    rest = rest_set(new, past) if past else None
    if rest is not None and rest.any() and not np.array_equal(rest, new.bits):
        yield _read_set(candidate, heads[-1], rest)


def _is_alike(head: Head, new: Head) -> bool:
    return head.kind == "plain" and not set(head.columns).isdisjoint(new.columns)


def _shows_all(former: Head, new: Head) -> bool:
    """Whether a former plain release on the same rows had all columns of the new one's design."""
    return former.kind == "plain" and former.covers(new) and set(new.terms) <= set(former.terms)


def _read_set(candidate: Candidate, head: Head, mask: PatientMask) -> KnownSet:
    """The set with the prints of the columns that both releases read."""
    places = np.flatnonzero(mask).astype(np.uint32)
    present = bool(candidate.bits[places].all())
    source = candidate.head if present else head
    columns = {
        name: candidate.columns[name].at_version(int(source.columns[name]), places)
        for name in candidate.head.columns
        if name in head.columns
    }
    rows = np.flatnonzero(mask[candidate.at]).astype(np.uint32) if present else None
    return KnownSet(head.study, columns, _common_terms(candidate.head, head), rows)


def _list_unnamed_sets(log: PrivacyLog, candidate: Candidate) -> Iterator[KnownSet]:
    """Without identifiers: the rows, by their values, that only one of two releases has."""
    for head in log.others(candidate.head):
        if not _is_alike(head, candidate.head):
            continue
        former = dict(log.values(head, candidate.head.columns))
        latest = {name: candidate.printed.columns[name] for name in former}
        more, fewer = find_excess(latest, former), find_excess(former, latest)
        if len(more) and not len(fewer):
            columns = {name: prints[more] for name, prints in latest.items()}
            yield KnownSet(head.study, columns, _common_terms(candidate.head, head), more.astype(np.uint32))
        elif len(fewer) and not len(more):
            columns = {name: prints[fewer] for name, prints in former.items()}
            yield KnownSet(head.study, columns, _common_terms(candidate.head, head))


def _common_terms(a: Head, b: Head) -> frozenset[str]:
    return frozenset(a.terms) & frozenset(b.terms)


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


def judge_pool_difference(
    head: Head, pooled: Mapping[str, tuple[float, float]], former: Head, floor: int
) -> Iterator[Objection]:
    """Objections to masked sums that, less those of a former study, are sums of the pool over few patients of a level.

    `pooled`: patients and events by level, as the opening step has shown them; events count where both studies have the
    same outcome.
    """
    whole = pooled["the pool"][0] - former.pooled["the pool"][0]
    for name, (patients, _) in pooled.items():
        if name not in former.pooled or not whole:
            continue
        more = patients - former.pooled[name][0]
        if 0 < abs(more) < floor:
            yield _refuse_pool_difference(name, f"has fewer than {floor} patients (small level)", former)
        elif floor > 1 and more and more in _list_event_differences(name, head.outcome, pooled, former):
            yield _refuse_pool_difference(name, "has the outcome in every patient (full cell)", former)


def _list_event_differences(
    level: str, outcome: str, pooled: Mapping[str, tuple[float, float]], former: Head
) -> list[float]:
    """By how many events of a level two studies differ, for each outcome that both have counted."""
    out = []
    for counted in dict.fromkeys((outcome, former.outcome)):
        here, there = name_events(level, outcome, counted), name_events(level, former.outcome, counted)
        if here in pooled and there in former.pooled:
            out.append(pooled[here][1] - former.pooled[there][1])
    return out


def _refuse_pool_difference(level: str, what: str, former: Head) -> Objection:
    sentence = (
        f"less the masked sums of the study {former.study!r} it shows those of the patients of the pool in only one of "
        f"the two (difference), and of these {level} {what}. Wait for more patients, keep the patients the same with a "
        "declared cohort ([cohort] name, complete), or let a person say yes with a reason (coterie release allow)."
    )
    return Objection(Grade.REFUSE, "difference", sentence, former.study, subject=f"difference: {level}")


def judge_uncounted_difference(head: Head, former: Head) -> Iterator[Objection]:
    """The objection to masked sums over other patients than a former study's where not both opened their counts.

    One opened bits, or went on without a site that the ledger excluded. Then nobody knows how many patients of a level
    the two differ by.
    """
    common = head.columns.keys() & former.columns.keys()
    changed = [
        site for site in head.parties for name in common if _label(head, site, name) != _label(former, site, name)
    ]
    if not changed:
        return
    sentence = (
        f"less the masked sums of the study {former.study!r} it shows those of the patients of the pool in only one of "
        'the two (difference), and the counts of one of the two were not opened (opening = "bits", or a site was '
        "excluded), so that nobody can say whether these are few of a level. Keep the patients the same with a "
        "declared cohort ([cohort] name, complete), or let a person say yes with a reason (coterie release allow)."
    )
    yield Objection(Grade.REFUSE, "difference", sentence, former.study, subject="difference: bits")


def _label(head: Head, site: str, column: str) -> str:
    return head.labels.get(site, {}).get(column, "")
