"""The auditor's check of a whole history: did the chain keep its own rules, and is nothing missing or changed?

Every move is made again in rules.py, with the key of the acting site at that moment and the time of its block,
and every record extends a hash chain of our own. So a node that hides, adds, changes or reorders entries is found, and
so is a contract that is not ours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

from coterie_chain.errors import BlobCorrupt, LedgerMismatch, PostRejected
from coterie_chain.ledger import motions
from coterie_chain.ledger.memory import build_view, describe_blame, describe_kind, list_sites, number_sites
from coterie_chain.ledger.protocol import (
    Event,
    Head,
    Record,
    Silence,
    SiteEntry,
    State,
    StudyView,
    Terms,
    get_study_number,
)
from coterie_chain.ledger.record_chain import compute_next_head
from coterie_chain.ledger.rules import End, Moment, Rules
from coterie_chain.ledger.study_state import EACH, SERVER

_Details = dict[str, str | int]
# Which outcome follows a vote that passes; it carries the vote's details.
OUTCOMES = {
    "AdmissionVoted": "SiteAdmitted",
    "RevocationVoted": "SiteRevoked",
    "RecoveryVoted": "KeyChanged",
    "SuccessionVoted": "CatalogSucceeded",
    "ExclusionVoted": "SiteExcluded",
    "ResumeVoted": "StudyResumed",
    "SupersessionVoted": "StudySuperseded",
    "AbortVoted": "StudyAborted",
}
_MALFORMED_ENTRY = (KeyError, ValueError, TypeError, IndexError, AttributeError, BlobCorrupt)


def check_history(
    entries: Iterable[Record | Event], genesis: Mapping[str, bytes], study: int | None = None
) -> HistoryCheck:
    """Check a whole history, with the first head of each site's hash chain (`Head.genesis`).

    With a `study`, what is wrong in another study stays there: it is in `spoiled`.

    LedgerMismatch (CO-C340) names the first entry that the rules refuse, that breaks a hash chain or that does not
    follow from the entry before. What the history must have led to is in `heads`, `sites` and `view`: compare them with
    the ledger's own, as a history can also be cut short.
    """
    judge = HistoryCheck(genesis, study)
    for entry in entries:
        judge.check_entry(entry)
    judge.end()
    return judge


class HistoryCheck:
    """The state that a history leads to, entry by entry.

    With a `study`, a fault of another one spoils that alone: `spoiled` holds the first of each, and of its later
    entries only the hash chains of the sites are followed.
    """

    def __init__(self, genesis: Mapping[str, bytes], study: int | None = None) -> None:
        self.rules = Rules(())
        self.spoiled: dict[int, LedgerMismatch] = {}
        self._genesis = genesis
        self._study = study
        self._heads: dict[str, Head] = {}
        self._ids: dict[str, int] = {}
        self._founding = True
        # outcomes that must be the next entries, each as (name, study, acting site, details or None for any)
        self._due: deque[tuple[str, int, str, _Details | None]] = deque()
        # the Catalog announces a completion just before the Model logs the record that brought it about
        self._completion: Event | None = None
        self._moves: dict[str, Callable[[Event, _Details, str], None]] = {
            "AdmissionVoted": self._check_admission,
            "RevocationVoted": self._check_revocation,
            "RecoveryVoted": self._check_recovery,
            "KeyOffered": self._check_offer,
            "KeyChanged": self._check_acceptance,
            "SuccessionVoted": self._check_succession,
            "VoteWithdrawn": self._check_withdrawal,
            "StudyProposed": self._check_proposal,
            "StudyJoined": self._check_join,
            "StudyDeclined": self._check_declining,
            "ServerSkipped": self._check_skip,
            "ExclusionVoted": self._check_exclusion,
            "UnavailabilityVoted": self._check_unavailability,
            "Disputed": self._check_dispute,
            "StudyPaused": self._check_pause,
            "ResumeVoted": self._check_resumption,
            "SiteLeft": self._check_leaving,
            "AbortVoted": self._check_abort_vote,
            "StudyAborted": self._check_abort,
            "SupersessionVoted": self._check_supersession,
            "SiteAttested": self._check_attestation,
        }

    @property
    def heads(self) -> dict[str, Head]:
        """Each site's hash chain as the history leads to it."""
        return {name: self._read_head(name) for name in self._ids}

    def sites(self) -> tuple[SiteEntry, ...]:
        """All seats as the history leads to them, by id."""
        return list_sites(self.rules)

    def view(self, study: int) -> StudyView:
        """A study as the history leads to it; PostRejected (BadState) if it was never proposed."""
        return build_view(self.rules, study)

    def check_entry(self, entry: Record | Event) -> None:
        """Judge the next entry."""
        # A study that is spoiled is not judged again, but its records still extend the chains of the sites that posted
        # them: without them every later record of these sites would look wrong.
        number = get_study_number(entry)
        if number in self.spoiled:
            self._follow_chain(entry)
            return
        pending = self._pending()
        try:
            self._judge_entry(entry)
        except LedgerMismatch as fault:
            # The fault may be that an entry is missing: then the study that owes it is at fault, not the one that comes
            # instead.
            faulty = number if pending is None else pending
            if self._study is None or faulty in (0, self._study):
                raise
            self.spoiled[faulty] = fault
            self._due.clear()
            self._completion = None
            self.check_entry(entry)

    def _pending(self) -> int | None:
        """The study (0 for membership) whose next entry must come now; None if any entry may."""
        if self._due:
            return self._due[0][1]
        return self._completion.study if self._completion else None

    def _follow_chain(self, entry: Record | Event) -> None:
        """Extend a site's hash chain with a record of a spoiled study, as the record itself has it."""
        if isinstance(entry, Event) or self._read_head(entry.site).head == entry.head:
            return
        before, kinds = self._read_head(entry.site), {"each": EACH, "server": SERVER}
        kind = kinds.get(entry.kind) or self._find_id(entry.kind.removeprefix("only:"))
        self._require_same(entry, "sequence number", entry.seq, before.seq + 1)
        head = compute_next_head(before.head, entry.seq, kind, entry.round, entry.post)
        self._require_same(entry, "hash chain", entry.head.hex(), head.hex())
        self._heads[entry.site] = Head(before.genesis, entry.seq, head)

    def _judge_entry(self, entry: Record | Event) -> None:
        try:
            if isinstance(entry, Record):
                self._check_record(entry)
            else:
                self._check_event(entry)
        except PostRejected as refusal:
            refusal_text = f"{refusal.name}({', '.join(map(str, refusal.values))})"
            self._reject(entry, f"the rules refuse it: {refusal_text}")
        except _MALFORMED_ENTRY as e:
            self._reject(entry, f"it cannot be read: {e!r}")

    def end(self) -> None:
        """Judge that the history does not stop between an entry and what must follow it."""
        pending = self._pending()
        if pending is not None and self._study is not None and pending not in (0, self._study):
            return
        if self._due or self._completion:
            missing = self._due[0][0] if self._due else "the record that completes the study"
            raise LedgerMismatch("CO-C340", f"The history ends where {missing} must follow. Read it again, whole.")

    # Entries

    def _check_record(self, record: Record) -> None:
        self._require_nothing_due(record)
        post, site = record.post, self._ids[record.site]
        key = self.rules.seats[site].key
        kind, round_ = self.rules.post(key, site, post, _moment(record))
        self._require_same(record, "kind", record.kind, describe_kind(self.rules, kind))
        self._require_same(record, "round", record.round, round_)
        # The rules accept the record; now its place in the site's own chain. Sequence number and digest together show a
        # record that was left out, added or changed.
        before = self._read_head(record.site)
        self._require_same(record, "sequence number", record.seq, before.seq + 1)
        head = compute_next_head(before.head, record.seq, kind, round_, post)
        self._require_same(record, "hash chain", record.head.hex(), head.hex())
        self._heads[record.site] = Head(before.genesis, record.seq, head)
        announced, self._completion = self._completion, None
        completed = self.rules.studies[post.study].state == State.COMPLETED
        wanted = (post.study, record.site) if completed else None
        self._require_same(record, "completion", announced and (announced.study, announced.site), wanted)

    def _check_event(self, event: Event) -> None:
        details = dict(event.details)
        # Three kinds of entries: outcomes that an earlier entry makes due, the announcement of an end, and moves of a
        # site.
        if self._completion:
            self._reject(event, "the record that completes the study must come here")
        if self._due:
            wanted = self._due.popleft()
            actual = (event.name, event.study, event.site, None if wanted[3] is None else details)
            self._require_same(event, "outcome", actual, wanted)
        elif event.name == "StudyCompleted":
            self._completion = event
        elif event.name == "SiteAdmitted" and self._founding:
            self._check_founding(event, details)
        elif event.name in self._moves:
            self._founding = False
            self._moves[event.name](event, details, self.rules.seats[self._ids[event.site]].key)
        else:
            self._reject(event, "nothing that came before brings it about")

    # Membership

    def _check_founding(self, event: Event, d: _Details) -> None:
        self._require_same(event, "founder", event.site, d["name"])
        self.rules = Rules(
            [*((s.name, s.key, s.sealing, s.peer) for s in self.rules.seats.values()), _read_seat(d)],
        )
        self._ids[event.site] = len(self.rules.seats)

    def _check_admission(self, event: Event, d: _Details, key: str) -> None:
        # The vote is made in the rules first: only they know whether it passes, and so whether an outcome is due.
        passed = self.rules.admit(key, *_read_seat(d), _moment(event))
        if passed:
            self._ids[str(d["name"])] = len(self.rules.seats)
        self._expect_outcome(event, d, passed, motions.hash_admission(*_read_seat(d)))

    def _check_revocation(self, event: Event, d: _Details, key: str) -> None:
        site = self._find_id(d["name"])
        self._expect_outcome(event, d, self.rules.revoke(key, site, _moment(event)), motions.hash_revocation(site))

    def _check_recovery(self, event: Event, d: _Details, key: str) -> None:
        site, address, sealing = self._find_id(d["name"]), str(d["key"]), _from_hex(d["sealing"])
        changed = self.rules.seats[site].changed
        passed = self.rules.recover(key, site, address, sealing, _moment(event))
        self._expect_outcome(event, d, passed, motions.hash_recovery(site, address, sealing, changed))

    def _check_offer(self, event: Event, d: _Details, key: str) -> None:
        self._require_same(event, "seat", d["name"], event.site)
        self.rules.offer(key, str(d["key"]), _from_hex(d["sealing"]))

    def _check_acceptance(self, event: Event, d: _Details, key: str) -> None:
        site = self._find_id(d["name"])
        self.rules.accept(str(d["key"]), site)
        self._require_same(event, "seat", d["name"], event.site)
        self._require_same(event, "sealing key", _from_hex(d["sealing"]), self.rules.seats[site].sealing)

    def _check_succession(self, event: Event, d: _Details, key: str) -> None:
        successor = str(d["successor"])
        passed = self.rules.vote_succession(key, successor, _moment(event))
        self._expect_outcome(event, d, passed, motions.hash_succession(successor))

    def _check_withdrawal(self, event: Event, d: _Details, key: str) -> None:
        self.rules.withdraw(key, _from_hex(d["motion"]), _moment(event))

    # Studies

    def _check_proposal(self, event: Event, d: _Details, key: str) -> None:
        study = self.rules.propose(key, number_sites(_terms(d), self._ids), _moment(event))
        self._require_same(event, "study", event.study, study)
        # the rules have joined the proposer already; what rows it commits to is its own affair
        self._due.append(("StudyJoined", study, event.site, None))
        self._expect_start(event)

    def _check_join(self, event: Event, d: _Details, key: str) -> None:
        study = self.rules.studies[event.study]
        self.rules.join(key, event.study, study.hash, _moment(event))
        self._expect_start(event)

    def _check_declining(self, event: Event, d: _Details, key: str) -> None:
        self.rules.decline(key, (event.study,))

    def _check_skip(self, event: Event, d: _Details, key: str) -> None:
        self._require_open_step(event, d)
        silent = self.rules.skip(key, event.study, _moment(event))
        self._require_same(event, "server", d["server"], self.rules.seats[silent].name)

    def _check_exclusion(self, event: Event, d: _Details, key: str) -> None:
        self._require_open_step(event, d)
        site, s = self._find_id(d["silent"]), self.rules.studies[event.study]
        motion = motions.hash_exclusion(event.study, s.position, s.attempt, site)
        self._expect_outcome(event, d, self.rules.exclude(key, event.study, site, _moment(event)), motion)

    def _check_unavailability(self, event: Event, d: _Details, key: str) -> None:
        place, culprit = (int(d["position"]), int(d["attempt"])), self._find_id(d["culprit"])
        passed = self.rules.unavailable(key, event.study, *place, culprit, _moment(event))
        self._require_same(
            event, "motion", _from_hex(d["motion"]), motions.hash_unavailability(event.study, *place, culprit)
        )
        if passed:
            name, details = describe_blame(self.rules.studies[event.study], culprit, d)
            self._due.append((name, event.study, event.site, details))

    def _check_dispute(self, event: Event, d: _Details, key: str) -> None:
        place, poster = (int(d["position"]), int(d["attempt"])), self._find_id(d["poster"])
        posted = self.rules.dispute(key, event.study, *place, poster, _from_hex(d["recomputed"]), _moment(event))
        self._require_same(event, "digest", _from_hex(d["posted"]), posted)

    def _check_pause(self, event: Event, d: _Details, key: str) -> None:
        self.rules.pause(key, event.study, _moment(event))

    def _check_resumption(self, event: Event, d: _Details, key: str) -> None:
        passed = self.rules.resume(key, event.study, _moment(event))
        self._expect_outcome(event, d, passed, motions.hash_resumption(event.study))

    def _check_leaving(self, event: Event, d: _Details, key: str) -> None:
        self._require_open_step(event, d)
        site = self._ids[event.site]
        end = self.rules.abort(key, event.study, int(d["reason"]), site, _moment(event))
        self._require_same(event, "end", end, End.LEFT)

    def _check_abort_vote(self, event: Event, d: _Details, key: str) -> None:
        reason, culprit = int(d["reason"]), self._culprit(d)
        end = self.rules.abort(key, event.study, reason, culprit, _moment(event))
        if end not in (End.VOTED, End.PASSED):
            self._reject(event, "no vote was needed")
        self._expect_outcome(event, d, end == End.PASSED, motions.hash_abortion(event.study, reason, culprit))

    def _check_abort(self, event: Event, d: _Details, key: str) -> None:
        end = self.rules.abort(key, event.study, int(d["reason"]), self._culprit(d), _moment(event))
        self._require_same(event, "end", end, End.ALONE)

    def _check_supersession(self, event: Event, d: _Details, key: str) -> None:
        successor, reason = int(d["successor"]), _from_hex(d["reason_sha256"])
        passed = self.rules.supersede(key, event.study, successor, reason, _moment(event))
        self._expect_outcome(event, d, passed, motions.hash_supersession(event.study, successor, reason))

    def _check_attestation(self, event: Event, d: _Details, key: str) -> None:
        self.rules.attest(key, event.study, _from_hex(d["snapshot"]))

    # What they share

    def _expect_outcome(self, event: Event, d: _Details, passed: bool, motion: bytes) -> None:
        self._require_same(event, "motion", _from_hex(d["motion"]), motion)
        if passed:
            details = {name: value for name, value in d.items() if name != "motion"}
            self._due.append((OUTCOMES[event.name], event.study, event.site, details))

    def _expect_start(self, event: Event) -> None:
        if self.rules.studies[event.study].state == State.RUNNING:
            self._due.append(("StudyStarted", event.study, event.site, {}))

    def _require_open_step(self, event: Event, d: _Details) -> None:
        step = self.rules.studies[event.study]
        self._require_same(event, "step", (d["position"], d["attempt"]), (step.position, step.attempt))

    def _require_nothing_due(self, entry: Record) -> None:
        if self._due:
            self._reject(entry, f"{self._due[0][0]} must come here")

    def _read_head(self, name: str) -> Head:
        first = self._genesis[name]
        return self._heads.get(name, Head(first, 0, first))

    def _find_id(self, name: str | int) -> int:
        return self._ids.get(str(name), 0)

    def _culprit(self, d: _Details) -> int:
        return self._ids[str(d["culprit"])] if d["culprit"] else 0

    def _require_same(self, entry: Record | Event, what: str, actual: object, wanted: object) -> None:
        if actual != wanted:
            self._reject(entry, f"its {what} is {actual}, and must be {wanted}")

    def _reject(self, entry: Record | Event, cause: str) -> NoReturn:
        raise LedgerMismatch(
            "CO-C340",
            f"The history breaks the ledger's rules at {_describe_position(entry)}: {cause}. "
            "Do not rely on it; compare it with another site's node.",
            entry.site,
            describe_step(entry),
        )


def describe_step(entry: Record | Event) -> str:
    """An entry's step in words, such as "study 1, position 6"; empty for an entry of no study."""
    study = get_study_number(entry)
    position = entry.post.position if isinstance(entry, Record) else dict(entry.details).get("position")
    return (f"study {study}" if study else "") + ("" if position is None else f", position {position}")


def _describe_position(entry: Record | Event) -> str:
    where = f"block {entry.block}" + (f", transaction {entry.tx}" if entry.tx else "")
    if isinstance(entry, Record):
        post = entry.post
        return f"record {entry.seq} of {entry.site} (study {post.study}, position {post.position}; {where})"
    study = f"study {entry.study}, " if entry.study else ""
    position = dict(entry.details).get("position")
    step = "" if position is None else f"position {position}, "
    return f"{entry.name} by {entry.site or 'nobody'} ({study}{step}{where})"


def _moment(entry: Record | Event) -> Moment:
    return Moment(entry.time, entry.block)


def _terms(d: _Details) -> Terms:
    opening, loop, closing = (tuple(_split_names(d[phase])) for phase in ("opening", "loop", "closing"))
    figures = (int(d["max_rounds"]), int(d["timeout"]), Silence(int(d["silence"])), int(d["least"]))
    return Terms(_from_hex(d["hash"]), tuple(_split_names(d["sites"])), opening, loop, closing, *figures)


def _read_seat(d: _Details) -> tuple[str, str, bytes, bytes]:
    return str(d["name"]), str(d["key"]), _from_hex(d["sealing"]), _from_hex(d["peer"])


def _split_names(names: str | int) -> list[str]:
    return str(names).split(",") if names else []


def _from_hex(text: str | int) -> bytes:
    return bytes.fromhex(str(text).removeprefix("0x"))
