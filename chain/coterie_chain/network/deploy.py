"""Founding a network: one site deploys the Catalog once; `network.json` holds its address for every site."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from eth_utils.address import to_checksum_address

from coterie_chain.errors import LedgerMismatch, LedgerUnreachable
from coterie_chain.ethereum.calldata import encode_site_name, to_hex
from coterie_chain.ethereum.decode import parse_quantity
from coterie_chain.ethereum.network import Network as Network
from coterie_chain.ethereum.network import choose_fees, choose_gas_price, is_anvil, verify
from coterie_chain.ethereum.network import discover as discover
from coterie_chain.ethereum.rpc import NodeRefused, Rpc
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.retry import Backoff, RetryPolicy

if TYPE_CHECKING:
    from eth_account.types import TransactionDictType

    from coterie_chain.keys.signer import SignedCall, Signer

# What is offered. A deployment takes 4.9 million and 0.5 million for each founder, and no more than a block has: 50
# founders fit into the 30 million of our chains. Later sites enter by an invitation.
BASE_GAS = 6_000_000
GAS_PER_FOUNDER = 1_000_000
DEPLOYMENT_TIMEOUT = 120.0
# Blocks of a chain that is just founded are replaced while its sealers find each other.
MAX_REPLACEMENTS = 6
_POLL = RetryPolicy(first=0.01, longest=0.25, factor=1.5)
_T = TypeVar("_T")
STALLED = (
    "Do more than half of the sealers run, and do they reach each other? If all do and say `signed recently`, "
    "start one of them again."
)


@dataclass(frozen=True)
class _Receipt:
    """What became of the deployment."""

    ok: bool
    gas: int
    block: int
    address: str | None


def deploy(
    url: str,
    founders: Iterable[SiteEntry],
    account: Signer | None = None,
    *,
    confirmations: int = 0,
    gas_price: int | None = None,
    chain_id: int | None = None,
) -> Network:
    """Deploy a Catalog with its first sites (their ids are ignored: they count from 1 in this order).

    `account` pays the gas, at `gas_price` wei above the base fee (by default 0 on Anvil, where a throw-away account
    will do, and 1 elsewhere); it gets no rights. If `chain_id` is known, nothing is signed for another chain. Returns
    when the Catalog has its `confirmations`, and the node shows its code at the address that the payer's key and nonce
    give.
    """
    founders = tuple(founders)
    with Rpc(url) as rpc:
        price = choose_gas_price(is_anvil(rpc)) if gas_price is None else gas_price
        signed, catalog = _sign(rpc, founders, account or _make_payer(), price, chain_id)
        block = await_deployment(rpc, _send(rpc, signed), catalog, confirmations)
        network = _describe(rpc, url, catalog, block, founders)
        verify(network, rpc, confirmations)
        return network


def _make_payer() -> Signer:
    """An account that nobody has used."""
    return SiteKeys.of(secrets.token_bytes(32), secrets.token_bytes(32)).signer


def _sign(
    rpc: Rpc, founders: Sequence[SiteEntry], payer: Signer, price: int, wanted: int | None
) -> tuple[SignedCall, str]:
    """The transaction that makes the Catalog, and its address. It goes to nobody; its data are code and founders."""
    # with the tries that only a deployment needs
    from coterie_chain.proof.deployment import compute_contract_address, encode_constructor

    columns = (
        [encode_site_name(e.name) for e in founders],
        [e.address for e in founders],
        [e.sealing for e in founders],
        [e.peer for e in founders],
    )
    room = parse_quantity(_read_block(rpc, "latest")["gasLimit"])
    nonce = rpc.call_quantity("eth_getTransactionCount", payer.address, "pending")
    transaction = {
        "to": "",
        "value": 0,
        "data": to_hex(encode_constructor(columns)),
        "nonce": nonce,
        "gas": min(BASE_GAS + GAS_PER_FOUNDER * len(founders), room),
        "chainId": _read_chain_id(rpc, wanted),
        **choose_fees(rpc, price),
    }
    signed = payer.sign_transaction(cast("TransactionDictType", transaction))
    return signed, to_checksum_address(compute_contract_address(payer.address, nonce))


def _read_chain_id(rpc: Rpc, wanted: int | None) -> int:
    """The node's chain; LedgerMismatch (CO-C311) if another one is wanted: a signature counts on the chain it names."""
    found = rpc.call_quantity("eth_chainId")
    if wanted is not None and found != wanted:
        message = f"The node {rpc.where} is on another chain: its chain id is {found}, and the genesis has {wanted}"
        raise LedgerMismatch("CO-C311", f"{message}. Check the node's address and its data directory.")
    return found


def _send(rpc: Rpc, signed: SignedCall) -> str:
    """Hand the transaction to the node; returns its hash."""
    name = to_hex(signed.hash)
    try:
        rpc.call("eth_sendRawTransaction", to_hex(signed.raw_transaction))
    except NodeRefused:
        # A request that was sent once more over a new connection is refused, and the node has the transaction.
        if rpc.call("eth_getTransactionByHash", name) is None:
            raise
    return name


def await_deployment(rpc: Rpc, name: str, catalog: str, confirmations: int) -> int:
    """Number of the block with the deployment, once it has its confirmations.

    A block with fewer may be replaced, and another one then takes the transaction. LedgerMismatch (CO-C313) for a
    deployment that failed; LedgerUnreachable (CO-C302) where it stands in another block again and again.
    """
    block = -1
    for _ in range(MAX_REPLACEMENTS):
        receipt = _await_receipt(rpc, name)
        if receipt.block == block:
            return block
        _check_receipt(rpc, receipt, catalog)
        block = receipt.block
        await_confirmations(rpc, block + confirmations)
    message = f"The block with the Catalog's deployment was replaced {MAX_REPLACEMENTS - 1} times; the last is {block}"
    raise LedgerUnreachable("CO-C302", f"{message}. Wait until the chain node {rpc.where} has settled, and try again.")


def _await_receipt(rpc: Rpc, name: str) -> _Receipt:
    deadline, backoff = time.monotonic() + DEPLOYMENT_TIMEOUT, Backoff(_POLL)
    while (receipt := _ask_until(deadline, lambda: _fetch_receipt(rpc, name))) is None:
        if time.monotonic() > deadline:
            newest = rpc.call_quantity("eth_blockNumber")
            message = f"No block took the deployment within {DEPLOYMENT_TIMEOUT:g} s; the newest is {newest}"
            raise LedgerUnreachable("CO-C304", f"{message}. {STALLED}")
        time.sleep(backoff.next_pause())
    return receipt


def _fetch_receipt(rpc: Rpc, name: str) -> _Receipt | None:
    answer = rpc.call("eth_getTransactionReceipt", name)
    if answer is None or answer.get("blockNumber") is None:
        return None
    if (answer.get("transactionHash") or name).lower() != name:
        raise rpc.explain_garbled("eth_getTransactionReceipt")
    try:
        status, gas, block = (parse_quantity(answer[key]) for key in ("status", "gasUsed", "blockNumber"))
        address = answer.get("contractAddress")
        return _Receipt(status == 1, gas, block, None if address is None else to_checksum_address(address))
    except (KeyError, TypeError, ValueError):
        raise rpc.explain_garbled("eth_getTransactionReceipt") from None


def _check_receipt(rpc: Rpc, receipt: _Receipt, catalog: str) -> None:
    """LedgerMismatch (CO-C313) for no contract or another one; LedgerUnreachable (CO-C303) for a later block."""
    if not receipt.ok or receipt.address is None:
        raise LedgerMismatch(
            "CO-C313",
            f"The Catalog's deployment failed in block {receipt.block} after {receipt.gas} gas. "
            "Two founders may share a name or a key, a key may be zero, or there are more than a block has room "
            "for (50 founders).",
        )
    if receipt.address != catalog:
        message = (
            f"The node {rpc.where} says that the deployment made {receipt.address}; what was signed makes {catalog}"
        )
        raise LedgerMismatch("CO-C313", f"{message}. Use neither. Check what answers at the node's address.")
    # One more than the newest: a node may count a block before it answers with it.
    if receipt.block > rpc.call_quantity("eth_blockNumber") + 1:
        raise rpc.explain_garbled("eth_getTransactionReceipt")


def await_confirmations(rpc: Rpc, number: int) -> None:
    """Wait for a block; the time begins again with each new one, since many sealers need many confirmations.

    LedgerUnreachable (CO-C304) after 120 s without any new block.
    """
    newest, deadline = -1, time.monotonic() + DEPLOYMENT_TIMEOUT
    while (found := _ask_until(deadline, lambda: rpc.call_quantity("eth_blockNumber"))) < number:
        now = time.monotonic()
        if found > newest:
            newest, deadline = found, now + DEPLOYMENT_TIMEOUT
        if now > deadline:
            message = f"No block after {newest} came within {DEPLOYMENT_TIMEOUT:g} s; the Catalog counts from {number}"
            raise LedgerUnreachable("CO-C304", f"{message} on. {STALLED}")
        time.sleep(0.05)


def _ask_until(deadline: float, ask: Callable[[], _T]) -> _T:
    """What the node answers; until `deadline` (monotonic seconds) one that does not answer is asked again.

    The transaction is with the node, which may be busy: its silence for a moment is no reason to give the wait up.
    """
    while True:
        try:
            return ask()
        except LedgerUnreachable as error:
            if error.code != "CO-C301" or time.monotonic() > deadline:
                raise
        time.sleep(_POLL.longest)


def _describe(rpc: Rpc, url: str, catalog: str, block: int, founders: Sequence[SiteEntry]) -> Network:
    keys = tuple((site.name, site.address) for site in founders)
    genesis = str(_read_block(rpc, "0x0")["hash"])
    return Network(url, rpc.call_quantity("eth_chainId"), catalog, genesis, block, keys)


def _read_block(rpc: Rpc, which: str) -> dict[str, Any]:
    block = rpc.call("eth_getBlockByNumber", which, False)
    if block is None or block.get("gasLimit") is None:
        raise rpc.explain_garbled("eth_getBlockByNumber")
    return cast("dict[str, Any]", block)
