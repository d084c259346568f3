"""kill -9 at every point of a step, at a site and at the round's server: the same model, nothing lost or doubled."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.devnet.bed import run_site_processes, run_through_kills

pytestmark = pytest.mark.devnet


def test_sites_killed_at_each_point_of_their_own_step(tmp_path: Path) -> None:
    with run_site_processes(tmp_path, tolerance=1e-10) as site_processes:
        run_through_kills(
            site_processes,
            {
                "north": [("before compute", "stats/1"), ("after compute", "stats/2"), ("at the end", "")],
                "south": [("after storing", "stats/0"), ("during compute", "stats/2"), ("after sending", "stats/3")],
                "west": [("after receipt", "stats/0"), ("before reading", "stats/1"), ("before reading", "stats/3")],
            },
        )
        site_processes.finish()


def test_servers_killed_at_each_point_of_their_step(tmp_path: Path) -> None:
    with run_site_processes(tmp_path, tolerance=1e-10) as site_processes:
        run_through_kills(
            site_processes,
            {
                "north": [("before compute", "model/0"), ("after sending", "model/3")],
                "south": [("during compute", "model/1"), ("after receipt", "model/4"), ("at the end", "")],
                "west": [("after compute", "model/2"), ("after storing", "model/5"), ("at the end", "")],
            },
        )
        site_processes.finish()
