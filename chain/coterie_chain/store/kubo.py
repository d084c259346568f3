"""Stores in an IPFS swarm, through the RPC of the site's own Kubo daemon.

Nothing the daemon says is trusted: CIDs are computed here, its answers are compared with them, its blocks are hashed.
Payloads go in and out block by block (`block/put`, `block/get`), because those commands depend on no import setting of
the daemon; every parameter is given on every call for the same reason.

`KuboBlobs` speaks HTTP itself and is the one to use. `HttpClientBlobs` goes through ipfshttpclient 0.7.0, the client of
the D-CLEF paper, which has seen no release since 2021.
"""

from __future__ import annotations

import importlib
import io
import ipaddress
import json
import warnings
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from coterie_chain.errors import BlobMissing, StoreFault
from coterie_chain.http_client import WIRE_FAULTS, Answer, HttpClient, Waits, encode_query
from coterie_chain.store import kubo_rpc as rpc
from coterie_chain.store.cid import CHUNK, MAX_BLOCK, parse_cid, read_blocks, write_blocks
from coterie_chain.store.protocol import MAX_BLOB

_CONNECT_TIMEOUT: Final = 3.0
# Kubo gives up after the time-out that we pass on; we wait a little longer for it to say so.
_GRACE: Final = 5.0
# A collection reads the names of all blocks, and says nothing before its end.
_COLLECT_SECONDS: Final = 3600.0

T = TypeVar("T")


class KuboBlobs:
    """Blocks in a Kubo daemon, `url` such as "http://host:port"; `token` is the bearer token of its RPC.

    `timeout` in seconds is how long the daemon may look for one block in its swarm.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 20.0) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        waits = Waits(_CONNECT_TIMEOUT, timeout + _GRACE, timeout + _GRACE)
        self._headers = rpc.build_headers(token)
        self._client = HttpClient(self.url, waits, self._headers)

    def put(self, data: bytes) -> str:
        """Store bytes, pinned."""
        return _put(data, self._put_block, self.pin)

    def get(self, cid: str, max_bytes: int = MAX_BLOB) -> bytes:
        """Verified bytes behind a CID, from this daemon or from the swarm."""
        return read_blocks(cid, self._read_block, max_bytes)

    def has(self, cid: str) -> bool:
        """Whether this daemon holds the root block, without asking the swarm."""
        name = str(parse_cid(cid))
        params = {"arg": name, "offline": "true", "timeout": rpc.format_duration(self._timeout)}
        return _has(self.url, name, lambda: self._ask("block/stat", params))

    def pin(self, cid: str) -> None:
        """Keep all blocks of a payload."""
        self._ask(
            "pin/add", {"arg": str(parse_cid(cid)), "recursive": "true", "timeout": rpc.format_duration(self._timeout)}
        )

    def unpin(self, cid: str) -> None:
        """Let the daemon's next garbage collection take a payload; no error if it was not pinned."""
        _unpin(lambda: self._ask("pin/rm", {"arg": str(parse_cid(cid)), "recursive": "true"}))

    def collect(self) -> None:
        """Let the daemon delete what is not pinned from its disk, and wait for it."""
        waits = Waits(_CONNECT_TIMEOUT, _COLLECT_SECONDS, _COLLECT_SECONDS)
        self._ask_once("repo/gc", {"silent": "true"}, waits)

    def version(self) -> str:
        """The version that the daemon reports."""
        return rpc.read_field(self._ask("version", {}), "Version") or "unknown"

    def list_addresses(self) -> tuple[str, ...]:
        """The libp2p addresses at which the daemon says it can be reached."""
        return rpc.read_texts(self._ask("id", {}), "Addresses")

    def read_peer_id(self) -> str:
        """The daemon's own id among peers; empty if it names none."""
        return rpc.read_field(self._ask("id", {}), "ID") or ""

    def list_peers(self) -> frozenset[str]:
        """The ids of the peers that the daemon is connected to."""
        return rpc.read_peer_ids(self._ask("swarm/peers", {}))

    def publish(self, topic: str, message: bytes) -> None:
        """Send a message (multibase topic) to the peers that subscribe to it now."""
        self._ask("pubsub/pub", {"arg": topic}, message)

    def subscribe(self, topic: str, seconds: float, limit: int) -> bytes:
        """What comes on a topic within so many seconds, as lines of JSON, of which `limit` + 1 bytes are read."""
        waits = Waits(_CONNECT_TIMEOUT, seconds + _GRACE, seconds + _GRACE)
        params = {"arg": topic, "timeout": rpc.format_duration(seconds)}
        return self._ask_once("pubsub/sub", params, waits, limit)

    def close(self) -> None:
        """Close the connections to the daemon."""
        self._client.close()

    def _ask_once(self, command: str, params: dict[str, str], waits: Waits, limit: int = MAX_BLOCK) -> bytes:
        """Ask over a connection of its own, with waits of its own."""
        try:
            with HttpClient(self.url, waits, self._headers) as client:
                answer = client.post(encode_query(f"/api/v0/{command}", params), limit=limit)
        except TimeoutError as e:
            raise rpc.explain_silence(self.url, e) from e
        except WIRE_FAULTS as e:
            raise rpc.explain_unreachable(self.url, e) from e
        return self._take(answer)

    def _put_block(self, cid: str, block: bytes, pin: bool) -> None:
        rpc.check_key(
            self.url, cid, rpc.read_field(self._ask("block/put", rpc.build_put_options(cid, pin), block), "Key")
        )

    def _read_block(self, cid: str) -> bytes:
        return self._ask("block/get", {"arg": cid, "timeout": rpc.format_duration(self._timeout)})

    def _ask(self, command: str, params: dict[str, str], block: bytes | None = None) -> bytes:
        path = encode_query(f"/api/v0/{command}", params)
        body, headers = (b"", {}) if block is None else rpc.build_form(block)
        try:
            answer = self._client.post(path, body, headers, limit=MAX_BLOCK)
        except TimeoutError as e:
            raise rpc.explain_silence(self.url, e) from e
        except WIRE_FAULTS as e:
            raise rpc.explain_unreachable(self.url, e) from e
        return self._take(answer)

    def _take(self, answer: Answer) -> bytes:
        if answer.status != 200:
            raise rpc.explain_refusal(self.url, answer.status, rpc.read_field(answer.body, "Message"))
        return answer.body


class HttpClientBlobs:
    """The same through the package ipfshttpclient (an optional extra of coterie)."""

    def __init__(self, url: str, token: str | None = None, timeout: float = 20.0) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._library = _import_library()
        self._client = _open(self._library, self.url, token, timeout)
        weakref.finalize(self, self._client.close)

    def put(self, data: bytes) -> str:
        """Store bytes, pinned."""
        return _put(data, self._put_block, self.pin)

    def get(self, cid: str, max_bytes: int = MAX_BLOB) -> bytes:
        """Verified bytes behind a CID, from this daemon or from the swarm."""
        return read_blocks(cid, self._read_block, max_bytes)

    def has(self, cid: str) -> bool:
        """Whether this daemon holds the root block, without asking the swarm."""
        name = str(parse_cid(cid))
        opts = {"timeout": rpc.format_duration(self._timeout)}
        return _has(
            self.url, name, lambda: self._ask(lambda c: _encode_json(c.block.stat(name, offline=True, opts=opts)))
        )

    def pin(self, cid: str) -> None:
        """Keep all blocks of a payload."""
        self._ask(lambda c: c.pin.add(str(parse_cid(cid)), opts={"timeout": rpc.format_duration(self._timeout)}))

    def unpin(self, cid: str) -> None:
        """Let the daemon's next garbage collection take a payload; no error if it was not pinned."""
        _unpin(lambda: self._ask(lambda c: c.pin.rm(str(parse_cid(cid)))))

    def collect(self) -> None:
        """Let the daemon delete what is not pinned from its disk, and wait for it."""
        self._ask(lambda c: c.repo.gc(quiet=True, timeout=_COLLECT_SECONDS))

    def version(self) -> str:
        """The version that the daemon reports."""
        return rpc.read_field(self._ask(lambda c: _encode_json(c.version())), "Version") or "unknown"

    def close(self) -> None:
        """Close the connections to the daemon."""
        self._client.close()

    def _put_block(self, cid: str, block: bytes, pin: bool) -> None:
        answer = self._ask(lambda c: _encode_json(c.block.put(io.BytesIO(block), opts=rpc.build_put_options(cid, pin))))
        rpc.check_key(self.url, cid, rpc.read_field(answer, "Key"))

    def _read_block(self, cid: str) -> bytes:
        def fetch(client: Any) -> bytes:
            with client.block.get(cid, stream=True, opts={"timeout": rpc.format_duration(self._timeout)}) as chunks:
                return rpc.read_bounded(self.url, chunks, self._timeout + _GRACE)

        return self._ask(fetch)

    def _ask(self, call: Callable[[Any], T]) -> T:
        exceptions = self._library.exceptions
        try:
            return call(self._client)
        except exceptions.StatusError as e:
            message = str(e) if isinstance(e, exceptions.ErrorResponse) else None
            status = getattr(getattr(e.original, "response", None), "status_code", 500)
            raise rpc.explain_refusal(self.url, status, message) from e
        except exceptions.TimeoutError as e:
            raise rpc.explain_silence(self.url, e) from e
        except (exceptions.CommunicationError, OSError) as e:
            # OSError: requests' own errors, when the connection breaks in the middle of an answer.
            raise rpc.explain_unreachable(self.url, e) from e
        except (exceptions.Error, AssertionError) as e:
            # AssertionError: how the library says that an answer is not the JSON that it expects.
            raise rpc.explain_refusal(self.url, 200, None) from e


# What both do


def _put(data: bytes, put_block: Callable[[str, bytes, bool], None], pin: Callable[[str], None]) -> str:
    alone = len(data) <= CHUNK
    root = write_blocks(data, lambda cid, block: put_block(cid, block, alone))
    if not alone:
        pin(root)
    return root


def _has(url: str, cid: str, stat: Callable[[], bytes]) -> bool:
    try:
        answer = stat()
    except BlobMissing as e:
        if e.code != rpc.ABSENT:
            raise
        return False
    rpc.check_key(url, cid, rpc.read_field(answer, "Key"))
    return True


def _unpin(remove: Callable[[], object]) -> None:
    try:
        remove()
    except StoreFault as e:
        if rpc.NOT_PINNED not in e.message:
            raise


def _encode_json(answer: Any) -> bytes:
    # Back to bytes, so that one function judges what either client received.
    return json.dumps(answer.as_json() if hasattr(answer, "as_json") else answer).encode()


# What ipfshttpclient needs


def _import_library() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("ipfshttpclient")
    except ImportError as e:
        advice = "pip install 'coterie[ipfshttpclient]', or write kubo+http:// instead."
        raise StoreFault("CO-C211", f"The store needs the package ipfshttpclient, which is not here: {advice}") from e


def _open(library: ModuleType, url: str, token: str | None, timeout: float) -> Any:
    # Never connect(): it refuses every Kubo since 0.8.
    headers, waits = rpc.build_headers(token), (_CONNECT_TIMEOUT, timeout + _GRACE)
    try:
        client = library.Client(_to_multiaddr(url), headers=headers, timeout=waits, session=True)
    except library.exceptions.AddressError as e:
        raise StoreFault("CO-C210", f"ipfshttpclient cannot read the daemon's address {url}.") from e
    _repair(client._client._session)
    return client


def _to_multiaddr(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        kind = f"ip{ipaddress.ip_address(parts.hostname or '').version}"
    except ValueError:
        kind = "dns"
    return f"/{kind}/{parts.hostname}/tcp/{port}/{parts.scheme}"


def _repair(session: Any) -> None:
    # The library asks urllib3 for an option that only warns today and will be an error in urllib3 3.
    for adapter in session.adapters.values():
        adapter.poolmanager.connection_pool_kw.pop("strict", None)
    # As above: no proxy, and no .netrc that would replace our token.
    session.trust_env = False
    session.max_redirects = 0
