"""One study's release at one site, judged by its values, columns and parties, and by all that ever left here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.protocol import Site
from coterie_learners.errors import StudyError
from coterie_learners.study.design import INTERCEPT, Design
from coterie_learners.study.document import Floors
from coterie_learners.study.rows import Data, OwnColumns
from coterie_node.data.patients.site_rows import Selectable, raw_rows
from coterie_node.privacy.cohorts import find_cohort, keep_cohort
from coterie_node.privacy.entries import Head, Kind
from coterie_node.privacy.equations import Budget, count_equations, count_unknowns, judge_budget, judge_columns
from coterie_node.privacy.log import Candidate, PrivacyLog
from coterie_node.privacy.objections import Grade, Objection, pick_gravest
from coterie_node.privacy.parties import EVERYBODY, PooledSum, judge_parties, refuse_undone_masks
from coterie_node.privacy.prints import RawRows
from coterie_node.privacy.values import Sample, judge_dominance, judge_values, table_of
from coterie_node.release.known_sets import judge_known_sets


@dataclass
class Judgement:
    """What the privacy log says of a study's releases at this site; judged once for each set of parties.

    Until `write` is called nothing is in the log.
    """

    log: PrivacyLog
    floors: Floors
    _known: dict[tuple[str, tuple[str, ...], bool], Objection | None] = field(default_factory=dict, init=False)
    _waiting: Candidate | None = field(default=None, init=False)
    _raw: RawRows | None = field(default=None, init=False)

    def judge(self, site: Site, exposure: Exposure) -> Objection | None:
        """The gravest objection to what leaves at this step, or None."""
        self._raw = raw_rows(site) if self._raw is None else self._raw
        if self._raw is None:
            return None
        key = (site.session, site.parties, exposure.labels_only)
        if key not in self._known:
            self._known[key] = pick_gravest(self._objections(site, exposure, self._raw))
        return self._known[key] or pick_gravest(self._next_equations(site, exposure))

    def write(self, site: Site, exposure: Exposure, reason: str = "") -> None:
        """Write what is about to leave into the log, durably; labels alone are no release."""
        if exposure.labels_only:
            return
        if self._waiting is not None:
            self._keep_cohort(site, self._waiting)
            self.log.write(replace(self._waiting, head=replace(self._waiting.head, reason=reason)))
            self._waiting = None
        head = self.log.find(site.session, site.parties)
        if head is not None and head.kind == "plain":
            self.log.put_head(replace(head, equations=head.equations + self._equations(site, exposure)))

    def _objections(self, site: Site, exposure: Exposure, raw: RawRows) -> Iterator[Objection]:
        if exposure.unopened and self.floors.cell > 1:
            yield _object_to_unopened()
        kind = kind_of(site, exposure)
        printed = raw.prints(self.log.key)
        if printed.repeats and not site.study.columns and not exposure.by_patient:
            yield _object_to_repeats()
        candidate = self.log.prepare(self._head(site, exposure, raw, kind), printed)
        self._waiting = candidate
        yield from self.log.judge(candidate, self.floors.cell)
        if not exposure.labels_only:
            yield from self._undone_masks(candidate.head)
        if kind == "plain" and exposure.by_columns:
            yield from self._columns(candidate)
            yield from judge_known_sets(self.log, candidate, raw, self.floors.cell)
        yield from judge_sample(site, exposure, raw, kind, self.floors.cell)
        if kind == "masked" and not exposure.labels_only:
            yield from self._parties(candidate)
            yield from judge_local_dominance(site, raw)

    def _head(self, site: Site, exposure: Exposure, raw: RawRows, kind: Kind) -> Head:
        study, design = site.study, Design(site.study, site.name)
        terms = tuple(":".join(sorted(name.split(":"))) for name in design.names)
        return Head(
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
            measured=tuple(list_measured_columns(raw, design.formula.outcome)),
            labels={name: dict(labels) for name, labels in exposure.labels.items()},
        )

    def _columns(self, candidate: Candidate) -> Iterator[Objection]:
        terms = set(candidate.head.terms).union(*(head.terms for head in self._same_rows(candidate.head)))
        yield from judge_columns(candidate.head.n, len(terms), plain=True)

    def _same_rows(self, head: Head) -> list[Head]:
        """Former plain releases over the same rows."""
        past = [other for other in self.log.others(head) if other.kind == "plain" and other.n == head.n]
        return [other for other in past if other.rows == head.rows or _common_columns_equal(other, head)]

    def _parties(self, candidate: Candidate) -> Iterator[Objection]:
        past = [head for head in self.log.others(candidate.head) if head.kind == "masked"]
        for column in candidate.head.columns:
            former = [_pool_sum(head, column) for head in past if column in head.columns]
            objection = judge_parties(_pool_sum(candidate.head, column), former)
            if objection is not None:
                yield objection
                return

    def _undone_masks(self, head: Head) -> Iterator[Objection]:
        """Objections where sums in the clear, taken off a masked sum, leave what one or two other sites hold."""
        other_kind = "masked" if head.kind == "plain" else "plain"
        for other in self.log.others(head) if head.kind in ("plain", "masked") else ():
            masked, plain = (other, head) if head.kind == "plain" else (head, other)
            hidden = set(masked.parties) - set(plain.parties)
            if other.kind == other_kind and 0 < len(hidden) < EVERYBODY and _shares_rows(other, head):
                yield refuse_undone_masks(sorted(hidden), other.study)
                return

    def _next_equations(self, site: Site, exposure: Exposure) -> Iterator[Objection]:
        head = self._waiting.head if self._waiting else self.log.find(site.session, site.parties)
        if head is None or head.kind != "plain" or not exposure.parameters:
            return
        heads = [head, *self._same_rows(head)]
        measured = set().union(*(other.measured for other in heads))
        spent = sum(other.equations for other in heads) + self._equations(site, exposure)
        yield from judge_budget(Budget(spent, count_unknowns(head.n, len(measured))))

    def _equations(self, site: Site, exposure: Exposure) -> int:
        if not exposure.parameters or self._raw is None:
            return 0
        design = Design(site.study, site.name)
        measured = set(list_measured_columns(self._raw, design.formula.outcome))
        tables = [c for c in design.columns if c.name != INTERCEPT and not {f.variable for f in c.factors} & measured]
        return count_equations(len(design.columns), len(tables))

    def _keep_cohort(self, site: Site, candidate: Candidate) -> None:
        name = site.study.cohort.name
        if name and find_cohort(self.log.storage, name) is None:
            columns = site.study.cohort.complete or tuple(candidate.printed.columns)
            keep_cohort(self.log.storage, name, candidate.printed, columns)


def kind_of(site: Site, exposure: Exposure) -> Kind:
    """What leaves: this site's own sums, its share of a sum over sites, or numbers by patient."""
    if exposure.sums_only or exposure.labels_only:
        return "masked"
    return "factor" if isinstance(site.data, OwnColumns) else "plain"


def list_measured_columns(raw: RawRows, outcome: str) -> Iterator[str]:
    """The covariates that are no tables: whose values are unknowns of their own."""
    return (
        name
        for name, values in raw.values.items()
        if name != outcome and table_of(name, values, category=name in raw.levels) is None
    )


def judge_sample(site: Site, exposure: Exposure, raw: RawRows, kind: Kind, floor: int) -> Iterator[Objection]:
    """Objections to plain sums by the values behind them."""
    design = Design(site.study, site.name)
    if kind != "plain" or not exposure.by_columns:
        return
    names = [name for name in design.variables if name in raw.values]
    values = {name: raw.values[name] for name in names}
    products = [tuple(name for name, _ in term) for term in design.formula.terms if len(term) > 1]
    sample = Sample(
        values, design.formula.outcome, products, site.study.disclosure.sensitive, categories=raw.levels.keys()
    )
    yield from judge_values(sample.keep(exposure.least_pattern), floor)
    yield from _judge_weighted(design, raw)


def judge_local_dominance(site: Site, raw: RawRows) -> Iterator[Objection]:
    """Questions about measurements of which one patient has nearly all at this site: then perhaps in the pool as well.

    What is not dominated here is not in the pool: other sites only add to what the largest two leave.
    """
    design = Design(site.study, site.name)
    for name in design.variables:
        if name in raw.values and table_of(name, raw.values[name], category=name in raw.levels) is None:
            for objection in judge_dominance(name, raw.values[name]):
                yield replace(objection, grade=Grade.ASK, sentence=_ASK_DOMINANCE.format(name=name))
    for objection in _judge_weighted(design, raw):
        yield replace(objection, grade=Grade.ASK, sentence=_ASK_DOMINANCE.format(name=design.weights))


def _judge_weighted(design: Design, raw: RawRows) -> Iterator[Objection]:
    """Objections to a weight, or a weighted column, of which one patient has nearly all: sums would show that patient.

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
        'has few patients. Leave `opening` at "counts".'
    )
    return Objection(Grade.REFUSE, "not opened", sentence)


def label_rows(log: PrivacyLog, site: Site) -> Mapping[str, bytes]:
    """This site's keyed label of its rows for each raw column; nothing without rows."""
    raw = raw_rows(site)
    return {} if raw is None else raw.prints(log.key).labels(log.key)


def read_patients(site: Site) -> Sequence[str] | None:
    """The identifier of each row; None where rows are taken for patients."""
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
    if cohort is None or not isinstance(site.data, Selectable):
        return site.data
    printed = site.data.read_raw().prints(log.key)
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
        "small. Keep one row for each patient."
    )
    return Objection(Grade.REFUSE, "repeated patients", sentence)


def _shares_rows(other: Head, head: Head) -> bool:
    """Whether two releases have a column in one version over the same rows."""
    same = any(head.columns[name] == other.columns[name] for name in head.columns if name in other.columns)
    return same and other.n == head.n and (other.rows == head.rows or not (head.identified and other.identified))


def _common_columns_equal(other: Head, head: Head) -> bool:
    common = [name for name in head.columns if name in other.columns]
    same = all(other.columns[name] == head.columns[name] for name in common)
    return bool(common) and same and not head.identified and not other.identified


def _pool_sum(head: Head, column: str) -> PooledSum:
    """A masked sum's sites with their labels of one column; without labels a site's rows count as unchanged."""
    labels: Mapping[str, str] = {site: head.labels.get(site, {}).get(column, "") for site in head.parties}
    return PooledSum(head.study, labels, frozenset(head.missing))
