"""Shared by the tests of the node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.node.houses import NodeNetwork


@pytest.fixture
def node_network(tmp_path: Path) -> Iterator[NodeNetwork]:
    """Three daemons in one process."""
    network = NodeNetwork(tmp_path)
    yield network
    for log in network.logs.values():
        log.close()
