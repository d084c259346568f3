"""The fixtures of these tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chain.fixtures import anvil, net
from support.node.houses import NodeNetwork

__all__ = ["anvil", "net", "node_network"]


@pytest.fixture
def node_network(tmp_path: Path) -> Iterator[NodeNetwork]:
    """Three daemons in one process."""
    network = NodeNetwork(tmp_path)
    yield network
    for log in network.logs.values():
        log.close()
