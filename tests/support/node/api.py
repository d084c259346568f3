"""The API of one site of a network in memory, and clients that call it in this process."""

from __future__ import annotations

import asyncio
import json as plain_json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlencode

from support.node.houses import NETWORK, NodeNetwork

from coterie_chain.ethereum.network import Network
from coterie_chain.http_client import Answer
from coterie_chain.ledger.protocol import Ledger
from coterie_chain.store.protocol import BlobStore
from coterie_node.persons.roles import Role
from coterie_node.site.folder import SiteFolder
from coterie_node.web.api.app import build_api
from coterie_node.web.api.services import ApiServices, open_services


@dataclass(frozen=True)
class ApiAnswer:
    """A whole answer of an application."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return plain_json.loads(self.content)


class ApiClient:
    """Calls an ASGI application in this process, as a server would, one request at a time."""

    def __init__(self, app: Any, token: str = "") -> None:
        self._app, self._token = app, token

    def get(self, url: str, **options: Any) -> ApiAnswer:
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> ApiAnswer:
        return self.request("POST", url, **options)

    def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ApiAnswer:
        """A well-formed request."""
        own = {"Host": "localhost", **({"Authorization": f"Bearer {self._token}"} if self._token else {})}
        body = b"" if json is None else plain_json.dumps(json).encode()
        own |= {} if json is None else {"Content-Type": "application/json", "Content-Length": str(len(body))}
        pairs = [(k.lower().encode(), v.encode()) for k, v in (own | dict(headers or {})).items()]
        return self.send(method, f"{url}?{urlencode(params)}" if params else url, pairs, [body])

    def send(self, method: str, url: str, headers: Sequence[tuple[bytes, bytes]], pieces: Sequence[bytes]) -> ApiAnswer:
        """Any request, its body in pieces."""
        path, _, query = url.partition("?")
        scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method}
        scope |= {"scheme": "http", "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode()}
        scope |= {"root_path": "", "headers": list(headers), "client": ("127.0.0.1", 1), "server": ("localhost", 80)}
        return asyncio.run(self._call(scope, pieces))

    async def _call(self, scope: dict[str, Any], pieces: Sequence[bytes]) -> ApiAnswer:
        waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces[:-1]]
        waiting.append({"type": "http.request", "body": pieces[-1], "more_body": False})
        status, headers, content = 0, {}, b""

        async def receive() -> dict[str, Any]:
            if waiting:
                return waiting.pop(0)
            await asyncio.sleep(3600)  # a client that stays
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            nonlocal status, headers, content
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            content += message.get("body", b"")

        try:
            await self._app(scope, receive, send)
        except Exception:
            if status == 0:
                raise
        return ApiAnswer(status, headers, content)


@dataclass
class InProcess:
    """The way to an application in this process; counts what is sent."""

    app: Any
    sent: int = 0
    answer: Answer | None = None

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str], limit: int) -> Answer:
        self.sent += 1
        if self.answer is not None:
            return self.answer
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        answer = ApiClient(self.app).send(method, path, pairs, [body or b""])
        return Answer(answer.status_code, answer.content)


@dataclass(frozen=True)
class MemoryAccess:
    """The way of a site to a ledger and a store in memory."""

    network: NodeNetwork

    def read_network(self) -> Network:
        return NETWORK

    def open_store(self) -> BlobStore:
        return self.network.blobs

    def open_ledger(self) -> AbstractContextManager[Ledger]:
        return nullcontext(self.network.chain.ledger(None))

    def open_archive(self) -> BlobStore:
        return self.network.blobs


def open_folder(network: NodeNetwork, name: str = "north") -> SiteFolder:
    """The folder of a site, whose ledger and store are in memory."""
    return replace(network.homes[name], access=MemoryAccess(network))


@dataclass
class ApiHouse:
    """The API of one site with its clock, and tokens for it."""

    network: NodeNetwork
    services: ApiServices
    app: Any

    def token(self, *scopes: Role, days: int = 7) -> str:
        """A new token; with all scopes unless some are named."""
        _, text = self.services.tokens.create("A program", scopes or tuple(Role), days, self.services.clock())
        return text

    def client(self, *scopes: Role) -> ApiClient:
        """A client with a token of its own."""
        return ApiClient(self.app, self.token(*scopes))


@contextmanager
def open_house(network: NodeNetwork, **changes: Any) -> Iterator[ApiHouse]:
    """The API of the site north."""
    services = replace(open_services(open_folder(network)), **changes)
    yield ApiHouse(network, services, build_api(services))
    services.keys.close()
