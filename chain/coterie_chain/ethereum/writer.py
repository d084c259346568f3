"""Sending transactions so that none is lost and none is sent twice.

One writer owns the nonces of one account. A transaction is signed once, journalled, and sent; after a time-out or a
restart the same bytes are sent again. It counts as mined once it has the confirmations that the chain needs.

Theory of operation. A transaction goes through these states. The journal alone survives a restart:

    state     in the journal   `_unmined`   event                                    next state
    signed    yes              yes          the node takes its bytes                 sent
    sent      yes              yes          no receipt for `_RESEND_AFTER` seconds   sent, with the same bytes
    sent      yes              yes          receipt with the confirmations           mined
    sent      yes              yes          nonce used, no receipt for `_GRACE`      struck; the call is signed again
    sent      yes              yes          `patience` is over                       sent; LedgerUnreachable CO-C304
    mined     yes, as mined    no           its block is gone (reorganisation)       sent, with the same bytes
    struck    no               no           -                                        -

Invariants: the journal has a transaction before any node does, so a crash can lose no transaction that was sent. A
nonce has one transaction at a time. The purpose identifies a call: while a transaction for it is unmined, the same call
signs no second one. Transactions are sent in the order of their nonces, because a node mines none behind a gap.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from eth_typing import HexStr
from eth_utils.address import to_checksum_address

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.ethereum.calldata import to_hex
from coterie_chain.ethereum.decode import Log, parse_quantity
from coterie_chain.ethereum.network import MAX_GAS_PRICE, Network, choose_fees
from coterie_chain.ethereum.rpc import NodeRefused, Rpc
from coterie_chain.keys.journal import Journal, Signed
from coterie_chain.retry import Backoff, RetryPolicy

if TYPE_CHECKING:
    from eth_account.types import TransactionDictType

    from coterie_chain.keys.signer import Signer

# What nodes say about a transaction that they have, or whose nonce has been used.
_KNOWN_REPLIES = ("already known", "already imported", "known transaction", "already in")
_NONCE_USED_REPLIES = ("nonce too low", "nonce is too low", "underpriced", "nonce_too_low", "replacement")
_RESEND_AFTER = 5.0
# Time in which a node may still learn of the block that holds our transaction before we believe it is another's.
_GRACE = 3.0
_RECEIPT_POLL = RetryPolicy(first=0.001, longest=0.25, factor=1.5)


@dataclass(frozen=True)
class TransactionReceipt:
    """What became of a transaction; `ok` is False if it was reverted."""

    ok: bool
    gas: int
    block: int
    tx: str
    logs: tuple[Log, ...]


class Writer:
    """One account's transactions on one network.

    `gas_price` in wei above the base fee, `most` in wei per gas with it, `patience` in seconds until a transaction must
    be mined with its `confirmations`.
    """

    def __init__(
        self,
        rpc: Rpc,
        account: Signer,
        journal: Journal,
        network: Network,
        *,
        gas_price: int,
        most: int = MAX_GAS_PRICE,
        confirmations: int = 0,
        patience: float = 120.0,
    ) -> None:
        self._rpc = rpc
        self._account = account
        self._journal = journal
        self._scope = f"{network.scope}/{account.address}"
        self._price, self._most = gas_price, most
        self._fixed: TransactionDictType = {"chainId": network.chain_id}
        self._confirmations = confirmations
        self._patience = patience
        self._lock = threading.RLock()
        self._unmined: dict[int, Signed] = {}
        self._next: int | None = None
        self._unwatched: set[int] = set()
        self._seen: dict[str, float] = {}
        self.gas_unwatched = 0

    def submit(self, to: str, data: str, gas: int, purpose: str, *, premium: int = 0, once: bool = False) -> None:
        """Send a call and do not wait for it; `premium` in wei puts it in front of others in its block.

        One that was signed for the same purpose and is not mined is sent again instead; one that was mined is enough.
        `once`: for good, also when its block is gone since.
        LedgerUnreachable if no block has taken it within the patience.
        """
        with self._lock:
            counts = self._read_counts()
            if counts[1] < self._ensure_ready():
                # The node lacks some of ours: a reorganisation took them, and nobody waits who would notice.
                self._next = None
                self._ensure_ready()
                self._push()
            if not self._settle(purpose, counts[0]):
                tx = self._find_live(purpose) or (self.find_signed(purpose) if once else None)
                tx = tx or self._sign(to, data, gas, purpose, premium)
                self._unwatched.add(tx.nonce)
                self._deliver(tx)
                if self._measure_age(tx.hash) > self._patience:
                    raise self._explain_late(tx)

    def settle(self, purpose: str = "") -> bool:
        """Close the books on calls that have been mined; whether one for this purpose was, and not in vain."""
        with self._lock:
            return self._settle(purpose, self._read_counts()[0] if self._unmined else 0)

    def _settle(self, purpose: str, count: int) -> bool:
        mined = self._collect_receipts(count)
        for tx, _ in mined:
            self._note_mined(tx)
        return any(receipt.ok and tx.purpose == purpose for tx, receipt in mined)

    def find_signed(self, purpose: str) -> Signed | None:
        """The last call that was signed for this purpose, mined or not, unless it was mined in vain."""
        with self._lock:
            signed = [tx for tx, _ in self._journal.list_sent(self._scope) if tx.purpose == purpose]
            receipt = self._fetch_receipt(signed[-1]) if signed else None
            return signed[-1] if signed and (receipt is None or receipt.ok) else None

    def forget_refused(self) -> None:
        """Close the books on calls that were mined in vain, so that they are made again."""
        with self._lock:
            for tx, receipt in self._collect_receipts(self._read_counts()[0] if self._unmined else 0):
                if not receipt.ok:
                    self._note_mined(tx)

    def _collect_receipts(self, count: int) -> list[tuple[Signed, TransactionReceipt]]:
        """What is mined of the calls that nobody waited for; `count`: the account's nonces below it are used."""
        used = [tx for tx in self._unmined.values() if tx.nonce < count]
        mined = [(tx, receipt) for tx in used if (receipt := self._fetch_receipt(tx)) is not None]
        for tx, receipt in mined:
            if tx.nonce in self._unwatched:
                self._unwatched.discard(tx.nonce)
                self.gas_unwatched += receipt.gas
        return mined

    def is_pending(self, purpose: str) -> bool:
        """Whether a transaction for this purpose was signed and has not been seen mined."""
        with self._lock:
            self._ensure_ready()
            return any(tx.purpose == purpose for tx in self._unmined.values())

    def send(self, to: str, data: str, gas: int, purpose: str, value: int = 0) -> TransactionReceipt:
        """Send a call and wait until it is mined; an unmined transaction for the same purpose is sent again instead.

        `value` in wei goes with it.

        LedgerUnreachable if the node is out of reach or does not mine it in time: call again, nothing is doubled.
        """
        with self._lock:
            self._ensure_ready()
            self._push()
            tx = self._find_unmined(purpose)
            while True:
                if tx is None:
                    tx = self._sign(to, data, gas, purpose, value=value)
                    self._deliver(tx)
                receipt = self._await(tx)
                if receipt is not None:
                    self._note_mined(tx)
                    return receipt
                # The nonce went to a transaction of somebody else who signs with this key.
                self._strike(tx)
                tx = None

    def _find_live(self, purpose: str) -> Signed | None:
        """The unmined transaction for a purpose, unless its nonce went to somebody else who signs with this key."""
        tx = self._find_unmined(purpose)
        if tx is None or not self._is_nonce_lost(tx):
            return tx
        if self._measure_age(f"nonce of {tx.hash}") <= _GRACE:
            return tx
        self._strike(tx)
        return None

    def _measure_age(self, what: str) -> float:
        """Seconds since this was first asked."""
        now = time.monotonic()
        return now - self._seen.setdefault(what, now)

    def _reset_age(self, tx: Signed) -> None:
        self._seen.pop(tx.hash, None)
        self._seen.pop(f"nonce of {tx.hash}", None)

    def _find_unmined(self, purpose: str) -> Signed | None:
        return next((tx for tx in self._unmined.values() if tx.purpose == purpose), None)

    def _ensure_ready(self) -> int:
        """Read the journal and the account's nonce, the first time; returns the next nonce."""
        if self._next is None:
            saved = self._journal.list_sent(self._scope)
            count, waiting = self._read_counts()
            # mined ones above the account's count were dropped by a reorganisation
            self._unmined = {tx.nonce: tx for tx, mined in saved if not mined or tx.nonce >= count}
            until = time.monotonic() + _GRACE
            for tx in [tx for tx in self._unmined.values() if tx.nonce < count]:
                self._settle_old(tx, until)
            self._next = waiting
        while self._next in self._unmined:
            self._next += 1
        return self._next

    def _read_counts(self) -> tuple[int, int]:
        address = self._account.address
        asked = [("eth_getTransactionCount", (address, which)) for which in ("latest", "pending")]
        count, waiting = map(parse_quantity, self._rpc.batch(asked))
        return count, max(count, waiting)

    def _settle_old(self, tx: Signed, until: float) -> None:
        """Close the books on a transaction whose nonce has been used: by itself or by a stranger to the journal.

        A stranger is believed after `until` (monotonic seconds): a node can count a block before it shows its receipts.
        """
        backoff = Backoff(_RECEIPT_POLL)
        while self._is_nonce_lost(tx):
            if time.monotonic() > until:
                self._strike(tx)
                return
            time.sleep(backoff.next_pause())
        if self._fetch_receipt(tx) is not None:
            self._note_mined(tx)

    def _push(self) -> None:
        """Send again what is not known to be mined, in the order of nonces."""
        for nonce in sorted(self._unmined):
            self._deliver(self._unmined[nonce])

    def _sign(self, to: str, data: str, gas: int, purpose: str, premium: int = 0, value: int = 0) -> Signed:
        nonce = self._ensure_ready()
        own: TransactionDictType = {
            "to": HexStr(to_checksum_address(to)),
            "data": HexStr(data),
            "gas": gas,
            "nonce": nonce,
            "value": value,
        }
        fees = cast("TransactionDictType", choose_fees(self._rpc, self._price + premium, self._most))
        signed = self._account.sign_transaction({**self._fixed, **own, **fees})
        tx = Signed(nonce, purpose, bytes(signed.raw_transaction), to_hex(signed.hash))
        # Saved before it can be sent: the other order could send two transactions for one purpose after a crash.
        self._journal.save(self._scope, tx)
        self._unmined[nonce] = tx
        self._next = nonce + 1
        return tx

    def _deliver(self, tx: Signed) -> None:
        try:
            self._rpc.call("eth_sendRawTransaction", to_hex(tx.raw))
        except NodeRefused as e:
            reason = e.reason.lower()
            # A node that knows the transaction, or has mined its nonce, is no failure: the receipt decides.
            if not any(words in reason for words in (*_KNOWN_REPLIES, *_NONCE_USED_REPLIES)):
                raise

    def _await(self, tx: Signed) -> TransactionReceipt | None:
        """The receipt; None if the nonce was used by another transaction."""
        begun = resent = unused = time.monotonic()
        backoff = Backoff(_RECEIPT_POLL)
        while (receipt := self._fetch_receipt(tx)) is None or not self._is_confirmed(receipt):
            now = time.monotonic()
            if now - begun > self._patience:
                raise self._explain_late(tx)
            if receipt is not None or now - begun < _GRACE or not self._is_nonce_lost(tx):
                unused = now
            # `unused` is the last time at which the nonce was free. A node can count a block before it shows its
            # receipts, so another's transaction is assumed only after the grace.
            if now - unused > _GRACE:
                return None
            if receipt is None and now - resent > _RESEND_AFTER:
                self._recover()
                resent = now
            time.sleep(backoff.next_pause())
        return receipt

    def _fetch_receipt(self, tx: Signed) -> TransactionReceipt | None:
        answer = self._rpc.call("eth_getTransactionReceipt", tx.hash)
        if answer is None or answer.get("blockNumber") is None:
            return None
        if (answer.get("transactionHash") or tx.hash).lower() != tx.hash:
            # Taken for ours, it would end our sending of a transaction that no block has.
            raise self._rpc.explain_garbled("eth_getTransactionReceipt")
        try:
            status, gas, block = (parse_quantity(answer[key]) for key in ("status", "gasUsed", "blockNumber"))
            return TransactionReceipt(status == 1, gas, block, tx.hash, tuple(answer["logs"]))
        except (KeyError, TypeError, ValueError):
            raise self._rpc.explain_garbled("eth_getTransactionReceipt") from None

    def _is_confirmed(self, receipt: TransactionReceipt) -> bool:
        if self._confirmations == 0:
            return True
        return self._rpc.call_quantity("eth_blockNumber") >= receipt.block + self._confirmations

    def _is_nonce_lost(self, tx: Signed) -> bool:
        """Whether another transaction has the nonce.

        Both answers come together: of two nodes behind one address, one may be behind the other.
        """
        asked = [
            ("eth_getTransactionReceipt", (tx.hash,)),
            ("eth_getTransactionCount", (self._account.address, "latest")),
        ]
        receipt, count = self._rpc.batch(asked)
        return receipt is None and parse_quantity(count) > tx.nonce

    def _recover(self) -> None:
        """Send everything again that the chain does not hold, mined once or not: it may have been reorganised away."""
        count, _ = self._read_counts()
        for tx, _ in self._journal.list_sent(self._scope):
            if tx.nonce >= count:
                self._deliver(tx)

    def _note_mined(self, tx: Signed) -> None:
        self._journal.mark_mined(self._scope, tx.nonce)
        self._unmined.pop(tx.nonce, None)
        self._reset_age(tx)

    def _strike(self, tx: Signed) -> None:
        self._journal.forget(self._scope, tx.nonce)
        self._unmined.pop(tx.nonce, None)
        self._reset_age(tx)
        # Another signer uses this account: only the chain knows the next nonce.
        self._next = None

    def _explain_late(self, tx: Signed) -> LedgerUnreachable:
        return LedgerUnreachable(
            "CO-C304",
            f"Transaction {tx.hash} ({tx.purpose}, nonce {tx.nonce}) was not mined within {self._patience:g} s by "
            f"{self._rpc.where}. Check that enough sealers run and that the account has funds. The same transaction "
            "is sent again next time.",
        )
