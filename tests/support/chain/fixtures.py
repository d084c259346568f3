"""Fixtures of the tests that need an Anvil: `anvil` and `net`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.chain.anvil import AnvilClient, find_binary, run_anvil
from support.chain.twins import ContractAndRules


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
