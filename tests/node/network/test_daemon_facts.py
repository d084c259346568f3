"""What `devnet status` reads of a daemon's metrics."""

from __future__ import annotations

import pytest

from coterie_node.network.local_nodes import read_daemon_facts

STARTED = "process_open_fds 17.0\ncoterie_chain_head 27.0\n"
GAS = "coterie_gas 806861.0\n"


@pytest.mark.parametrize(
    ("metrics", "facts"),
    [
        ("", {}),
        (STARTED, {}),
        (STARTED + GAS, {"gas": 806861}),
        (STARTED + GAS + 'coterie_studies{state="done"} 2.0\ncoterie_studies{state="waiting"} 1.0\n', None),
    ],
)
def test_a_daemon_that_has_just_started_has_fewer_facts(metrics: str, facts: dict[str, int] | None) -> None:
    """`devnet up` and `devnet status` ended with a KeyError where they met a daemon before its first look."""
    assert read_daemon_facts(metrics) == ({"studies": 2, "gas": 806861} if facts is None else facts)
