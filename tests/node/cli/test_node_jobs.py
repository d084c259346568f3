"""Audits and keys at nodes of `coterie init`, named by `--node` alone; and the same options at a site of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.node import node_jobs
from support.node.api import InProcess
from support.node.chains import Run
from support.node.commands import finish_study, nodes_on_anvil, refusal, replay_grade, run

import coterie
from coterie_chain.network.devnet import Anvil
from coterie_node.persons.roles import Role
from coterie_node.site.folder import find_node
from coterie_node.web.api.app import build_api
from coterie_node.web.api.services import open_services

pytestmark = [pytest.mark.anvil, pytest.mark.xdist_group("node jobs")]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with three sites' nodes on one Anvil, which have finished a study whose payloads are sealed."""
    folder = tmp_path_factory.mktemp("nodes")
    with nodes_on_anvil(folder) as roots:
        finish_study(roots, 240.0)
        yield folder


def test_a_node_grants_an_auditor_a_view_with_node_alone(nodes: Path, tmp_path: Path) -> None:
    node_jobs.check_grant(nodes / "south", tmp_path)


def test_a_node_destroys_the_key_of_a_study_with_node_alone(nodes: Path, tmp_path: Path) -> None:
    node_jobs.check_destruction(nodes / "west", tmp_path)


def test_an_inspector_recomputes_a_node_s_posts_with_node_alone(nodes: Path) -> None:
    node_jobs.check_recomputation(nodes / "north", "north")


def test_a_node_s_ledger_is_replayed_with_node_alone(nodes: Path) -> None:
    assert replay_grade("--node", nodes / "north") == ("RECORD INTACT", "partly sealed")


def test_a_node_s_history_is_listed_with_node_alone(nodes: Path) -> None:
    node_jobs.check_history(nodes / "north")


def test_a_node_s_study_is_exported_and_verified_with_node_alone(nodes: Path, tmp_path: Path) -> None:
    node_jobs.check_export(nodes / "south", tmp_path / "study.zip")


def test_a_node_s_study_is_read_replayed_and_exported_by_its_api(nodes: Path, tmp_path: Path) -> None:
    services = open_services(find_node(nodes / "south"))
    _, token = services.tokens.create("An audit", (Role.READ, Role.AUDIT), 1, services.clock())
    study = coterie.Node("http://localhost", token, InProcess(build_api(services))).study(1)
    assert study.status()["state"] == "completed"
    assert (study.replay().verdict, study.replay().grade) == ("RECORD INTACT", "partly sealed")
    bundle = study.export(tmp_path / "study.zip")
    network = find_node(nodes / "south").network()
    proved = coterie.verify(bundle, genesis=network.genesis, catalog=network.catalog)
    assert proved.replay.verdict.verdict == "RECORD INTACT"
    services.keys.close()


def test_a_report_on_a_bundle_takes_its_network_from_the_node(nodes: Path, tmp_path: Path) -> None:
    run("audit", "export", "1", tmp_path / "study.zip", "--node", nodes / "north")
    run(
        "audit", "report", tmp_path / "study.zip", "--node", nodes / "south", "--out", tmp_path / "report.json", code=25
    )
    assert find_node(nodes / "north").network().genesis in (tmp_path / "report.json").read_text()


def test_the_working_folder_and_the_variable_name_a_node_too(nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(nodes / "north")
    assert replay_grade() == ("RECORD INTACT", "partly sealed")
    monkeypatch.chdir(nodes)
    assert refusal("audit", "replay").code == "CO-F303"
    assert refusal("study", "list").code == "CO-F320"
    monkeypatch.setenv("COTERIE_NODE", str(nodes / "south"))
    assert replay_grade() == ("RECORD INTACT", "partly sealed")
    assert [row["state"] for row in json.loads(run("study", "list", "--json"))] == ["completed"]


def test_a_study_is_named_by_number_hash_or_file(nodes: Path) -> None:
    node = ("--node", nodes / "north")
    (row,) = json.loads(run("study", "list", *node, "--json"))
    for name in ("1", row["hash"], nodes / "split.toml"):
        assert json.loads(run("study", "status", name, *node, "--json"))["study"] == 1
    assert refusal("study", "status", "2", *node).code == "CO-F304"


def test_options_that_name_no_site_or_two_are_refused(nodes: Path) -> None:
    at, node = ("--at", nodes), ("--node", nodes / "north")
    for command in (("seal", "destroy"), ("audit", "recompute"), ("release", "list"), ("study", "list")):
        assert refusal(*command, *at).code == "CO-F313"
        assert refusal(*command, "--site", "north").code == "CO-F313"
        assert refusal(*command, *at, "--site", "north", *node).code == "CO-F313"
        assert refusal(*command, *at, "--site", "north").code == "CO-F201"  # a folder of nodes is no run
    audits: tuple[tuple[object, ...], ...]
    audits = (("audit", "replay"), ("audit", "history"), ("audit", "export", "1", nodes / "x.zip"))
    for words in audits:
        assert refusal(*words, *at, *node).code == "CO-F303"


def test_a_site_of_a_run_is_named_by_at_and_site_in_the_same_commands(tmp_path: Path) -> None:
    with Anvil() as anvil:
        finished = Run(tmp_path / "run", anvil)
        finished.finish()
        finished.close()
        south = ("--at", tmp_path / "run", "--site", "south")
        assert json.loads(run("audit", "recompute", *south, "--json"))["verdict"] == "PASS"
        assert json.loads(run("audit", "replay", "--at", tmp_path / "run", "--json"))["grade"] == "identical"
        assert [row["state"] for row in json.loads(run("study", "list", *south, "--json"))] == ["completed"]
        assert "allowed" in json.loads(run("study", "show", "1", *south, "--json"))["policy"]
        assert json.loads(run("release", "list", *south, "--json")) == []
        assert "is destroyed" in run("seal", "destroy", *south)
        assert refusal("study", "decline", "1", *south).code == "CO-F313"  # nobody would act on it
        assert refusal("audit", "recompute", "--at", tmp_path / "run", "--site", "nowhere").code == "CO-F302"
    assert (tmp_path / "run" / "sites" / "south" / "data.csv").stat().st_mode & 0o777 == 0o600
