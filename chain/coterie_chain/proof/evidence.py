"""The evidence of a network that one node supplies; a reader checks it and need not trust that node.

All headers from the first to the last; all transactions and receipts of every block that the Catalog or a Model may
have written in (the header's own bloom filter says where); the nodes of the state's trie that prove the contracts' code
and storage at the last block; that code. `verified_ledger.py` reads it without a network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coterie_chain.errors import LedgerMismatch, LedgerUnreachable
from coterie_chain.ethereum.calldata import from_hex
from coterie_chain.ethereum.decode import Log, list_new_models
from coterie_chain.ethereum.headers import MAX_HEADER_BYTES as LARGEST_HEADER
from coterie_chain.ethereum.headers import Header, compute_bloom, encode_header
from coterie_chain.ethereum.network import Network, is_anvil, verify
from coterie_chain.ethereum.rlp_bounds import split_items
from coterie_chain.ethereum.rpc import NodeRefused, Request, Rpc
from coterie_chain.ethereum.seals import detect_sealing
from coterie_chain.proof.receipts import Body, build_body
from coterie_chain.proof.storage_slots import (
    HEAD,
    NEXT,
    ContractStorage,
    compute_order_slot,
    list_catalog_slots,
    list_order_slots,
)
from coterie_chain.proof.tries import MAX_NODE_BYTES, ProvedState

BATCH_SIZE = 100
_ATTEMPTS = 5
# A body is at most a block's gas in calldata; 64 MiB is far beyond.
MAX_BODY_BYTES = 1 << 26
MAX_CODE_BYTES = 1 << 16
# Least bytes of a header (its bloom filter alone has 256), of a block with one transaction, of a trie's inner node.
_USUAL_HEADER, _USUAL_BODY, _USUAL_NODE = 400, 200, 32
# A longer chain starts at a block that its readers must know, not at its first.
MAX_HEADERS = 200_000
_EPOCH = 30_000
HEADERS, BODIES, STATE, CODES = "chain/headers.rlp", "chain/bodies.rlp", "chain/state.rlp", "chain/code.rlp"


@dataclass(frozen=True)
class Evidence:
    """A network's headers, bodies, state nodes and code, as bytes that only their hashes vouch for."""

    chain_id: int
    catalog: str
    headers: tuple[bytes, ...]
    bodies: tuple[bytes, ...]
    nodes: tuple[bytes, ...]
    codes: tuple[bytes, ...]

    def files(self) -> dict[str, bytes]:
        """The evidence as files by name; `of_files` is the inverse."""
        parts = {HEADERS: self.headers, BODIES: self.bodies, STATE: self.nodes}
        return {name: b"".join(items) for name, items in parts.items()} | {
            CODES: b"".join(map(_prefix_length, self.codes))
        }

    @classmethod
    def of_files(cls, chain_id: int, catalog: str, files: Mapping[str, bytes]) -> Evidence:
        """Evidence from its files; LedgerMismatch (CO-C350) names the one that is missing or cannot be read."""
        for name in (HEADERS, BODIES, STATE, CODES):
            if name not in files:
                raise LedgerMismatch("CO-C350", f"The evidence has no {name}. Ask for it again.")
        return cls(
            chain_id,
            catalog,
            tuple(split_items(files[HEADERS], HEADERS, LARGEST_HEADER, _USUAL_HEADER)),
            tuple(split_items(files[BODIES], BODIES, MAX_BODY_BYTES, _USUAL_BODY)),
            tuple(split_items(files[STATE], STATE, MAX_NODE_BYTES, _USUAL_NODE)),
            tuple(_split_by_length(files[CODES])),
        )


def gather(network: Network, first: int | None = None, confirmations: int = 0) -> Evidence:
    """Ask a node for the evidence of a network, from block `first` on; LedgerUnreachable if it lacks a part.

    What is read while the last block is replaced is read again, a few times (CO-C307).

    By default the evidence begins at block 0, or, on a chain of more than 200,000 blocks, at the last epoch of Clique
    before the Catalog's deployment: then its readers must know that block's hash.
    """
    with Rpc(network.url) as rpc:
        verify(network, rpc, confirmations)
        for _ in range(_ATTEMPTS):
            last = max(rpc.call_quantity("eth_blockNumber") - confirmations, network.block)
            before = _read_hash(rpc, last)
            try:
                evidence = _gather(rpc, network, _find_start(network, last) if first is None else first, last)
            except (NodeRefused, LedgerMismatch) as fault:
                # A development chain proves its newest block alone, and that has just changed. On any other one the
                # block may be replaced while it is read: parts of two branches do not fit.
                moved_on = isinstance(fault, NodeRefused) and is_anvil(rpc)
                if not moved_on and _read_hash(rpc, last) == before:
                    raise
                continue
            if _read_hash(rpc, last) == before:
                return evidence
        raise LedgerUnreachable(
            "CO-C307", f"The chain at {rpc.where} moved on during each of {_ATTEMPTS} readings. Try again."
        )


def _read_hash(rpc: Rpc, number: int) -> object:
    """The hash of a block; None if the node has no such block any more."""
    block = rpc.call("eth_getBlockByNumber", hex(number), False)
    return None if block is None else block["hash"]


def _find_start(network: Network, last: int) -> int:
    if last < MAX_HEADERS:
        return 0
    return max(network.block - 1, 0) // _EPOCH * _EPOCH


def _gather(rpc: Rpc, network: Network, first: int, last: int) -> Evidence:
    nodes, codes = _prove_state(rpc, network, last)
    headers = list(_fetch_headers(rpc, first, last))
    bodies = _fetch_bodies(rpc, network, headers)
    evidence = Evidence(
        network.chain_id, network.catalog, tuple(h.raw for h in headers), tuple(b.raw for b in bodies), nodes, codes
    )
    _check(rpc, headers)
    return evidence


def _fetch_headers(rpc: Rpc, first: int, last: int) -> Iterator[Header]:
    for start in range(first, last + 1, BATCH_SIZE):
        numbers = range(start, min(start + BATCH_SIZE, last + 1))
        for block in rpc.batch([("eth_getBlockByNumber", (hex(n), False)) for n in numbers]):
            if block is None:
                raise LedgerUnreachable(
                    "CO-C302",
                    f"The chain node {rpc.where} has lost a block below {last}. "
                    "Read its log, or ask another site's node.",
                )
            yield Header.decode(encode_header(block))


def _check(rpc: Rpc, headers: Sequence[Header]) -> None:
    """The evidence ends with the block that the node calls the last: its header was put together rightly."""
    sealing = detect_sealing(headers[0])
    block_hash = rpc.call("eth_getBlockByNumber", hex(headers[-1].number), False)["hash"]
    if from_hex(block_hash) != sealing.hash(headers[-1]):
        message = f"Block {headers[-1].number} of the chain at {rpc.where} has a header of a kind not known here"
        raise LedgerMismatch("CO-C312", f"{message}. Compare it with another site's node.")


def _fetch_bodies(rpc: Rpc, network: Network, headers: Sequence[Header]) -> list[Body]:
    """All blocks in which the Catalog, and then the Models that it admitted, may have written."""
    catalog = {network.catalog.lower()}
    of_catalog = [h for h in headers if may_contain(h, compute_bloom(network.catalog))]
    bodies = {body.number: body for body in _fetch(rpc, of_catalog)}
    logs: list[Log] = [log for h in of_catalog for log in bodies[h.number].logs(h, catalog)]
    blooms = [compute_bloom(model) for model in list_new_models(logs, network.catalog)]
    rest = [h for h in headers if h.number not in bodies and any(may_contain(h, bloom) for bloom in blooms)]
    bodies |= {body.number: body for body in _fetch(rpc, rest)}
    return [bodies[number] for number in sorted(bodies)]


def may_contain(header: Header, bloom: int) -> bool:
    """Whether the block may hold a log of the address that has this bloom."""
    return header.bloom & bloom == bloom


def _fetch(rpc: Rpc, headers: Sequence[Header]) -> Iterator[Body]:
    for at in range(0, len(headers), BATCH_SIZE):
        part = headers[at : at + BATCH_SIZE]
        blocks = rpc.batch([("eth_getBlockByNumber", (hex(h.number), True)) for h in part])
        for block in blocks:
            yield build_body(block, _fetch_receipts(rpc, [tx["hash"] for tx in block["transactions"]]))


def _fetch_receipts(rpc: Rpc, hashes: Sequence[str]) -> list[dict[str, Any]]:
    receipts: list[Any] = []
    for at in range(0, len(hashes), BATCH_SIZE):
        receipts += rpc.batch([("eth_getTransactionReceipt", (tx,)) for tx in hashes[at : at + BATCH_SIZE]])
    if None in receipts:
        message = f"The chain node {rpc.where} no longer has the receipt of {hashes[receipts.index(None)]}"
        raise LedgerUnreachable("CO-C302", f"{message}. Geth keeps all of them with --history.transactions 0.")
    return receipts


# State


def _prove_state(rpc: Rpc, network: Network, last: int) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Trie nodes that prove all that `ContractStorage` reads at a block, and the contracts' code."""
    prover = _Prover(rpc, hex(last))
    catalog = network.catalog.lower()
    prover.ask(catalog, [0])
    counts = ContractStorage(prover.state(), catalog, network.chain_id)
    prover.ask(catalog, list_catalog_slots(counts.site_count, counts.study_count))
    state, studies = prover.state(), range(1, counts.study_count + 1)
    heads = {study: state.slot(catalog, compute_order_slot(study)) for study in studies}
    prover.ask(catalog, [p for study, head in heads.items() if head & 1 for p in list_order_slots(study, head // 2)])
    models = list(ContractStorage(state, catalog, network.chain_id).models().values())
    for model in models:
        prover.ask(model, [NEXT, HEAD])
    codes = rpc.batch([("eth_getCode", (address, hex(last))) for address in (catalog, *models)])
    return tuple(prover.nodes), tuple(dict.fromkeys(map(from_hex, codes)))


class _Prover:
    """Collects trie nodes, each once, in the order in which they came."""

    def __init__(self, rpc: Rpc, block: str) -> None:
        self._rpc, self._block = rpc, block
        self.nodes: dict[bytes, None] = {}

    def ask(self, address: str, places: Iterable[int]) -> None:
        """Ask for the proof of an account and of slots of its storage."""
        words = [f"0x{place:064x}" for place in places]
        requests: list[Request] = [
            ("eth_getProof", (address, words[at : at + BATCH_SIZE], self._block))
            for at in range(0, max(len(words), 1), BATCH_SIZE)
        ]
        for proof in self._rpc.batch(requests):
            paths = [proof["accountProof"], *(slot["proof"] for slot in proof["storageProof"])]
            self.nodes |= {from_hex(node): None for path in paths for node in path}

    def state(self) -> ProvedState:
        """What the nodes prove so far."""
        root = self._rpc.call("eth_getBlockByNumber", self._block, False)["stateRoot"]
        return ProvedState(from_hex(root), self.nodes)


def _prefix_length(code: bytes) -> bytes:
    return len(code).to_bytes(4) + code


def _split_by_length(raw: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4])
        if size > MAX_CODE_BYTES or at + 4 + size > len(raw):
            raise LedgerMismatch("CO-C350", f"{CODES} cannot be read: it is cut short at byte {at}. Ask for it again.")
        yield raw[at + 4 : at + 4 + size]
        at += 4 + size
