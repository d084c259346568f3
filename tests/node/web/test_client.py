"""`coterie.Node`: the same objects as `coterie.simulate`, over the API in this process and over a real server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from support.node.api import ApiHouse, InProcess, open_house
from support.node.houses import SITES, NodeNetwork, study_file

import coterie
from coterie_chain.http_client import Answer
from coterie_node.persons.roles import Role
from coterie_node.web.client.api_transport import API_PREFIX, ApiRefused


@pytest.fixture
def house(node_network: NodeNetwork) -> Iterator[ApiHouse]:
    with open_house(node_network) as house:
        yield house


def open_node(house: ApiHouse, *scopes: Role) -> coterie.Node:
    return coterie.Node("http://localhost", house.token(*scopes), InProcess(house.app))


def test_a_program_proposes_waits_and_reads_what_simulate_gives(house: ApiHouse) -> None:
    network, node = house.network, open_node(house)
    file = study_file(network.root)
    receipt = node.propose(coterie.Study.load(file))
    network.approve(bytes.fromhex(receipt.hash), "south", "west")
    network.settle()
    study = node.study(1)
    assert study.wait(0.0)["state"] == "completed"
    result, same = (
        study.result(),
        coterie.simulate(coterie.Study.load(file), {name: network.root / name / "data.csv" for name in SITES}),
    )
    assert isinstance(result, coterie.Result)
    for ours, theirs in ((result.params, same.params), (result.bse, same.bse), (result.vcov, same.vcov)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    np.testing.assert_allclose(result.conf_int(), same.conf_int(), rtol=1e-9)
    assert result.summary().splitlines()[:6] == same.summary().splitlines()[:6]
    assert result.summary().as_latex() == same.summary().as_latex()
    assert study.replay() == same.replay
    records = list(study.records())
    assert records[0]["what"] == "StudyProposed"
    assert result.cost.records == sum(bool(entry["cid"]) for entry in records)


def test_a_refusal_is_an_error_with_its_code(house: ApiHouse) -> None:
    node = open_node(house, Role.READ)
    with pytest.raises(ApiRefused, match="needs the scope propose") as refusal:
        node.propose("name = 1\n")
    assert (refusal.value.code, refusal.value.status) == ("CO-H116", 403)
    with pytest.raises(ApiRefused) as missing:
        node.study(9).status()
    assert missing.value.code == "CO-F304"
    for which in ("../site", "1/result", "a b", "ä"):
        with pytest.raises(coterie.NodeError, match="no study's number"):
            node.study(which).status()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b'{"code": 1}', b"null"])
def test_a_server_that_is_no_node_is_named_so(body: bytes) -> None:
    for status in (200, 404):
        node = coterie.Node("http://localhost", "x", InProcess(None, answer=Answer(status, body)))
        with pytest.raises(coterie.NodeError) as error:
            node.studies()
        assert error.value.code == "CO-H152"


@pytest.mark.parametrize("url", ["http://north.example", "ftp://localhost", "north", "https://a:b@north.example"])
def test_a_token_never_goes_to_another_machine_in_the_clear(url: str) -> None:
    with pytest.raises(coterie.NodeError) as error:
        coterie.Node(url, "x")
    assert error.value.code == "CO-H153"


@contextmanager
def serve(app: Any) -> Iterator[str]:
    """An application behind uvicorn, on a free port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


def test_the_client_speaks_to_a_real_server_under_the_page_s_prefix(house: ApiHouse) -> None:
    network = house.network
    study = network.propose(study_file(network.root))
    with serve(Starlette(routes=[Mount(API_PREFIX, house.app)])) as url:
        node = coterie.Node(url, house.token())
        assert node.site()["site"] == "north"
        assert [row["name"] for row in node.studies()] == ["cohort"]
        network.approve(study, "south", "west")
        network.settle()
        assert node.study(1).wait(10.0)["state"] == "completed"
        assert node.study(1).result().fit.n == 360
        with pytest.raises(ApiRefused, match="no token of this site"):
            coterie.Node(url, "x").site()
    with pytest.raises(coterie.NodeError) as gone:
        coterie.Node(url, "x").site()
    assert gone.value.code == "CO-H151"


def test_tables_of_a_node_escape_what_stands_in_them(house: ApiHouse, tmp_path: Path) -> None:
    page = {"items": [{"study": 1, "name": "<script>alert(1)</script>"}], "next": None}
    node = coterie.Node("http://localhost", "x", InProcess(None, answer=Answer(200, json.dumps(page).encode())))
    table = node.studies()
    assert "<script>" not in table._repr_html_()
    assert "&lt;script&gt;" in table._repr_html_()
    assert (len(table), table[0]["study"]) == (1, 1)
