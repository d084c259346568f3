"""Questions to a chain node over its administrator's socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from coterie_chain.errors import LedgerUnreachable

ANSWERED_WITHIN = 5.0
_MAX_ANSWER_BYTES = 1 << 20

# A method's name and its parameters.
Question = tuple[str, Sequence[object]]


def ask(path: Path, method: str, *params: object) -> Any:
    """The answer of the node that listens at a socket; LedgerUnreachable if none does, or if it refuses."""
    return ask_all(path, [(method, params)])[0]


def ask_all(path: Path, questions: Sequence[Question]) -> list[Any]:
    """The answers to several questions, asked at once, in their order; LedgerUnreachable if the node refuses any."""
    if not questions:
        return []
    requests = [{"jsonrpc": "2.0", "id": i, "method": name, "params": list(p)} for i, (name, p) in enumerate(questions)]
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(ANSWERED_WITHIN)
            line.connect(str(path))
            line.sendall(json.dumps(requests).encode())
            replies = {reply["id"]: reply for reply in _read(line)}
        return [_read_result(path, name, replies[i]) for i, (name, _) in enumerate(questions)]
    except OSError as e:
        raise LedgerUnreachable(
            "CO-C301", f"The chain node at {path} did not answer: {e}. Check that it runs."
        ) from None
    except (KeyError, TypeError):
        raise LedgerUnreachable(
            "CO-C301", f"The chain node at {path} did not answer all that it was asked. Check its version."
        ) from None


def _read_result(path: Path, method: str, reply: dict[str, Any]) -> Any:
    if "result" not in reply:
        raise LedgerUnreachable(
            "CO-C302", f"The chain node at {path} refused {method}: {reply.get('error')}. Read the node's log."
        )
    return reply["result"]


def _read(line: socket.socket) -> list[dict[str, Any]]:
    """One JSON array: the node keeps the line open, so the text's own end is the end."""
    text = b""
    while len(text) < _MAX_ANSWER_BYTES:
        part = line.recv(1 << 16)
        text += part
        try:
            document = from_json(text)
        except ValueError:
            if part:
                continue
            break
        if isinstance(document, list):
            return document
        break
    raise OSError("no JSON-RPC")
