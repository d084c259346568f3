"""The seats of a network and its newest block, and nothing of its history: what a daemon's heartbeats need."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from coterie_chain.ethereum.calldata import load_codec
from coterie_chain.ethereum.network import Network, verify
from coterie_chain.ethereum.rpc import Request, Rpc
from coterie_chain.ethereum.views import decode_seat
from coterie_chain.ledger.protocol import SiteEntry

_CATALOG = load_codec("Catalog")


class SeatReader:
    """A connection to this site's node for as long as it is open; its memory does not grow with the studies.

    LedgerMismatch for a node of another network. `timeout` in seconds is for one request.
    """

    def __init__(self, network: Network, timeout: float = 10.0) -> None:
        self._catalog = network.catalog
        self._rpc = Rpc(network.url, timeout)
        try:
            verify(network, self._rpc)
        except BaseException:
            self._rpc.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._rpc.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def newest(self) -> int:
        """Number of the newest block."""
        return self._rpc.call_quantity("eth_blockNumber")

    def sites(self) -> tuple[SiteEntry, ...]:
        """All seats, by id, as of the newest block."""
        block = hex(self.newest)
        (count,) = self._ask(block, [("siteCount",)])
        ids = range(1, count + 1)
        answers = self._ask(block, [("seat", site) for site in ids])
        return tuple(decode_seat(site, answer) for site, answer in zip(ids, answers, strict=True))

    def _ask(self, block: str, views: list[tuple[Any, ...]]) -> list[Any]:
        """Answers of the Catalog's views at one block, in one request."""
        calls: list[Request] = [
            ("eth_call", ({"to": self._catalog, "data": _CATALOG.encode(name, *values)}, block))
            for name, *values in views
        ]
        answers = self._rpc.batch(calls)
        return [
            _CATALOG.decode(name, answer, self._rpc.where) for (name, *_), answer in zip(views, answers, strict=True)
        ]
