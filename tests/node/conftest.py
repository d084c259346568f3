"""Shared by the tests of the node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.node.houses import NodeNetwork
from support.node.processes import run_process


@pytest.fixture
def node_network(tmp_path: Path) -> Iterator[NodeNetwork]:
    """Three daemons in one process."""
    network = NodeNetwork(tmp_path)
    yield network
    for log in network.logs.values():
        log.close()


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished demo of three sites, kept. Its tests are in the xdist group "demo": one worker runs it once."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    done = run_process("demo", "--json", "--keep", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "result.json").read_text())
    return folder
