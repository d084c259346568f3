"""Larger sets of patients whose own sums follow from releases: a difference is a release, and is judged as one.

Thirty patients more than in an earlier study are a plain sum over thirty patients. The log holds their value prints, so
that patients who have left the file are judged as well. The sites know the pool's counts of levels of a masked study:
the difference of two such counts is the count of the patients who came or left.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.disclosure import name_events
from coterie_node.privacy.entries import Kind, ReleaseHead
from coterie_node.privacy.equations import judge_columns
from coterie_node.privacy.log import Candidate, PrivacyLog
from coterie_node.privacy.multisets import find_excess
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.own_rows import RowSet, find_known_sets, rest_set
from coterie_node.privacy.patients import Indices, PatientMask
from coterie_node.privacy.prints import Fingerprints, RawRows, find_few_distinct, print_levels, print_numbers
from coterie_node.privacy.values import Sample, judge_levels, judge_values
from coterie_node.release.derivations.known_derivations import list_term_parts, read_prints

# Kinds of releases that are taken off a new one.
_PLAIN: tuple[Kind, ...] = ("plain",)
SUMS: tuple[Kind, ...] = ("plain", "masked")


@dataclass(frozen=True)
class KnownSet:
    """Patients whose sums follow: the earlier study, and their value prints (n,) by column that both read.

    `terms`: the design's columns of both. `rows`: the patients' places among the new release's rows, if all are there;
    else `derived` has the prints of the tables that the former study derived, and the new one as well.
    """

    study: str
    columns: Mapping[str, Fingerprints]
    terms: frozenset[str]
    rows: Indices | None = None
    derived: Mapping[str, Fingerprints] = field(default_factory=dict)

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
    for known in _list_sets(log, candidate, _find_alike(log, candidate, _PLAIN)):
        objections = [
            *judge_columns(known.n, len(known.terms), plain=False),
            *judge_values(_sample(known, candidate, raw, log.key), floor),
        ]
        yield from _name_differences(objections, known, floor)


def judge_sets_of_pool(
    log: PrivacyLog, candidate: Candidate, raw: RawRows, floor: int, opens: bool
) -> Iterator[Objection]:
    """Objections to the part of this site in sums of the pool that follow from a release and former ones.

    If the counts of levels of two masked studies were opened (`opens`: those of the new one are), the pool's counts are
    judged instead. Those of a table, of curves, of sums in the clear or of three studies nobody has opened: there each
    site's own part must have no small level, so that the pool's has none.
    """
    head = candidate.head
    alike = _find_alike(log, candidate, SUMS)
    counted = [h for h in alike if opens and head.kind == h.kind == "masked" and (h.pooled or h.uncounted)]
    pairs = [h for h in alike if h not in counted and (head.kind == "masked" or h.kind == "masked")]
    sets = [*_list_sets(log, candidate, pairs, rest=False), *_list_rest(log, candidate, alike)]
    for known in sets:
        yield from _name_differences(judge_levels(_sample(known, candidate, raw, log.key), floor), known, floor)


def _name_differences(objections: Iterable[Objection], known: KnownSet, floor: int) -> Iterator[Objection]:
    """The objections to a set; of one below the floor the first, as all that is counted of it is small."""
    for objection in islice(objections, 1 if known.n < floor else None):
        yield _name_difference(objection, known.study)


def _sample(known: KnownSet, candidate: Candidate, raw: RawRows, key: bytes) -> Sample:
    """What is judged of a set: its raw values where its patients are still in the file, else their prints."""
    outcome, categories = candidate.head.outcome, raw.levels.keys()
    if known.rows is not None:
        names = [*known.columns, *_list_common_derived(known, candidate, raw)]
        values = {name: _fill_gaps(raw.values[name])[known.rows] for name in names}
        return Sample(values, outcome, known.products, categories=categories)
    zeros = {name: _print_zero(raw, name, key) for name in raw.values}
    zeros |= {name: int(print_numbers(np.zeros(1), name, key)[0]) for name in known.derived}
    return Sample({**known.columns, **known.derived}, outcome, known.products, zeros=zeros, categories=categories)


def _list_common_derived(known: KnownSet, candidate: Candidate, raw: RawRows) -> list[str]:
    """The columns that both formulas derive: their sums over the set follow as well."""
    names = [name for name in raw.values if name not in candidate.head.columns]
    return [name for name in names if any(list_term_parts(term, [name]) for term in known.terms)]


def _fill_gaps(values: NDArray[Any]) -> NDArray[Any]:
    """The values with the median in place of missing ones, which a column behind a condition may have."""
    gaps = np.isnan(np.asarray(values, dtype=np.float64))
    if not gaps.any():
        return values
    return np.where(gaps, 0.0 if gaps.all() else np.nanmedian(values), values)


def _find_alike(log: PrivacyLog, candidate: Candidate, kinds: Collection[Kind]) -> list[ReleaseHead]:
    """Former releases of these kinds that have a column in common with the new one."""
    new = candidate.head
    return [h for h in log.others(new) if h.kind in kinds and not set(h.columns).isdisjoint(new.columns)]


def _list_sets(
    log: PrivacyLog, candidate: Candidate, heads: Sequence[ReleaseHead], rest: bool = True
) -> Iterator[KnownSet]:
    """The patients in only one of the new release and a former one; with `rest`, and what all former ones leave."""
    if not candidate.head.identified:
        yield from _list_unnamed_sets(log, candidate, heads)
        return
    heads = [head for head in heads if head.identified]
    new, past = _row_sets(log, candidate, heads)
    for other, mask in find_known_sets(new, past):
        head = next(head for head, row_set in zip(heads, past, strict=True) if row_set is other)
        yield _read_set(log, candidate, head, mask)
    if rest:
        yield from _list_rest(log, candidate, heads)


def _list_rest(log: PrivacyLog, candidate: Candidate, heads: Sequence[ReleaseHead]) -> Iterator[KnownSet]:
    """What is left of the new release when all former ones are taken off, unless it is what a single one leaves."""
    heads = [head for head in heads if head.identified] if candidate.head.identified else []
    if not heads:
        return
    new, past = _row_sets(log, candidate, heads)
    rest = rest_set(new, past)
    whole = [new.bits, *(mask for _, mask in find_known_sets(new, past))]
    if rest is not None and rest.any() and not any(np.array_equal(rest, mask) for mask in whole):
        yield _read_set(log, candidate, heads[-1], rest)


def _row_sets(log: PrivacyLog, candidate: Candidate, heads: Sequence[ReleaseHead]) -> tuple[RowSet, list[RowSet]]:
    size = len(candidate.patients.prints)
    past = [RowSet(head.study, log.bits(head, size), {}) for head in heads]
    return RowSet(candidate.head.study, candidate.bits, {}), past


def _shows_all(former: ReleaseHead, new: ReleaseHead) -> bool:
    """Whether a former plain release on the same rows had all columns of the new one's design."""
    return former.kind == "plain" and former.covers(new) and set(new.terms) <= set(former.terms)


def _read_set(log: PrivacyLog, candidate: Candidate, head: ReleaseHead, mask: PatientMask) -> KnownSet:
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
    terms = _common_terms(candidate.head, head)
    derived = {} if present else _read_derived(log, head, places, terms)
    return KnownSet(head.study, columns, terms, rows, derived)


def _read_derived(
    log: PrivacyLog, head: ReleaseHead, places: Indices, terms: frozenset[str]
) -> dict[str, Fingerprints]:
    """The prints (m,) of derived tables of patients of a former release; nothing if one of them was not in it."""
    inside = np.flatnonzero(log.bits(head, 0))
    at = np.minimum(np.searchsorted(inside, places), max(len(inside) - 1, 0))
    if not len(inside) or not np.array_equal(inside[at], places):
        return {}
    common = [name for name in head.tables if any(list_term_parts(term, [name]) for term in terms)]
    parts = {name: read_prints(log, head, name) for name in common}
    tables = {name: prints for name, prints in parts.items() if prints is not None and find_few_distinct(prints)}
    return {name: prints[at] for name, prints in tables.items() if len(prints) == len(inside)}


def _list_unnamed_sets(log: PrivacyLog, candidate: Candidate, heads: Sequence[ReleaseHead]) -> Iterator[KnownSet]:
    """Without identifiers: the rows, by their values, that only one of two releases has."""
    for head in heads:
        former = dict(log.values(head, candidate.head.columns))
        latest = {name: candidate.printed.columns[name] for name in former}
        more, fewer = find_excess(latest, former), find_excess(former, latest)
        if len(more) and not len(fewer):
            columns = {name: prints[more] for name, prints in latest.items()}
            yield KnownSet(head.study, columns, _common_terms(candidate.head, head), more.astype(np.uint32))
        elif len(fewer) and not len(more):
            columns = {name: prints[fewer] for name, prints in former.items()}
            yield KnownSet(head.study, columns, _common_terms(candidate.head, head))


def _common_terms(a: ReleaseHead, b: ReleaseHead) -> frozenset[str]:
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
    head: ReleaseHead, pooled: Mapping[str, tuple[float, float]], former: ReleaseHead, floor: int
) -> Iterator[Objection]:
    """Objections to masked sums that, less those of a former study, are sums of the pool over few patients of a level.

    `pooled`: patients and events by level, as the opening step has shown them; events count where both studies have the
    same outcome.
    """
    pooled, former = _order_levels(pooled), replace(former, pooled=_order_levels(former.pooled))
    whole = pooled["the pool"][0] - former.pooled["the pool"][0]
    for name, (patients, _) in pooled.items():
        if name not in former.pooled or not whole:
            continue
        more = patients - former.pooled[name][0]
        if 0 < abs(more) < floor:
            yield _refuse_pool_difference(name, f"has fewer than {floor} patients (small level)", former)
        elif floor > 1 and more and more in _list_event_differences(name, head.outcome, pooled, former):
            yield _refuse_pool_difference(name, "has the outcome in every patient (full cell)", former)


def _order_levels(pooled: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    """Counts by level, with the factors of each product in the order of the alphabet, whatever the formula's."""
    return {_order_factors(name): (counts[0], counts[1]) for name, counts in pooled.items()}


def _order_factors(level: str) -> str:
    """A product's level with its factors in order: `b:a, not zero` as `a:b, not zero`."""
    product, *rest = re.split(r"(, | \(with )", level, maxsplit=1)
    return "".join([":".join(sorted(product.split(":"))), *rest])


def _list_event_differences(
    level: str, outcome: str, pooled: Mapping[str, tuple[float, float]], former: ReleaseHead
) -> list[float]:
    """By how many events of a level two studies differ, for each outcome that both have counted."""
    out = []
    for counted in dict.fromkeys((outcome, former.outcome)):
        here, there = name_events(level, outcome, counted), name_events(level, former.outcome, counted)
        if here in pooled and there in former.pooled:
            out.append(pooled[here][1] - former.pooled[there][1])
    return out


def _refuse_pool_difference(level: str, what: str, former: ReleaseHead) -> Objection:
    sentence = (
        f"less the masked sums of the study {former.study!r} it shows those of the patients of the pool in only one of "
        f"the two (difference), and of these {level} {what}. Wait for more patients, keep the patients the same with a "
        "declared cohort ([cohort] name, complete), or let a person say yes with a reason (coterie release allow)."
    )
    return Objection(Grade.REFUSE, "difference", sentence, former.study, subject=f"difference: {level}")


def judge_uncounted_difference(head: ReleaseHead, former: ReleaseHead) -> Iterator[Objection]:
    """The objection to masked sums over other patients than a former study's where not both opened their counts.

    One opened bits, or went on without a site that the ledger excluded. Then nobody knows how many patients of a level
    the two differ by.
    """
    common = head.columns.keys() & former.columns.keys()
    both = [site for site in head.parties if site in former.parties]
    changed = [site for site in both for name in common if _label(head, site, name) != _label(former, site, name)]
    if not changed:
        return
    sentence = (
        f"less the masked sums of the study {former.study!r} it shows those of the patients of the pool in only one of "
        'the two (difference), and the counts of one of the two were not opened (opening = "bits", or a site was '
        "excluded), so that nobody can say whether these are few of a level. Keep the patients the same with a "
        "declared cohort ([cohort] name, complete), or let a person say yes with a reason (coterie release allow)."
    )
    yield Objection(Grade.REFUSE, "difference", sentence, former.study, subject="difference: bits")


def _label(head: ReleaseHead, site: str, column: str) -> str:
    return head.labels.get(site, {}).get(column, "")
