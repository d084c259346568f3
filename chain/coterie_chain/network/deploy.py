"""Founding a network: one site deploys the Catalog once; `network.json` holds its address for every site."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from coterie_chain.errors import LedgerMismatch, LedgerUnreachable
from coterie_chain.ethereum.abi import load_artifact
from coterie_chain.ethereum.calldata import encode_site_name
from coterie_chain.ethereum.jwt import create_bearer_token, split_secret
from coterie_chain.ethereum.network import Network as Network
from coterie_chain.ethereum.network import choose_fees, choose_gas_price, is_anvil
from coterie_chain.ethereum.network import discover as discover
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.http_client import WIRE_FAULTS
from coterie_chain.ledger.protocol import SiteEntry

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount
    from hexbytes import HexBytes
    from requests import PreparedRequest
    from web3 import Web3
    from web3.types import TxReceipt

# What is offered. A deployment takes 4.9 million and 0.5 million for each founder, and no more than a block has: 50
# founders fit into the 30 million of our chains. Later sites enter by an invitation.
BASE_GAS = 6_000_000
GAS_PER_FOUNDER = 1_000_000
DEPLOYMENT_TIMEOUT = 120.0
STALLED = (
    "Do more than half of the sealers run, and do they reach each other? If all do and say `signed recently`, "
    "start one of them again."
)


def deploy(
    url: str,
    founders: Iterable[SiteEntry],
    account: LocalAccount | None = None,
    *,
    confirmations: int = 0,
    gas_price: int | None = None,
) -> Network:
    """Deploy a Catalog with its first sites (their ids are ignored: they count from 1 in this order).

    `account` pays the gas, at `gas_price` wei above the base fee (by default 0 on Anvil, where a throw-away account
    will do, and 1 elsewhere); it gets no rights. Returns when the Catalog has its `confirmations`.
    """
    from eth_account import Account  # as slow to import as web3

    founders = tuple(founders)
    with connect(url) as w3:
        address, block = _deploy(w3, founders, account or Account.create(), _choose_fees(url, gas_price))
        _await_block(w3, block + confirmations)
        genesis = w3.to_hex(w3.eth.get_block(0)["hash"])
        keys = tuple((site.name, site.address) for site in founders)
        return Network(url, w3.eth.chain_id, address, genesis, block, keys)


def _choose_fees(url: str, gas_price: int | None) -> dict[str, int]:
    with Rpc(url) as rpc:
        return choose_fees(rpc, choose_gas_price(is_anvil(rpc)) if gas_price is None else gas_price)


@contextmanager
def connect(url: str, timeout: float = 10.0) -> Iterator[Web3]:
    """A web3 connection that also reads the blocks of proof-of-authority chains; its faults are LedgerUnreachable."""
    # web3 takes most of a second to import, and a site that only takes part in a network does not need it
    import requests
    from web3 import HTTPProvider, Web3
    from web3.exceptions import Web3Exception
    from web3.middleware import ExtraDataToPOAMiddleware

    where, parts = Rpc(url).where, urlsplit(url)
    query, secret = split_secret(parts.query)
    with requests.Session() as session:
        if secret is not None:
            session.auth = partial(_authorize, secret)
        bare = urlunsplit(parts._replace(query=query))
        w3 = Web3(HTTPProvider(bare, {"timeout": timeout}, session=session, exception_retry_configuration=None))
        w3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
        try:
            yield w3
        except (*WIRE_FAULTS, Web3Exception) as e:
            # Only the kind of fault: its text may hold the whole address, and that a token.
            raise LedgerUnreachable(
                "CO-C301", f"The chain node {where} did not answer ({type(e).__name__}). Check that it runs."
            ) from None


def _authorize(secret: bytes, request: PreparedRequest) -> PreparedRequest:
    request.headers["Authorization"] = f"Bearer {create_bearer_token(secret)}"
    return request


def _deploy(w3: Web3, founders: tuple[SiteEntry, ...], payer: LocalAccount, fees: dict[str, int]) -> tuple[str, int]:
    artifact = load_artifact("Catalog")
    columns = (
        [encode_site_name(e.name) for e in founders],
        [e.address for e in founders],
        [e.sealing for e in founders],
        [e.peer for e in founders],
    )
    catalog = w3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
    transaction = catalog.constructor(*columns).build_transaction(
        {
            "from": payer.address,
            "nonce": w3.eth.get_transaction_count(payer.address, "pending"),
            "gas": min(BASE_GAS + GAS_PER_FOUNDER * len(founders), w3.eth.get_block("latest")["gasLimit"]),
            "chainId": w3.eth.chain_id,
            **{name: w3.to_wei(fee, "wei") for name, fee in fees.items()},
        }
    )
    tx_hash = w3.eth.send_raw_transaction(payer.sign_transaction(transaction).raw_transaction)
    receipt = _await_receipt(w3, tx_hash)
    address = receipt["contractAddress"]
    if receipt["status"] != 1 or address is None:
        raise LedgerMismatch(
            "CO-C313",
            f"The Catalog's deployment failed in block {receipt['blockNumber']} after {receipt['gasUsed']} gas. "
            "Two founders may share a name or a key, a key may be zero, or there are more than a block has room for "
            "(50 founders).",
        )
    return str(address), int(receipt["blockNumber"])


def _await_receipt(w3: Web3, tx_hash: HexBytes) -> TxReceipt:
    from web3.exceptions import TimeExhausted

    try:
        return w3.eth.wait_for_transaction_receipt(tx_hash, timeout=DEPLOYMENT_TIMEOUT, poll_latency=0.02)
    except TimeExhausted:
        message = f"No block took the deployment within {DEPLOYMENT_TIMEOUT:g} s; the newest is {w3.eth.block_number}"
        raise LedgerUnreachable("CO-C304", f"{message}. {STALLED}") from None


def _await_block(w3: Web3, number: int) -> None:
    deadline = time.monotonic() + DEPLOYMENT_TIMEOUT
    while w3.eth.block_number < number:
        if time.monotonic() > deadline:
            raise LedgerUnreachable(
                "CO-C304", f"No block {number} within {DEPLOYMENT_TIMEOUT:g} s after the deployment. {STALLED}"
            )
        time.sleep(0.05)
