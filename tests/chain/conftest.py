from __future__ import annotations

from collections.abc import Iterator

import pytest
from chain.anvil import Anvil, binary, running
from chain.twins import Twins


@pytest.fixture(scope="module")
def anvil() -> Iterator[Anvil]:
    """An Anvil of the module's own, so that its clock and its blocks disturb nobody."""
    program = binary()
    if program is None:
        pytest.skip("Anvil is not installed: make setup")
    with running(program) as started:
        yield started


@pytest.fixture
def net(anvil: Anvil) -> Twins:
    """A new network of four sites, contract and rules together."""
    return Twins(anvil, ["ana", "bob", "cyd", "dan"])
