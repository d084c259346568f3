"""Fixtures of the tests that need an Anvil: `anvil` and `net`; or a broker: `redis` and `amqp`."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from support.chain.anvil import AnvilClient, find_binary, run_anvil
from support.chain.twins import ContractAndRules

from coterie_chain.broker.amqp_log import AmqpBroker
from coterie_chain.broker.redis_log import RedisBroker
from coterie_chain.network.programs.brokers import run_rabbitmq, run_redis_server


@pytest.fixture(scope="module")
def anvil() -> Iterator[AnvilClient]:
    """An Anvil of the module's own, so that its clock and its blocks disturb nobody."""
    program = find_binary()
    if program is None:
        pytest.skip("Anvil is not installed: make setup")
    with run_anvil(program) as started:
        yield started


@pytest.fixture
def net(anvil: AnvilClient) -> ContractAndRules:
    """A new network of four sites, contract and rules together."""
    return ContractAndRules(anvil, ["ana", "bob", "cyd", "dan"])


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisBroker]:
    """A Redis server of the module's own."""
    with run_redis_server() as url:
        yield RedisBroker("127.0.0.1", urlsplit(url).port or 0)


@pytest.fixture(scope="module")
def amqp() -> Iterator[AmqpBroker]:
    """A RabbitMQ server of the module's own."""
    with run_rabbitmq() as url:
        yield AmqpBroker("127.0.0.1", urlsplit(url).port or 0)
