"""Attacks on the HTTP API: guessed tokens, other scopes, smuggled headers, files as IDs, huge bodies, open streams."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from support.node.api import ApiClient, ApiHouse, open_house
from support.node.houses import NodeNetwork, study_file

from coterie_chain.errors import KeyFault
from coterie_node.persons.roles import Role
from coterie_node.web.api.app import API_ROUTES, build_api
from coterie_node.web.api.doorway import MAX_DEPTH, MAX_REQUEST_BYTES, measure_depth
from coterie_node.web.api.idempotency import IdempotencyKeys
from coterie_node.web.api.tokens import DAY, Refused
from coterie_node.web.live.places import WorkPlaces

HOST = (b"host", b"localhost")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiHouse]:
    """The API of a site that has finished one study; tests leave it as it is."""
    network = NodeNetwork(tmp_path_factory.mktemp("api"))
    study = network.propose(study_file(network.root))
    network.approve(study, "south", "west")
    network.settle()
    with open_house(network, audits=WorkPlaces(0, 0, "audits")) as opened:
        yield opened
    for log in network.logs.values():
        log.close()


def fill(path: str) -> str:
    """A route's path with the study that there is."""
    return path.replace("{study}", "1" if "refusals" not in path else "0" * 64).replace("{digest}", "0" * 64)


# Tokens


def test_every_route_takes_its_own_scope_and_no_other(house: ApiHouse) -> None:
    """Each cell of the table of routes and scopes; a body that is none shows that nothing is parsed before."""
    tokens = {role: house.token(role) for role in Role}
    for route in API_ROUTES:
        for role, token in tokens.items():
            answer = ApiClient(house.app, token).request(route.method, fill(route.path))
            refused = answer.status_code == 403 and answer.json()["code"] == "CO-H116"
            assert refused == (role != route.scope), (route.path, role, answer.status_code)
        assert ApiClient(house.app, "").request(route.method, fill(route.path)).status_code == 401
    for token in tokens.values():
        house.services.tokens.revoke(token.split("_")[1])


def test_every_wrong_token_gets_the_same_answer(house: ApiHouse) -> None:
    right = house.token(Role.READ)
    _, digits, secret = right.split("_", 2)
    wrong = [
        "",
        "coterie_00000000_" + secret,  # an ID that there is not
        f"coterie_{digits}_" + "A" * 43,  # an ID that there is
        f"coterie_{digits}_{secret[:-1]}",
        f"coterie_{digits}_{secret}A",
        right.upper(),
        house.services.tokens.list_all()[-1].digest,
    ]
    answers = {ApiClient(house.app, token).get("/site").content for token in wrong}
    assert len(answers) == 1
    assert json.loads(answers.pop())["code"] == "CO-H101"
    assert ApiClient(house.app, right).get("/site").status_code == 200


def test_the_file_of_tokens_opens_nothing_and_only_its_owner_reads_it(house: ApiHouse) -> None:
    text = house.token(Role.READ)
    path = house.services.tokens.path
    assert text.split("_", 2)[2] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    try:
        with pytest.raises(KeyFault, match="Others can reach"):
            house.services.tokens.check(text, 0.0)
    finally:
        path.chmod(0o600)


def test_a_token_ends_with_its_time_and_with_its_revocation(house: ApiHouse) -> None:
    now = house.services.clock()
    token, text = house.services.tokens.create("A day", (Role.READ,), 1, now)
    for seconds, code in ((DAY - 2, ""), (DAY, "CO-H102")):
        late = replace(house.services, clock=partial(float, now + seconds))
        answer = ApiClient(build_api(late), text).get("/site")
        assert answer.json().get("code", "") == code
    house.services.tokens.revoke(token.id)
    assert ApiClient(house.app, text).get("/site").json()["code"] == "CO-H101"


# Requests that two programs read in two ways


def test_headers_that_come_twice_are_refused(house: ApiHouse) -> None:
    client, token = house.client(), house.token(Role.READ).encode()
    pairs = {
        "authorization": [(b"authorization", b"Bearer " + token), (b"Authorization", b"Bearer x")],
        "content-length": [(b"content-length", b"0"), (b"content-length", b"5")],
        "two lengths": [(b"content-length", b"0"), (b"transfer-encoding", b"chunked")],
        "idempotency-key": [(b"idempotency-key", b"aaaaaaaa"), (b"idempotency-key", b"bbbbbbbb")],
        "host": [(b"host", b"evil.example")],
    }
    for headers in pairs.values():
        answer = client.send("GET", "/site", [HOST, *headers], [b""])
        assert (answer.status_code, answer.json()["code"]) == (400, "CO-H103")


@pytest.mark.parametrize("name", ["X-Forwarded-User", "X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override"])
def test_a_header_of_a_proxy_changes_nothing(house: ApiHouse, name: str) -> None:
    plain = house.client(Role.READ)
    value = "/api/v1/releases" if "URL" in name else "POST"
    assert plain.get("/site").status_code == 200
    answer = plain.get("/studies/1", headers={name: value})
    assert answer.json()["study"] == 1


def test_an_id_names_no_file(house: ApiHouse) -> None:
    client = house.client()
    secret = "passphrase"
    for name in ("..%2f..%2fnode.toml", "%2e%2e/node.toml", "study.json", "/etc/passwd.json", "1%00", "1%0d%0aX: y"):
        for tail in ("", "/status", "/result", "/records"):
            answer = client.get(f"/studies/{name}{tail}")
            assert answer.status_code in (400, 404, 422), name
            assert secret not in answer.text


# Sizes


def test_a_body_that_is_too_large_is_refused_by_what_it_says_and_by_what_comes(house: ApiHouse) -> None:
    client, kind = house.client(), (b"content-type", b"application/json")
    head = [HOST, kind, (b"authorization", b"Bearer " + house.token().encode())]
    said = client.send("POST", "/studies", [*head, (b"content-length", str(MAX_REQUEST_BYTES + 1).encode())], [b"{}"])
    sent = client.send("POST", "/studies", head, [b" " * (1 << 16)] * (MAX_REQUEST_BYTES // (1 << 16) + 1))
    odd = client.send("POST", "/studies", [*head, (b"content-length", b"9" * 40)], [b"{}"])
    for answer in (said, sent, odd):
        assert (answer.status_code, answer.json()["code"]) == (413, "CO-H104")


@pytest.mark.parametrize("body", ["[" * 100_000, '{"a":' * 50_000, '{"study":' + "[" * 30 + "]" * 30 + "}"])
def test_deep_nesting_is_refused_before_anything_parses_it(house: ApiHouse, body: str) -> None:
    head = [HOST, (b"content-type", b"application/json"), (b"authorization", b"Bearer " + house.token().encode())]
    answer = house.client().send("POST", "/studies", head, [body.encode()])
    assert (answer.status_code, answer.json()["code"]) == (422, "CO-H106")


def test_brackets_in_texts_count_as_no_depth() -> None:
    text = json.dumps({"study": "[" * 1000 + '\\"{' * 1000}).encode()
    assert measure_depth(text, MAX_DEPTH) == 1


@pytest.mark.parametrize("body", [b'{"study": ', b"\xff\xfe", b'{"study": NaN}', b"9" * 10_000, b"null", b'"text"'])
def test_a_body_that_is_no_request_is_refused(house: ApiHouse, body: bytes) -> None:
    head = [HOST, (b"content-type", b"application/json"), (b"authorization", b"Bearer " + house.token().encode())]
    answer = house.client().send("POST", "/studies", head, [body])
    assert (answer.status_code, answer.json()["code"]) == (422, "CO-H113")
    other = house.client().send("POST", "/studies", [head[0], (b"content-type", b"text/plain"), head[2]], [b"{}"])
    assert (other.status_code, other.json()["code"]) == (415, "CO-H105")


# Streams and keys


def test_open_streams_are_counted_and_given_back(house: ApiHouse) -> None:
    client, streams = house.client(Role.READ), house.services.streams
    (token,) = [t.id for t in house.services.tokens.list_all() if t.scopes == (Role.READ,)][-1:]
    for _ in range(4):
        streams.enter(token)
    answer = client.get("/studies/1/events")
    assert (answer.status_code, answer.json()["code"]) == (429, "CO-H112")
    streams.leave(token)
    assert client.get("/studies/1/events").status_code == 200
    assert client.get("/studies/9/events").status_code == 404  # takes no place
    for _ in range(3):
        streams.leave(token)
    assert streams.count == 0


def test_a_key_of_one_token_says_nothing_to_another(house: ApiHouse) -> None:
    headers = {"Idempotency-Key": "the-same-key-1"}
    first, second = house.client(), house.client()
    answers = [client.post("/studies", json={"study": "x"}, headers=headers) for client in (first, second, first)]
    assert ["idempotency-replayed" in answer.headers for answer in answers] == [False, False, True]


def test_a_key_is_refused_if_it_is_malformed_or_at_work(house: ApiHouse) -> None:
    client, keys, now = house.client(), house.services.keys, house.services.clock()
    token = house.services.tokens.list_all()[-1].id
    for key in ("short", "a" * 129, "with space-", "ümlaut-key-1"):
        answer = client.send(
            "POST",
            "/studies",
            [HOST, (b"idempotency-key", key.encode()), (b"authorization", b"Bearer " + house.token().encode())],
            [b""],
        )
        assert answer.json()["code"] == "CO-H107", key
    keys.begin(token, "at-work-123", b"POST /studies?\n" + json.dumps({"study": "x"}).encode(), now)
    busy = client.post("/studies", json={"study": "x"}, headers={"Idempotency-Key": "at-work-123"})
    assert (busy.status_code, busy.json()["code"]) == (409, "CO-H109")


def test_a_token_has_so_many_keys_and_takes_none_from_another(tmp_path: Path) -> None:
    keys = IdempotencyKeys(tmp_path / "keys", most=3)
    for k in range(3):
        assert keys.begin("somebody", f"key-{k:06d}", b"", 0.0) is None
    with pytest.raises(Refused, match="3 idempotency keys of this token"):
        keys.begin("somebody", "one-too-many", b"", 0.0)
    assert keys.begin("another", "key-000001", b"", 0.0) is None
    assert keys.begin("somebody", "one-too-many", b"", 100_000.0) is None  # a day later
    keys.close()


def test_no_answer_quotes_rows_or_keeps_a_path(house: ApiHouse) -> None:
    network = house.network
    faults = network.root / "north" / "faults"
    faults.mkdir(exist_ok=True)
    (faults / "1.txt").write_text("2026-11-28 10:00:00Z CO-D141: line 3: 'Anna Schmidt' is no number.\n")
    quiet = house.client(Role.READ).get("/studies/1/status").json()
    assert quiet["last_fault"] == "2026-11-28 10:00:00Z CO-D141"
    assert str(network.root) not in json.dumps(quiet)
    whole = house.client(Role.OPERATE, Role.READ).get("/studies/1/status").json()
    assert "Anna Schmidt" in whole["last_fault"]
    (faults / "1.txt").unlink()


def test_an_answer_is_kept_by_no_browser_and_framed_by_no_page(house: ApiHouse) -> None:
    for path in ("/site", "/nothing"):
        headers = house.client(Role.READ).get(path).headers
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_a_folder_of_a_site_keeps_the_answers_private(house: ApiHouse, tmp_path: Path) -> None:
    base = house.services.folder.root / "api-requests.sqlite"
    assert stat.S_IMODE(base.stat().st_mode) == 0o600
