"""A site's move on the ledger as a message: canonical JSON of the move's name and arguments."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from pydantic_core import from_json

from coterie_chain.ledger.protocol import Post, Silence, SiteEntry, Terms

# Every move of the Ledger protocol; nothing else of a message is ever called.
MOVES = frozenset(
    {"propose", "join", "decline", "record", "skip", "exclude", "report_unavailable", "dispute", "pause", "resume"}
    | {"abort", "supersede", "attest", "withdraw", "admit", "revoke", "recover", "offer", "accept", "vote_succession"}
)
_TYPES = {kind.__name__: kind for kind in (Post, Terms, SiteEntry)}
_DEEPEST = 4


@dataclass(frozen=True)
class Move:
    """One call: its own token, the address that claims to make it, when (seconds since 1970), name and arguments."""

    token: str
    by: str
    time: int
    name: str
    arguments: tuple[Any, ...]

    def encode(self) -> bytes:
        """The message."""
        plain = [self.token, self.by, self.time, self.name, _to_plain(self.arguments)]
        return json.dumps(plain, separators=(",", ":")).encode()


def decode_move(message: bytes) -> Move | None:
    """The move of a message; None for another kind of message."""
    try:
        token, by, time, name, arguments = from_json(message)
        move = Move(token, by, time, name, _from_plain(arguments, 0))
    except (ValueError, TypeError, KeyError):
        return None
    words = isinstance(token, str) and isinstance(by, str) and isinstance(arguments, list)
    return move if words and type(time) is int and name in MOVES else None


def _to_plain(value: object) -> object:
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, tuple | list):
        return [_to_plain(item) for item in value]
    if isinstance(value, Post | Terms | SiteEntry):
        return {type(value).__name__: [_to_plain(getattr(value, field.name)) for field in fields(value)]}
    return value


def _from_plain(value: Any, depth: int) -> Any:
    """Values as they were; ValueError or TypeError for what nobody encodes."""
    if depth > _DEEPEST:
        raise ValueError("too deep")
    if isinstance(value, list):
        return tuple(_from_plain(item, depth + 1) for item in value)
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "bytes":
        return bytes.fromhex(content)
    parts = _TYPES[kind](*_from_plain(content, depth + 1))
    return Terms(**{**vars(parts), "silence": Silence(parts.silence)}) if isinstance(parts, Terms) else parts
