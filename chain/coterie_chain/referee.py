"""The auditor's check of a whole history: did the chain keep its own rules, and is nothing missing or changed?

Every move is made again in rules.py, with the key that the acting site held at that moment and the time of its block,
and every record extends a hash chain of our own. So a node that hides, adds, changes or reorders entries is found, and
so is a contract that is not ours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

from coterie_chain import motions
from coterie_chain.errors import BlobCorrupt, LedgerMismatch, PostRejected
from coterie_chain.heads import next_head
from coterie_chain.ledger import Event, Head, Record, Silence, SiteEntry, State, StudyView, Terms, study_of
from coterie_chain.memory import blamed, kind_in_words, numbered, sites_of, view_of
from coterie_chain.rules import End, Moment, Rules

Details = dict[str, str | int]
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
MALFORMED = (KeyError, ValueError, TypeError, IndexError, AttributeError, BlobCorrupt)


def referee(entries: Iterable[Record | Event], genesis: Mapping[str, bytes]) -> Referee:
    """Check a whole history, with the first head of each site's hash chain (`Head.genesis`).

    LedgerMismatch (CO-C340) names the first entry that the rules refuse, that breaks a hash chain or that does not
    follow from the entry before. What the history must have led to is in `heads`, `sites` and `view`: compare them with
    the ledger's own, as a history can also be cut short.
    """
    judge = Referee(genesis)
    for entry in entries:
        judge.see(entry)
    judge.end()
    return judge


class Referee:
    """The state that a history leads to, entry by entry."""

    def __init__(self, genesis: Mapping[str, bytes]) -> None:
        self.rules = Rules(())
        self._genesis = genesis
        self._heads: dict[str, Head] = {}
        self._ids: dict[str, int] = {}
        self._founding = True
        # outcomes that must be the next entries, each as (name, study, acting site, details or None for any)
        self._due: deque[tuple[str, int, str, Details | None]] = deque()
        # the Catalog announces a completion just before the Model logs the record that brought it about
        self._completion: Event | None = None
        self._moves: dict[str, Callable[[Event, Details, str], None]] = {
            "AdmissionVoted": self._admission,
            "RevocationVoted": self._revocation,
            "RecoveryVoted": self._recovery,
            "KeyOffered": self._offer,
            "KeyChanged": self._acceptance,
            "SuccessionVoted": self._succession,
            "VoteWithdrawn": self._withdrawal,
            "StudyProposed": self._proposal,
            "StudyJoined": self._joining,
            "StudyDeclined": self._declining,
            "ServerSkipped": self._skip,
            "ExclusionVoted": self._exclusion,
            "UnavailabilityVoted": self._unavailability,
            "Disputed": self._dispute,
            "StudyPaused": self._pause,
            "ResumeVoted": self._resumption,
            "SiteLeft": self._leaving,
            "AbortVoted": self._abort_vote,
            "StudyAborted": self._abortion,
            "SupersessionVoted": self._supersession,
            "SiteAttested": self._attestation,
        }

    @property
    def heads(self) -> dict[str, Head]:
        """Each site's hash chain as the history leads to it."""
        return {name: self._head(name) for name in self._ids}

    def sites(self) -> tuple[SiteEntry, ...]:
        """All seats as the history leads to them, by id."""
        return sites_of(self.rules)

    def view(self, study: int) -> StudyView:
        """A study as the history leads to it; PostRejected (BadState) if it was never proposed."""
        return view_of(self.rules, study)

    def see(self, entry: Record | Event) -> None:
        """Judge the next entry."""
        try:
            if isinstance(entry, Record):
                self._record(entry)
            else:
                self._event(entry)
        except PostRejected as refusal:
            shown = f"{refusal.name}({', '.join(map(str, refusal.values))})"
            self._fault(entry, f"the rules refuse it: {shown}")
        except MALFORMED as e:
            self._fault(entry, f"it cannot be read: {e!r}")

    def end(self) -> None:
        """Judge that the history does not stop between an entry and what must follow it."""
        if self._due or self._completion:
            missing = self._due[0][0] if self._due else "the record that completes the study"
            raise LedgerMismatch("CO-C340", f"The history ends where {missing} must follow. Read it again, whole.")

    # Entries

    def _record(self, record: Record) -> None:
        self._nothing_due(record)
        post, site = record.post, self._ids[record.site]
        key = self.rules.seats[site].key
        kind, round_ = self.rules.post(key, site, post, _moment(record))
        self._same(record, "kind", record.kind, kind_in_words(self.rules, kind))
        self._same(record, "round", record.round, round_)
        before = self._head(record.site)
        self._same(record, "sequence number", record.seq, before.seq + 1)
        head = next_head(before.head, record.seq, kind, round_, post)
        self._same(record, "hash chain", record.head.hex(), head.hex())
        self._heads[record.site] = Head(before.genesis, record.seq, head)
        announced, self._completion = self._completion, None
        completed = self.rules.studies[post.study].state == State.COMPLETED
        wanted = (post.study, record.site) if completed else None
        self._same(record, "completion", announced and (announced.study, announced.site), wanted)

    def _event(self, event: Event) -> None:
        details = dict(event.details)
        if self._completion:
            self._fault(event, "the record that completes the study must come here")
        if self._due:
            wanted = self._due.popleft()
            found = (event.name, event.study, event.site, None if wanted[3] is None else details)
            self._same(event, "outcome", found, wanted)
        elif event.name == "StudyCompleted":
            self._completion = event
        elif event.name == "SiteAdmitted" and self._founding:
            self._found(event, details)
        elif event.name in self._moves:
            self._founding = False
            self._moves[event.name](event, details, self.rules.seats[self._ids[event.site]].key)
        else:
            self._fault(event, "nothing that came before brings it about")

    # Membership

    def _found(self, event: Event, d: Details) -> None:
        self._same(event, "founder", event.site, d["name"])
        self.rules = Rules(
            [*((s.name, s.key, s.sealing, s.peer) for s in self.rules.seats.values()), _seat(d)],
        )
        self._ids[event.site] = len(self.rules.seats)

    def _admission(self, event: Event, d: Details, key: str) -> None:
        passed = self.rules.admit(key, *_seat(d), _moment(event))
        if passed:
            self._ids[str(d["name"])] = len(self.rules.seats)
        self._voted(event, d, passed, motions.admission(*_seat(d)))

    def _revocation(self, event: Event, d: Details, key: str) -> None:
        site = self._id(d["name"])
        self._voted(event, d, self.rules.revoke(key, site, _moment(event)), motions.revocation(site))

    def _recovery(self, event: Event, d: Details, key: str) -> None:
        site, address, sealing = self._id(d["name"]), str(d["key"]), _bytes(d["sealing"])
        changed = self.rules.seats[site].changed
        passed = self.rules.recover(key, site, address, sealing, _moment(event))
        self._voted(event, d, passed, motions.recovery(site, address, sealing, changed))

    def _offer(self, event: Event, d: Details, key: str) -> None:
        self._same(event, "seat", d["name"], event.site)
        self.rules.offer(key, str(d["key"]), _bytes(d["sealing"]))

    def _acceptance(self, event: Event, d: Details, key: str) -> None:
        site = self._id(d["name"])
        self.rules.accept(str(d["key"]), site)
        self._same(event, "seat", d["name"], event.site)
        self._same(event, "sealing key", _bytes(d["sealing"]), self.rules.seats[site].sealing)

    def _succession(self, event: Event, d: Details, key: str) -> None:
        successor = str(d["successor"])
        passed = self.rules.succeed(key, successor, _moment(event))
        self._voted(event, d, passed, motions.succession(successor))

    def _withdrawal(self, event: Event, d: Details, key: str) -> None:
        self.rules.withdraw(key, _bytes(d["motion"]), _moment(event))

    # Studies

    def _proposal(self, event: Event, d: Details, key: str) -> None:
        study = self.rules.propose(key, numbered(_terms(d), self._ids), _moment(event))
        self._same(event, "study", event.study, study)
        # the rules have joined the proposer already; what rows it commits to is its own affair
        self._due.append(("StudyJoined", study, event.site, None))
        self._started(event)

    def _joining(self, event: Event, d: Details, key: str) -> None:
        study = self.rules.studies[event.study]
        self.rules.join(key, event.study, study.hash, _moment(event))
        self._started(event)

    def _declining(self, event: Event, d: Details, key: str) -> None:
        self.rules.decline(key, (event.study,))

    def _skip(self, event: Event, d: Details, key: str) -> None:
        self._at_open_step(event, d)
        silent = self.rules.skip(key, event.study, _moment(event))
        self._same(event, "server", d["server"], self.rules.seats[silent].name)

    def _exclusion(self, event: Event, d: Details, key: str) -> None:
        self._at_open_step(event, d)
        site, s = self._id(d["silent"]), self.rules.studies[event.study]
        motion = motions.exclusion(event.study, s.position, s.attempt, site)
        self._voted(event, d, self.rules.exclude(key, event.study, site, _moment(event)), motion)

    def _unavailability(self, event: Event, d: Details, key: str) -> None:
        place, culprit = (int(d["position"]), int(d["attempt"])), self._id(d["culprit"])
        passed = self.rules.unavailable(key, event.study, *place, culprit, _moment(event))
        self._same(event, "motion", _bytes(d["motion"]), motions.unavailability(event.study, *place, culprit))
        if passed:
            name, details = blamed(self.rules.studies[event.study], culprit, d)
            self._due.append((name, event.study, event.site, details))

    def _dispute(self, event: Event, d: Details, key: str) -> None:
        place, poster = (int(d["position"]), int(d["attempt"])), self._id(d["poster"])
        posted = self.rules.dispute(key, event.study, *place, poster, _bytes(d["recomputed"]), _moment(event))
        self._same(event, "digest", _bytes(d["posted"]), posted)

    def _pause(self, event: Event, d: Details, key: str) -> None:
        self.rules.pause(key, event.study, _moment(event))

    def _resumption(self, event: Event, d: Details, key: str) -> None:
        passed = self.rules.resume(key, event.study, _moment(event))
        self._voted(event, d, passed, motions.resumption(event.study))

    def _leaving(self, event: Event, d: Details, key: str) -> None:
        self._at_open_step(event, d)
        site = self._ids[event.site]
        end = self.rules.abort(key, event.study, int(d["reason"]), site, _moment(event))
        self._same(event, "end", end, End.LEFT)

    def _abort_vote(self, event: Event, d: Details, key: str) -> None:
        reason, culprit = int(d["reason"]), self._culprit(d)
        end = self.rules.abort(key, event.study, reason, culprit, _moment(event))
        if end not in (End.VOTED, End.PASSED):
            self._fault(event, "no vote was needed")
        self._voted(event, d, end == End.PASSED, motions.abortion(event.study, reason, culprit))

    def _abortion(self, event: Event, d: Details, key: str) -> None:
        end = self.rules.abort(key, event.study, int(d["reason"]), self._culprit(d), _moment(event))
        self._same(event, "end", end, End.ALONE)

    def _supersession(self, event: Event, d: Details, key: str) -> None:
        successor, reason = int(d["successor"]), _bytes(d["reason_sha256"])
        passed = self.rules.supersede(key, event.study, successor, reason, _moment(event))
        self._voted(event, d, passed, motions.supersession(event.study, successor, reason))

    def _attestation(self, event: Event, d: Details, key: str) -> None:
        self.rules.attest(key, event.study, _bytes(d["snapshot"]))

    # What they share

    def _voted(self, event: Event, d: Details, passed: bool, motion: bytes) -> None:
        self._same(event, "motion", _bytes(d["motion"]), motion)
        if passed:
            details = {name: value for name, value in d.items() if name != "motion"}
            self._due.append((OUTCOMES[event.name], event.study, event.site, details))

    def _started(self, event: Event) -> None:
        if self.rules.studies[event.study].state == State.RUNNING:
            self._due.append(("StudyStarted", event.study, event.site, {}))

    def _at_open_step(self, event: Event, d: Details) -> None:
        step = self.rules.studies[event.study]
        self._same(event, "step", (d["position"], d["attempt"]), (step.position, step.attempt))

    def _nothing_due(self, entry: Record) -> None:
        if self._due:
            self._fault(entry, f"{self._due[0][0]} must come here")

    def _head(self, name: str) -> Head:
        first = self._genesis[name]
        return self._heads.get(name, Head(first, 0, first))

    def _id(self, name: str | int) -> int:
        return self._ids.get(str(name), 0)

    def _culprit(self, d: Details) -> int:
        return self._ids[str(d["culprit"])] if d["culprit"] else 0

    def _same(self, entry: Record | Event, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self._fault(entry, f"its {what} is {found}, and must be {wanted}")

    def _fault(self, entry: Record | Event, why: str) -> NoReturn:
        raise LedgerMismatch(
            "CO-C340",
            f"The history breaks the ledger's rules at {_place(entry)}: {why}. "
            "Do not rely on it; compare it with another site's node.",
            entry.site,
            step_of(entry),
        )


def step_of(entry: Record | Event) -> str:
    """An entry's step in words, such as "study 1, position 6"; empty for an entry of no study."""
    study = study_of(entry)
    position = entry.post.position if isinstance(entry, Record) else dict(entry.details).get("position")
    return (f"study {study}" if study else "") + ("" if position is None else f", position {position}")


def _place(entry: Record | Event) -> str:
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


def _terms(d: Details) -> Terms:
    opening, loop, closing = (tuple(_split(d[phase])) for phase in ("opening", "loop", "closing"))
    figures = (int(d["max_rounds"]), int(d["timeout"]), Silence(int(d["silence"])), int(d["least"]))
    return Terms(_bytes(d["hash"]), tuple(_split(d["sites"])), opening, loop, closing, *figures)


def _seat(d: Details) -> tuple[str, str, bytes, bytes]:
    return str(d["name"]), str(d["key"]), _bytes(d["sealing"]), _bytes(d["peer"])


def _split(names: str | int) -> list[str]:
    return str(names).split(",") if names else []


def _bytes(text: str | int) -> bytes:
    return bytes.fromhex(str(text).removeprefix("0x"))
