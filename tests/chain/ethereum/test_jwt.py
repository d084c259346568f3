"""Tokens for a node's authenticated port."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from coterie_chain.errors import KeyFault, LedgerUnreachable
from coterie_chain.ethereum.jwt import create_bearer_token, split_secret
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.keys.private_files import write_private


def test_a_token_is_signed_and_dated_now() -> None:
    secret = bytes(range(32))
    head, body, signature = (base64.urlsafe_b64decode(part + "==") for part in create_bearer_token(secret).split("."))
    assert json.loads(head) == {"alg": "HS256", "typ": "JWT"}
    assert abs(json.loads(body)["iat"] - time.time()) < 60
    signed = create_bearer_token(secret).rpartition(".")[0].encode()
    assert len(signature) == 32
    assert create_bearer_token(secret).endswith(
        base64.urlsafe_b64encode(hmac.digest(secret, signed, "sha256")).rstrip(b"=").decode()
    )


def test_the_secret_s_file_leaves_the_address(tmp_path: Path) -> None:
    file = tmp_path / "jwt.hex"
    write_private(file, "0x" + "ab" * 32 + "\n")
    assert split_secret(f"a=1&jwt_file={file}") == ("a=1", b"\xab" * 32)
    assert split_secret("a=1") == ("a=1", None)


def test_a_secret_that_others_can_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "jwt.hex"
    write_private(file, "not hex")
    with pytest.raises(KeyFault, match="32 bytes in hex"):
        split_secret(f"jwt_file={file}")
    file.chmod(0o644)
    with pytest.raises(KeyFault, match="Others can reach"):
        split_secret(f"jwt_file={file}")


class Locked(BaseHTTPRequestHandler):
    """A node that lets nobody in."""

    def do_POST(self) -> None:
        self.send_response(401)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test's output stays clean."""


def test_a_node_that_refuses_a_token_is_distinguished_from_a_port_without_a_node(tmp_path: Path) -> None:
    write_private(tmp_path / "jwt.hex", "ab" * 32)
    with HTTPServer(("127.0.0.1", 0), Locked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        for query, cure in (("", r"jwt_file=PATH"), (f"?jwt_file={tmp_path}/jwt.hex", "token file of this very")):
            with Rpc(url + query) as rpc, pytest.raises(LedgerUnreachable, match=cure) as caught:
                rpc.call_quantity("eth_blockNumber")
            assert caught.value.code == "CO-C303"
            assert "401" in str(caught.value)
            assert "ab" * 32 not in str(caught.value)
        server.shutdown()
