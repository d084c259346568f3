"""The compiled contracts, as `contracts/scripts/compile.py` committed them beside this file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from eth_typing import ABI, ABIError
from eth_utils.abi import abi_to_signature, filter_abi_by_type, get_abi_input_types
from eth_utils.crypto import keccak

CONTRACT_NAMES: tuple[Literal["Catalog", "Model"], ...] = ("Catalog", "Model")


@dataclass(frozen=True)
class Artifact:
    """A compiled contract.

    `deployed` is the code on chain, except `immutables`: (start, length) of places that the constructor fills.
    `compiler` is solc's version with its commit; `sources` has the SHA-256 of each source by path.
    """

    name: str
    abi: ABI
    bytecode: bytes
    deployed: bytes
    immutables: tuple[tuple[int, int], ...]
    compiler: str
    sources: dict[str, str]

    def matches(self, code: bytes) -> bool:
        """Whether `code`, read from the chain, is this contract's."""
        return self._mask(code) == self._mask(self.deployed)

    def _mask(self, code: bytes) -> bytes:
        masked = bytearray(code)
        for start, length in self.immutables:
            masked[start : start + length] = bytes(length)
        return bytes(masked)


@cache
def load_artifact(name: Literal["Catalog", "Model"]) -> Artifact:
    """Read an artifact."""
    raw = json.loads(files(__package__).joinpath(f"{name}.json").read_text(encoding="utf-8"))
    return Artifact(
        name=name,
        abi=raw["abi"],
        bytecode=bytes.fromhex(raw["bytecode"].removeprefix("0x")),
        deployed=bytes.fromhex(raw["deployedBytecode"].removeprefix("0x")),
        immutables=tuple((start, length) for start, length in raw["immutables"]),
        compiler=raw["compiler"],
        sources=raw["sources"],
    )


@cache
def load_errors() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name and argument types of each custom error by its selector, as in "0x1f2a2005"."""
    entries = [e for name in CONTRACT_NAMES for e in filter_abi_by_type("error", load_artifact(name).abi)]
    return {_compute_selector(e): (e["name"], tuple(get_abi_input_types(e))) for e in entries}


def _compute_selector(error: ABIError) -> str:
    return "0x" + keccak(text=abi_to_signature(error))[:4].hex()
