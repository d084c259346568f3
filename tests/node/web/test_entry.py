"""Who gets in: every route for every role, sessions, forms of other pages, hosts and headers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from io import StringIO
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support.node.houses import make_node_folder
from support.node.pages import (
    HOST,
    PASSWORD,
    MemoryAccounts,
    PageHouse,
    find_token,
    list_persons,
    make_person,
    send_form,
    sign_in,
)

from coterie_node.persons.roles import Person, Role
from coterie_node.site.config import WebPart
from coterie_node.site.watch.log import EventLog
from coterie_node.web.access import Entrance, PageRoute, may_enter
from coterie_node.web.api.part import open_api_part
from coterie_node.web.app import build_app, list_routes
from coterie_node.web.guard import find_target
from coterie_node.web.server import make_services, open_reader

OTHER_ORIGINS = ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "", "/a\r\nb: c")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageHouse]:
    root = tmp_path_factory.mktemp("page")
    with PageHouse(root / "nodes") as house:
        house.run(root)
        house.propose(root, "second")
        yield house


def fill(path: str) -> str:
    """A path of the table with values that the house has."""
    return path.replace("{number:number}", "2").replace("{format}", "csv").replace("{digest}", "0" * 64)


def ask(client: TestClient, route: PageRoute, token: str) -> int:
    if route.method == "GET":
        with client.stream("GET", fill(route.path)) as response:
            return int(response.status_code)
    return int(client.post(fill(route.path), data={"csrf": token}).status_code)


@pytest.mark.parametrize("person", [None, *list_persons()], ids=lambda p: p.account if p else "nobody")
def test_every_route_takes_the_roles_of_the_table_and_no_other(house: PageHouse, person: Person | None) -> None:
    for route in list_routes():
        client = house.browser("" if person is None else person.account)
        session = client.cookies.get(house.services.cookie)
        token = "" if session is None else house.services.sessions.find(session).token  # type: ignore[union-attr]
        status = ask(client, route, token)
        where = f"{route.method} {route.path}"
        if may_enter(route.access, person):
            assert status not in (401, 404, 405, 500), where
            assert status != 403 or route.path == "/login", where
        elif person is None:
            assert status == (303 if route.method == "GET" else 401), where
        else:
            assert status == 403, where


def test_no_route_is_open_but_the_login() -> None:
    assert {route.path for route in list_routes() if route.access is Entrance.OPEN} == {"/login"}


def test_a_route_that_is_not_in_the_table_does_not_exist(house: PageHouse) -> None:
    client = house.browser("ada")
    assert client.get("/nothing").status_code == 404
    assert client.request("PUT", "/studies").status_code == 405
    assert client.get("/static/../app.py").status_code == 404
    assert house.browser().get("/nothing").status_code == 404


def test_a_visitor_signs_in_and_comes_back_to_the_page_that_was_asked_for(house: PageHouse) -> None:
    client = house.browser()
    first = client.get("/studies?q=coh")
    assert first.headers["location"] == "/login?next=%2Fstudies%3Fq%3Dcoh"
    answer = sign_in(client, "read", target="/studies?q=coh")
    assert answer.headers["location"] == "/studies?q=coh"


@pytest.mark.parametrize("target", OTHER_ORIGINS)
def test_the_login_leads_to_no_other_place(house: PageHouse, target: str) -> None:
    assert sign_in(house.browser(), "read", target=target).headers["location"] == "/"
    assert find_target(target) == "/"


def test_signing_in_changes_the_session_and_its_token(house: PageHouse) -> None:
    client = house.browser()
    before_token = find_token(client.get("/login").text)
    before = client.cookies[house.services.cookie]
    sign_in(client, "ada")
    after = client.cookies[house.services.cookie]
    assert after != before
    assert house.services.sessions.find(before) is None
    assert find_token(client.get("/studies").text) != before_token


def test_a_wrong_password_opens_nothing(house: PageHouse) -> None:
    client = house.browser()
    answer = sign_in(client, "ada", PASSWORD + "!")
    assert answer.status_code == 403
    assert "is wrong" in answer.text
    assert client.get("/studies").status_code == 303


def test_signing_out_ends_the_session_on_the_server(house: PageHouse) -> None:
    client = house.browser("ada")
    cookie = client.cookies[house.services.cookie]
    send_form(client, "/studies", "/logout")
    client.cookies.set(house.services.cookie, cookie)
    assert client.get("/studies").status_code == 303


def test_a_session_ends_when_nobody_uses_it_and_after_a_day_of_work_in_any_case(house: PageHouse) -> None:
    client = house.browser("ada")
    house.clock.seconds += 19 * 60
    assert client.get("/studies").status_code == 200
    house.clock.seconds += 21 * 60
    assert client.get("/studies").status_code == 303
    client = house.browser("ada")
    for _ in range(12 * 4 + 1):
        house.clock.seconds += 15 * 60
        status = client.get("/studies").status_code
    assert status == 303


def test_a_person_who_is_removed_or_loses_a_role_loses_the_open_session_too(tmp_path: Path) -> None:
    with PageHouse(tmp_path / "nodes") as house:
        client = house.browser("ada")
        house.accounts.persons["ada"] = make_person("ada", Role.AUDIT)
        assert client.get("/studies").status_code == 403
        del house.accounts.persons["ada"]
        assert client.get("/studies").status_code == 303


def test_a_form_without_the_token_of_its_session_is_refused(house: PageHouse) -> None:
    client, other = house.browser("ada"), house.browser("ada")
    stolen = find_token(other.get("/studies").text)
    for token in ("", "x", stolen):
        answer = client.post("/logout", data={"csrf": token})
        assert answer.status_code == 403
        assert "CO-W103" in answer.text
    assert client.get("/studies").status_code == 200


def test_every_form_that_changes_something_needs_a_token(house: PageHouse) -> None:
    client = house.browser("ada")
    for route in list_routes():
        if route.method == "POST":
            assert client.post(fill(route.path)).status_code == 403, route.path


@pytest.mark.parametrize("path", ["/login", "/studies", "/nothing", "/static/page.css", "/static/none.css"])
def test_every_answer_has_the_headers_that_protect_it(house: PageHouse, path: str) -> None:
    for client in (house.browser("ada"), house.browser()):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert (headers["x-frame-options"], headers["x-content-type-options"]) == ("DENY", "nosniff")
        assert "server" not in headers
        kept = path == "/static/page.css"
        assert headers["cache-control"] == ("public, max-age=0, must-revalidate" if kept else "no-store")


def test_the_cookie_is_for_this_site_alone_and_for_no_script(house: PageHouse) -> None:
    cookie = house.browser().get("/login").headers["set-cookie"]
    assert cookie.startswith("coterie_north=")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    secure = house.browser(base="https://127.0.0.1").get("/login")
    assert "Secure" in secure.headers["set-cookie"]
    assert secure.headers["strict-transport-security"].startswith("max-age=")


def test_the_page_answers_by_its_own_names_only(tmp_path: Path) -> None:
    own, others = ("127.0.0.1", "north.localhost", "node.hospital.example"), ("evil.example", "south.localhost")
    with PageHouse(tmp_path / "nodes", WebPart(hosts=("node.hospital.example",))) as house:
        answers = {host: house.browser(base=f"http://{host}").get("/login").status_code for host in (*own, *others)}
    assert answers == {**dict.fromkeys(own, 200), **dict.fromkeys(others, 400)}


def test_forwarded_headers_count_from_listed_proxies_alone(tmp_path: Path) -> None:
    headers = {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.9"}
    with PageHouse(tmp_path / "nodes", WebPart(proxies=("10.0.0.9",))) as house:
        for address, secure in [("10.0.0.9", True), ("10.0.0.8", False)]:
            answer = house.browser(address=address).get("/login", headers=headers)
            assert ("Secure" in answer.headers["set-cookie"]) is secure


def test_a_long_body_is_refused_by_what_it_says_and_by_what_comes(house: PageHouse) -> None:
    client = house.browser("ada")
    size = (1 << 20) + (1 << 16) + 1
    assert client.post("/login", content=b"x" * size).status_code == 413

    def pieces() -> object:
        yield from (b"x" * (1 << 16) for _ in range(20))

    answer = client.post(
        "/login",
        content=pieces(),
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 413
    assert "CO-W105" in answer.text


def test_a_node_without_a_network_shows_the_first_steps_and_answers_programs(tmp_path: Path) -> None:
    folder = make_node_folder(tmp_path / "north", "north")
    with ExitStack() as stack:
        reader = open_reader(stack, folder, EventLog(StringIO()))
        services = make_services(folder, reader, MemoryAccounts(list_persons()))
        client = TestClient(
            build_app(services, (open_api_part(services.site.folder),)), base_url=HOST, follow_redirects=False
        )
        sign_in(client, "ada")
        assert client.get("/").headers["location"] == "/setup"
        assert "network.json is missing" in client.get("/setup").text
        assert client.get("/api/v1/studies").status_code == 401
