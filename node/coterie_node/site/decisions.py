"""What this site's people decided about studies: one file for each decision, which the daemon reads and acts on.

The commands write, the daemon reads: only the daemon holds the site's key, so that nothing is signed twice.

A hash says what a study does, not which proposal of it. Any member can propose an approved document again, with other
sites or another deadline. So a decision to take part is bound to one proposal: to its number, its proposer and its
terms (parties, order, schedule, deadline, silence rule). `coterie study approve` writes them down; for a decision that
came before the proposal the daemon does, before it joins. One decision never runs a second study.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from coterie_chain.errors import StoreFault
from coterie_chain.keys.private_files import replace_private
from coterie_chain.ledger.protocol import ZERO, StudyView, Terms
from coterie_learners.study.document import Frozen, Text
from coterie_node.data.files.bounded_file import read_bounded
from coterie_node.data.files.folder_listing import FolderListing, is_settled
from coterie_node.errors import ConfigError, TermsMismatch
from coterie_node.persons.acts import SignedAct
from coterie_node.persons.roles import MAX_SIGNERS
from coterie_node.privacy.files.folder_lock import FolderLock

MAX_DECISION_BYTES = 1 << 16
# Decisions that are kept in memory: those about the studies that go on.
MOST_KEPT = 1024

FileIdentity = tuple[int, int, int]

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
HASH = re.compile("[0-9a-f]{64}")
# The name of a decision's file: the study's hash, and the number of the decision about it.
NAME = re.compile(r"([0-9a-f]{64})\.(\d{4,})\.json")
Action = Literal["propose", "approve", "decline", "abort", "withdraw"]


class Decision(Frozen):
    """What was decided about the study of this hash, when, on which data, and why; `by` names the persons who signed.

    `number`, `proposer` and `terms` (their digest) are those of the proposal that people saw; 0 and empty if it was not
    on the ledger yet. `signatures` are those of the site's persons. `approvals` is the SHA-256 of a file of signatures
    that a site without a register keeps itself; empty for none.
    """

    study: Digest
    action: Action
    at: str
    by: Text = ""
    data: str = ""
    reason: Text = ""
    number: int = Field(default=0, ge=0)
    proposer: Text = ""
    terms: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    approvals: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    signatures: Annotated[tuple[SignedAct, ...], Field(max_length=MAX_SIGNERS)] = ()

    @property
    def signed(self) -> bytes:
        """The digest that a site without a register puts on the ledger; zero for none."""
        return bytes.fromhex(self.approvals) or ZERO

    @property
    def takes_part(self) -> bool:
        """Whether this site's people want the study."""
        return self.action in ("propose", "approve")


class Binding(Frozen):
    """The one proposal for which a decision counts: its number on a network, its proposer, the digest of its terms."""

    network: str
    number: int
    proposer: Text
    terms: Digest

    @classmethod
    def of(cls, view: StudyView, network: str) -> Binding:
        """The binding to a proposal as the ledger holds it."""
        return cls(network=network, number=view.id, proposer=view.proposer, terms=digest_terms(view.terms))


class DecisionFolder:
    """The decisions of one site, in a folder of mode 0700. The newest about a proposal counts; all are kept."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listing = FolderListing(root)
        self._lock = FolderLock(root)
        # Each is one attribute, replaced at once: several threads may read.
        self._counted: tuple[Mapping[str, frozenset[str]], Mapping[bytes, int]] = {}, {}
        self._read: dict[str, tuple[FileIdentity, Decision]] = {}

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other programs of the site from deciding: what is decided inside builds on what is read inside.

        StoreFault (CO-C204) where another program keeps the folder for two minutes, or where it cannot be used.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self._lock.hold())
            except OSError as error:
                message = f"No decision can be written to {self.root}: {error}"
                raise StoreFault("CO-C204", f"{message}. End the other program, or check the folder.") from None
            yield

    def record(self, decision: Decision) -> None:
        """Write a decision down, whole or not at all, after those that other programs of the site write."""
        with self.hold():
            number = self.count(bytes.fromhex(decision.study))
            place = self.root / f"{decision.study}.{number:04d}.json"
            replace_private(place, decision.model_dump_json(indent=2) + "\n")

    def count(self, study: bytes) -> int:
        """The number of decisions about a study."""
        return len(self._list_decisions(study))

    def counts(self) -> Mapping[bytes, int]:
        """The number of decisions by the study's hash; the same object until the folder changes."""
        listed = self._listing.read()
        former, counts = self._counted
        if listed is not former:
            changed = [digits for digits, names in listed.items() if names is not former.get(digits)]
            changed += former.keys() - listed.keys()
            fresh = {
                bytes.fromhex(digits): len(_select_decisions(listed.get(digits, ())))
                for digits in changed
                if HASH.fullmatch(digits)
            }
            counts = {study: count for study, count in {**counts, **fresh}.items() if count}
            self._counted = listed, counts
        return counts

    def _list_decisions(self, study: bytes) -> list[str]:
        """The names of the files with decisions about a study, the oldest first."""
        return _select_decisions(self._listing.read().get(study.hex(), frozenset()))

    def latest(self, study: bytes, number: int = 0) -> Decision | None:
        """The newest decision about a study: about the proposal of this number, or about none in particular.

        Without a number the newest about any proposal of the study.
        """
        path = self._find_latest(study, number)
        return None if path is None else self._read_decision(path)

    def _find_latest(self, study: bytes, number: int) -> Path | None:
        for path in (self.root / name for name in reversed(self._list_decisions(study))):
            if number == 0 or self._read_decision(path).number in (0, number):
                return path
        return None

    def _read_decision(self, path: Path) -> Decision:
        """The decision in a file; one that was read is read again when the file is another one."""
        try:
            state = path.stat()
        except OSError:
            return _read(path)
        identity = state.st_ino, state.st_mtime_ns, state.st_size
        kept = self._read.get(path.name)
        if kept is not None and kept[0] == identity:
            return kept[1]
        decision = _read(path)
        if is_settled(state.st_mtime_ns, time.time_ns()):
            if len(self._read) >= MOST_KEPT:
                self._read = {}
            self._read[path.name] = identity, decision
        return decision

    def forget(self, study: bytes) -> None:
        """Let the decisions about a study leave memory; they are read again if they are asked for."""
        self._read = {name: kept for name, kept in self._read.items() if not name.startswith(study.hex())}

    def bind(
        self,
        view: StudyView,
        network: str,
        is_standing: Callable[[Binding], bool],
        check: Callable[[], object] = lambda: None,
    ) -> None:
        """Bind the newest decision to a proposal, for good; TermsMismatch if it is about another one.

        `check` raises for a proposal that this site would not join: an approval must not be spent on it.
        `is_standing` says whether the ledger still holds the proposal of an older binding: a reorganisation may have
        given its number to another one.
        """
        path = self._find_latest(view.terms.hash, view.id)
        if path is None:
            raise ConfigError("CO-F322", f"There is no decision about study {view.id} any more. Decide again.")
        wanted = Binding.of(view, network)
        _check_decision(self._read_decision(path), wanted)
        own = path.with_suffix(".bound")
        if own.exists() and _read_binding(own) == wanted:
            return
        check()
        # A decision that names no number may stand for one that ran already, so every binding of the study counts.
        others = () if self._read_decision(path).number else self._list_bindings(view.terms.hash)
        for binding in map(_read_binding, others):
            if binding.number != view.id and binding.network == network and is_standing(binding):
                raise _explain_binding(view, binding.number)
        replace_private(own, wanted.model_dump_json(indent=2) + "\n")

    def _list_bindings(self, study: bytes) -> list[Path]:
        names = sorted(self._listing.read().get(study.hex(), frozenset()))
        return [self.root / name for name in names if name.endswith(".bound")]

    def studies(self) -> tuple[bytes, ...]:
        """Hashes of the studies with a decision."""
        return tuple(self.counts())

    def list_signed_files(self) -> frozenset[str]:
        """SHA-256 of each file of signatures in the site's own form that a decision names."""
        named = [self.root / name for study in self.studies() for name in self._list_decisions(study)]
        return frozenset(self._read_decision(path).approvals for path in named) - {""}

    def proposals(self, besides: Collection[bytes] = ()) -> tuple[bytes, ...]:
        """Hashes of the studies that this site's people propose, without some of them."""
        newest = {study: self.latest(study) for study in self.studies() if study not in besides}
        return tuple(study for study, decision in newest.items() if decision and decision.action == "propose")

    def document(self, study: bytes) -> Path:
        """The file of a proposed study's document."""
        return self.root / f"{study.hex()}.study"

    def read_document(self, study: bytes) -> bytes:
        """A proposed study's document; ConfigError if it is gone."""
        try:
            return self.document(study).read_bytes()
        except OSError as error:
            message = f"The proposed study {self.document(study)} cannot be read: {error.strerror}"
            raise ConfigError("CO-F322", f"{message}. Propose it again.") from None

    def find_documents(self, digits: str) -> list[bytes]:
        """The documents that are kept here of studies whose hash starts with these hexadecimal digits."""
        return [path.read_bytes() for path in sorted(self.root.glob("*.study")) if path.name.startswith(digits)]

    def certificate(self, study: bytes) -> Path:
        """The file of a proposed study's "equals pooled" certificate."""
        return self.root / f"{study.hex()}.certificate"

    def save_document(self, study: bytes, document: bytes) -> None:
        """Keep the document of a study that this site proposes or approves."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_private(self.document(study), document.decode())


def digest_terms(terms: Terms) -> str:
    """SHA-256 of a study's terms, in hexadecimal digits: parties in turn order, schedule, deadline, silence rule."""
    plain = {**asdict(terms), "hash": terms.hash.hex(), "silence": int(terms.silence)}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def make_decision(
    study: bytes,
    action: Action,
    *,
    data: str = "",
    reason: str = "",
    approvals: str = "",
    view: StudyView | None = None,
    by: str = "",
    signatures: tuple[SignedAct, ...] = (),
) -> Decision:
    """A decision of this moment by the persons who signed it, about the proposal in `view`."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    by = by or ", ".join(act.text.name for act in signatures)[:200]
    try:
        decision = Decision(
            study=study.hex(),
            action=action,
            at=at,
            by=by,
            data=data,
            reason=reason,
            approvals=approvals,
            signatures=signatures,
        )
    except ValidationError:
        raise ConfigError(
            "CO-F322", "The reason has several lines, or more than 200 characters. Shorten it to one line."
        ) from None
    if view is None:
        return decision
    seen = {"number": view.id, "proposer": view.proposer, "terms": digest_terms(view.terms)}
    return decision.model_copy(update=seen)


def collect_signatures(latest: Decision | None, decision: Decision, new: SignedAct) -> tuple[SignedAct, ...]:
    """A new signature with the older ones of the same decision; the newest of each person counts.

    Those under another proposal, other terms or other rows, or before a refusal, do not.
    """
    same = latest is not None and (latest.action, latest.number, latest.proposer, latest.terms, latest.data) == (
        decision.action,
        decision.number,
        decision.proposer,
        decision.terms,
        decision.data,
    )
    older = latest.signatures if latest is not None and same else ()
    return (*(act for act in older if act.text.name != new.text.name), new)


def _select_decisions(names: Collection[str]) -> list[str]:
    """The files of a study that hold a decision, without other files in the folder."""
    return sorted(name for name in names if NAME.fullmatch(name))


def _read(path: Path) -> Decision:
    try:
        return Decision.model_validate_json(read_bounded(path, MAX_DECISION_BYTES))
    except (OSError, ValueError):
        raise ConfigError("CO-F322", f"The decision {path} cannot be read. Decide again, and remove it.") from None


def _read_binding(path: Path) -> Binding:
    try:
        return Binding.model_validate_json(read_bounded(path, MAX_DECISION_BYTES))
    except (OSError, ValueError):
        message = f"The file {path} cannot be read: it says which study an approval runs"
        raise ConfigError("CO-F322", f"{message}. Decline the study, or restore the file.") from None


def _check_decision(decision: Decision, proposal: Binding) -> None:
    """TermsMismatch if people saw another proposer or other terms than the ledger has."""
    if decision.proposer not in ("", proposal.proposer) or decision.terms not in ("", proposal.terms):
        message = f"Study {proposal.number} of {proposal.proposer} is not the proposal that was {decision.action}d here"
        raise TermsMismatch("CO-R402", f"{message}: its proposer or its terms changed. Read it and decide again.")


def _explain_binding(view: StudyView, number: int) -> TermsMismatch:
    message = f"Study {view.id}, which {view.proposer} proposed, has the document of study {number}"
    cause = f"The approval here is for study {number}; one approval runs one study"
    return TermsMismatch("CO-R403", f"{message}. {cause}. To run {view.id} too, approve it by its number.")
