"""The auditor's check of a whole history: did the chain keep its own rules, and is nothing missing or changed?

Every move is made again in rules.py, with the key that the acting site held at that moment and the time of its block,
and every record extends a hash chain of our own. So a node that hides, adds, changes or reorders entries is found, and
so is a contract that is not ours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

from coterie_chain.errors import BlobCorrupt, LedgerMismatch, PostRejected
from coterie_chain.ledger.memory import build_view, describe_kind, list_sites
from coterie_chain.ledger.protocol import Event, Head, Record, Silence, SiteEntry, State, StudyView, get_study_number
from coterie_chain.ledger.record_chain import compute_next_head
from coterie_chain.ledger.rules import EACH, SERVER, Rules

_Details = dict[str, str | int]
# Which outcome follows a vote that passes; it carries the vote's details.
OUTCOMES = {
    "AdmissionVoted": "SiteAdmitted",
    "RevocationVoted": "SiteRevoked",
    "RecoveryVoted": "KeyChanged",
    "ExclusionVoted": "SiteExcluded",
    "ResumeVoted": "StudyResumed",
}
_MALFORMED_ENTRY = (KeyError, ValueError, TypeError, IndexError, AttributeError, BlobCorrupt)


def check_history(entries: Iterable[Record | Event], genesis: Mapping[str, bytes]) -> HistoryCheck:
    """Check a whole history, with the first head of each site's hash chain (`Head.genesis`).

    LedgerMismatch (CO-C340) names the first entry that the rules refuse, that breaks a hash chain or that does not
    follow from the entry before. What the history must have led to is in `heads`, `sites` and `view`: compare them with
    the ledger's own, as a history can also be cut short.
    """
    judge = HistoryCheck(genesis)
    for entry in entries:
        judge.check_entry(entry)
    judge.end()
    return judge


class HistoryCheck:
    """The state that a history leads to, entry by entry."""

    def __init__(self, genesis: Mapping[str, bytes]) -> None:
        self.rules = Rules(())
        self._genesis = genesis
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
            "StudyProposed": self._check_proposal,
            "StudyJoined": self._check_join,
            "ServerSkipped": self._check_skip,
            "ExclusionVoted": self._check_exclusion,
            "Disputed": self._check_dispute,
            "StudyPaused": self._check_pause,
            "ResumeVoted": self._check_resumption,
            "StudyAborted": self._check_abort,
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
        if self._due or self._completion:
            missing = self._due[0][0] if self._due else "the record that completes the study"
            raise LedgerMismatch("CO-C340", f"The history ends where {missing} must follow. Read it again, whole.")

    # Entries

    def _check_record(self, record: Record) -> None:
        self._require_nothing_due(record)
        post, site = record.post, self._ids[record.site]
        key = self.rules.seats[site].key
        kind, round_ = self.rules.post(
            key, site, post.study, post.position, post.attempt, post.basis, post.converged, post.sha256, record.time
        )
        self._require_same(record, "kind", record.kind, describe_kind(self.rules, kind))
        self._require_same(record, "round", record.round, round_)
        before = self._read_head(record.site)
        self._require_same(record, "sequence number", record.seq, before.seq + 1)
        head = compute_next_head(before.head, record.seq, kind, round_, post)
        self._require_same(record, "hash chain", record.head.hex(), head.hex())
        self._heads[record.site] = Head(before.genesis, record.seq, head)
        with_announced_keys, self._completion = self._completion, None
        completed = self.rules.studies[post.study].state == State.COMPLETED
        wanted = (post.study, record.site) if completed else None
        self._require_same(
            record, "completion", with_announced_keys and (with_announced_keys.study, with_announced_keys.site), wanted
        )

    def _check_event(self, event: Event) -> None:
        details = dict(event.details)
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
        passed = self.rules.admit(key, *_read_seat(d))
        if passed:
            self._ids[str(d["name"])] = len(self.rules.seats)
        self._expect_outcome(event, d, passed)

    def _check_revocation(self, event: Event, d: _Details, key: str) -> None:
        self._expect_outcome(event, d, self.rules.revoke(key, self._find_id(d["name"])))

    def _check_recovery(self, event: Event, d: _Details, key: str) -> None:
        name, address, sealing = d["name"], str(d["key"]), _from_hex(d["sealing"])
        self._expect_outcome(event, d, self.rules.recover(key, self._find_id(name), address, sealing))

    def _check_offer(self, event: Event, d: _Details, key: str) -> None:
        self._require_same(event, "seat", d["name"], event.site)
        self.rules.offer(key, str(d["key"]), _from_hex(d["sealing"]))

    def _check_acceptance(self, event: Event, d: _Details, key: str) -> None:
        site = self._find_id(d["name"])
        self.rules.accept(str(d["key"]), site)
        self._require_same(event, "seat", d["name"], event.site)
        self._require_same(event, "sealing key", _from_hex(d["sealing"]), self.rules.seats[site].sealing)

    # Studies

    def _check_proposal(self, event: Event, d: _Details, key: str) -> None:
        words = tuple(tuple(map(self._encode_kind, _split_names(d[phase]))) for phase in ("opening", "loop", "closing"))
        order = tuple(map(self._find_id, _split_names(d["sites"])))
        study = self.rules.propose(
            key,
            _from_hex(d["hash"]),
            order,
            words,
            int(d["max_rounds"]),
            int(d["timeout"]),
            Silence(int(d["silence"])),
            event.time,
        )
        self._require_same(event, "study", event.study, study)
        # the rules have joined the proposer already; what rows it commits to is its own affair
        self._due.append(("StudyJoined", study, event.site, None))
        self._expect_start(event)

    def _check_join(self, event: Event, d: _Details, key: str) -> None:
        study = self.rules.studies[event.study]
        self.rules.join(key, event.study, study.hash, event.time)
        self._expect_start(event)

    def _check_skip(self, event: Event, d: _Details, key: str) -> None:
        self._require_open_step(event, d)
        silent = self.rules.skip(key, event.study, event.time)
        self._require_same(event, "server", d["server"], self.rules.seats[silent].name)

    def _check_exclusion(self, event: Event, d: _Details, key: str) -> None:
        self._require_open_step(event, d)
        self._expect_outcome(event, d, self.rules.exclude(key, event.study, self._find_id(d["silent"]), event.time))

    def _check_dispute(self, event: Event, d: _Details, key: str) -> None:
        self.rules.dispute(key, event.study, int(d["position"]))

    def _check_pause(self, event: Event, d: _Details, key: str) -> None:
        self.rules.pause(key, event.study)

    def _check_resumption(self, event: Event, d: _Details, key: str) -> None:
        self._expect_outcome(event, d, self.rules.resume(key, event.study, event.time))

    def _check_abort(self, event: Event, d: _Details, key: str) -> None:
        self.rules.abort(key, event.study)

    # What they share

    def _expect_outcome(self, event: Event, d: _Details, passed: bool) -> None:
        if passed:
            self._due.append((OUTCOMES[event.name], event.study, event.site, d))

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

    def _encode_kind(self, kind: str) -> int:
        return {"each": EACH, "server": SERVER}.get(kind) or self._find_id(kind.removeprefix("only:"))

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


def _read_seat(d: _Details) -> tuple[str, str, bytes, bytes]:
    return str(d["name"]), str(d["key"]), _from_hex(d["sealing"]), _from_hex(d["peer"])


def _split_names(names: str | int) -> list[str]:
    return str(names).split(",") if names else []


def _from_hex(text: str | int) -> bytes:
    return bytes.fromhex(str(text).removeprefix("0x"))
