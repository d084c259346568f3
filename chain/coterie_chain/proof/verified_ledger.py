"""The ledger from evidence alone: no node, no keys, no trust in its collector.

Theory of operation. Headers hash into each other, so the first one's hash (which the reader knows) and, on a sealed
chain, the signers that it names vouch for the last one. Each header vouches for its block's transactions and receipts,
the receipts hold the logs, and the bloom filters say in which blocks logs of the Catalog or the Models may be: none can
be left out, none added. The last header vouches for the contracts' code and storage, with which the history is
compared. And each entry must be the very call that the acting site's own key signed (`signatures.py`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from eth_utils.crypto import keccak

from coterie_chain.errors import LedgerMismatch
from coterie_chain.ethereum.abi import load_artifact
from coterie_chain.ethereum.decode import Decoder, Log, list_new_models
from coterie_chain.ethereum.headers import Header, compute_bloom
from coterie_chain.ethereum.seals import Sealing, detect_sealing
from coterie_chain.ledger.history_check import HistoryCheck, describe_step
from coterie_chain.ledger.protocol import (
    Event,
    Head,
    Mark,
    Record,
    SiteEntry,
    StudyView,
    get_study_number,
    select_last_attempt,
    select_proposals,
)
from coterie_chain.ledger.readonly import ReadOnly
from coterie_chain.ledger.record_chain import compute_genesis_head
from coterie_chain.ledger.rules import Moment
from coterie_chain.proof.deployment import check_deployment
from coterie_chain.proof.evidence import Evidence, may_contain
from coterie_chain.proof.receipts import Body
from coterie_chain.proof.signatures import Signatures, list_founders
from coterie_chain.proof.storage_slots import ContractStorage
from coterie_chain.proof.tries import ProvedState

_Entry = Record | Event
_UNREADABLE_STORAGE = (IndexError, KeyError, ValueError, OverflowError)
_ADVICE = "The evidence was altered, or cut. Do not rely on it; have another site export it."


@dataclass(frozen=True)
class Anchor:
    """What a proof rests on, and how far it reaches.

    `first` and `first_hash`: the block that must be known (block 0: the network's genesis). `kind`: "clique", "qbft" or
    "none". `sealed`: headers whose seals were checked. `signers` as of the last block.
    """

    chain_id: int
    catalog: str
    first: int
    first_hash: str
    last: int
    last_hash: str
    time: int
    kind: str
    sealed: int
    signers: tuple[str, ...]


class VerifiedLedger(ReadOnly):
    """A reader of a network as of the last block of its evidence.

    LedgerMismatch names what is false in the evidence, with site and step if it is an entry. With a
    `study`, entries of other studies that were not signed as they stand are in `spoiled`, by study, instead.
    `founders`: the founders' keys by name, as the deployer of the Catalog signed them.
    """

    def __init__(self, evidence: Evidence, study: int | None = None) -> None:
        self._evidence = evidence
        self._headers = _link_headers(evidence)
        self._bodies = _match_bodies(evidence, self._headers)
        self._decoder, entries_by_block, doubts = _read(evidence, self._headers, self._bodies)
        sealing = detect_sealing(next(iter(self._headers.values())))
        self.anchor = _verify_anchor(evidence, self._headers, sealing, entries_by_block)
        _check_bodies(self._headers, self._bodies, entries_by_block)
        for doubt in doubts:
            raise doubt
        self._entries = [entry for entries in entries_by_block.values() for entry in entries]
        self._contracts = self._verify_contracts()
        self._check_complete()
        calls = {tx: call for body in self._bodies.values() for tx, call in body.calls().items()}
        signatures = Signatures(evidence.catalog, self._contracts.models(), calls, _ADVICE)
        signatures.check(self._entries, study)
        self.spoiled = signatures.spoiled
        founders = list_founders(self._entries)
        check_deployment(evidence.catalog, founders, calls)
        self.founders = {str(dict(event.details)["name"]): str(dict(event.details)["key"]) for event in founders}
        self._steps: defaultdict[tuple[int, int], list[Record]] = defaultdict(list)
        for entry in self._entries:
            if isinstance(entry, Record):
                self._steps[entry.post.study, entry.post.position].append(entry)

    def now(self) -> int:
        """Time of the last block."""
        return self.anchor.time

    def sites(self) -> tuple[SiteEntry, ...]:
        """All seats, by id."""
        return self._contracts.sites()

    def studies(self) -> tuple[int, ...]:
        """Ids of all studies."""
        return tuple(range(1, self._contracts.study_count + 1))

    def list_proposals(self, after: int) -> tuple[Event, ...]:
        """The entries of the proposals with a number above `after`."""
        return select_proposals(self.history(), after)

    def view(self, study: int) -> StudyView:
        """The study's terms and state."""
        try:
            return self._contracts.view(study, self._decoder)
        except _UNREADABLE_STORAGE as error:
            raise _explain_unreadable(error) from None

    def read_finished(self, study: int, position: int) -> tuple[Record, ...] | None:
        """Records of a finished step's last attempt, in the study's order."""
        if position >= self._contracts.position(study):
            return None
        return select_last_attempt(self._steps.get((study, position), ()), self.view(study).terms.sites)

    def history(self, study: int | None = None) -> Iterator[_Entry]:
        """Everything written, of one study or of all."""
        return (e for e in self._entries if study is None or get_study_number(e) == study)

    def read_new(self, mark: Mark) -> tuple[Mark, tuple[_Entry, ...]]:
        """The entries after a mark; nothing comes after those of the evidence."""
        return Mark(count=len(self._entries)), tuple(self._entries[mark.count :])

    def read_successor(self) -> str:
        """Address of the Catalog that succeeds this one; empty if none does."""
        return self._contracts.read_successor()

    def list_voters(self, motion: bytes) -> tuple[str, ...]:
        """The sites whose votes for a motion count as of the last block."""
        judge = HistoryCheck(self._genesis())
        for entry in self._entries:
            judge.check_entry(entry)
        counted = judge.rules.list_voters(motion, Moment(self.anchor.time, self.anchor.last))
        return tuple(name for i, name in sorted(self._decoder.names.items()) if i in counted)

    def heads(self) -> dict[str, Head]:
        """Each site's chain of records."""
        return self._contracts.heads()

    # Checks

    def _verify_contracts(self) -> ContractStorage:
        """The contracts' storage at the last block, after their code was found to be this version's."""
        last = next(reversed(self._headers.values()))
        state = ProvedState(last["stateRoot"], self._evidence.nodes)
        codes = {keccak(code): code for code in self._evidence.codes}
        catalog = self._evidence.catalog.lower()
        try:
            _check_code(state, codes, catalog, "Catalog")
            contracts = ContractStorage(state, catalog, self._evidence.chain_id)
            for model in contracts.models().values():
                _check_code(state, codes, model, "Model")
            contracts.sites(), contracts.heads()
        except _UNREADABLE_STORAGE as error:
            raise _explain_unreadable(error) from None
        except LedgerMismatch as error:
            step, site = self._locate_step(last.number + 1)
            message = f"{error.message} The history that is there leads to {step or 'membership'}"
            raise LedgerMismatch(
                error.code, f"{message}{f', where {site} must post' * bool(site)}.", site, step
            ) from None
        return contracts

    def _check_complete(self) -> None:
        """No block may have been left out in which the contracts may have written, and no site's seat be unknown."""
        emitters = (self._evidence.catalog, *self._contracts.models().values())
        blooms = [compute_bloom(address) for address in emitters]
        for number, header in self._headers.items():
            if header.bloom and number not in self._bodies and any(may_contain(header, bloom) for bloom in blooms):
                raise self._explain_omission(number)
        if {site: model for model, site in self._decoder.models.items()} != self._contracts.models():
            message = "The Models that the history admits are not those in the Catalog's storage"
            raise LedgerMismatch("CO-C356", f"{message}. {_ADVICE}")

    def _explain_omission(self, number: int) -> LedgerMismatch:
        step, site = self._locate_step(number)
        record_counts = Counter(e.site for e in self._entries if isinstance(e, Record))
        short = [name for name, head in self._contracts.heads().items() if record_counts[name] < head.seq]
        who = f"; records of {', '.join(short)} are missing" if short else ""
        message = (
            f"The evidence leaves out block {number}, in which the ledger may have written, at {step or 'membership'}"
        )
        site = site or (short[0] if len(short) == 1 else "")
        return LedgerMismatch("CO-C355", f"{message}{who}. {_ADVICE}", site, step)

    def _genesis(self) -> dict[str, bytes]:
        """The first head of each site's hash chain."""
        names = self._decoder.names
        return {
            name: compute_genesis_head(self._evidence.catalog, self._evidence.chain_id, i) for i, name in names.items()
        }

    def _locate_step(self, block: int) -> tuple[str, str]:
        """The step that the entries below a block lead to, and whose post is awaited, if they can be played at all."""
        judge = HistoryCheck(self._genesis())
        entries = [e for e in self._entries if e.block < block]
        study = max((get_study_number(e) for e in entries), default=0)
        try:
            for entry in entries:
                judge.check_entry(entry)
            opened = judge.view(study).open if study else None
        except LedgerMismatch:
            opened = None
        if opened is None:
            return f"study {study}" * bool(study), ""
        awaited = [site for site in opened.posters if site not in opened.posted]
        return f"study {study}, position {opened.position}", awaited[0] if len(awaited) == 1 else ""


def _link_headers(evidence: Evidence) -> dict[int, Header]:
    headers: dict[int, Header] = {}
    before: Header | None = None
    for raw in evidence.headers:
        header = Header.decode(raw)
        if before is not None and not _may_follow(before, header, headers):
            raise LedgerMismatch("CO-C354", f"The headers of the evidence do not follow one another. {_ADVICE}")
        headers[header.number] = before = header
    if before is None:
        raise LedgerMismatch("CO-C354", f"The evidence has no headers. {_ADVICE}")
    return headers


def _may_follow(before: Header, header: Header, headers: Mapping[int, Header]) -> bool:
    """Whether a header has the next number and, looked at now and then, names the one before.

    All links are checked later; a look now and then ends the reading of a hundred thousand headers without any.
    """
    looked_at = len(headers) % 1000 == 0
    sealing = detect_sealing(next(iter(headers.values()))) if looked_at else None
    return header.number == before.number + 1 and (sealing is None or header["parentHash"] == sealing.hash(before))


def _match_bodies(evidence: Evidence, headers: Mapping[int, Header]) -> dict[int, Body]:
    bodies = [Body.decode(raw) for raw in evidence.bodies]
    numbers = [body.number for body in bodies]
    if numbers != sorted(set(numbers)) or not set(numbers) <= set(headers):
        raise LedgerMismatch("CO-C354", f"The blocks of the evidence are not in the order of its headers. {_ADVICE}")
    return {body.number: body for body in bodies}


def _read(
    evidence: Evidence, headers: Mapping[int, Header], bodies: Mapping[int, Body]
) -> tuple[Decoder, dict[int, list[_Entry]], list[LedgerMismatch]]:
    """What the logs tell, block by block, before anything vouches for it; and what could not be read."""
    decoder = Decoder(evidence.catalog)
    entries_by_block: dict[int, list[_Entry]] = {}
    doubts: list[LedgerMismatch] = []
    for number, body in bodies.items():
        try:
            entries_by_block[number] = _decode_entries(decoder, evidence.catalog, body, headers[number])
        except LedgerMismatch as error:
            entries_by_block[number] = []
            doubts.append(error)
    return decoder, entries_by_block, doubts


def _decode_entries(decoder: Decoder, catalog: str, body: Body, header: Header) -> list[_Entry]:
    known, logs = set(decoder.addresses), list[Log]()
    for log in body.logs(header, known):
        known |= list_new_models([log], catalog)  # a Model writes after its own admission
        logs.append(log)
    return decoder.entries(logs, lambda _: header.time)


def _verify_anchor(
    evidence: Evidence, headers: dict[int, Header], sealing: Sealing, entries_by_block: Mapping[int, list[_Entry]]
) -> Anchor:
    """Check that each header names the one before, and its seal."""
    first = next(iter(headers.values()))
    before = sealing.hash(first)
    first_hash = before
    for header in list(headers.values())[1:]:
        if header["parentHash"] != before:
            what = f"Header {header.number - 1} is not the one that header {header.number} names"
            raise _explain_block_fault("CO-C354", what, entries_by_block, header.number - 1)
        sealing.accept(header)
        before = sealing.hash(header)
    last = next(reversed(headers.values()))
    return Anchor(
        evidence.chain_id,
        evidence.catalog,
        first.number,
        "0x" + first_hash.hex(),
        last.number,
        "0x" + before.hex(),
        last.time,
        sealing.kind,
        sealing.sealed,
        sealing.signers,
    )


def _check_bodies(
    headers: Mapping[int, Header], bodies: Mapping[int, Body], entries_by_block: Mapping[int, list[_Entry]]
) -> None:
    for number, body in bodies.items():
        what = body.fault(headers[number])
        if what:
            raise _explain_block_fault(
                "CO-C354", f"The {what} of block {number} are not those of its header", entries_by_block, number
            )


def _check_code(state: ProvedState, codes: Mapping[bytes, bytes], address: str, name: str) -> None:
    code = codes.get(state.account(address).code)
    if code is None or not load_artifact("Catalog" if name == "Catalog" else "Model").matches(code):
        message = f"The code at {address} is not this version's {name}" if code else f"The code at {address} is missing"
        raise LedgerMismatch("CO-C356", f"{message}. Use the release that founded the network. {_ADVICE}")


def _explain_block_fault(
    code: str, what: str, entries_by_block: Mapping[int, list[_Entry]], number: int
) -> LedgerMismatch:
    """The fault of a block, which names the entries that the evidence claims for it."""
    entries = entries_by_block.get(number, [])
    first = next((e for e in entries if isinstance(e, Record)), next(iter(entries), None))
    if first is None:
        return LedgerMismatch(code, f"{what}. {_ADVICE}")
    where = f"{first.site or 'nobody'}, {describe_step(first) or 'membership'}"
    return LedgerMismatch(
        code, f"{what} (it claims to hold an entry of {where}). {_ADVICE}", first.site, describe_step(first)
    )


def _explain_unreadable(error: Exception) -> LedgerMismatch:
    return LedgerMismatch("CO-C356", f"The contracts' storage holds what they never write ({error!r}). {_ADVICE}")
