"""Tokens for the authenticated port of an Ethereum node: a secret in a private file, a new token for every request.

The node (Geth's and Besu's engine port) takes JSON Web Tokens by HMAC with SHA-256 that are at most a minute old.
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from coterie_chain.errors import KeyFault
from coterie_chain.keys.private_files import read_private

_NAME = "jwt_file"
SECRET_BYTES = 32


def create_bearer_token(secret: bytes) -> str:
    """A token made now."""
    head, body = _encode_json({"alg": "HS256", "typ": "JWT"}), _encode_json({"iat": int(time.time())})
    signed = head + b"." + body
    return (signed + b"." + _encode_base64(hmac.digest(secret, signed, "sha256"))).decode()


def split_secret(query: str) -> tuple[str, bytes | None]:
    """An address's query without its `jwt_file`, and that file's secret."""
    pairs = parse_qsl(query, keep_blank_values=True)
    named = next((value for name, value in pairs if name == _NAME), None)
    if named is None:
        return query, None
    return urlencode([pair for pair in pairs if pair[0] != _NAME]), read_secret(Path(named))


def read_secret(path: Path) -> bytes:
    """The secret in a file: 32 bytes in hex, readable by its owner only."""
    try:
        secret = bytes.fromhex(read_private(path, "the token secret").strip().removeprefix("0x"))
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise KeyFault(
            "CO-C104",
            f"{path} is not a token secret: it must hold {SECRET_BYTES} bytes in hex. Copy the chain node's file.",
        )
    return secret


def _encode_json(value: dict[str, object]) -> bytes:
    return _encode_base64(json.dumps(value, separators=(",", ":")).encode())


def _encode_base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
