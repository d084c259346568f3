"""A devnet's daemons say why a study has no result, so that a deadline names who is late."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from coterie_node.demo.cases import find_case
from coterie_node.demo.run import _await_result, prepare
from coterie_node.errors import DeadlinePassed
from coterie_node.network.devnet import make_settings, start_network, stop_programs
from coterie_node.network.local_nodes import SiteDaemons
from coterie_node.run.study_files import load_study
from coterie_node.site.decisions import make_decision
from coterie_node.site.run_folder import RunFolder

pytestmark = [pytest.mark.anvil, pytest.mark.long]
SITES = ("north", "south", "west")
WITHIN = 60.0


def test_a_deadline_names_the_site_without_a_result_and_whom_it_waits_for(tmp_path: Path) -> None:
    place = RunFolder(tmp_path / "net")
    place.root.mkdir()
    prepare(place, find_case("glore"), SITES)
    study = load_study(place.study)
    try:
        start_network(place, SITES, make_settings("anvil", "folder"))
        daemons = SiteDaemons(place)
        daemons.start()
        for site in SITES[:2]:
            decisions = place.site(site).decisions
            decisions.save_document(study.hash, study.document)
            decisions.record(make_decision(study.hash, "propose" if site == "north" else "approve"))
        deadline = time.monotonic() + WITHIN
        while daemons.read_cause("north", study.hash.hex()) != "approval by west":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with pytest.raises(DeadlinePassed, match=r"at north within 0 s; its daemon says: approval by west") as caught:
            _await_result(place, "north", study.hash.hex(), time.monotonic(), 0.0)
        assert caught.value.code == "CO-R204"
        daemons.stop()
        assert daemons.read_cause("north", study.hash.hex()) == ""
        with pytest.raises(DeadlinePassed, match="its daemon does not answer"):
            _await_result(place, "north", study.hash.hex(), time.monotonic(), 0.0)
    finally:
        stop_programs(place)
