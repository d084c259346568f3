"""One study's release at one site, judged by its values, columns and parties, and by all that ever left here."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_chain.errors import StoreFault
from coterie_learners.core.disclosure import ColumnCut, Exposure
from coterie_learners.core.protocol import Site
from coterie_learners.errors import StudyError
from coterie_learners.study.design import INTERCEPT, Design, design_of
from coterie_learners.study.document import Floors
from coterie_learners.study.rows import Data, OwnColumns
from coterie_node.data.patients.site_rows import Selectable, StaysElsewhere, find_part, raw_rows
from coterie_node.privacy.cohorts import find_cohort, keep_cohort
from coterie_node.privacy.entries import Kind, ReleaseHead
from coterie_node.privacy.equations import Budget, count_equations, count_unknowns, judge_budget, judge_columns
from coterie_node.privacy.log import Candidate, PrivacyLog
from coterie_node.privacy.objections import Grade, Objection, objections_from_json, objections_to_json
from coterie_node.privacy.parties import (
    EVERYBODY,
    PooledSum,
    assume_unchanged,
    judge_parties,
    refuse_undone_masks,
)
from coterie_node.privacy.patients import Indices
from coterie_node.privacy.prints import PrintedRows, RawRows
from coterie_node.privacy.storage import read_blob
from coterie_node.privacy.values import (
    ColumnValues,
    LevelTable,
    Sample,
    judge_column,
    judge_dominance,
    judge_local_clusters,
    judge_local_weights,
    judge_offset,
    judge_repeats,
    judge_values,
)
from coterie_node.release.derivations.known_derivations import (
    DERIVED,
    RAW,
    Sizes,
    judge_derivations,
    judge_numbers,
    keep_columns,
    list_derived,
    read_former_columns,
    read_former_tables,
)
from coterie_node.release.derivations.known_parts import (
    find_parts,
    judge_columns_of_parts,
    judge_parts,
    list_wider_columns,
)
from coterie_node.release.derivations.logged_derivations import log_derivations
from coterie_node.release.derivations.own_numbers import judge_own_numbers
from coterie_node.release.derivations.row_sets import combine_row_sets
from coterie_node.release.derivations.summed_columns import list_former_columns, list_own_columns, log_row_weights
from coterie_node.release.known_cuts import is_cutting, judge_cuts, log_functions
from coterie_node.release.known_functions import judge_functions
from coterie_node.release.known_patterns import judge_known_patterns
from coterie_node.release.known_ranges import CountedRanges, judge_known_ranges
from coterie_node.release.known_scores import judge_scores
from coterie_node.release.known_sets import (
    judge_known_sets,
    judge_pool_difference,
    judge_sets_of_pool,
    judge_uncounted_difference,
)
from coterie_node.release.known_times import (
    LoggedTimes,
    count_times,
    judge_difference_of_times,
    judge_joint_grid,
)
from coterie_node.release.models.family_terms import judge_family_terms, name_family
from coterie_node.release.models.score_weights import judge_score_weights, log_weights

# A column's values.
_Values = NDArray[Any]
# The number of releases, and what was found.
_Known = tuple[int, tuple[Objection, ...]]
# The number of other releases does not matter any more: this one is in the log, and they are compared with it.
_IN_LOG = -1


@dataclass
class Judgement:
    """The privacy log's judgement of a study's releases at this site; judged once for each set of parties.

    Until `write` is called nothing is in the log. `near`: as in `PrivacyLog.judge`.
    """

    log: PrivacyLog
    floors: Floors
    near: bool = False
    _known: dict[tuple[str, tuple[str, ...], bool], _Known] = field(default_factory=dict, init=False)
    _waiting: Candidate | None = field(default=None, init=False)
    _raw: RawRows | None = field(default=None, init=False)
    _derived: RawRows | None = field(default=None, init=False)
    _printed: PrintedRows | None = field(default=None, init=False)
    _verdicts: dict[str, list[Objection]] = field(default_factory=dict, init=False)
    _design: Design | None = field(default=None, init=False)

    def judge(self, site: Site, exposure: Exposure) -> list[Objection]:
        """All objections to what leaves at this step: a person's yes to one of them is none to the others."""
        raw = self._read(site, exposure)
        if raw is None:
            return []
        key, others = (site.session, site.parties, exposure.labels_only), self._count_others(site)
        if key not in self._known or others not in (self._known[key][0], _IN_LOG):
            self._known[key] = (others, tuple(self._objections(site, exposure, raw)))
        later = (self._next_equations, self._pool_differences, self._times, self._ranges, self._cuts, self._scores)
        looks = (*later, self._judge_joins, self._derivations, self._judge_weights)
        return [*self._known[key][1], *(objection for look in looks for objection in look(site, exposure))]

    def write(self, site: Site, exposure: Exposure, reason: str = "") -> None:
        """Write what is about to leave into the log, durably; labels alone are no release."""
        if exposure.labels_only:
            return
        with self.log.hold():
            self._write_release(site, exposure, reason)
            head = self.log.find(site.session, site.parties)
            if head is not None and exposure.matched is not None and not head.matched:
                self.log.note_matched(head, self._find_matched(exposure.matched))

    def _write_release(self, site: Site, exposure: Exposure, reason: str) -> None:
        """The entry of this release, made once with all that this step shows, or what a later step shows besides."""
        if self._waiting is None:
            head = self.log.find(site.session, site.parties)
            shown = head and self._add_shown(site, exposure, head)
            if shown is not None and shown != head:
                self.log.put_head(shown)
            return
        self._keep_cohort(site, self._waiting)
        for place, objections in self._verdicts.items():
            self.log.storage[place] = objections_to_json(objections)
        head = replace(self._waiting.head, reason=reason, tables=self._keep_columns(site, self._waiting))
        try:
            self.log.write(replace(self._waiting, head=self._add_shown(site, exposure, head)))
        except StoreFault:
            self._known.clear()  # beside a log that has changed, or is full: judged again
            raise
        self._waiting = None

    def _keep_columns(self, site: Site, candidate: Candidate) -> dict[str, str]:
        """Each column of the model, with where the log has its prints."""
        design = self._design_of(site)
        kept = keep_columns(self.log, candidate, self._list_derived(design))
        others = [name for name in design.variables if name not in kept]
        return kept | {name: DERIVED if name in design.study.derivations else RAW for name in others}

    def _add_shown(self, site: Site, exposure: Exposure, head: ReleaseHead) -> ReleaseHead:
        """The head with what this step shows; the ranges of a score are written down."""
        if head.kind == "plain":
            head = replace(head, equations=head.equations + self._equations(site, exposure, head))
        # While a study opens, its counts are not whole: they are kept with the first sums after them.
        counted = exposure.pooled and not exposure.opening
        if head.labels and counted and not head.pooled and not head.uncounted:
            head = replace(head, pooled=dict(exposure.pooled))
        if exposure.ranges:
            counts = self._count_ranges(head, exposure)
            counts.keep(self.log.storage)
            head = replace(head, ranges=counts.place)
        if exposure.times is not None and self._raw is not None:
            head = replace(head, times=count_times(exposure.times, self._raw).as_dict())
        if exposure.weighed is not None and exposure.weighed.of_outcomes:
            head = replace(head, weighed={**head.weighed, **log_weights(exposure.weighed)})
        return _add_cuts(replace(head, uncounted=head.uncounted or exposure.uncounted), exposure)

    def _count_others(self, site: Site) -> int:
        """Releases of other sessions that this one is compared with; none any more once it is in the log itself.

        While a person is asked, another study may post.
        """
        return _IN_LOG if self.log.find(site.session, site.parties) is not None else self.log.count_releases()

    def _read(self, site: Site, exposure: Exposure) -> RawRows | None:
        """The raw rows behind what leaves, read and printed once."""
        if self._raw is None:
            self._raw = raw_rows(site)
            if self._raw is not None and exposure.least_pattern > 1 and not exposure.sums_only:
                self._raw = drop_small_patterns(self._raw, site, exposure.least_pattern)
            if self._raw is not None:
                self._printed = self.log.print_rows(self._raw)
                self._derived = with_derived(self._raw, self._design_of(site))
        return self._raw

    @cached_property
    def _measures(self) -> dict[str, ColumnValues]:
        """Each column, those that the formula derives too, with what its values show."""
        raw, derived = self._raw, self._derived
        assert raw is not None
        assert derived is not None
        rows = {name: raw if name in raw.values else derived for name in derived.values}
        return {
            name: ColumnValues(
                name, values, category=name in derived.levels, find_few=partial(rows[name].find_few, name)
            )
            for name, values in derived.values.items()
        }

    def _objections(self, site: Site, exposure: Exposure, raw: RawRows) -> Iterator[Objection]:
        assert self._printed is not None
        if exposure.unopened and self.floors.cell > 1:
            yield _object_to_unopened()
        kind = kind_of(site, exposure)
        if self._printed.repeats and not site.study.columns and not exposure.by_patient:
            yield _object_to_repeats()
        candidate = self.log.prepare(self._head(site, exposure, raw, kind), self._printed)
        candidate = replace(candidate, head=self._complete_head(candidate.head, self._design_of(site)))
        self._waiting = candidate
        yield from self.log.judge(candidate, self.floors.cell, self.near)
        if not exposure.labels_only:
            yield from self._undone_masks(candidate.head)
        if kind == "plain":
            yield from self._columns(candidate) if exposure.by_columns else ()
            yield from judge_known_sets(self.log, candidate, self._derived or raw, self.floors.cell)
            yield from self._patterns(candidate, raw) if exposure.by_columns else ()
        if kind == "masked" and not exposure.labels_only:
            yield from self._parties(candidate)
            yield from self._judge_left_out(candidate.head)
        if not exposure.labels_only and kind != "factor":
            opens = exposure.opening or bool(exposure.pooled) or exposure.uncounted
            yield from judge_sets_of_pool(self.log, candidate, self._derived or raw, self.floors.cell, opens)
        if not exposure.labels_only:
            yield from self._judge_values(site, exposure, raw, candidate.head)

    def _judge_values(self, site: Site, exposure: Exposure, raw: RawRows, head: ReleaseHead) -> list[Objection]:
        """Objections by the values; kept once these rows are in the log, so that they are judged once for each file."""
        study, floor = site.study, self.floors.cell
        terms = [head.rows, sorted(head.columns.items()), head.kind, head.outcome, sorted(head.terms), floor]
        terms += [sorted(study.disclosure.sensitive), exposure.by_columns, exposure.least_pattern]
        terms += [*_list_weights(self._design_of(site)), *map(name_family, self._design_of(site).models)]
        place = f"judged/{hashlib.sha256(json.dumps(terms).encode()).hexdigest()}"
        if place in self.log.storage:
            return read_blob(self.log.storage, place, objections_from_json)
        out = (
            list(judge_local_dominance(site, self._derived or raw, self._measures, floor))
            if head.kind == "masked"
            else list(judge_sample(site, exposure, self._derived or raw, head.kind, floor, self._measures))
        )
        self._verdicts[place] = out
        return out

    def _derivations(self, site: Site, exposure: Exposure) -> Iterator[Objection]:
        """Objections to columns that a former study on these rows derived in another way."""
        candidate = self._waiting
        if candidate is None or exposure.labels_only or self.floors.cell < 2:
            return  # judged before it was written
        head = candidate.head
        if head.kind not in ("plain", "masked"):
            return
        assert self._design is not None
        former = [h for h in self.log.others(head) if h.kind in ("plain", "masked")]
        same = [h for h in former if _shares_rows(h, head) and (h.rows == head.rows or not head.identified)]
        tables, sizes = self._list_tables(self._design), Sizes(self.floors.cell, head.kind == "plain")
        derived = {*self._design.derived, *self._design.study.derivations}.union(*map(list_derived, former))
        earlier = read_former_tables(self.log, candidate, same, tables) if same else {}
        yield from judge_derivations(tables, earlier, derived, sizes)
        numbers = self._list_numbers(self._design)
        assert self._derived is not None
        yield from judge_own_numbers(numbers, self._derived.values, self._design, sizes)
        own = list_own_columns(self._design, self._measures, self._derived)
        summed = [*own, *list_former_columns(self.log, candidate, same, self._derived)]
        if same:
            columns = read_former_columns(self.log, candidate, same, numbers)
            yield from judge_numbers(numbers, columns, derived, self.log, sizes)
        others = [h for h in former if h not in same and not set(h.columns).isdisjoint(head.columns)]
        yield from judge_parts(self.log, candidate, others, tables, sizes)
        parts = list(find_parts(self.log, candidate, others))
        summed += list_wider_columns(self.log, candidate, others, self._derived)
        combined = combine_row_sets(self.log, candidate, others, self._derived)
        yield from judge_columns_of_parts(summed, parts, combined, self._derived, sizes)

    def _list_derived(self, design: Design) -> dict[str, _Values]:
        """What the formula derives: the levels of tables, and numbers, except of functions that make several."""
        tables = {name: table.codes for name, table in self._list_tables(design).items()}
        columns = {**self._list_numbers(design), **tables}
        return {name: values for name, values in columns.items() if name in design.derived}

    def _list_numbers(self, design: Design) -> dict[str, _Values]:
        """The columns of the model that are numbers of many values, without those of functions that make several."""
        assert self._derived is not None
        several = {part.name for parts in design.functions.values() if len(parts) > 1 for part in parts}
        names = [name for name in design.variables if name in self._measures and name not in several]
        return {name: self._derived.values[name] for name in names if not self._is_table(name)}

    def _list_tables(self, design: Design) -> dict[str, LevelTable]:
        """The columns of the model that have levels or few values, derived ones among them; no measurement."""
        raw = self._derived
        assert raw is not None
        names = [name for name in (*design.variables, *design.inputs) if name in self._measures]
        names = [name for name in names if name in raw.levels or raw.find_few(name) is not None]
        tables = {name: self._measures[name].table for name in dict.fromkeys(names)}
        return {name: table for name, table in tables.items() if table is not None}

    def _patterns(self, candidate: Candidate, raw: RawRows) -> Iterator[Objection]:
        same = self._same_rows(candidate.head)
        if any(head.terms != candidate.head.terms for head in same):
            assert self._design is not None
            behind = self._design.behind
            tables = {name: column.table for name, column in self._measures.items() if name not in behind}
            yield from judge_known_patterns(candidate, same, raw, tables, self.floors.cell)

    def _head(self, site: Site, exposure: Exposure, raw: RawRows, kind: Kind) -> ReleaseHead:
        study, design = site.study, self._design_of(site)
        terms = tuple(":".join(sorted(name.split(":"))) for name in design.names)
        return ReleaseHead(
            session=site.session,
            study=study.name,
            digest=study.hash.hex(),
            position=0,
            attempt=site.attempt,
            parties=site.parties or study.sites,
            kind=kind,
            n=raw.n,
            columns={},
            outcome=design.formula.outcome,
            terms=terms,
            least_pattern=exposure.least_pattern,
            labels={name: dict(labels) for name, labels in exposure.labels.items()},
            # A validation of a published model reads only its scores.
            functions={} if kind == "factor" or study.learner.name == "validate" else log_functions(design),
            derivations={} if kind == "factor" else log_derivations(design),
            weighed=log_row_weights(design),
        )

    def _complete_head(self, head: ReleaseHead, design: Design) -> ReleaseHead:
        """The head with its measured columns, and the log's entries about this same release from before a restart."""
        head, former = (
            replace(head, measured=self._list_measured(head, design)),
            self.log.find(head.session, head.parties),
        )
        if former is None:
            return self._inherit_labels(head)
        return replace(
            head,
            labels=head.labels or former.labels,
            pooled=head.pooled or former.pooled,
            uncounted=head.uncounted or former.uncounted,
            equations=former.equations,
            missing=former.missing,
            state=former.state,
            reason=former.reason,
            times=former.times,
            cuts=former.cuts,
            matched=former.matched,
            ranges=former.ranges,
            weighed={**former.weighed, **head.weighed},
        )

    def _inherit_labels(self, head: ReleaseHead) -> ReleaseHead:
        """The head with the labels that its parties posted before the ledger excluded another site.

        Nobody knows the counts of these parties alone: those that were opened are of all of them.
        """
        if head.labels or head.kind != "masked":
            return head
        earlier = [other for other in self.log.heads() if other.session == head.session and other.labels]
        if not earlier:
            return head
        labels = {site: posted for site, posted in earlier[-1].labels.items() if site in head.parties}
        return replace(head, labels=labels, uncounted=True)

    def _columns(self, candidate: Candidate) -> Iterator[Objection]:
        terms = set(candidate.head.terms).union(*(head.terms for head in self._same_rows(candidate.head)))
        yield from judge_columns(candidate.head.n, len(terms), plain=True)

    def _same_rows(self, head: ReleaseHead) -> list[ReleaseHead]:
        """Former plain releases over the same rows."""
        past = [h for h in self.log.heads() if h.session != head.session and h.kind == "plain" and h.n == head.n]
        return [other for other in past if other.rows == head.rows or _common_columns_equal(other, head)]

    def _parties(self, candidate: Candidate) -> Iterator[Objection]:
        past = [head for head in self.log.others(candidate.head) if head.kind == "masked"]
        for column in candidate.head.columns:
            former = [_pool_sum(head, column) for head in past if column in head.columns]
            objection = judge_parties(*assume_unchanged(_pool_sum(candidate.head, column), former))
            if objection is not None:
                yield objection
                return

    def _undone_masks(self, head: ReleaseHead) -> Iterator[Objection]:
        """Objections where sums in the clear, taken off a masked sum, leave what one or two other sites hold."""
        other_kind = "masked" if head.kind == "plain" else "plain"
        for other in self.log.others(head) if head.kind in ("plain", "masked") else ():
            masked, plain = (other, head) if head.kind == "plain" else (head, other)
            hidden = set(masked.parties) - set(plain.parties)
            if other.kind == other_kind and 0 < len(hidden) < EVERYBODY and _shares_rows(other, head):
                yield refuse_undone_masks(sorted(hidden), other.study)
                return

    def _judge_left_out(self, head: ReleaseHead) -> Iterator[Objection]:
        """Objections where sums over all of these rows and sums without small patterns differ by just those."""
        for other in self.log.others(head):
            both = other.kind == head.kind == "masked"
            if both and other.least_pattern != head.least_pattern and _shares_rows(other, head):
                yield _object_to_left_out(other.study)
                return

    def _next_equations(self, site: Site, exposure: Exposure) -> Iterator[Objection]:
        head = self._waiting.head if self._waiting else self.log.find(site.session, site.parties)
        if head is None or head.kind != "plain" or not (exposure.parameters or exposure.numbers):
            return
        heads = [head, *self._same_rows(head)]
        measured = set().union(*(other.measured for other in heads))
        spent = sum(other.equations for other in heads) + self._equations(site, exposure, head)
        yield from judge_budget(Budget(spent, count_unknowns(head.n, len(measured))))

    def _equations(self, site: Site, exposure: Exposure, head: ReleaseHead) -> int:
        if not exposure.parameters:
            return exposure.numbers
        return sum(self._count_round(design, head) for design in self._design_of(site).models)

    def _count_round(self, design: Design, head: ReleaseHead) -> int:
        """Equations that one round of a model's plain sums gives."""
        measured = set(head.measured) | {name for name in design.derived if not self._is_table(name)}
        tables = [c for c in design.columns if c.name != INTERCEPT and not {f.variable for f in c.factors} & measured]
        return count_equations(len(design.columns), len(tables))

    def _design_of(self, site: Site) -> Design:
        """The site's part of the study's design, made once."""
        if self._design is None or self._design.study is not site.study:
            self._design = design_of(site.study, site.name)
        return self._design

    def _list_measured(self, head: ReleaseHead, design: Design) -> tuple[str, ...]:
        """The covariates that are no tables: whose values are unknowns of their own."""
        for other in self.log.others(head):
            if other.covers(head) and other.outcome == head.outcome:
                return tuple(name for name in other.measured if name in head.columns)
        assert self._raw is not None
        columns = [name for name in self._raw.values if name != head.outcome and name not in design.behind]
        only_tabled = self._find_only_tabled(design)
        return tuple(name for name in columns if not self._is_table(name) and name not in only_tabled)

    def _is_table(self, name: str) -> bool:
        """Whether a column's values make a table; not so a derived one whose sources are not here."""
        return name in self._measures and self._measures[name].table is not None

    def _find_only_tabled(self, design: Design) -> frozenset[str]:
        """Columns that the model reads only as derived tables, such as the intervals of cut."""
        forms: dict[str, list[str]] = {}
        for name, part in design.derived.items():
            for source in part.sources:
                forms.setdefault(source, []).append(name)
        plain = set(design.variables)
        tabled = (s for s, names in forms.items() if all(map(self._is_table, names)))
        return frozenset(source for source in tabled if source not in plain)

    def _pool_differences(self, site: Site, exposure: Exposure) -> Iterator[Objection]:
        """Objections where the pool's counts of levels differ little from an earlier study's over these patients."""
        head = self._waiting.head if self._waiting else self.log.find(site.session, site.parties)
        opened = exposure.pooled or exposure.uncounted
        if not opened or head is None or not head.labels:
            return
        if head.pooled or (head.uncounted and self._waiting is None):
            return  # judged before it was written
        for other in self.log.others(head):
            nested = set(other.parties) <= set(head.parties) or set(other.parties) >= set(head.parties)
            if not nested or not self.log.is_grown(head, other):
                continue
            if other.pooled and exposure.pooled and not head.uncounted:
                yield from judge_pool_difference(head, exposure.pooled, other, self.floors.cell)
            elif (other.pooled or other.uncounted) and self.floors.cell > 1:
                yield from judge_uncounted_difference(head, other)

    def _times(self, site: Site, exposure: Exposure) -> Iterator[Objection]:
        """Objections where the counts on a grid of time, with an earlier study's, show few patients of a step."""
        head = self._waiting.head if self._waiting else self.log.find(site.session, site.parties)
        if exposure.times is None or head is None or self._raw is None:
            return
        counts = count_times(exposure.times, self._raw)
        for other in (other for other in self.log.others(head) if other.times):
            former = LoggedTimes.from_dict(other.times)
            if _shares_rows(other, head):
                yield from judge_joint_grid(exposure.times, former.steps, other.study, self._raw, self.floors.cell)
            elif self.log.is_grown(head, other):
                yield from judge_difference_of_times(counts, former, other.study, self.floors.cell)

    def _ranges(self, site: Site, exposure: Exposure) -> Iterator[Objection]:
        """Objections where counts by range of a score show few patients, with an earlier study's of these patients."""
        head = self._waiting.head if self._waiting else self.log.find(site.session, site.parties)
        if exposure.ranges and head is not None and self.floors.cell > 1:
            yield from judge_known_ranges(self._count_ranges(head, exposure), self.log.storage, self.floors.cell)

    def _cuts(self, site: Site, exposure: Exposure) -> Iterator[Objection]:
        """Objections where few patients lie between two ways to cut a column, or two functions of it."""
        head = self._waiting.head if self._waiting else self.log.find(site.session, site.parties)
        if head is None or self._raw is None or exposure.labels_only:
            return
        former, head = head, _add_cuts(head, exposure)
        if not is_cutting(head) or (head == former and self._waiting is None):
            return  # nothing is cut, or it was judged before it was written
        cutting = [other for other in self.log.others(head) if other.kind != "factor" and is_cutting(other)]
        same = [other for other in cutting if _shares_rows(other, head)]
        groups = [(same, self._raw), *self._list_nested(head, [other for other in cutting if other not in same])]
        for past, rows in groups:
            yield from judge_cuts(head, past, rows, self.floors.cell)
            yield from judge_functions(head, past, rows.values, self.floors.cell)

    def _list_nested(
        self, head: ReleaseHead, former: Sequence[ReleaseHead]
    ) -> Iterator[tuple[list[ReleaseHead], RawRows]]:
        """Former releases whose patients are some of these, or all of these and more, with the rows of both."""
        assert self._raw is not None
        known = self._printed.patients if self._printed is not None else None
        if known is None or not former:
            return
        dictionary, at = self.log.patients().place(known)
        for other in (other for other in former if other.identified):
            both = self.log.bits(other, len(dictionary.prints))[at]
            if both.any() and int(both.sum()) in (head.n, other.n):
                yield [other], self._raw.take(np.flatnonzero(both))

    def _judge_joins(self, site: Site, exposure: Exposure) -> Iterator[Objection]:
        """Objections by the patients of former joins: judged once, until these are in the log."""
        head = self.log.find(site.session, site.parties)
        if exposure.matched is not None and head is not None and not head.matched:
            yield from self.log.judge_matched(head, self._find_matched(exposure.matched), self.floors.cell)

    def _find_matched(self, rows: NDArray[np.int64]) -> Indices:
        """The places in the dictionary of patients of these rows."""
        assert self._printed is not None
        assert self._printed.patients is not None
        return self.log.patients().place(self._printed.patients)[1][rows]

    def _scores(self, site: Site, exposure: Exposure) -> Iterator[Objection]:
        """Objections to sums of a model's scores if one patient has nearly all of a sum, or few have a level."""
        if exposure.scores and self._derived is not None and self.floors.cell > 1:
            yield from judge_scores(exposure, self._derived, self._design_of(site), self.floors.cell)

    def _judge_weights(self, site: Site, exposure: Exposure) -> Iterator[Objection]:
        """Objections to sums of rows that a score weighs, beside those of former studies with the same score."""
        head = self._waiting.head if self._waiting else self.log.find(site.session, site.parties)
        weighed = exposure.weighed
        if weighed is None or head is None or "treatment" in head.weighed or self._raw is None or self.floors.cell < 2:
            return
        same = [other for other in self.log.others(head) if "treatment" in other.weighed and _shares_rows(other, head)]
        sizes = Sizes(self.floors.cell, head.kind == "plain")
        yield from judge_score_weights(weighed, self._raw.values[weighed.treatment], head, same, sizes)

    def _count_ranges(self, head: ReleaseHead, exposure: Exposure) -> CountedRanges:
        assert self._printed is not None
        return CountedRanges.of(head, self._printed, exposure.ranges)

    def _keep_cohort(self, site: Site, candidate: Candidate) -> None:
        name = site.study.cohort.name
        if name and find_cohort(self.log.storage, name) is None:
            columns = site.study.cohort.complete or tuple(candidate.printed.columns)
            keep_cohort(self.log.storage, name, self._print_whole(site, candidate), columns)

    def _print_whole(self, site: Site, candidate: Candidate) -> PrintedRows:
        """All rows of the site; the candidate may be a part of them."""
        part = find_part(site.data)
        raw = None if part is None else raw_rows(replace(site, data=part.whole))
        return candidate.printed if raw is None else self.log.print_rows(raw)


def with_derived(raw: RawRows, design: Design) -> RawRows:
    """The raw rows with the values of what the formula derives, which are judged as columns of their own."""
    if not design.derived or not set(design.inputs) <= set(raw.values):
        return raw
    values = design.derive(raw.values)
    levels = {name: part.variable.levels for name, part in design.derived.items() if part.variable.levels}
    return replace(raw, values=values, levels={**raw.levels, **levels})


def kind_of(site: Site, exposure: Exposure) -> Kind:
    """What leaves: this site's own sums, its share of a sum over sites, or numbers by patient."""
    if exposure.sums_only or exposure.labels_only:
        return "masked"
    return "factor" if isinstance(site.data, OwnColumns) else "plain"


def drop_small_patterns(raw: RawRows, site: Site, least: int) -> RawRows:
    """The rows whose pattern of the model's covariates has at least so many rows: no others are in the sums."""
    design = design_of(site.study, site.name)
    values = design.derive(raw.values)
    names = [name for name in design.variables if name in values and name != design.formula.outcome]
    if not names or not raw.n:
        return raw
    patterns = np.column_stack([values[name] for name in names])
    _, inverse, counts = np.unique(patterns, axis=0, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[inverse.ravel()] >= least)
    return raw if len(rows) == raw.n else raw.take(rows)


def judge_sample(
    site: Site, exposure: Exposure, raw: RawRows, kind: Kind, floor: int, columns: Mapping[str, ColumnValues]
) -> Iterator[Objection]:
    """Objections to plain sums by the values behind them."""
    design = design_of(site.study, site.name)
    if kind != "plain" or not exposure.by_columns:
        return
    names = [name for name in design.variables if name in raw.values]
    values = {name: raw.values[name] for name in names}
    parts = [[design.parts_of(name) for name, _ in term] for term in design.formula.terms if len(term) > 1]
    products = [names for choices in parts for names in itertools.product(*choices)]
    sensitive = design.list_descendants(site.study.disclosure.sensitive)
    sample = Sample(values, design.formula.outcome, products, sensitive, categories=raw.levels.keys())
    yield from judge_values(sample, floor, columns=columns)
    for model in design.models:
        yield from judge_weights(model, raw, floor)
        yield from judge_family_terms(model, raw, floor)
        yield from _judge_weighted(model, raw)
    if raw.identifiers is None:
        yield from judge_repeats(sample, columns)


def judge_weights(design: Design, raw: RawRows, floor: int) -> Iterator[Objection]:
    """Objections to the weights that an offset gives to few patients."""
    name = design.formula.offset
    if name and name in raw.values and raw.n:
        yield from judge_offset(name, raw.values[name], design.outcome.type == "binary", floor)


def judge_local_dominance(
    site: Site, raw: RawRows, columns: Mapping[str, ColumnValues], floor: int
) -> Iterator[Objection]:
    """Questions about measurements if one patient has nearly all of a sum at this site, and so perhaps in the pool.

    What is not dominated here is not in the pool: other sites only add to what the largest two leave.
    """
    design = design_of(site.study, site.name)
    for name in design.variables:
        if name in raw.values and columns[name].is_measured:
            for objection in judge_column(columns[name]):
                yield replace(objection, grade=Grade.ASK, sentence=_ASK_DOMINANCE.format(name=name))
            yield from judge_local_clusters(columns[name], floor) if floor > 1 and columns[name].table is None else ()
    weights = dict.fromkeys(name for model in design.models for name in (model.weights, model.formula.offset))
    for weight in weights:
        if weight and weight in columns and floor > 1:
            yield from judge_local_weights(columns[weight], floor)
    for model in design.models:
        for objection in judge_weights(model, raw, floor):
            yield replace(objection, grade=Grade.ASK)
        for objection in judge_family_terms(model, raw, floor):
            yield replace(objection, grade=Grade.ASK, sentence=_ASK_DOMINANCE.format(name=objection.subject))
        for objection in _judge_weighted(model, raw):
            yield replace(objection, grade=Grade.ASK, sentence=_ASK_DOMINANCE.format(name=model.weights))


def _add_cuts(head: ReleaseHead, exposure: Exposure) -> ReleaseHead:
    """The head with the columns that this exposure counts by parts."""
    cuts = exposure.cuts
    if exposure.times is not None:
        steps = exposure.times
        ends = tuple(steps.width * k for k in range(1, steps.steps))
        cuts = (*cuts, ColumnCut(steps.time, ends, (*steps.tables, steps.event)))
    if not cuts:
        return head
    new = [{"column": cut.column, "breaks": list(cut.breaks), "by": list(cut.by)} for cut in cuts]
    return replace(head, cuts=(*head.cuts, *(cut for cut in new if cut not in head.cuts)))


def _list_weights(design: Design) -> list[str]:
    """What weighs the rows of each model: of one model its weights, of several the offsets too."""
    if len(design.models) == 1:
        return [design.models[0].weights]
    return [f"{model.weights}/{model.formula.offset or ''}" for model in design.models]


def _judge_weighted(design: Design, raw: RawRows) -> Iterator[Objection]:
    """Objections to a weight, or a weighted column, if one patient has nearly all of its sum.

    Levels count as columns of 0 and 1, and so does a level that one patient's weight fills.
    """
    if design.weights not in raw.values:
        return
    weights = np.asarray(raw.values[design.weights], dtype=np.float64)
    yield from judge_dominance(design.weights, weights)
    for name in design.variables:
        if name == design.weights or name not in raw.values:
            continue
        values = np.asarray(raw.values[name], dtype=np.float64)
        distinct = np.unique(values)
        tabled = name in raw.levels or bool(np.isin(distinct, (0.0, 1.0)).all())
        parts = [(values == level).astype(np.float64) for level in distinct] if tabled else [values]
        for part in parts:
            # A level of fewer is a small cell, which others judge.
            if np.count_nonzero(part) > 2:
                yield from judge_dominance(f"{design.weights} times {name}", weights * part)


_ASK_DOMINANCE = (
    "one patient makes up nearly all of a sum of {name} at this site (dominance), and perhaps in the pool. Take the "
    "logarithm, or a narrower range, or let a person say yes with a reason (coterie release allow)."
)


def _object_to_unopened() -> Objection:
    sentence = (
        "the pool's counts of levels are not opened before its sums (not opened), so that nobody sees whether a level "
        'has few patients. Leave `opening` at "counts", or set it to "bits".'
    )
    return Objection(Grade.REFUSE, "not opened", sentence)


def _object_to_left_out(study: str) -> Objection:
    sentence = (
        f"This study and {study!r} have sums of the same rows, one with small patterns of covariates and one without. "
        "Together they would show the sums of just those patients (patterns left out). Use the same "
        "choice in both, or let a person say yes with a reason (coterie release allow)."
    )
    return Objection(Grade.REFUSE, "patterns left out", sentence, study, subject=study)


def label_rows(log: PrivacyLog, site: Site) -> Mapping[str, bytes]:
    """This site's keyed label of its rows for each raw column; nothing without rows."""
    raw = raw_rows(site)
    return {} if raw is None else log.print_rows(raw).labels(log.key)


def read_patients(site: Site) -> Sequence[str] | None:
    """The identifier of each row; None where rows are taken for patients."""
    if isinstance(site.data, StaysElsewhere):
        return None  # such rows have no identifiers
    raw = raw_rows(site)
    if raw is None or raw.identifiers is None or site.study.columns:
        return None
    return [value if isinstance(value, str) else "".join(value) for value in raw.identifiers]


def stand_on_cohort(log: PrivacyLog, site: Site) -> Data | None:
    """The site's data, cut down to the patients of the study's cohort if an earlier study has declared it.

    StudyError if the cohort cannot be recognised by what this study reads.
    """
    name = site.study.cohort.name
    cohort = find_cohort(log.storage, name) if name else None
    if cohort is None or site.data is None:
        return site.data
    if not isinstance(site.data, Selectable):
        message = f"The data of {site.name} cannot be cut down to the patients of the cohort {name!r}"
        raise StudyError("CO-S504", f"{message}. Take part with rows from a file, or leave [cohort] out.")
    printed = log.print_rows(site.data.read_raw())
    missing = [column for column in cohort.columns if column not in printed.columns]
    if missing or (not cohort.columns and printed.patients is None):
        marks = ", ".join(missing) or "the declared identifier"
        message = f"The patients of the cohort {name!r} are known by {marks}"
        raise StudyError(
            "CO-S504", f"{message}, which this study does not read. Name it in cohort.complete, or as patient."
        )
    return site.data.take(cohort.select(printed))


def _object_to_repeats() -> Objection:
    sentence = (
        "a patient has several rows (repeated patients): floors count patients, and standard errors would be too "
        "small. Keep one row for each patient, or derive values of patients (docs/cohort.md)."
    )
    return Objection(Grade.REFUSE, "repeated patients", sentence)


def _shares_rows(other: ReleaseHead, head: ReleaseHead) -> bool:
    """Whether two releases have a column in one version over the same rows."""
    same = any(head.columns[name] == other.columns[name] for name in head.columns if name in other.columns)
    return same and other.n == head.n and (other.rows == head.rows or not (head.identified and other.identified))


def _common_columns_equal(other: ReleaseHead, head: ReleaseHead) -> bool:
    common = [name for name in head.columns if name in other.columns]
    same = all(other.columns[name] == head.columns[name] for name in common)
    return bool(common) and same and not head.identified and not other.identified


def _pool_sum(head: ReleaseHead, column: str) -> PooledSum:
    """A masked sum's sites with their labels of one column; without labels a site's rows count as unchanged."""
    labels: Mapping[str, str] = {site: head.labels.get(site, {}).get(column, "") for site in head.parties}
    return PooledSum(head.study, labels, frozenset(head.missing))
