"""Which form and size a chain node's answers must have, by method: checked once, where the bytes come in.

A node is a site's own, and may be damaged, of another kind, or somebody else's: whatever it sends has this form, or
the reader never sees it. What the values say is checked elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from coterie_chain.ethereum.headers import HEADER_FIELDS, NUMBER_FIELDS

Check = Callable[[Any], bool]
# No chain has as many blocks: one a second for 136 years.
MAX_BLOCK_NUMBER = 1 << 32
# No block is as late: in the year 4147.
MAX_TIME = 1 << 36
# Letters of the name and version that a program gives itself.
_MAX_NAME = 500

# Not pairs of digits: a group that repeats takes 60 bytes of memory for each time.
_QUANTITY, _DATA = re.compile("0x[0-9a-fA-F]{1,64}"), re.compile("0x[0-9a-fA-F]*")


def is_quantity(value: Any) -> bool:
    """A number of at most 32 bytes in hexadecimal digits."""
    return isinstance(value, str) and _QUANTITY.fullmatch(value) is not None


def is_data(value: Any) -> bool:
    """Bytes in hexadecimal digits."""
    return isinstance(value, str) and len(value) % 2 == 0 and _DATA.fullmatch(value) is not None


def is_time(value: Any) -> bool:
    """Seconds since 1970 that a block can have."""
    return is_quantity(value) and int(value, 16) < MAX_TIME


def is_name(value: Any) -> bool:
    """The name and version of a program, in one printable line."""
    return isinstance(value, str) and len(value) <= _MAX_NAME and value.isprintable()


def is_block_number(value: Any) -> bool:
    """The number of a block that a chain can have."""
    return is_quantity(value) and int(value, 16) < MAX_BLOCK_NUMBER


def is_word(value: Any) -> bool:
    """A hash."""
    return is_data(value) and len(value) == 66


def is_address(value: Any) -> bool:
    """An address."""
    return is_data(value) and len(value) == 42


def _maybe(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _each(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _has(**fields: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(check(value.get(name)) for name, check in fields.items())


_LOG_CONTENT: dict[str, Check] = {"address": is_address, "topics": _each(is_word), "data": is_data}
_is_log = _has(
    **_LOG_CONTENT,
    blockNumber=_maybe(is_block_number),
    blockHash=_maybe(is_word),
    blockTimestamp=_maybe(is_time),
    transactionHash=_maybe(is_word),
    logIndex=_maybe(is_quantity),
)
_is_access = _each(_has(address=is_address, storageKeys=_each(is_word)))
_is_transaction = _has(
    hash=is_word,
    type=_maybe(is_quantity),
    to=_maybe(is_address),
    input=is_data,
    accessList=_maybe(_is_access),
    **dict.fromkeys(("nonce", "gas", "value", "v", "r", "s"), is_quantity),
    **dict.fromkeys(("gasPrice", "chainId", "maxFeePerGas", "maxPriorityFeePerGas"), _maybe(is_quantity)),
)
_HEADER: dict[str, Check] = {name: _maybe(is_quantity if name in NUMBER_FIELDS else is_data) for name in HEADER_FIELDS}
_is_block = _has(
    **{
        **_HEADER,
        "number": _maybe(is_block_number),
        "timestamp": is_time,
        "hash": _maybe(is_word),
        "parentHash": is_word,
        "transactions": _maybe(_each(lambda value: is_word(value) or _is_transaction(value))),
    }
)
_is_receipt = _has(
    blockNumber=_maybe(is_block_number),
    status=_maybe(is_quantity),
    root=_maybe(is_data),
    type=_maybe(is_quantity),
    gasUsed=is_quantity,
    contractAddress=_maybe(is_address),
    transactionHash=_maybe(is_word),
    cumulativeGasUsed=is_quantity,
    logsBloom=is_data,
    logs=_each(_has(**_LOG_CONTENT)),
)
_is_proof = _has(accountProof=_each(is_data), storageProof=_each(_has(proof=_each(is_data))))

ANSWER_FORMS: dict[str, Check] = {
    **dict.fromkeys(("eth_chainId", "eth_getBalance", "net_peerCount"), is_quantity),
    # No account has sent as many transactions either. One that is signed with such a number is good for nothing.
    **dict.fromkeys(("eth_blockNumber", "eth_getTransactionCount"), is_block_number),
    **dict.fromkeys(("eth_call", "eth_getCode"), is_data),
    "eth_sendRawTransaction": is_word,
    "eth_getLogs": _each(_is_log),
    **dict.fromkeys(("eth_getBlockByNumber", "eth_getBlockByHash"), _maybe(_is_block)),
    "eth_getTransactionReceipt": _maybe(_is_receipt),
    "eth_getProof": _is_proof,
    "web3_clientVersion": is_name,
}

# The longest answer in bytes. A block of 30 million gas has 15 MB of calldata in digits, its logs 8 MB.
_LARGE, _MEDIUM, _SMALL = 1 << 25, 1 << 22, 1 << 16
# Logs are asked for page by page, and a batch by halves: a longer answer is asked for again in smaller parts.
MAX_ANSWER_BYTES = _LARGE
_LIMITS = {
    **dict.fromkeys(("eth_getLogs", "eth_getTransactionReceipt", "eth_getProof"), _LARGE),
    **dict.fromkeys(("eth_getBlockByNumber", "eth_getBlockByHash", "eth_getCode", "eth_call"), _MEDIUM),
    **dict.fromkeys(("eth_chainId", "eth_blockNumber", "eth_getBalance", "eth_getTransactionCount"), _SMALL),
    **dict.fromkeys(("net_peerCount", "web3_clientVersion", "eth_sendRawTransaction"), _SMALL),
}
# More lists and objects, or more members of them, has no answer, not even a long one: each takes a hundred bytes here.
_MAX_CONTAINERS, _MAX_MEMBERS = 1 << 18, 1 << 21


def limit_answer(method: str, params: Sequence[object] = ()) -> int:
    """How many bytes an answer may have: a block with all of its transactions has more than one without."""
    whole = method.startswith("eth_getBlockBy") and len(params) > 1 and params[1] is True
    return 2 * _LARGE if whole else _LIMITS.get(method, _MEDIUM)


def is_readable(body: bytes) -> bool:
    """Whether a text of JSON has no more parts than an answer can have: 32 MB of empty lists take a gigabyte."""
    if len(body) <= _SMALL:
        return True
    return body.count(b"[") + body.count(b"{") <= _MAX_CONTAINERS and body.count(b",") <= _MAX_MEMBERS


def has_form(method: str, result: Any) -> bool:
    """Whether a result is one that this method can have; any is for a method that is not listed."""
    return ANSWER_FORMS.get(method, lambda _: True)(result)
