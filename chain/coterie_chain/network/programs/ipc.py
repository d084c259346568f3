"""One question to a chain node over its administrator's socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from coterie_chain.errors import LedgerUnreachable

ANSWERED_WITHIN = 5.0
_MAX_ANSWER_BYTES = 1 << 20


def ask(path: Path, method: str, *params: object) -> Any:
    """The answer of the node that listens at a socket; LedgerUnreachable if none does, or if it refuses."""
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(ANSWERED_WITHIN)
            line.connect(str(path))
            line.sendall(request)
            answer = _read(line)
    except OSError as e:
        raise LedgerUnreachable(
            "CO-C301", f"The chain node at {path} did not answer: {e}. Check that it runs."
        ) from None
    if "result" not in answer:
        raise LedgerUnreachable(
            "CO-C302", f"The chain node at {path} refused {method}: {answer.get('error')}. Read the node's log."
        )
    return answer["result"]


def _read(line: socket.socket) -> dict[str, Any]:
    """One JSON object: the node keeps the line open, so the text's own end is the end."""
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
        if isinstance(document, dict):
            return document
        break
    raise OSError("no JSON-RPC")
