"""A log on Redis: one of its streams."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from coterie_chain.errors import LedgerUnreachable


class RedisLog:
    """A reader of one stream; `client` is redis-py's."""

    def __init__(self, client: Any, name: str) -> None:
        self._client, self._name, self._after = client, name, b"0"

    def append(self, message: bytes) -> None:
        """Append a message."""
        self._client.xadd(self._name, {b"m": message})

    def read(self, seconds: float) -> list[bytes]:
        """The messages since the last call."""
        block = max(1, round(seconds * 1000)) if seconds > 0 else None
        messages = []
        for _, entries in self._client.xread({self._name: self._after}, block=block):
            for place, fields in entries:
                self._after = place
                messages.append(fields[b"m"])
        return messages

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class RedisBroker:
    """Logs on a Redis server at a host and port."""

    def __init__(self, host: str, port: int) -> None:
        try:
            import redis
        except ImportError:
            raise LedgerUnreachable(
                "CO-C362", "The twin over Redis needs redis-py. Run `pip install coterie[broker]`."
            ) from None
        self._connect: Callable[[], Any] = partial(redis.Redis, host=host, port=port)

    def open(self, name: str) -> RedisLog:
        """A reader of a stream, which begins with its first message."""
        return RedisLog(self._connect(), name)

    def delete(self, name: str) -> None:
        """Delete a stream with its messages."""
        client = self._connect()
        client.delete(name)
        client.close()
