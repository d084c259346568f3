"""The HTTP API of a node: reading, acting, tokens, pages, idempotency keys and events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak
from support.node.api import ApiClient, ApiHouse, open_house
from support.node.houses import NodeNetwork, study_file
from support.node.persons import add_persons, join_network, secret_of

from coterie_node.persons.acts import ActText, sign_act
from coterie_node.persons.roles import Role


@pytest.fixture
def house(node_network: NodeNetwork) -> Iterator[ApiHouse]:
    """The API of north, without studies."""
    with open_house(node_network) as house:
        yield house


def finish(network: NodeNetwork) -> bytes:
    """Let the three sites fit a study."""
    study = network.propose(study_file(network.root))
    network.approve(study, "south", "west")
    network.settle()
    return study


def test_a_study_lives_from_its_proposal_to_its_result_by_the_api(house: ApiHouse) -> None:
    network, client = house.network, house.client()
    text = study_file(network.root).read_text()
    proposed = client.post("/studies", json={"study": text})
    assert proposed.status_code == 200, proposed.text
    assert proposed.json()["lines"][-2].startswith("Proposed: cohort, hash ")
    study = bytes.fromhex(proposed.json()["hash"])
    network.approve(study, "south", "west")
    assert client.get("/studies").json()["items"][0]["state"] == "not on the ledger yet"
    network.settle()
    assert client.get("/studies/1/status").json()["state"] == "completed"
    assert client.get("/studies/1").json()["policy"].startswith("allowed")
    result = client.get("/studies/1/result").json()
    assert [term["term"] for term in result["terms"]] == ["(Intercept)", "age", "male"]
    verdict = client.post("/studies/1/replay").json()
    assert (verdict["verdict"], verdict["grade"]) == ("PASS", "identical")


def test_an_approval_by_the_api_is_a_decision_in_the_name_of_its_token(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root), by="south")
    node_network.settle()
    with open_house(node_network) as house:
        answer = house.client(Role.APPROVE).post("/studies/1/approve", json={"reason": "ethics 12/26"})
    assert answer.status_code == 200, answer.text
    decision = node_network.decisions("north").latest(study, 1)
    assert decision is not None
    assert (decision.action, decision.number, decision.reason) == ("approve", 1, "ethics 12/26")
    assert decision.by.startswith("A program (token:")


def test_a_decline_by_the_api_ends_the_proposal(node_network: NodeNetwork) -> None:
    node_network.propose(study_file(node_network.root), by="south")
    node_network.settle()
    with open_house(node_network) as house:
        assert house.client().post("/studies/1/decline", json={}).status_code == 200
        node_network.settle()
        assert house.client().get("/studies/1/status").json()["state"] == "aborted"


def test_a_program_asks_for_the_text_that_a_person_signs_and_sends_it_signed(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root), "south")
    node_network.settle()
    join_network(node_network.homes["north"])
    add_persons(node_network.homes["north"], 0, "Ada Berg")
    with open_house(node_network) as house:
        client, own = house.client(), house.services.folder
        asked = client.post("/studies/1/approve", json={"person": "Ada Berg", "reason": "agreed"})
        assert (asked.status_code, own.decisions.latest(study, 1)) == (202, None)
        text = ActText.model_validate(asked.json()["text"])
        signable = encode_typed_data(full_message=asked.json()["typed_data"])
        assert keccak(b"\x19" + signable.version + signable.header + signable.body) == text.digest
        signed = sign_act(text, secret_of("Ada Berg")).model_dump(mode="json")
        other = client.post("/studies/1/decline", json={"signature": signed})
        assert (other.status_code, other.json()["code"]) == (409, "CO-F442")
        done = client.post("/studies/1/approve", json={"signature": signed, "reason": "agreed"})
        assert (done.status_code, done.json()["by"]) == (200, "Ada Berg")
        nobody = client.post("/votes", json={"motion": "revoke", "site": "west", "person": "Ada Berg"})
        assert (nobody.status_code, nobody.json()["code"]) == (409, "CO-F433")  # she does not operate
        decision = own.decisions.latest(study, 1)
        assert decision is not None
        assert [act.text.name for act in decision.signatures] == ["Ada Berg"]


def test_the_next_person_signs_a_proposal_by_its_hash_through_the_api(node_network: NodeNetwork) -> None:
    """Bo Dahl has no file: the hash that Ada Berg's receipt names is enough."""
    join_network(node_network.homes["north"])
    node_network.homes["north"] = add_persons(node_network.homes["north"], 0, "Ada Berg", "Bo Dahl", approvals=2)
    with open_house(node_network) as house:
        client, own = house.client(), house.services.folder
        first = propose_signed(client, "Ada Berg", study_file(node_network.root).read_text())
        assert any("1 of 2" in line for line in first["lines"])
        unknown = client.post("/studies", json={"study": "0" * 64, "person": "Bo Dahl"})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "CO-F304")
        second = propose_signed(client, "Bo Dahl", first["hash"])
        assert (second["hash"], second["by"]) == (first["hash"], "Bo Dahl")
        assert any("Signed by Ada Berg, Bo Dahl: 2 of 2." in line for line in second["lines"])
        decision = own.decisions.latest(bytes.fromhex(first["hash"]))
        assert decision is not None
        assert [act.text.name for act in decision.signatures] == ["Ada Berg", "Bo Dahl"]
        only = house.client(Role.APPROVE).post("/studies", json={"study": first["hash"], "person": "Bo Dahl"})
        assert only.status_code == 403


def propose_signed(client: ApiClient, name: str, study: str) -> dict[str, Any]:
    """Ask for the text of a proposal, sign it as a person, and send it."""
    asked = client.post("/studies", json={"study": study, "person": name})
    assert asked.status_code == 202, asked.text
    signed = sign_act(ActText.model_validate(asked.json()["text"]), secret_of(name)).model_dump(mode="json")
    done = client.post("/studies", json={"study": study, "signature": signed})
    assert done.status_code == 200, done.text
    receipt: dict[str, Any] = done.json()
    return receipt


def test_records_come_in_pages_that_join_to_the_whole_list(house: ApiHouse) -> None:
    finish(house.network)
    client = house.client(Role.READ)
    whole = client.get("/studies/1/records", params={"limit": 500}).json()["items"]
    parts: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get("/studies/1/records", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
        parts, cursor = parts + page["items"], page["next"]
    assert parts == whole
    assert len(whole) > 9


def test_a_list_that_is_unchanged_is_not_sent_again(house: ApiHouse) -> None:
    client = house.client(Role.READ)
    first = client.get("/studies")
    again = client.get("/studies", headers={"If-None-Match": f'W/{first.headers["etag"]}, "x"'})
    assert (again.status_code, again.content) == (304, b"")
    house.network.propose(study_file(house.network.root))
    assert client.get("/studies", headers={"If-None-Match": first.headers["etag"]}).status_code == 200


def read_events(text: str) -> list[dict[str, str]]:
    """The events of a stream; comments are left out."""
    blocks = [block.split("\n") for block in text.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block) for block in blocks]


def test_a_stream_sends_every_entry_once_and_ends_with_the_study(house: ApiHouse) -> None:
    finish(house.network)
    client = house.client(Role.READ)
    records = client.get("/studies/1/records", params={"limit": 500}).json()["items"]
    events = read_events(client.get("/studies/1/events").text)
    assert [json.loads(event["data"]) for event in events[:-1]] == records
    assert events[-1]["event"] == "end"
    rest = read_events(client.get("/studies/1/events", headers={"Last-Event-ID": "5"}).text)
    assert [event["id"] for event in rest[:-1]] == [str(k) for k in range(6, len(records) + 1)]
    assert house.services.streams.count == 0


REFUSALS: tuple[tuple[str, str, dict[str, Any] | None, int, str], ...] = (
    ("GET", "/nothing", None, 404, "CO-H114"),
    ("PUT", "/studies", None, 405, "CO-H115"),
    ("GET", "/studies/7", None, 404, "CO-F304"),
    ("GET", "/studies/1/result", None, 404, "CO-F332"),
    ("GET", "/studies/..%2Fnode.toml", None, 400, "CO-H103"),
    ("GET", "/studies/study.toml", None, 422, "CO-H113"),
    ("GET", "/studies?cursor=YWZ0ZXI6LTE", None, 422, "CO-H117"),
    ("GET", "/studies?limit=0", None, 422, "CO-H113"),
    ("POST", "/studies", {"study": "name = 3"}, 422, "CO-S102"),
    ("POST", "/studies", {"study": "x", "data": "/etc/passwd"}, 422, "CO-H113"),
    ("POST", "/studies/1/resume", {}, 409, "CO-F328"),
    ("POST", "/studies/1/approve", {"signature": {"name": "Somebody"}}, 422, "CO-H111"),
    ("POST", "/releases/00000000/approve", {}, 404, "CO-F311"),
    ("POST", "/votes", {"motion": "admit", "site": "east", "card": {"name": "west"}}, 422, "CO-F501"),
)


def test_what_cannot_be_is_refused_with_a_code_as_a_problem_document(house: ApiHouse) -> None:
    house.network.propose(study_file(house.network.root), by="south")
    house.network.settle()
    client = house.client()
    for method, path, body, status, code in REFUSALS:
        answer = client.request(method, path, json=body)
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (status, code), (path, problem)
        assert answer.headers["content-type"] == "application/problem+json"
        assert (problem["status"], problem["type"]) == (status, f"urn:coterie:error:{code}")


def test_a_repeated_request_gets_the_first_answer_and_does_nothing(house: ApiHouse, tmp_path: Path) -> None:
    network, client = house.network, house.client()
    network.propose(study_file(network.root), by="south")
    network.settle()
    headers = {"Idempotency-Key": "a-random-key-1"}
    first = client.post("/studies/1/approve", json={}, headers=headers)
    again = client.post("/studies/1/approve", json={}, headers=headers)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    study = bytes.fromhex(first.json()["hash"])
    assert network.decisions("north").count(study) == 1
    other = client.post("/studies/1/approve", json={"reason": "no"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "CO-H108")
    assert client.post("/studies/1/decline", json={}, headers=headers).json()["code"] == "CO-H108"
    assert network.decisions("north").count(study) == 1
