"""Audits and keys at nodes of `coterie init` beside their own Geth and Kubo, named by `--node` alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.devnet.bed import skip_without_programs
from support.node import node_jobs
from support.node.commands import SITES, finish_study, make_grant, replay_grade, run

from coterie_node.network.devnet import make_settings, start_network, stop_programs
from coterie_node.site.run_folder import RunFolder

pytestmark = [pytest.mark.devnet, pytest.mark.xdist_group("network")]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of three sites' nodes, which have finished a study whose payloads are sealed.

    `coterie init` makes each node with the keys that its site founded the network with.
    """
    skip_without_programs()
    place = RunFolder(tmp_path_factory.mktemp("jobs") / "net")
    place.root.mkdir()
    roots = [place.site_root(name) for name in SITES]
    try:
        start_network(place, SITES, make_settings("clique", "kubo"))
        for root in roots:
            own = ("--chain", place.chain().url(root.name), "--store", place.store().url(root.name))
            run("init", root, "--site", root.name, *own, "--confirmations", 2, "--port", 0)
            (root / "network.json").write_text(place.network().to_json())
        finish_study(roots, 240.0)
        yield place.root / "sites"
    finally:
        stop_programs(place)


def test_a_node_on_geth_and_kubo_grants_an_auditor_a_view_with_node_alone(nodes: Path, tmp_path: Path) -> None:
    node_jobs.check_grant(nodes / "south", tmp_path)


def test_a_node_on_geth_and_kubo_destroys_the_key_of_a_study_with_node_alone(nodes: Path, tmp_path: Path) -> None:
    node_jobs.check_destruction(nodes / "west", tmp_path)


def test_an_inspector_recomputes_the_posts_of_a_node_on_geth_and_kubo_with_node_alone(nodes: Path) -> None:
    node_jobs.check_recomputation(nodes / "north", "north")


def test_the_ledger_of_a_node_on_geth_and_kubo_is_replayed_with_node_alone(nodes: Path) -> None:
    assert replay_grade("--node", nodes / "north") == ("RECORD INTACT", "partly sealed")


def test_the_history_of_a_node_on_geth_and_kubo_is_listed_with_node_alone(nodes: Path) -> None:
    node_jobs.check_history(nodes / "north")


def test_a_study_of_a_node_on_geth_and_kubo_is_exported_and_verified_with_node_alone(
    nodes: Path, tmp_path: Path
) -> None:
    node_jobs.check_export(nodes / "south", tmp_path / "study.zip")


def test_the_same_folder_is_a_site_of_the_devnet_s_run_as_well(nodes: Path, tmp_path: Path) -> None:
    options = make_grant(tmp_path / "auditor", "--at", nodes.parent, "--site", "north")
    assert replay_grade("--at", nodes.parent, *options) == ("PASS", "identical")
