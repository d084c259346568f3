"""Genesis files of proof-of-authority chains: the one source for the devnet launcher, `docker/` and new consortia.

Both stop at London: Clique refuses Shanghai (go-ethereum 1.13, consensus/clique), and the contracts are compiled so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import rlp
from eth_utils.address import to_checksum_address

from coterie_chain.errors import LedgerMismatch

CHAIN_ID = 20240
GAS_LIMIT = 30_000_000
_EPOCH = 30_000
# Enough for ever at one wei per gas: operators pay 2e5 wei a record.
FUNDS = 10**27
FORKS = (
    "homesteadBlock",
    "eip150Block",
    "eip155Block",
    "eip158Block",
    "byzantiumBlock",
    "constantinopleBlock",
    "petersburgBlock",
    "istanbulBlock",
    "berlinBlock",
    "londonBlock",
)
_VANITY, SIGNATURE = 32, 65


def build_clique_genesis(
    sealers: Iterable[str], funded: Iterable[str], *, period: int = 5, chain_id: int = CHAIN_ID
) -> dict[str, Any]:
    """Genesis of a Geth Clique chain: `sealers` make its blocks every `period` seconds, `funded` accounts pay gas."""
    signers = sorted(_strip_prefix(a) for a in sealers)
    if not signers or period < 1:
        # Period 0 stalls as soon as there is more than one sealer.
        raise LedgerMismatch(
            "CO-C337",
            "A Clique chain needs a sealer and a period of 1 s or more; there are "
            f"{len(signers)} sealers and {period} s. Correct both.",
        )
    return {
        "config": {"chainId": chain_id, **dict.fromkeys(FORKS, 0), "clique": {"period": period, "epoch": _EPOCH}},
        "difficulty": "0x1",
        "gasLimit": hex(GAS_LIMIT),
        "baseFeePerGas": "0x0",
        "extraData": "0x" + "00" * _VANITY + "".join(signers) + "00" * SIGNATURE,
        "alloc": _build_alloc(funded),
    }


def build_qbft_genesis(
    validators: Iterable[str],
    funded: Iterable[str],
    *,
    period: int = 5,
    empty_period: int | None = None,
    chain_id: int = CHAIN_ID,
) -> dict[str, Any]:
    """Genesis of a Besu QBFT chain: final at once, at least 4 validators for one to fail.

    With `empty_period` a block without transactions is made after so many seconds only (Besu from 26.5.0 on).
    """
    signers = sorted(_strip_prefix(a) for a in validators)
    if not signers or period < 1:
        raise LedgerMismatch(
            "CO-C337",
            "A QBFT chain needs validators and a period of 1 s or more; there are "
            f"{len(signers)} validators and {period} s. Correct both.",
        )
    paced = {"blockperiodseconds": period, "epochlength": _EPOCH, "requesttimeoutseconds": 2 * period}
    if empty_period is not None:
        paced["emptyblockperiodseconds"] = empty_period
    return {
        "config": {"chainId": chain_id, "berlinBlock": 0, "londonBlock": 0, "zeroBaseFee": True, "qbft": paced},
        "nonce": "0x0",
        "timestamp": "0x0",
        "gasLimit": hex(GAS_LIMIT),
        "difficulty": "0x1",
        # The hash that marks an Istanbul block (EIP-650).
        "mixHash": "0x63746963616c2062797a616e74696e65206661756c7420746f6c6572616e6365",
        "coinbase": "0x" + "00" * 20,
        "extraData": "0x" + _encode_qbft_extra([bytes.fromhex(s) for s in signers]).hex(),
        "alloc": _build_alloc(funded),
    }


def read_sealers(genesis: Mapping[str, Any]) -> tuple[str, ...]:
    """The sealers that a Clique genesis lists, in lower case; none if it is no such genesis."""
    extra = str(genesis.get("extraData", ""))[2:]
    sealers_hex = extra[2 * _VANITY : -2 * SIGNATURE] if "clique" in genesis.get("config", {}) else ""
    return tuple("0x" + sealers_hex[at : at + 40].lower() for at in range(0, len(sealers_hex), 40))


def read_period(genesis: Mapping[str, Any]) -> float:
    """Seconds between two blocks of a chain that makes them at rest too, by its genesis; 0 for any other."""
    config = genesis.get("config", {})
    if "clique" in config:
        return 0.0 if lets_sealers_sleep(genesis) else float(config["clique"]["period"])
    paced = config.get("qbft", {})
    return float(paced.get("emptyblockperiodseconds", paced.get("blockperiodseconds", 0)))


def lets_sealers_sleep(genesis: Mapping[str, Any]) -> bool:
    """Whether a Clique genesis founds a chain that sleeps: only there do sealers have wei, for their nudges."""
    funded = {str(address).lower().removeprefix("0x") for address in genesis.get("alloc", {})}
    sealers = read_sealers(genesis)
    return bool(sealers) and all(sealer[2:] in funded for sealer in sealers)


def count_tolerated_failures(sealers: int) -> int:
    """How many sealers of a Clique chain may be down: a majority must be up."""
    return sealers - (sealers // 2 + 1)


def _build_alloc(accounts: Iterable[str]) -> dict[str, dict[str, str]]:
    return {_strip_prefix(a): {"balance": hex(FUNDS)} for a in sorted(accounts, key=str.lower)}


def _strip_prefix(address: str) -> str:
    return to_checksum_address(address)[2:].lower()


def _encode_qbft_extra(validators: list[bytes]) -> bytes:
    """RLP of [vanity, validators, no vote, round 0, no seals] (Besu, QbftExtraDataCodec)."""
    return bytes(rlp.encode([bytes(_VANITY), validators, [], 0, []]))
