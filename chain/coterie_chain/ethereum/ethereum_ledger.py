"""The ledger on an Ethereum chain: the Catalog and the Models of one network, through one node.

A move is rehearsed by a call first, which names the contract's refusal at no cost, and then sent as a transaction. A
record is not: the site has just read that its post is wanted, and rehearsals would take a sixth of a round's time. A
transaction that is reverted all the same is called again at its block for the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from coterie_chain.errors import LedgerMismatch, LedgerUnreachable, PostRejected
from coterie_chain.ethereum.calldata import decode_refusal, encode_site_name, from_hex, load_codec
from coterie_chain.ethereum.decode import Log, decode_count, find_log, read_digest
from coterie_chain.ethereum.entries.entry_log import EntryLog
from coterie_chain.ethereum.headers import Header, encode_header
from coterie_chain.ethereum.network import (
    MAX_GAS_PRICE,
    Network,
    choose_gas_price,
    is_anvil,
    is_mining_instantly,
    verify,
)
from coterie_chain.ethereum.reader import Reader
from coterie_chain.ethereum.rpc import NodeRefused, Rpc
from coterie_chain.ethereum.seals import Sealing, detect_sealing
from coterie_chain.ethereum.writer import TransactionReceipt, Writer
from coterie_chain.head_listener import HeadListener
from coterie_chain.keys.journal import Journal, MemoryJournal
from coterie_chain.ledger.memory import find_post
from coterie_chain.ledger.protocol import (
    ZERO,
    Event,
    Head,
    Mark,
    PipelinedLedger,
    Post,
    Record,
    SiteEntry,
    StudyView,
    Terms,
)
from coterie_chain.ledger.record_chain import flatten_post
from coterie_chain.ledger.rules import MAX_SITES, MAX_STEPS
from coterie_chain.ledger.study_state import EACH, SERVER

if TYPE_CHECKING:
    from coterie_chain.keys.signer import Signer

# Fixed, not estimated: an estimate made in the second of the last block lacks the cost of the new deadline.
GAS = 500_000
PROPOSAL_GAS = 1_500_000
# A vote is counted seat by seat: these are enough for 253 of them, and for the Model of the site admitted.
VOTE_GAS = ADMISSION_GAS = 4_000_000
DECLINE_GAS = 20_000
# Wei that a new key gets from each voter that has them: enough for all its records at one wei per gas; and the gas of
# sending.
ENDOWMENT, PLAIN_GAS = 10**18, 21_000
# No move needs as much.
MAX_GAS = 8_000_000
_RACE_ERRORS = 3
# Topics of the logs of a proposal and of a record: the kind of the event, and the study.
_LEAST_TOPICS = 2
# Anvil mines at once and is this machine's own: an eager poll costs nobody anything.
POLL_INSTANT, POLL_BLOCKS = 0.02, 0.5
_CATALOG, _MODEL = load_codec("Catalog"), load_codec("Model")


class EthereumLedger:
    """A handle on a network for the site that holds `account`; a reader for None.

    `confirmations`: blocks after which a block counts (0 on Anvil and QBFT, floor(N/2)+1 on Clique with N sealers); a
    move returns when its own block counts, after `patience` seconds at most. `journal` must be durable for a site that
    matters. `poll` is the longest pause in seconds between two looks at the chain in `wait`; `timeout` is for one
    request; `gas_price` in wei above the base fee is 0 on Anvil and 1 elsewhere by default, and with the base fee at
    most `max_gas_price` (100 gwei by default). LedgerMismatch for a node of another network.

    `sleeps`: the chain makes no block at rest, so the time is `wall`'s (seconds since 1970), in rehearsals too.
    `log` keeps the entries that were read, in memory by default.
    """

    def __init__(
        self,
        network: Network,
        account: Signer | None = None,
        journal: Journal | None = None,
        *,
        confirmations: int = 0,
        poll: float | None = None,
        timeout: float = 10.0,
        patience: float = 120.0,
        gas_price: int | None = None,
        max_gas_price: int | None = None,
        sleeps: bool = False,
        wall: Callable[[], float] = time.time,
        log: EntryLog | None = None,
    ) -> None:
        self.network, self.sleeps = network, sleeps
        self._account, self._confirmations = account, confirmations
        self._gas_used = self._records = 0
        self._rpc = Rpc(network.url, timeout)
        try:
            verify(network, self._rpc, confirmations)
            instant = is_anvil(self._rpc)
            self.mines_at_once = is_mining_instantly(self._rpc)
        except BaseException:
            self._rpc.close()
            raise
        # On an instant chain the last block's clock may be old; the next block's is the one that will count.
        self._soon = "pending" if instant else "latest"
        self._heads = HeadListener(network.url) if instant else None
        pause = poll if poll is not None else POLL_INSTANT if instant else POLL_BLOCKS
        self._reader = Reader(
            self._rpc,
            network,
            confirmations=confirmations,
            poll=pause,
            clock=self._soon,
            wall=wall if sleeps else None,
            log=log,
            periodic=not (instant or self.mines_at_once or sleeps),
            eager=instant,
            heads=self._heads,
        )
        self._writer = None
        if account is not None:
            price = choose_gas_price(instant) if gas_price is None else gas_price
            open_writer = partial(Writer, confirmations=confirmations, patience=patience)
            own = journal or MemoryJournal()
            most = MAX_GAS_PRICE if max_gas_price is None else max_gas_price
            self._writer = open_writer(self._rpc, account, own, network, gas_price=price, most=most)

    def close(self) -> None:
        """Close the connections; the journal is its owner's."""
        self._rpc.close()
        if self._heads is not None:
            self._heads.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # Reading

    @property
    def me(self) -> str | None:
        """Name of the site that this handle speaks for."""
        seat = self._find_own_seat(self.sites())
        return seat.name if seat else None

    @property
    def pipelined(self) -> PipelinedLedger | None:
        """This handle for sites that do not wait for their own records.

        None where blocks take no time, and for an account without ether, which cannot pay to be first in a block.
        """
        if self.mines_at_once or self._account is None:
            return None
        return self if self._rpc.call_quantity("eth_getBalance", self._account.address, "latest") else None

    @property
    def newest(self) -> int:
        """Number of the chain's newest block, whether it counts already or not."""
        return self._rpc.call_quantity("eth_blockNumber")

    @property
    def block_time(self) -> int:
        """Time of the newest block, in seconds since 1970, also where the chain sleeps."""
        return self._reader.read_block_time()

    @property
    def final_after(self) -> int:
        """Blocks after which a block stays, by the first header: floor(N/2)+1 on Clique with N sealers, else 0."""
        sealing = self._read_sealing()
        return len(sealing.signers) // 2 + 1 if sealing.kind == "clique" else 0

    @property
    def sealing(self) -> str:
        """The kind of block seals, by the first header: "clique", "qbft", or "none" for a development chain."""
        return self._read_sealing().kind

    def _read_sealing(self) -> Sealing:
        first = self._rpc.call("eth_getBlockByNumber", hex(0), False)
        if first is None:
            raise self._rpc.explain_garbled("eth_getBlockByNumber")
        return detect_sealing(Header.decode(encode_header(first)))

    @property
    def peers(self) -> int | None:
        """The number of peers of this site's chain node; None if it does not report them at this address."""
        try:
            return self._rpc.call_quantity("net_peerCount")
        except NodeRefused:
            return None

    @property
    def client(self) -> str:
        """Name and version that this site's chain node reports; empty if it does not report them at this address."""
        try:
            return str(self._rpc.call("web3_clientVersion"))
        except NodeRefused:
            return ""

    @property
    def gas_used(self) -> int:
        """Gas of all transactions that this handle sent."""
        if self._writer is None:
            return 0
        self._writer.settle()
        return self._gas_used + self._writer.gas_unwatched

    @property
    def records(self) -> int:
        """How many posts this handle recorded."""
        return self._records

    def now(self) -> int:
        """Time of the chain."""
        return self._reader.now()

    def sites(self) -> tuple[SiteEntry, ...]:
        """All seats, by id."""
        return self._reader.sites()

    def studies(self) -> tuple[int, ...]:
        """Ids of all studies."""
        return self._reader.studies()

    def list_proposals(self, after: int) -> tuple[Event, ...]:
        """The entries of the proposals with a number above `after`."""
        return self._reader.list_proposals(after)

    def view(self, study: int) -> StudyView:
        """The study's terms and state."""
        return self._reader.view(study)

    def read_finished(self, study: int, position: int) -> tuple[Record, ...] | None:
        """Records of a finished step's last attempt, in the study's order."""
        return self._reader.read_finished(study, position)

    def read_at_one_block(self) -> AbstractContextManager[None]:
        """Inside, all reads are of one block."""
        return self._reader.read_at_one_block()

    def history(self, study: int | None = None) -> Iterator[Record | Event]:
        """Everything written, of one study or of all, in chain order."""
        return self._reader.history(study)

    def read_new(self, mark: Mark) -> tuple[Mark, tuple[Record | Event, ...]]:
        """The entries after a mark of this handle, or all of them after a reorganisation."""
        return self._reader.read_new(mark)

    def heads(self) -> dict[str, Head]:
        """Each site's chain of records."""
        return self._reader.heads()

    def wait(self, seconds: float) -> None:
        """Return when there is a block that was not read, or after `seconds`."""
        self._reader.wait(seconds)

    # Moves

    def propose(self, terms: Terms, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0) -> int:
        """Propose a study and join it."""
        joining = (snapshot, approvals, release)
        receipt = self._send_move("propose", self._encode_proposal(terms), joining, gas=PROPOSAL_GAS)
        log = self._find_log(receipt, self.network.catalog, "StudyProposed")
        return decode_count(from_hex(log["topics"][1]))

    def join(self, study: int, hash: bytes, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0) -> None:
        """Join by repeating the study's hash."""
        self._send_move("join", study, hash, (snapshot, approvals, release))

    def decline(self, studies: Sequence[int], reason: int) -> None:
        """Decline proposed studies, all or none."""
        self._send_move("decline", tuple(studies), reason, gas=GAS + DECLINE_GAS * len(studies))

    def record(self, post: Post) -> None:
        """Append a post to this site's Model; returns quietly if the Model holds it already."""
        # The contract judges by today's seats; where our Model is never changes, so yesterday's will do.
        seat = self._find_own_seat(self._reader.list_known_sites()) or self._find_own_seat(self.sites())
        if seat is None:
            raise PostRejected("NotOwner")
        model = self._reader.models[seat.id]
        digest = self._reader.find_digest(seat.name, post)
        if digest is None:
            digest = self._encode_record(model, post)
        if digest != post.sha256:
            raise PostRejected("Overwrite")

    def submit(self, post: Post) -> None:
        """Send a record to an open step and return at once."""
        seat = self._find_own_seat(self._reader.list_known_sites())
        if seat is None:
            raise PostRejected("NotOwner")
        digest = self._reader.find_digest(seat.name, post)
        if digest is None:
            data = _MODEL.encode("record", flatten_post(post))
            self._records += self._begin(self._reader.models[seat.id], data, _name_purpose(post))
        elif digest != post.sha256:
            raise PostRejected("Overwrite")

    def submit_proposal(self, terms: Terms, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0) -> None:
        """Send a proposal and return at once."""
        data = _CATALOG.encode("propose", self._encode_proposal(terms), (snapshot, approvals, release))
        self._begin(self.network.catalog, data, _name_move("propose", data), PROPOSAL_GAS, once=True)

    def submit_join(
        self, study: int, hash: bytes, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0
    ) -> None:
        """Send a joining and return at once."""
        data = _CATALOG.encode("join", study, hash, (snapshot, approvals, release))
        self._begin(self.network.catalog, data, _name_move("join", data))

    def submit_early(self, post: Post, *, priority: bool) -> None:
        """Send a record ahead and return at once; `first` pays one wei more, which puts it in front of its block."""
        seat = self._find_own_seat(self._reader.list_known_sites())
        if seat is None or self._writer is None or self._reader.find_digest(seat.name, post) is not None:
            return
        data = _MODEL.encode("record", flatten_post(post))
        self._writer.submit(self._reader.models[seat.id], data, GAS, _name_purpose(post), premium=int(priority))
        self._records += 1

    def skip(self, study: int) -> None:
        """Pass over a silent server."""
        self._send_move("skip", study)

    def exclude(self, study: int, site: str) -> None:
        """Vote to exclude a silent site."""
        self._send_move("exclude", study, self._find_id(site), gas=VOTE_GAS)

    def report_unavailable(self, study: int, position: int, attempt: int, site: str, reason: int) -> None:
        """Vote that a site's post cannot be used."""
        self._send_move("unavailable", study, position, attempt, self._find_id(site), reason, gas=VOTE_GAS)

    def dispute(self, study: int, position: int, posted: bytes, recomputed: bytes) -> None:
        """Say that this site recomputed another digest than the one posted."""
        attempt, site = find_post(self._reader.records(study, position), position, posted)
        self._send_move("dispute", study, position, attempt, self._find_id(site), recomputed)

    def pause(self, study: int, reason: int) -> None:
        """Pause a running study."""
        self._send_move("pause", study, reason)

    def resume(self, study: int) -> None:
        """Vote to go on."""
        self._send_move("resume", study, gas=VOTE_GAS)

    def abort(self, study: int, reason: int, culprit: str = "") -> None:
        """End a study without a result, or leave it."""
        self._send_move("abort", study, reason, self._find_id(culprit) if culprit else 0, gas=VOTE_GAS)

    def supersede(self, study: int, successor: int, reason: bytes) -> None:
        """Vote that a completed study's result is superseded."""
        self._send_move("supersede", study, successor, reason, gas=VOTE_GAS)

    def attest(self, study: int, snapshot: bytes, verdict: int) -> None:
        """Say that this site computed its own posts again."""
        self._send_move("attest", study, snapshot, verdict)

    def withdraw(self, motion: bytes) -> None:
        """Withdraw this site's vote."""
        self._send_move("withdraw", motion, gas=VOTE_GAS)

    def list_voters(self, motion: bytes) -> tuple[str, ...]:
        """The sites whose votes for a motion count now."""
        return self._reader.list_voters(motion)

    def admit(self, entry: SiteEntry) -> None:
        """Vote to admit a site."""
        self._endow(entry.address)
        name = encode_site_name(entry.name)
        self._send_move("admit", name, entry.address, entry.sealing, entry.peer, gas=ADMISSION_GAS)

    def revoke(self, site: str) -> None:
        """Vote to revoke a site."""
        self._send_move("revoke", self._find_id(site), gas=VOTE_GAS)

    def recover(self, site: str, address: str, sealing: bytes) -> None:
        """Vote to give a site a new key."""
        self._endow(address)
        self._send_move("recover", self._find_id(site), address, sealing, gas=VOTE_GAS)

    def offer(self, address: str, sealing: bytes) -> None:
        """Offer this seat to a new key."""
        self._send_move("offer", address, sealing)

    def accept(self, site: str) -> None:
        """Accept a seat."""
        self._send_move("accept", self._find_id(site))

    def vote_succession(self, catalog: str) -> None:
        """Vote that another Catalog succeeds this one."""
        self._send_move("succeed", catalog, gas=VOTE_GAS)

    def read_successor(self) -> str:
        """Address of the Catalog that succeeds this one."""
        return self._reader.read_successor()

    # What the moves share

    def _endow(self, address: str) -> None:
        """Give a new key wei for its gas, as the genesis did with the founders'; nothing where gas costs nothing."""
        if self._writer is None or self._account is None:
            return
        have, own = (self._rpc.call_quantity("eth_getBalance", a, "latest") for a in (address, self._account.address))
        if have < ENDOWMENT and own > 2 * ENDOWMENT:
            self._writer.send(address, "0x", PLAIN_GAS, f"endow {address}", ENDOWMENT)

    def _find_own_seat(self, sites: Iterable[SiteEntry]) -> SiteEntry | None:
        address = self._account and self._account.address
        return next((s for s in sites if s.address == address and s.active), None)

    def _find_id(self, name: str) -> int:
        return next((s.id for s in self.sites() if s.name == name), 0)

    def _encode_record(self, model: str, post: Post) -> bytes:
        """Send a record; returns the digest that the Model then holds in its slot."""
        purpose = _name_purpose(post)
        if self._writer is not None:
            self._writer.forget_refused()
        try:
            receipt = self._send(model, _MODEL.encode("record", flatten_post(post)), GAS, purpose, rehearsed=False)
        except PostRejected:
            slot = keccak(encode(["uint64", "uint32", "uint16"], [post.study, post.position, post.attempt]))
            (digest,) = self._reader.ask([(_MODEL, model, "shaAt", (slot,))], "latest")
            if digest == ZERO:
                raise
            return bytes(digest)
        self._records += 1
        # It may have been the journal's transaction for this slot, with another payload than today's.
        return read_digest(self._find_log(receipt, model, "Recorded"))

    def _find_log(self, receipt: TransactionReceipt, address: str, name: str) -> Log:
        """The contract's answer to a move; LedgerMismatch (CO-C315) for a receipt without it."""
        log = find_log(receipt.logs, address, name)
        if log is None or len(log["topics"]) < _LEAST_TOPICS:
            message = f"The receipt of transaction {receipt.tx} at {self._rpc.where} has no `{name}` of {address}"
            raise LedgerMismatch("CO-C315", f"{message}. Compare it with another site's node.")
        return log

    def _encode_proposal(self, terms: Terms) -> tuple[object, ...]:
        """Terms as the Catalog takes them."""
        ids = {s.name: s.id for s in self.sites()}
        order = bytes(ids.get(name, 0) for name in terms.sites)
        words = [_encode_phase(kinds, ids, order) for kinds in (terms.opening, terms.loop, terms.closing)]
        if terms.max_rounds >= 1 << 16 or terms.timeout >= 1 << 32 or not 0 <= terms.least < 1 << 8:
            raise PostRejected("BadTerms")
        return (terms.hash, order, words, terms.max_rounds, terms.timeout, int(terms.silence), terms.least)

    def _send_move(self, move: str, *args: object, gas: int = GAS) -> TransactionReceipt:
        data = _CATALOG.encode(move, *args)
        return self._send(self.network.catalog, data, gas, _name_move(move, data))

    def _begin(self, to: str, data: str, purpose: str, gas: int = GAS, once: bool = False) -> bool:
        """Send a move that the contract takes now, unless it is under way; whether it was sent just now."""
        if self._writer is None:
            raise PostRejected("NotSite")
        self._writer.forget_refused()
        new = not (self._writer.is_pending(purpose) or (once and self._writer.find_signed(purpose)))
        if new:
            self._rehearse(to, data, self._soon)
        # As well paid as a server's record, which must not wait behind it.
        self._writer.submit(to, data, gas, purpose, premium=1, once=once)
        return new

    def _send(self, to: str, data: str, gas: int, purpose: str, rehearsed: bool = True) -> TransactionReceipt:
        """Make a move; PostRejected with the contract's reason."""
        if self._writer is None:
            raise PostRejected("NotSite")
        for _ in range(_RACE_ERRORS):
            if rehearsed and not self._writer.is_pending(purpose):
                self._rehearse(to, data, self._soon)
            receipt = self._writer.send(to, data, gas, purpose)
            self._gas_used += receipt.gas
            self._reader.expect(receipt.block + self._confirmations)
            if receipt.ok:
                return receipt
            if receipt.gas >= gas:
                gas = min(2 * gas, MAX_GAS)
            # The state changed between the rehearsal and the block: ask again what the contract says there.
            self._rehearse(to, data, hex(receipt.block))
        raise LedgerUnreachable(
            "CO-C305",
            f"`{purpose}` was reverted {_RACE_ERRORS} times without a reason, last in transaction {receipt.tx}, as "
            f"{self._rpc.where} says. Check the contracts' version.",
        )

    def _rehearse(self, to: str, data: str, block: str) -> None:
        sender = self._account.address if self._account else None
        # The newest block of a chain that sleeps is old: a deadline that has passed since would not be seen.
        later = ({}, {"time": hex(self.now())}) if self.sleeps and block == self._soon else ()
        try:
            self._rpc.call("eth_call", {"from": sender, "to": to, "data": data, "gas": hex(MAX_GAS)}, block, *later)
        except NodeRefused as e:
            if e.data is None:
                raise
            raise decode_refusal(e.data) from None


def _name_move(name: str, data: str) -> str:
    return f"{name} {keccak(hexstr=data)[:8].hex()}"


def _name_purpose(post: Post) -> str:
    return f"record {post.study}/{post.position}/{post.attempt}"


def _encode_phase(kinds: tuple[str, ...], ids: dict[str, int], order: bytes) -> bytes:
    """A phase of the schedule, one byte a step."""
    codes = {"each": EACH, "server": SERVER}
    word = [codes.get(kind) or ids.get(kind.removeprefix("only:"), 0) for kind in kinds]
    if len(word) <= MAX_STEPS and all(word):
        return bytes(word).ljust(MAX_STEPS, b"\0")
    # What a word cannot say must be refused like what it may not say: by a step of somebody outside the order.
    stranger = next(i for i in range(1, MAX_SITES + 2) if i not in order)
    return bytes([stranger]).ljust(MAX_STEPS, b"\0")
