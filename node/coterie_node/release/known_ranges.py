"""Outcomes that follow from two evaluations: counts of the same patients by ranges of two scores, or of one score.

The ranges of the second count that differ from those of the first by few patients would show these patients' outcomes.
So the least cut between the two counts (`evaluate.range_cuts`) must stand on the floor. More than a few counts together
are not looked through; a person decides about them. All of this is known when the later one has made its model, in the
middle of a study; that it may happen is known before (`warn_of_evaluations`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from coterie_learners.evaluate.range_cuts import cross_ranges, find_least_cut
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_node.privacy.entries import ReleaseHead
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.prints import PatientPrints, PrintedRows
from coterie_node.privacy.storage import LogStorage, list_names, read_blob

Ranges = NDArray[np.int64]
PLACE = "ranges/"
# Other evaluations of these patients that are compared by twos; beyond it a person is asked.
MOST_EVALUATIONS = 3
_WAY_OUT = (
    "Evaluate with the same model and grid, on other patients (another evaluate.seed), or on a coarser grid "
    "(evaluate.grid = 2), or let a person say yes with a reason (coterie release allow)."
)


@dataclass(frozen=True)
class CountedRanges:
    """One evaluation's patients by keyed print (n,), with the range (n,) of each in each of its counts.

    `columns` names by which values rows without identifiers are known; empty where patients have identifiers.
    """

    session: str
    parties: tuple[str, ...]
    study: str
    digest: str
    outcome: str
    columns: tuple[str, ...]
    patients: PatientPrints
    ranges: Mapping[str, Ranges]

    @classmethod
    def of(cls, head: ReleaseHead, printed: PrintedRows, ranges: Mapping[str, Ranges]) -> CountedRanges:
        """The counts of a release."""
        names = () if printed.patients is not None else tuple(sorted(printed.columns))
        patients = _mix(printed, names) if printed.patients is None else printed.patients
        parties = tuple(sorted(head.parties))
        return cls(
            head.session, parties, head.study, head.digest, head.outcome, names, np.asarray(patients, np.uint64), ranges
        )

    @property
    def place(self) -> str:
        """Its name in the log."""
        key = json.dumps([self.session, self.parties]).encode()
        return f"{PLACE}{hashlib.sha256(key).hexdigest()}"

    def keep(self, storage: LogStorage) -> None:
        """Write it down, durably."""
        names = sorted(self.ranges)
        head = [self.session, self.parties, self.study, self.digest, self.outcome, self.columns, names]
        parts = [self.patients.astype("<u8"), *(self.ranges[name].astype("<i8") for name in names)]
        storage[self.place] = json.dumps(head).encode() + b"\n" + b"".join(part.tobytes() for part in parts)

    @classmethod
    def read(cls, raw: bytes) -> CountedRanges:
        """The inverse of keep."""
        line, _, body = raw.partition(b"\n")
        session, parties, study, digest, outcome, columns, names = from_json(line)
        patients, *ranges = np.split(np.frombuffer(body, "<u8"), 1 + len(names))
        pairs = {name: part.view("<i8") for name, part in zip(names, ranges, strict=True)}
        return cls(session, tuple(parties), study, digest, outcome, tuple(columns), patients, pairs)

    def meet(self, other: CountedRanges) -> Iterator[tuple[Ranges, Ranges]]:
        """The ranges of all patients of both in each two counts; -1 where one is not in an evaluation."""
        everybody = np.union1d(self.patients, other.patients)
        for own in self.ranges.values():
            for its in other.ranges.values():
                yield _place(everybody, self.patients, own), _place(everybody, other.patients, its)


def _mix(printed: PrintedRows, names: tuple[str, ...]) -> PatientPrints:
    """One word of all value prints of a row."""
    words = np.zeros(printed.n, np.uint64)
    for name in names:
        words = (words ^ (words >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + printed.columns[name]
    return words


def _place(everybody: PatientPrints, patients: PatientPrints, ranges: Ranges) -> Ranges:
    out = np.full(len(everybody), -1, dtype=np.int64)
    out[np.searchsorted(everybody, patients)] = ranges
    return out


def list_evaluations(storage: LogStorage, outcome: str) -> Iterator[tuple[str, str]]:
    """Name and hash of the studies that counted patients with and without this outcome by ranges of a score."""
    for evaluation in _list_counted(storage):
        if evaluation.outcome == outcome:
            yield evaluation.study, evaluation.digest


def _list_counted(storage: LogStorage) -> Iterator[CountedRanges]:
    """All evaluations of the log."""
    return (read_blob(storage, name, CountedRanges.read) for name in list_names(storage, PLACE.rstrip("/")))


def warn_of_repeats(study: Study) -> str:
    """What becomes of later evaluations of the same patients, before the first one; empty where nothing is refused."""
    if not _counts_ranges(study):
        return ""
    outcome = Design(study).formula.outcome
    return (
        f"Another model or grid evaluated on {outcome} over the same patients is often refused in the middle of its "
        "study, when its model is there (CO-R301), where a site has some hundred of them. Before the first study "
        f"starts, decide which model is evaluated; for each other one {_other_patients(study)}count coarsely "
        "(evaluate.grid = 2)."
    )


def _counts_ranges(study: Study) -> bool:
    """Whether a study counts patients by ranges of a score, under a floor."""
    return (study.evaluate.apart or study.learner.name == "validate") and study.disclosure.cell > 1


def _other_patients(study: Study) -> str:
    """How a study may evaluate other patients; empty where its cohort decides."""
    if study.evaluate.where:
        return "evaluate other rows (evaluate.where), or "
    return "hold other patients out (another evaluate.seed), or " if study.evaluate.held_out else ""


def warn_of_evaluations(study: Study, storage: LogStorage) -> str:
    """A warning of earlier evaluations of the same outcome by other studies; empty without one."""
    if not _counts_ranges(study):
        return ""
    outcome = Design(study).formula.outcome
    own = study.hash.hex()
    names = sorted({name for name, digest in list_evaluations(storage, outcome) if digest != own})
    if not names:
        return ""
    more = f" Beyond {MOST_EVALUATIONS} of the same patients it asks you." if len(names) >= MOST_EVALUATIONS else ""
    return (
        f"Patients of this site were evaluated on {outcome} before, by {', '.join(names)}. If this evaluation counts "
        f"the same patients in ranges that differ by fewer than {study.disclosure.cell}, the gate stops the study when "
        f"its model is there (CO-R301); another model often does, where a site has some hundred patients.{more} "
        f"Before you approve: {_other_patients(study)}count coarsely (evaluate.grid = 2)."
    )


def judge_known_ranges(new: CountedRanges, storage: LogStorage, floor: int) -> Iterator[Objection]:
    """Objections to counts by range with those that left before of the same outcome."""
    others = 0
    for other in _list_counted(storage):
        if other.session == new.session or other.outcome != new.outcome:
            continue
        if other.columns != new.columns:
            yield _ask(other.study, "rows are known by other columns there")
        elif np.intersect1d(new.patients, other.patients).size:
            # Another model can have the same ranges, and its sums of scores are other equations all the same.
            others += other.digest != new.digest
            if not _is_same(new, other) and any(
                find_least_cut(cross_ranges(*pair)) < floor for pair in new.meet(other)
            ):
                yield _refuse(other.study)
    if others > MOST_EVALUATIONS:
        yield _ask("", f"there are more than {MOST_EVALUATIONS} of these patients")


def _is_same(new: CountedRanges, other: CountedRanges) -> bool:
    """Whether both count the same patients in the same ranges."""
    pairs = (np.array_equal(*pair) for name in new.ranges for pair in [_both(new, other, name)])
    return len(new.patients) == len(other.patients) and set(new.ranges) <= set(other.ranges) and all(pairs)


def _both(new: CountedRanges, other: CountedRanges, name: str) -> tuple[Ranges, Ranges]:
    everybody = np.union1d(new.patients, other.patients)
    return _place(everybody, new.patients, new.ranges[name]), _place(everybody, other.patients, other.ranges[name])


def _refuse(study: str) -> Objection:
    sentence = (
        f"With the counts by score of the study {study!r} it gives the outcomes of few patients, whose ranges differ "
        f"(score ranges). {_WAY_OUT}"
    )
    return Objection(Grade.REFUSE, "score ranges", sentence, study, subject=study)


def _ask(study: str, why: str) -> Objection:
    about = f" and those of the study {study!r}" if study else " and earlier ones"
    sentence = (
        f"Nobody can say what these counts by score{about} show together, as {why} (several evaluations). {_WAY_OUT}"
    )
    return Objection(Grade.ASK, "several evaluations", sentence, study, subject=study or "several")
