"""Replay: prove from the ledger and the store alone how every number of a model came about.

The auditor is a site without rows. The order of the checks matters, because each one relies on those before it:

    1. a snapshot of the ledger at one moment           all later reads are compared with the same history
    2. the document, by the hash on the ledger          terms and schedule follow from it
    3. every record against its site's hash chain       nothing is missing, added or changed
       and the head in that site's contract
    4. the whole history by the contract's rules        every turn, slot, vote and deadline was allowed
    5. every payload by CID, digest and stamp           the bytes are those that the site recorded
    6. every server step, computed again                the model follows from the payloads
    7. the payloads of skipped attempts                 no step uses them: a missing one is a remark, with its site

Grades of a PASS. "identical": the same bits. "within tolerance": the largest difference is at most the auditor's
tolerance. "partly sealed": some server steps need payloads that the auditor cannot open. "opened results": the sites
computed together off the ledger, and all posted the same result with the same digest of their messages. "nothing
recomputed": a site made the model in steps that need its rows. No replay proves that a site's sums come from true rows;
only that site can compute them again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from coterie_chain.errors import BlobCorrupt, BlobMissing, LedgerMismatch
from coterie_chain.ledger.history_check import check_history
from coterie_chain.ledger.protocol import (
    Event,
    Head,
    Ledger,
    Record,
    SiteEntry,
    State,
    StudyView,
    get_study_number,
)
from coterie_chain.store.protocol import BlobStore
from coterie_learners.core.protocol import Machine, Site
from coterie_learners.core.registry import check_choice, find_learner, learner_of
from coterie_learners.errors import Collinear, LearnerError, MissingLibrary, NotConverged, Separation, StudyError
from coterie_learners.study.document import Study
from coterie_node.audit.printed.notebook import render_facts
from coterie_node.errors import AuditFailed, StudyStopped
from coterie_node.run.codec import PayloadCodec, fetch
from coterie_node.run.follower import Follower, Progress
from coterie_node.run.recorded_steps import AUDITOR, list_contributors
from coterie_node.run.study_files import document_on_ledger, study_terms
from coterie_node.site.statements.ended_studies import find_supersession
from coterie_node.site.statements.joining import list_software_releases

SNAPSHOT_TRIES = 20
# The outcomes of a passed vote on an unusable post.
_CONSEQUENCES = frozenset({"StepReopened", "SiteExcluded", "StudyAborted"})
PASS, INTACT, NOT_CHECKED, FAIL = "PASS", "RECORD INTACT", "NOT CHECKED", "FAIL"
# Exit statuses of `audit replay`, `audit verify` and `audit report`.
STATUS = {PASS: 0, INTACT: 25, NOT_CHECKED: 26, FAIL: 22}
# The grades of a model that was computed again.
RECOMPUTED_GRADES = frozenset({"identical", "within tolerance"})


@dataclass(frozen=True)
class Verdict:
    """The outcome of a replay, the grade, server steps recomputed, the largest difference found.

    `verdict`: PASS where every server step was computed again; RECORD INTACT where nothing on record is wrong, but the
    model was not computed again; NOT CHECKED where only hash chains and history were checked, because the study pins
    another version of its learner than the installed one, or needs a library that is not installed; FAIL. `unchecked`
    counts public steps whose inputs are sealed to others. For FAIL, `problem`, `site` and `topic` name the first bad
    step. `outcome` says how the study ended. `unsealed`: the chain has no seals, so anybody who runs its node could
    have written its blocks.
    """

    verdict: str
    grade: str
    steps: int
    max_difference: float
    records: int
    unchecked: int
    outcome: str
    problem: str = ""
    code: str = ""
    site: str = ""
    topic: str = ""
    unsealed: bool = False

    @property
    def intact(self) -> bool:
        """Whether all of the record was checked, and nothing is wrong with it."""
        return self.verdict in (PASS, INTACT)

    @property
    def status(self) -> int:
        """Exit status of an audit that ends with this verdict."""
        return STATUS[self.verdict]

    @property
    def recomputed(self) -> dict[str, int]:
        """The number of server steps that were computed again, and of all."""
        return {"server_steps": self.steps, "of": self.steps + self.unchecked}

    @property
    def claim(self) -> str:
        """What this verdict proves about the model, and no more; empty for FAIL."""
        what = "The published model is" if self.outcome == "converged" else "What the servers posted is"
        return {
            "identical": f"{what} what the recorded payloads give, bit for bit.",
            "within tolerance": f"{what} what the recorded payloads give, within {self.max_difference:.1e}.",
            "opened results": "All sites posted the same result of their joint computation; nobody can compute it "
            "again from the record.",
            "partly sealed": f"{self.unchecked} of {self.steps + self.unchecked} server steps use sealed payloads "
            "and were not computed again. Only readers who can open these (coterie seal grant) have a proof that the "
            "model follows from the posts.",
            "nothing recomputed": "No step could be computed again without a site's rows: the record proves who posted "
            "what and when, but not that a model follows from it.",
        }.get(self.grade, "")

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        return {**asdict(self), "recomputed": self.recomputed}

    def _repr_html_(self) -> str:
        return render_facts(f"Replay: {self.verdict}", {name: v for name, v in self.as_dict().items() if v != ""})


@dataclass(frozen=True)
class Replay:
    """A verdict with what the replay found: the study, and the fit it arrived at (None if the study has none).

    `contributors`: the sites whose rows the fit holds: not those excluded on the way, but also one that left after it
    had posted at the last step of all sites.
    `remarks`: that the result is superseded, and what is wrong with other studies of the ledger, which says nothing
    about this one.
    """

    verdict: Verdict
    study: Study | None
    fit: Any
    contributors: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def replay(
    ledger: Ledger,
    blobs: BlobStore,
    number: int,
    *,
    tolerance: float = 0.0,
    observe: Callable[[Progress], None] = lambda _: None,
    granted: Mapping[bytes, bytes] | None = None,
) -> Replay:
    """Replay one study; never raises for what is wrong with the record, which is the verdict's business.

    `granted` holds the keys of sealed payloads that readers have granted, by SHA-256 of the stored bytes (`grants`).
    """
    runner: Follower | None = None
    study: Study | None = None
    try:
        view, heads, sites, entries = snapshot(ledger, number)
        pinned = document_on_ledger(view, blobs)
        hindrance = _find_hindrance(pinned, view, entries)
        if hindrance is not None:
            records, remarks = check_record(view, heads, sites, entries)
            return Replay(_leave_unchecked(view, records, hindrance), None, None, remarks=remarks)
        study = pinned
        records, remarks = check_ledger(view, heads, sites, entries, study)
        codec = PayloadCodec(study, AUDITOR, None, {}, view=granted or {})
        machine = Machine(learner_of(study).script, Site(study, AUDITOR), tolerance)
        runner = Follower(machine, ledger, blobs, number, codec, observe=observe)
        outcome = follow(runner, view)
        remarks += check_superseded(ledger, blobs, number)
        superseded = find_supersession(entries, number, blobs)
        remarks = remarks if superseded is None else (superseded.sentence, *remarks)
        contributors = list_contributors(view, entries)
        return Replay(_pass_verdict(runner, records, outcome), study, machine.result, contributors, remarks)
    except (LearnerError, LedgerMismatch, BlobCorrupt, BlobMissing, AuditFailed) as error:
        return Replay(failure(error, runner), study, None)


def snapshot(
    ledger: Ledger, number: int
) -> tuple[StudyView, dict[str, Head], tuple[SiteEntry, ...], list[Record | Event]]:
    """A study, all chain heads, all seats and the whole history as of one moment; AuditFailed if that never comes."""
    for _ in range(SNAPSHOT_TRIES):
        view, heads, sites = ledger.view(number), ledger.heads(), ledger.sites()
        entries = list(ledger.history())
        if (ledger.view(number), ledger.heads(), ledger.sites()) == (view, heads, sites):
            return view, heads, sites, entries
    raise AuditFailed("CO-A106", "The ledger changed during each of many reads. Replay the study again later.")


def check_ledger(
    view: StudyView,
    heads: dict[str, Head],
    sites: tuple[SiteEntry, ...],
    entries: Sequence[Record | Event],
    study: Study,
) -> tuple[int, tuple[str, ...]]:
    """Check terms, hash chains, seats, turns and slots of the whole ledger.

    Returns how many records the study has, and a remark for each other study in which something is wrong.
    """
    if view.terms != study_terms(study):
        raise AuditFailed(
            "CO-A102",
            f"The ledger's terms of study {view.id} are not those that its document gives."
            " Do not rely on this study. Ask its proposer.",
        )
    return check_record(view, heads, sites, entries)


def check_record(
    view: StudyView, heads: dict[str, Head], sites: tuple[SiteEntry, ...], entries: Sequence[Record | Event]
) -> tuple[int, tuple[str, ...]]:
    """The same checks without a learner: hash chains, seats, turns and slots."""
    judge = check_history(entries, {site: head.genesis for site, head in heads.items()}, view.id)
    for site, head in heads.items():
        if judge.heads.get(site) != head:
            message = f"The records of {site} do not lead to the head of its hash chain on the ledger."
            raise AuditFailed("CO-A103", f"{message} Records are missing, added or altered.", site)
    differing = [mine.name for mine, theirs in zip(judge.sites(), sites, strict=False) if mine != theirs]
    if differing or len(judge.sites()) != len(sites):
        message = (
            f"The history does not lead to the seats on the ledger{f' ({differing[0]} differs)' * bool(differing)}."
        )
        raise AuditFailed("CO-A109", message, *differing[:1])
    if judge.view(view.id) != view:
        raise AuditFailed(
            "CO-A104",
            f"The history of study {view.id} does not lead to its state on the ledger."
            " Do not rely on this ledger. Ask another site for its own.",
        )
    remarks = tuple(f"Study {number} of this ledger: {fault.message}" for number, fault in judge.spoiled.items())
    return sum(isinstance(e, Record) and e.post.study == view.id for e in entries), remarks


def follow(runner: Follower, view: StudyView) -> str:
    """Feed a study's records to an auditor's runner to the end of what is there; returns how the study ended."""
    try:
        while runner.turn():
            pass
    except (NotConverged, Separation, Collinear, StudyError, StudyStopped) as error:
        return f"{type(error).__name__}: {error.message}"
    if runner.done:
        return "converged"
    if view.state == State.COMPLETED:
        raise AuditFailed(
            "CO-A105",
            "The ledger says completed, but the protocol has steps left."
            " Replay with the version of the learner that the study names.",
        )
    return view.state.name.lower()


def list_unusable(entries: Sequence[Record | Event]) -> frozenset[tuple[str, int, int]]:
    """Site, position and attempt of each post of one study that a majority of its sites voted unusable."""
    found = set()
    for vote, after in itertools.pairwise(entries):
        if not (isinstance(vote, Event) and isinstance(after, Event) and vote.name == "UnavailabilityVoted"):
            continue
        details = dict(vote.details)
        if after.name in _CONSEQUENCES and after.tx == vote.tx:
            found.add((str(details["culprit"]), int(details["position"]), int(details["attempt"])))
    return frozenset(found)


def check_superseded(ledger: Ledger, blobs: BlobStore, number: int) -> tuple[str, ...]:
    """Check the bytes behind the records that a skip or an exclusion left behind, which no step uses.

    Returns a remark for each post that the sites voted unusable, and for each whose site serves no such payload:
    because no step uses it, it spoils nothing. AuditFailed for a block that is in the store, and altered.
    """
    entries = list(ledger.history(number))
    records, unusable = [e for e in entries if isinstance(e, Record)], list_unusable(entries)
    last = {r.post.position: r.post.attempt for r in sorted(records, key=lambda r: r.post.attempt)}
    records = [r for r in records if (r.site, r.post.position, r.post.attempt) not in unusable]
    left = [record for record in records if record.post.attempt < last[record.post.position]]
    return (
        *(
            f"The post of {site} at position {position}, attempt {attempt} was voted unusable; "
            "its bytes were not checked."
            for site, position, attempt in sorted(unusable)
        ),
        *filter(None, (_check_left_behind(record, blobs) for record in left)),
    )


def _check_left_behind(record: Record, blobs: BlobStore) -> str:
    """A remark on a superseded payload that its site does not serve as it recorded it; empty if it does."""
    where = f"position {record.post.position}, attempt {record.post.attempt}"
    try:
        fetch(record.post, blobs)
    except (LearnerError, BlobMissing) as error:
        return (
            f"No step uses the superseded payload of {record.site} ({where}), and it is not in order: {error.message}"
        )
    except BlobCorrupt as error:
        message = f"The superseded payload of {record.site} ({where}) is not in order: {error.message}"
        raise AuditFailed(error.code, message, record.site) from error
    return ""


def _pass_verdict(runner: Follower, records: int, outcome: str) -> Verdict:
    machine, grade = runner.machine, _grade(runner.machine, outcome)
    verdict = PASS if grade in RECOMPUTED_GRADES else INTACT
    return Verdict(verdict, grade, machine.checked, machine.difference, records, machine.unchecked, outcome)


@dataclass(frozen=True)
class Hindrance:
    """Why this installation cannot check a study's payloads and model: the cause, what to do, and the cause's code."""

    code: str
    cause: str
    remedy: str


def _find_hindrance(study: Study, view: StudyView, entries: Sequence[Record | Event]) -> Hindrance | None:
    """Why this installation cannot check a study; None if it can. StudyError for a study that nobody can run."""
    pinned, own = study.learner, find_learner(study.learner.name).version
    if own != pinned.version:
        releases = list_software_releases(entry for entry in entries if get_study_number(entry) == view.id)
        other = f"with coterie {' or '.join(releases)}, whose wheel its sites had" if releases else "with that version"
        cause = f"The study pins {pinned.name} {pinned.version or '(no version)'}, and this installation has {own}."
        return Hindrance("CO-S402", cause, f"Check it {other} (docs/upgrade.md).")
    try:
        check_choice(study)
    except MissingLibrary as missing:
        extra = f"coterie[{missing.extra}]"
        cause = f"The audit is not whole: {study.learner.name} needs a library of {extra}, which is not installed here."
        return Hindrance(missing.code, cause, f"Install {extra}, and check it again.")
    return None


def _leave_unchecked(view: StudyView, records: int, hindrance: Hindrance) -> Verdict:
    """The verdict on a study that this installation cannot check: hash chains and history hold, no more is known."""
    left = "Hash chains and history hold; payloads and model were not checked."
    problem = f"{hindrance.cause} {left} {hindrance.remedy}"
    return Verdict(NOT_CHECKED, "none", 0, 0.0, records, 0, view.state.name.lower(), problem, hindrance.code)


def _grade(machine: Machine, outcome: str) -> str:
    """The weakest grade that applies; a study that ended before its first server step has nothing to recompute."""
    if machine.opened:
        return "opened results"
    if machine.unchecked:
        return "partly sealed"
    if outcome == "converged" and not machine.checked:
        return "nothing recomputed"
    return "identical" if machine.difference == 0.0 else "within tolerance"


def failure(error: Exception, runner: Follower | None = None) -> Verdict:
    """The verdict of an error of the record."""
    steps, unchecked = (runner.machine.checked, runner.machine.unchecked) if runner else (0, 0)
    return Verdict(
        verdict=FAIL,
        grade="none",
        steps=steps,
        max_difference=float(getattr(error, "difference", 0.0)),
        records=0,
        unchecked=unchecked,
        outcome="",
        problem=str(error),
        code=str(getattr(error, "code", "")),
        site=str(getattr(error, "site", "")),
        topic=str(getattr(error, "topic", "")),
    )
