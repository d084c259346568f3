"""Founding a network: the Catalog is deployed once, and `network.json` tells every site where it is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import requests
from eth_account import Account
from eth_account.signers.local import LocalAccount
from web3 import HTTPProvider, Web3
from web3.exceptions import Web3Exception
from web3.middleware import ExtraDataToPOAMiddleware

from coterie_chain.abi import load
from coterie_chain.calldata import bytes32, unhexed
from coterie_chain.errors import LedgerMismatch, LedgerUnreachable
from coterie_chain.ledger import SiteEntry
from coterie_chain.rpc import FAULTS, Request, Rpc

BASE_GAS = 4_000_000
GAS_PER_FOUNDER = 1_000_000
MINED_WITHIN = 120.0


@dataclass(frozen=True)
class Network:
    """A deployed Catalog: the node's address, chain id, Catalog, hash of block 0, block of the deployment.

    Each site has its own `url`; everything else is the same at every site.
    """

    url: str
    chain_id: int
    catalog: str
    genesis: str
    block: int

    @property
    def scope(self) -> str:
        """What tells this network from any other."""
        return f"{self.chain_id}/{self.genesis}/{self.catalog.lower()}"

    def to_json(self) -> str:
        """Text of `network.json`."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Network:
        """The network that a `network.json` describes; LedgerMismatch if it is none."""
        try:
            raw = json.loads(text)
            return cls(
                str(raw["url"]), int(raw["chain_id"]), _address(raw["catalog"]), str(raw["genesis"]), int(raw["block"])
            )
        except (ValueError, KeyError, TypeError) as e:
            raise LedgerMismatch("CO-C310", f"This is no network.json: {e!r}. Ask a founder for the file.") from None


@contextmanager
def connect(url: str, timeout: float = 10.0) -> Iterator[Web3]:
    """A web3 connection that also reads the blocks of proof-of-authority chains."""
    with requests.Session() as session:
        w3 = Web3(
            HTTPProvider(url, {"timeout": timeout}, session=session, exception_retry_configuration=None),
        )
        w3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
        yield w3


def deploy(
    url: str, founders: Iterable[SiteEntry], account: LocalAccount | None = None, *, confirmations: int = 0
) -> Network:
    """Deploy a Catalog with its first sites (their ids are ignored: they count from 1 in this order).

    `account` pays the gas; on a chain without gas price a throw-away account will do. It gets no rights. Returns when
    the Catalog has its `confirmations`.
    """
    where = Rpc(url).where
    try:
        with connect(url) as w3:
            address, block = _deploy(w3, tuple(founders), account or Account.create())
            _await_block(w3, block + confirmations)
            return Network(url, w3.eth.chain_id, address, w3.to_hex(w3.eth.get_block(0)["hash"]), block)
    except (*FAULTS, Web3Exception) as e:
        # Only the kind of fault: its text may hold the whole address, and that a token.
        raise LedgerUnreachable(
            "CO-C301", f"The chain node {where} did not take the Catalog ({type(e).__name__}). Is it running?"
        ) from None


def verify(network: Network, rpc: Rpc, confirmations: int = 0) -> None:
    """LedgerMismatch unless the node is on this network and the Catalog's code is the one of this release.

    LedgerUnreachable if the node has not got the Catalog yet, with its confirmations.
    """
    requests: list[Request] = [("eth_chainId", ()), ("eth_getBlockByNumber", ("0x0", False)), ("eth_blockNumber", ())]
    chain_id, genesis, newest, code = rpc.batch([*requests, ("eth_getCode", (network.catalog, "latest"))])
    found = {"chain id": int(chain_id, 16), "hash of block 0": genesis["hash"] if genesis else None}
    for what, wanted in {"chain id": network.chain_id, "hash of block 0": network.genesis}.items():
        if found[what] != wanted:
            raise LedgerMismatch(
                "CO-C311",
                f"The node {rpc.where} is on another chain: its {what} is {found[what]}, and the network's is {wanted}."
                " Check the node's address and its data directory.",
            )
    if int(newest, 16) < network.block + confirmations:
        raise LedgerUnreachable(
            "CO-C302",
            f"The node {rpc.where} is at block {int(newest, 16)}; the Catalog was deployed in block {network.block} "
            f"and counts after {confirmations} more. If the node was just started, wait until it has caught up.",
        )
    if not load("Catalog").matches(unhexed(code)):
        raise LedgerMismatch(
            "CO-C311",
            f"The code at {network.catalog} on {rpc.where} ({len(unhexed(code))} bytes) is not this release's Catalog. "
            "Use the release that founded the network, or the right network.json.",
        )


def is_anvil(rpc: Rpc) -> bool:
    """Whether the node is a development chain without consensus."""
    return str(rpc.call("web3_clientVersion")).lower().startswith("anvil")


def _deploy(w3: Web3, founders: tuple[SiteEntry, ...], payer: LocalAccount) -> tuple[str, int]:
    artifact = load("Catalog")
    columns = (
        [bytes32(e.name) for e in founders],
        [e.address for e in founders],
        [e.sealing for e in founders],
        [e.peer for e in founders],
    )
    price = 0 if w3.client_version.lower().startswith("anvil") else 1
    catalog = w3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
    transaction = catalog.constructor(*columns).build_transaction(
        {
            "from": payer.address,
            "nonce": w3.eth.get_transaction_count(payer.address, "pending"),
            "gas": BASE_GAS + GAS_PER_FOUNDER * len(founders),
            "gasPrice": w3.to_wei(price, "wei"),
            "chainId": w3.eth.chain_id,
        }
    )
    sent = w3.eth.send_raw_transaction(payer.sign_transaction(transaction).raw_transaction)
    receipt = w3.eth.wait_for_transaction_receipt(sent, timeout=MINED_WITHIN, poll_latency=0.02)
    address = receipt["contractAddress"]
    if receipt["status"] != 1 or address is None:
        raise LedgerMismatch(
            "CO-C313",
            f"The Catalog's deployment failed in block {receipt['blockNumber']} after {receipt['gasUsed']} gas. "
            "Two founders may share a name or a key; founders' keys must not be zero.",
        )
    return str(address), int(receipt["blockNumber"])


def _await_block(w3: Web3, number: int) -> None:
    deadline = time.monotonic() + MINED_WITHIN
    while w3.eth.block_number < number:
        if time.monotonic() > deadline:
            raise LedgerUnreachable(
                "CO-C304", f"No block {number} within {MINED_WITHIN:g} s after the deployment. Do enough sealers run?"
            )
        time.sleep(0.05)


def _address(text: str) -> str:
    return Web3.to_checksum_address(text)
