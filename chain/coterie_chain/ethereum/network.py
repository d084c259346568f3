"""Which network a site belongs to: `network.json`, and whether a node is on that network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from eth_utils.address import to_checksum_address
from pydantic_core import from_json

from coterie_chain.errors import LedgerMismatch, LedgerUnreachable
from coterie_chain.ethereum.abi import load_artifact
from coterie_chain.ethereum.calldata import from_hex, load_codec
from coterie_chain.ethereum.rpc import NodeRefused, Request, Rpc

# Blocks whose logs are asked for at once.
BLOCKS_PER_QUERY = 2000
# In more blocks than these nobody looks for a Catalog whose address is not given: six years of a block in 5 seconds.
MAX_SEARCH = 40_000_000
# A transaction offers so many times the base fee of its moment: 35 full blocks in a row raise it no further.
FEE_HEADROOM = 64
# Wei per gas that a transaction offers at most: one of 4 million gas is then within what a new site is given.
MAX_GAS_PRICE = 10**11


class NoCatalog(LedgerMismatch):
    """A chain has no Catalog, or none yet."""


@dataclass(frozen=True)
class Network:
    """A deployed Catalog: the node's address, chain id, Catalog, hash of block 0, block of the deployment.

    `founders`: name and key of each site that founded it, for the check of a bundle; empty if they are not known.
    Each site has its own `url`; everything else is the same at every site.
    """

    url: str
    chain_id: int
    catalog: str
    genesis: str
    block: int
    founders: tuple[tuple[str, str], ...] = ()

    @property
    def scope(self) -> str:
        """What distinguishes this network from any other."""
        return f"{self.chain_id}/{self.genesis}/{self.catalog.lower()}"

    def to_json(self) -> str:
        """Text of `network.json`."""
        return json.dumps({**asdict(self), "founders": dict(self.founders)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Network:
        """The network that a `network.json` describes; LedgerMismatch if it is another contract."""
        try:
            # Not json.loads: py_ecc lifts Python's recursion limit, so that nested brackets crash the process.
            raw = from_json(text)
            catalog = to_checksum_address(raw["catalog"])
            founders = read_keys(raw.get("founders", {}))
            place = (str(raw["url"]), int(raw["chain_id"]), catalog, str(raw["genesis"]), int(raw["block"]))
            return cls(*place, founders)
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise LedgerMismatch("CO-C310", f"This is not a network.json: {e!r}. Ask a founder for the file.") from None


def read_keys(names: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Keys of sites by name, as pairs; ValueError for a text that is no address."""
    return tuple((str(name), to_checksum_address(key)) for name, key in names.items())


def discover(url: str, catalog: str | None = None, confirmations: int = 0) -> Network:
    """The network of a Catalog without its `network.json`, as one node describes it; compare it with other nodes.

    Without an address the chain must hold exactly one Catalog, which is looked for in its logs. LedgerUnreachable
    (CO-C302) until the block of its deployment has its `confirmations`: a block with fewer may be replaced, and the
    deployment then stands in another one.
    """
    with Rpc(url) as rpc:
        catalog = catalog or _find_catalog(rpc)
        first = rpc.call("eth_getBlockByNumber", "0x0", False)
        if first is None or first.get("hash") is None:
            raise rpc.explain_garbled("eth_getBlockByNumber")
        network = Network(url, rpc.call_quantity("eth_chainId"), _to_checksum(catalog), str(first["hash"]), 0)
        verify(network, rpc)
        network = replace(network, block=_find_deployment_block(rpc, catalog))
        verify(network, rpc, confirmations)
        return network


def verify(network: Network, rpc: Rpc, confirmations: int = 0) -> None:
    """LedgerMismatch unless the node is on this network and the Catalog's code is the one of this version.

    LedgerUnreachable if the node has not got the Catalog yet, with its confirmations.
    """
    requests: list[Request] = [("eth_chainId", ()), ("eth_getBlockByNumber", ("0x0", False)), ("eth_blockNumber", ())]
    chain_id, genesis, newest, code = rpc.batch([*requests, ("eth_getCode", (network.catalog, "latest"))])
    actual = {"chain id": int(chain_id, 16), "hash of block 0": genesis.get("hash") if genesis else None}
    for what, wanted in {"chain id": network.chain_id, "hash of block 0": network.genesis}.items():
        if actual[what] != wanted:
            raise LedgerMismatch(
                "CO-C311",
                f"The node {rpc.where} is on another chain: its {what} is {actual[what]}, "
                f"and the network's is {wanted}."
                " Check the node's address and its data directory.",
            )
    if int(newest, 16) < network.block + confirmations:
        raise LedgerUnreachable(
            "CO-C302",
            f"The node {rpc.where} is at block {int(newest, 16)}; the Catalog was deployed in block {network.block} "
            f"and counts after {confirmations} more. If the node was just started, wait until it has caught up.",
        )
    if not load_artifact("Catalog").matches(from_hex(code)):
        raise LedgerMismatch(
            "CO-C317",
            f"The code at {network.catalog} on {rpc.where} ({len(from_hex(code))} bytes) "
            "is not this version's Catalog. "
            "Use the release that founded the network, or the right network.json.",
        )


def is_anvil(rpc: Rpc) -> bool:
    """Whether the node is a development chain without consensus."""
    try:
        return str(rpc.call("web3_clientVersion")).lower().startswith("anvil")
    except NodeRefused:
        # the authenticated port of a real node serves only eth_*
        return False


def is_mining_instantly(rpc: Rpc) -> bool:
    """Whether a block is made for each transaction as it comes, so that there is no block time to save."""
    return is_anvil(rpc) and bool(rpc.call("anvil_getAutomine"))


def choose_gas_price(instant: bool) -> int:
    """Gas price in wei: nothing on Anvil; elsewhere sealers drop what pays nothing, and next to nothing is enough."""
    return 0 if instant else 1


def choose_fees(rpc: Rpc, tip: int, most: int = MAX_GAS_PRICE) -> dict[str, int]:
    """The fields with which a transaction pays `tip` wei per gas, whatever the chain's base fee becomes meanwhile.

    The base fee (EIP-1559) rises after each block that is more than half full. Below 8 wei it never falls again, since
    it falls by eighths of whole wei. A price of 1 wei would be too little for ever after one full block. What is
    offered is not paid: only the base fee of the block and the tip are. LedgerUnreachable (CO-C308) if the node names a
    base fee with which more than `most` wei per gas would be paid: an account cannot cover every fee that a node
    invents, and nobody would take the transaction from then on.
    """
    if tip == 0:  # an instant development chain, whose base fee is constant
        return {"gasPrice": 0}
    block = rpc.call("eth_getBlockByNumber", "latest", False)
    base_fee = None if block is None else block.get("baseFeePerGas")
    if base_fee is None:
        return {"gasPrice": tip}
    least = int(base_fee, 16) + tip
    if least > most:
        message = f"The chain node {rpc.where} names {least} wei per gas, and this site pays {most} at most"
        advice = "Compare the price with another site's node; if it is right, raise max_gas_price under [chain]."
        raise LedgerUnreachable("CO-C308", f"{message}: nothing was signed. {advice}")
    return {"maxFeePerGas": min(tip + FEE_HEADROOM * (int(base_fee, 16) + 1), most), "maxPriorityFeePerGas": tip}


def _find_catalog(rpc: Rpc) -> str:
    """Address of the contract that admitted founders, if there is just one."""
    topic = next(topic for topic, name in load_codec("Catalog").topics.items() if name == "SiteAdmitted")
    newest, catalogs = rpc.call_quantity("eth_blockNumber"), set()
    if newest > MAX_SEARCH:
        message = f"The chain at {rpc.where} has {newest} blocks, too many to look for its Catalog in all of them"
        raise LedgerMismatch("CO-C316", f"{message}. Name the Catalog by its address.")
    for first in range(0, newest + 1, BLOCKS_PER_QUERY):
        window = {"fromBlock": hex(first), "toBlock": hex(min(first + BLOCKS_PER_QUERY - 1, newest)), "topics": [topic]}
        catalogs |= {str(log["address"]) for log in rpc.call("eth_getLogs", window)}
    if len(catalogs) != 1:
        kind = LedgerMismatch if catalogs else NoCatalog
        raise kind(
            "CO-C316", f"The chain at {rpc.where} holds {len(catalogs)} Catalogs. Name the one to read by its address."
        )
    return catalogs.pop()


def check_nothing_waits(url: str, account: str) -> None:
    """LedgerUnreachable (CO-C302) while transactions of an account wait for a block, as an earlier deployment may."""
    with Rpc(url) as rpc:
        asked: list[Request] = [("eth_getTransactionCount", (account, which)) for which in ("latest", "pending")]
        counted, sent = (int(answer, 16) for answer in rpc.batch(asked))
        if sent > counted:
            message = f"Transactions of {account} wait for a block at the chain node {rpc.where}: {sent - counted}"
            raise LedgerUnreachable("CO-C302", f"{message}. Do more than half of the sealers run?")


def _find_deployment_block(rpc: Rpc, catalog: str) -> int:
    """Block of the Catalog's deployment; 0 if the node does not know any more."""
    low, high = 0, rpc.call_quantity("eth_blockNumber")
    try:
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if _read_code(rpc, catalog, middle) else (middle + 1, high)
        # The founders' admissions prove it: a node without old states may answer anything.
        founded = rpc.call("eth_getLogs", {"fromBlock": hex(low), "toBlock": hex(low), "address": [catalog]})
    except NodeRefused:
        return 0
    names = [load_codec("Catalog").topics.get(topic) for log in founded for topic in log["topics"][:1]]
    return low if "SiteAdmitted" in names else 0


def _read_code(rpc: Rpc, address: str, block: int) -> bytes:
    return from_hex(rpc.call("eth_getCode", address, hex(block)))


def _to_checksum(address: str) -> str:
    try:
        return to_checksum_address(address)
    except (ValueError, TypeError):
        raise LedgerMismatch("CO-C310", f"Not a Catalog's address: {address!r}.") from None
