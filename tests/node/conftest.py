"""Shared by the tests of the node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from node.houses import Village


@pytest.fixture
def village(tmp_path: Path) -> Iterator[Village]:
    """Three daemons in one process."""
    made = Village(tmp_path)
    yield made
    for log in made.logs.values():
        log.close()
