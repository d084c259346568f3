"""An identity provider in a few lines, which signs whatever ID token a test wants, and a browser that comes back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey
from starlette.testclient import TestClient

CLIENT = "coterie-north"


@cache
def make_key() -> RSAKey:
    """The provider's key, which takes a while to make."""
    return RSAKey.generate_key(2048, {"kid": "k"})


@dataclass
class SmallProvider:
    """Answers each code with an ID token; `claims` are put over those of an honest one."""

    address: str
    key: RSAKey = field(default_factory=make_key)
    claims: dict[str, Any] = field(default_factory=dict)
    algorithm: str = "RS256"
    nonce: str = ""

    def answer(self, path: str) -> dict[str, Any]:
        if path.endswith("/openid-configuration"):
            ends = ("authorization_endpoint", "token_endpoint", "jwks_uri")
            return {"issuer": self.address, **{end: f"{self.address}/{end}" for end in ends}}
        if path == "/jwks_uri":
            return dict(KeySet([self.key]).as_dict(private=False))
        return {"access_token": "a", "token_type": "Bearer", "id_token": self.sign()}

    def sign(self) -> str:
        now = int(time.time())
        honest = {"iss": self.address, "aud": CLIENT, "sub": "1", "iat": now, "exp": now + 60, "nonce": self.nonce}
        claims = {name: value for name, value in (honest | self.claims).items() if value is not None}
        if self.algorithm == "none":
            return f"eyJhbGciOiJub25lIn0.{jwt.encode({'alg': 'RS256'}, claims, self.key).split('.')[1]}."
        header = {"alg": self.algorithm, "kid": "k"}
        if self.algorithm == "HS256":  # with the public key as the secret
            return jwt.encode(header, claims, OctKey.import_key(self.key.as_pem(private=False)), algorithms=["HS256"])
        return jwt.encode(header, claims, self.key)


@contextmanager
def run_small_provider() -> Iterator[SmallProvider]:
    """A provider on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(provider.answer(urlsplit(self.path).path)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider = SmallProvider(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield provider
        finally:
            server.shutdown()


def sign_in_by(client: TestClient, provider: SmallProvider, **claims: Any) -> Any:
    """Sign a browser in with these claims; the answer of the page."""
    asked = parse_qs(urlsplit(client.get("/login/provider").headers["location"]).query)
    provider.claims, provider.nonce = claims, asked["nonce"][0]
    return client.get("/login/provider/back", params={"code": "c", "state": asked["state"][0]})
