"""Calls of the two contracts as bytes: arguments in, answers and refusals out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any, Literal

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError
from eth_abi.registry import registry
from eth_utils.abi import (
    event_abi_to_log_topic,
    filter_abi_by_type,
    function_abi_to_4byte_selector,
    get_abi_input_types,
    get_abi_output_types,
)

from coterie_chain.errors import LedgerMismatch, PostRejected
from coterie_chain.ethereum.abi import load_artifact, load_errors

# Letters of an answer that an error message shows.
_MAX_SHOWN = 200
# One struct of words: what `status` answers.
_STRUCT_OF_WORDS = re.compile(r"\((?:uint\d+|bool|bytes32)(?:,(?:uint\d+|bool|bytes32))*\)")


class Codec:
    """Calldata and answers of one contract."""

    def __init__(self, name: Literal["Catalog", "Model"]) -> None:
        artifact = load_artifact(name)
        functions = filter_abi_by_type("function", artifact.abi)
        self._inputs = {f["name"]: (function_abi_to_4byte_selector(f), get_abi_input_types(f)) for f in functions}
        self._outputs = {f["name"]: get_abi_output_types(f) for f in functions}
        self._words = {name: words for name, types in self._outputs.items() if (words := _list_words(types))}
        self.topics = {to_hex(event_abi_to_log_topic(e)): e["name"] for e in filter_abi_by_type("event", artifact.abi)}

    def encode(self, name: str, *args: object) -> str:
        """Calldata of a call; ValueError for a value that the contract's type cannot hold."""
        selector, types = self._inputs[name]
        try:
            return to_hex(selector + encode(types, args))
        except EncodingError as e:
            raise ValueError(f"The ledger cannot hold an argument of `{name}`: {e}") from None

    def decode(self, name: str, answer: str, source: str = "the node") -> Any:
        """The answer of `source` to a call; a tuple if the function returns more than one value."""
        words = self._words.get(name)
        try:
            if words is not None:
                return _cut_words(words, from_hex(answer))
            values = decode(self._outputs[name], from_hex(answer))
        except (DecodingError, ValueError, OverflowError):
            message = f"The answer of {source} to `{name}` is not the contract's: {shorten(answer)}"
            raise LedgerMismatch(
                "CO-C312", f"{message}. Check the contracts' version, and do not rely on it."
            ) from None
        return values if len(values) > 1 else values[0]

    def prepare(self, names: Iterable[str]) -> None:
        """Read the types of these calls and of their answers now, and not at the first of each."""
        for name in names:
            registry.get_tuple_encoder(*self._inputs[name][1])
            registry.get_tuple_decoder(*self._outputs[name])


def _list_words(types: list[str]) -> tuple[str, ...] | None:
    """The members of one struct that holds nothing but numbers, truth values and hashes; None for any other answer."""
    if len(types) != 1 or not _STRUCT_OF_WORDS.fullmatch(types[0]):
        return None
    return tuple(types[0][1:-1].split(","))


def _cut_words(words: tuple[str, ...], data: bytes) -> tuple[object, ...]:
    """Such a struct, as the ABI's decoder gives it: a node's answer is read so often that it shows in a round.

    ValueError for too few bytes, or a word that its type cannot hold.
    """
    if len(data) < 32 * len(words):
        raise ValueError("too few bytes")
    return tuple(_read_word(kind, data[32 * place : 32 * place + 32]) for place, kind in enumerate(words))


def _read_word(kind: str, word: bytes) -> object:
    if kind == "bytes32":
        return word
    number, bits = int.from_bytes(word), 1 if kind == "bool" else int(kind.removeprefix("uint"))
    if number >> bits:
        raise ValueError(f"{number} is no {kind}")
    return bool(number) if kind == "bool" else number


def prepare_calls() -> None:
    """Read the types of the calls of a study now: a process that forks sites does it once for all of them."""
    load_codec("Catalog").prepare(("seat", "status", "studyCount", "terms", "propose", "join"))
    load_codec("Model").prepare(("record",))


@cache
def load_codec(name: Literal["Catalog", "Model"]) -> Codec:
    """The codec of a contract."""
    return Codec(name)


def decode_refusal(output: str) -> PostRejected:
    """The custom error in a reverted call's output; bytes among its values as 0x-hex."""
    name, types = load_errors().get(output[:10], ("", ()))
    with suppress(DecodingError, ValueError, OverflowError):
        values = decode(types, from_hex(output)[4:]) if name else ()
        if name:
            return PostRejected(name, *(to_hex(v) if isinstance(v, bytes) else v for v in values))
    return PostRejected("Reverted", shorten(output)) if output != "0x" else PostRejected("Reverted")


def shorten(text: str) -> str:
    """As much of a text as a person reads in an error message."""
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}... ({len(text)} letters)"


def to_hex(raw: bytes) -> str:
    """Bytes as 0x-hex."""
    return "0x" + raw.hex()


def from_hex(text: str) -> bytes:
    """Bytes of 0x-hex."""
    return bytes.fromhex(text.removeprefix("0x"))


def encode_site_name(name: str) -> bytes:
    """A site's name as the Catalog holds it: UTF-8, 1 to 32 bytes."""
    raw = name.encode()
    if not 0 < len(raw) <= 32:
        raise ValueError(f"A site's name must be 1 to 32 bytes of UTF-8, and {name!r} has {len(raw)}.")
    return raw.ljust(32, b"\0")
