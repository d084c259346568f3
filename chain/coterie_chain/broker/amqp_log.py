"""A log on RabbitMQ over AMQP 0.9.1: a queue of the type "stream", which every reader reads from its beginning."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from coterie_chain.errors import LedgerUnreachable

# Messages that RabbitMQ sends before the reader says that it took some.
_WINDOW = 1000


class AmqpLog:
    """A reader of one stream, with a connection of its own, as pika's connections belong to one thread."""

    def __init__(self, connection: Any, name: str) -> None:
        self._connection, self._name = connection, name
        self._channel = connection.channel()
        self._channel.queue_declare(name, durable=True, arguments={"x-queue-type": "stream"})
        self._channel.basic_qos(prefetch_count=_WINDOW)
        self._new: list[bytes] = []
        self._channel.basic_consume(name, self._take, arguments={"x-stream-offset": "first"})

    def append(self, message: bytes) -> None:
        """Append a message."""
        self._channel.basic_publish("", self._name, message)

    def read(self, seconds: float) -> list[bytes]:
        """The messages since the last call."""
        self._connection.process_data_events(0 if self._new else max(seconds, 0.0))
        new, self._new = self._new, []
        return new

    def close(self) -> None:
        """Close the connection."""
        from pika.exceptions import AMQPError

        with suppress(AMQPError):
            self._connection.close()

    def _take(self, channel: Any, method: Any, _: Any, body: bytes) -> None:
        self._new.append(body)
        channel.basic_ack(method.delivery_tag)


class AmqpBroker:
    """Logs on a RabbitMQ server at a host and port, as the user `guest` that it has for its own machine."""

    def __init__(self, host: str, port: int) -> None:
        try:
            import pika
        except ImportError:
            raise LedgerUnreachable(
                "CO-C362", "The twin over RabbitMQ needs pika. Run `pip install coterie[broker]`."
            ) from None
        # At the end pika rejects messages that came and were not read. RabbitMQ knows no such thing of streams, and
        # pika logs its answer as an error.
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        # No heartbeat: a site that computes for minutes does not serve its connection.
        settings = pika.ConnectionParameters(host, port, heartbeat=0, blocked_connection_timeout=60)
        self._connect: Callable[[], Any] = partial(pika.BlockingConnection, settings)

    def open(self, name: str) -> AmqpLog:
        """A reader of a stream, which begins with its first message."""
        return AmqpLog(self._connect(), name)

    def delete(self, name: str) -> None:
        """Delete a stream with its messages."""
        connection = self._connect()
        connection.channel().queue_delete(name)
        connection.close()
