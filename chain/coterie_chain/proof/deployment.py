"""The Catalog's deployment, as its deployer signed it: the Catalog's address and its founders follow from nothing else.

The owner of a development chain can place a Catalog at any address and found it with keys of his own. What he cannot
do is sign the deployment from which that address is computed (Ethereum's yellow paper, equation 87: the hash of the
deployer's address and nonce).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from coterie_chain.errors import LedgerMismatch
from coterie_chain.ethereum.abi import load_artifact
from coterie_chain.ethereum.calldata import encode_site_name, from_hex, to_hex
from coterie_chain.ethereum.rlp_bounds import encode_number, encode_rlp
from coterie_chain.ledger.protocol import Event
from coterie_chain.proof.receipts import TransactionCall

COLUMNS = ("bytes32[]", "address[]", "bytes32[]", "bytes32[]")
NOBODY = TransactionCall("", "", b"")


def check_deployment(catalog: str, founders: Sequence[Event], calls: Mapping[str, TransactionCall]) -> None:
    """LedgerMismatch (CO-C358) unless a signed transaction deployed this Catalog with just these founders.

    `founders`: the SiteAdmitted events that no vote brought about. `calls`: the signed transactions by hash.
    """
    transactions = {event.tx for event in founders}
    if len(transactions) != 1:
        raise _explain(f"its founders were admitted in {len(transactions)} transactions, and one deploys it")
    call = calls.get(transactions.pop(), NOBODY)
    if not call.sender or compute_contract_address(call.sender, call.nonce) != catalog.lower():
        signer = f"{call.sender} with nonce {call.nonce}" if call.sender else "nobody"
        raise _explain(f"the transaction that founded it was signed by {signer}, and leads to another address")
    if call.data != encode_deployment(founders):
        raise _explain("its deployer signed for other founders, or for another contract")


def compute_contract_address(sender: str, nonce: int) -> str:
    """Address of the contract that a transaction of this sender with this nonce deploys."""
    return to_hex(keccak(encode_rlp([from_hex(sender), encode_number(nonce)]))[12:])


def encode_deployment(founders: Sequence[Event]) -> bytes:
    """What the deployer of a Catalog with these founders signs: the contract's code and the constructor's arguments."""
    details = [dict(event.details) for event in founders]
    columns = (
        [encode_site_name(str(d["name"])) for d in details],
        [str(d["key"]) for d in details],
        [from_hex(str(d["sealing"])) for d in details],
        [from_hex(str(d["peer"])) for d in details],
    )
    return encode_constructor(columns)


def encode_constructor(columns: Sequence[Sequence[object]]) -> bytes:
    """The Catalog's code with its founders behind it: their names, addresses, sealing keys and peer keys."""
    return load_artifact("Catalog").bytecode + encode(COLUMNS, columns)


def _explain(cause: str) -> LedgerMismatch:
    message = f"The Catalog of the evidence was not founded as the ledger says: {cause}"
    return LedgerMismatch("CO-C358", f"{message}. Do not rely on it; ask a site for its network.json.")
