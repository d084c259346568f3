"""A chain node as web3 reads it: an independent library beside our own client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from urllib.parse import urlsplit, urlunsplit

import requests
from web3 import HTTPProvider, Web3
from web3.middleware import ExtraDataToPOAMiddleware

from coterie_chain.ethereum.jwt import create_bearer_token, split_secret


@contextmanager
def connect_web3(url: str, timeout: float = 10.0) -> Iterator[Web3]:
    """A connection that also reads the blocks of proof-of-authority chains; the address may name a `jwt_file`."""
    parts = urlsplit(url)
    query, secret = split_secret(parts.query)
    with requests.Session() as session:
        if secret is not None:
            session.auth = partial(_authorize, secret)
        bare = urlunsplit(parts._replace(query=query))
        w3 = Web3(HTTPProvider(bare, {"timeout": timeout}, session=session, exception_retry_configuration=None))
        w3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
        yield w3


def _authorize(secret: bytes, request: requests.PreparedRequest) -> requests.PreparedRequest:
    request.headers["Authorization"] = f"Bearer {create_bearer_token(secret)}"
    return request
