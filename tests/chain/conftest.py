"""The fixtures of these tests."""

from support.chain.fixtures import amqp, anvil, net, redis

__all__ = ["amqp", "anvil", "net", "redis"]
