"""A member's garbage on real Geth and Kubo: no daemon ends, and the others' study runs, is exported and verified."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.devnet.bed import skip_without_programs
from support.node.commands import SITES, run
from support.node.garbage import check_garbage

from coterie_node.network.devnet import make_settings, start_network, stop_programs
from coterie_node.site.run_folder import RunFolder

pytestmark = [pytest.mark.devnet, pytest.mark.xdist_group("garbage")]
TRANSACTIONS = 300


def test_daemons_on_geth_and_kubo_hold_beside_a_member_that_sends_garbage(tmp_path: Path) -> None:
    skip_without_programs()
    place = RunFolder(tmp_path / "net")
    place.root.mkdir()
    roots = [place.site_root(name) for name in SITES]
    try:
        start_network(place, SITES, make_settings("clique", "kubo"))
        for root in roots:
            own = ("--chain", place.chain().url(root.name), "--store", place.store().url(root.name))
            run("init", root, "--site", root.name, *own, "--confirmations", 2, "--port", 0)
            (root / "network.json").write_text(place.network().to_json())
        outcomes = check_garbage(roots, TRANSACTIONS, tmp_path)
    finally:
        stop_programs(place)
    assert outcomes.total() == TRANSACTIONS
    assert outcomes["taken"] > TRANSACTIONS // 10
