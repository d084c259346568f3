"""Attacks on the node's page: silent sockets, slow bodies, open streams, escaped quotes, addresses, forms, secrets."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient
from support.node.api import ApiClient, open_house
from support.node.houses import NodeNetwork, study_file
from support.node.pages import HOST, MemoryAccounts, PageHouse, find_token

from coterie_node.audit.sources import find_study_number
from coterie_node.errors import ConfigError
from coterie_node.persons.roles import Person, Role
from coterie_node.web.api.doorway import JSON_TOKENS
from coterie_node.web.api.idempotency import IdempotencyKeys
from coterie_node.web.app import build_app
from coterie_node.web.connections import PromptProtocol
from coterie_node.web.live.jobs import JobDesk
from coterie_node.web.live.places import PlacedStream, WorkPlaces
from coterie_node.web.middleware import BodyLimit
from coterie_node.web.pages.settings import list_settings
from coterie_node.web.sessions import DROPPED_AT_ONCE, MOST_SESSIONS, MemorySessions

# Far above what is waited for, so that a server that never lets go is seen.
PATIENCE = 20.0


@pytest.fixture
def house(tmp_path: Path) -> Iterator[PageHouse]:
    with PageHouse(tmp_path / "nodes") as opened:
        yield opened


class HurriedProtocol(PromptProtocol):
    """The page's own protocol with a short deadline."""

    head_seconds = 0.2


@contextmanager
def serve(app: Any) -> Iterator[int]:
    """A real server with the page's protocol and eight places; gives its port."""
    config = uvicorn.Config(app, port=0, log_config=None, http=HurriedProtocol, limit_concurrency=8, lifespan="off")
    server, started = uvicorn.Server(config), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    async def run() -> None:
        task = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        started.set()
        await task

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert started.wait(PATIENCE)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


def ask(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as line:
        line.sendall(request)
        return line.recv(1 << 16)


# Places of the server


WHOLE = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def wait_for_end(line: socket.socket) -> None:
    """Read until the server closes the connection; a server that does not is a timeout."""
    try:
        while line.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    line.close()


def send_pieces(line: socket.socket, pieces: tuple[bytes, ...]) -> None:
    """Send each piece after an answer to the one before; a busy machine's server may have closed the line first."""
    with suppress(ConnectionError):
        for k, piece in enumerate(pieces):
            if k:
                line.recv(1 << 16)
            line.sendall(piece)


@pytest.mark.parametrize("pieces", [(b"",), (b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ",), (WHOLE, b"GET /")])
def test_silent_sockets_give_their_places_to_others(pieces: tuple[bytes, ...]) -> None:
    """Nothing sent, half a head, and half a head after an answer: each ends by itself, and nobody signed in."""
    with serve(hello) as port:
        silent = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(7)]
        for line in silent:
            send_pieces(line, pieces)
        for line in silent:
            wait_for_end(line)
        assert ask(port, WHOLE).startswith(b"HTTP/1.1 200")


def test_a_body_that_never_ends_is_refused_and_a_stream_outlasts_the_deadline() -> None:
    heard: list[str] = []

    async def reader(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body", False):
            pass
        heard.append((await receive())["type"])  # as a stream waits for its visitor to go

    async def call(whole: bool) -> None:
        first = [{"type": "http.request", "body": b"x", "more_body": not whole}]

        async def receive() -> Any:
            if first:
                return first.pop()
            await asyncio.sleep(0.2 if whole else 3600)
            return {"type": "http.disconnect"}

        async def send(_: Any) -> None:
            raise AssertionError("nobody answers")

        await BodyLimit(reader, seconds=0.05)({"type": "http", "headers": []}, receive, send)

    with pytest.raises(HTTPException) as caught:
        asyncio.run(call(False))
    assert (caught.value.status_code, "CO-W105" in str(caught.value.detail)) == (408, True)
    asyncio.run(call(True))
    assert heard == ["http.disconnect"]


def test_a_request_with_two_lengths_is_refused_by_every_page(house: PageHouse) -> None:
    """What a proxy reads by one length and the page by the other would be a request of the next visitor."""
    headers = {"transfer-encoding": "chunked", "content-length": "3"}
    answer = house.browser().post("/login", content=b"a=b", headers=headers)
    assert (answer.status_code, "CO-W104" in answer.text) == (400, True)


def test_a_million_visitors_leave_a_person_signed_in() -> None:
    sessions = MemorySessions(1200, 43200)
    ada = sessions.begin(Person("ada", "Ada", frozenset()))
    visitors = [sessions.begin().name for _ in range(2 * MOST_SESSIONS)]
    assert sessions.find(ada.name) is not None
    alive = [sessions.find(name) is not None for name in visitors]
    assert MOST_SESSIONS - DROPPED_AT_ONCE <= sum(alive) < MOST_SESSIONS
    assert all(alive[-DROPPED_AT_ONCE:])


# The HTTP API before anybody is known


def test_a_body_of_escaped_quotes_is_read_once(tmp_path: Path) -> None:
    """A string that nobody ends was tried again from each quote within it: 1 MiB took an hour, without a token."""
    body = b'"' + b'\\"' * 200_000
    assert [match[0] for match in JSON_TOKENS.finditer(body)] == [body]
    network = NodeNetwork(tmp_path)
    with open_house(network) as opened:
        head = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        assert ApiClient(opened.app).send("POST", "/studies", head, [body]).status_code == 401
    for log in network.logs.values():
        log.close()


def test_a_stream_ends_with_its_token(node_network: NodeNetwork) -> None:
    """Of a study that waits, so that nothing else ends the stream but its ten minutes."""
    node_network.propose(study_file(node_network.root))
    node_network.settle()
    for end in ("revoked", "expired"):
        with open_house(node_network, poll_seconds=0.0) as opened:
            text, looks, clock = opened.token(Role.READ), iter(range(1000)), opened.services.clock

            def tick(
                text: str = text, looks: Any = looks, clock: Any = clock, end: str = end, opened: Any = opened
            ) -> float:
                if next(looks) == 5 and end == "revoked":
                    opened.services.tokens.revoke(text.split("_")[1])
                return float(clock()) + (86_400 * 8 if end == "expired" and next(looks) > 10 else 0)

            services = replace(opened.services, clock=tick, stream_seconds=1e9)
            opened.app._app.state.services = services
            answer = ApiClient(opened.app, text).get("/studies/1/events")
            assert answer.status_code == 200
            assert "CO-H102" in answer.text
            assert services.streams.count == 0


def test_a_place_is_free_again_if_the_visitor_goes_before_the_first_event() -> None:
    places = WorkPlaces(4, 1, "streams")

    async def never() -> Any:
        await asyncio.sleep(3600)
        yield ""

    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        pass

    for _ in range(3):
        asyncio.run(PlacedStream(never(), places, "ada")({"type": "http"}, gone, send))
    assert places.count == 0


def test_two_requests_at_once_under_one_key_act_once(tmp_path: Path) -> None:
    keys, barrier = IdempotencyKeys(tmp_path / "keys.sqlite"), threading.Barrier(8)
    outcomes: list[object] = []

    def send() -> None:
        barrier.wait()
        try:
            outcomes.append(keys.begin("token", "key-key-key", b"POST", 5.0))
        except Exception as error:  # counted below
            outcomes.append(error)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(None) == 1
    assert sum(getattr(outcome, "code", "") == "CO-H109" for outcome in outcomes) == 7
    keys.close()


# Pages and forms


class LeavingAccounts(MemoryAccounts):
    """Accounts whose site removes everybody after so many looks."""

    looks = 2

    def refresh(self, person: Person) -> Person | None:
        self.looks -= 1
        return person if self.looks >= 0 else None


def test_a_live_part_ends_when_its_person_is_removed(house: PageHouse) -> None:
    client = house.browser("read")
    services = replace(house.services, accounts=LeavingAccounts(house.accounts.persons.values()))
    cookies = client.cookies
    client = TestClient(build_app(services), base_url=HOST, cookies=cookies)
    house.sessions.looks = 30  # without the check the session's end ends the test
    part = client.get("/live/studies").text
    assert part.endswith("data: the session has ended\n\n")
    assert house.sessions.looks > 20
    assert services.streams.count == 0


LIVE = ("/live/studies", "/live/studies/1/run")


@pytest.mark.parametrize("account", ["", "guest", *(role.value for role in Role if role is not Role.READ)])
def test_a_live_part_is_sent_to_nobody_who_may_not_read_the_page(
    account: str, house: PageHouse, tmp_path: Path
) -> None:
    house.propose(tmp_path)
    client = house.browser(account)
    for path in LIVE:
        answer = client.get(path, headers={"last-event-id": "1"})
        assert (answer.status_code, "cohort" in answer.text) == (403 if account else 303, False)


def watch(house: PageHouse, path: str, account: str = "read", **headers: str) -> str:
    """What a live part sends until the session ends, which a few looks later it does."""
    house.sessions.looks = None
    client = house.browser(account)
    house.sessions.looks = 2
    answer = client.get(path, headers=headers)
    house.sessions.looks = None
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
    return str(answer.text)


@pytest.mark.parametrize("forged", ["9" * 10_000, "-1", "<script>", "../run"])
def test_a_forged_place_in_a_stream_gives_the_whole_part_from_the_begin(
    forged: str, house: PageHouse, tmp_path: Path
) -> None:
    house.propose(tmp_path)
    assert watch(house, LIVE[0], **{"last-event-id": forged}) == watch(house, LIVE[0])


def test_a_stream_of_no_study_ends_with_the_cause(house: PageHouse) -> None:
    """It used to end in a traceback of the page's process, one for each request."""
    sent = watch(house, "/live/studies/999/run")
    assert sent.startswith("event: end\ndata: ")
    assert "CO-F304" in sent
    assert house.services.streams.count == 0


@pytest.mark.parametrize("path", ["/studies/{}", "/studies/{}/run", "/live/studies/{}/run", "/studies/{}/result"])
def test_a_number_of_five_thousand_digits_is_no_page(path: str, house: PageHouse) -> None:
    """Python makes no number of so many digits; the route broke before anybody was asked who they are."""
    for account in ("", "ada"):
        assert house.browser(account).get(path.format("9" * 5000)).status_code == 404


def test_a_filter_of_five_thousand_digits_finds_no_study(house: PageHouse, tmp_path: Path) -> None:
    house.propose(tmp_path)
    assert house.browser("ada").get(f"/audit?study={'9' * 5000}").status_code == 200
    with pytest.raises(ConfigError) as caught:
        find_study_number(house.reader.ledger, "9" * 5000)
    assert (caught.value.code, len(caught.value.message) < 1000) == ("CO-F304", True)


HOSTILE_TITLE = "%csrf% <!--piece a--> <!--/piece--> <script>alert(1)</script> data: x"


def test_no_title_shows_a_viewer_s_token_or_makes_a_mark_of_the_page(house: PageHouse, tmp_path: Path) -> None:
    """The token stands in the part as a mark until it is sent; a title with this mark had the token in the page."""
    path = study_file(tmp_path)
    path.write_text(f"title = {json.dumps(HOSTILE_TITLE)}\n{path.read_text()}")
    house.network.propose(path, "south")
    house.network.settle()
    client = house.browser("ada")
    session = house.sessions.find(client.cookies[house.services.cookie])
    assert session is not None
    for page in (*LIVE, "/studies", "/studies/1/run"):
        house.sessions.looks = 2
        text = client.get(page).text
        assert "%csrf% &lt;!--piece a--&gt;" in text
        assert "<script>alert" not in text
        seen = re.sub(r'name="csrf" value="[^"]*"', "", text)
        assert session.token not in seen


def test_a_job_that_ends_in_any_way_runs_no_longer() -> None:
    """A name whose job seems to run cannot be started again."""

    class Odd(BaseException):
        pass

    def fail(error: BaseException) -> None:
        raise error

    desk = JobDesk()
    for error in (RecursionError(), NotImplementedError(), AssertionError(), Odd()):
        desk.start("rows", "Ada", partial(fail, error))
        while (job := desk.find("rows")) is None or job.runs:
            time.sleep(0.01)
        assert "a defect of the program" in job.problem
    desk.close()


def test_a_folder_that_vanishes_while_it_is_looked_at_does_not_end_the_page_s_reader(
    house: PageHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon removes a release that is decided; the reader's thread ended, and every page stood still unseen."""
    gone = house.reader.folder.root / "releases" / "1"
    monkeypatch.setattr(Path, "glob", lambda *_: iter([gone]))
    monkeypatch.setattr(Path, "exists", lambda _: True)
    house.reader.look()


def test_live_parts_of_one_person_leave_room_for_others(house: PageHouse) -> None:
    person = house.accounts.persons["read"]
    for _ in range(128):
        house.services.streams.enter(person.account)
    refused = house.browser("read").get("/live/studies")
    assert (refused.status_code, "CO-H112" in refused.text) == (409, True)
    house.sessions.looks = 0
    assert house.browser("ada").get("/live/studies").status_code == 200


@pytest.mark.parametrize("codec", ["unicode_escape", "utf-16", "undefined", "utf-7", "idna"])
def test_a_form_in_odd_letters_is_no_form(house: PageHouse, codec: str) -> None:
    """Such a codec makes half characters, which nothing after it can write."""
    body = b'--b\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n\\ud800\r\n--b--\r\n'
    kind = f"multipart/form-data; boundary=b; charset={codec}"
    answer = house.browser("ada").post("/login", content=body, headers={"content-type": kind})
    assert (answer.status_code, "CO-W103" in answer.text) == (403, True)


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-www-form-urlencoded"])
def test_a_foreign_page_s_request_changes_nothing_whatever_its_kind(house: PageHouse, kind: str) -> None:
    body = json.dumps({"csrf": "x", "name": "ada"})
    for path in ("/logout", "/propose", "/login"):
        answer = house.browser("ada").post(path, content=body, headers={"content-type": kind})
        assert (answer.status_code, "CO-W103" in answer.text) == (403, True)


def test_a_session_that_was_planted_before_the_login_opens_nothing(house: PageHouse) -> None:
    planted = house.sessions.begin()
    victim = house.browser()
    victim.cookies.set(house.services.cookie, planted.name)
    fields = {"name": "ada", "password": "correct horse battery", "csrf": find_token(victim.get("/login").text)}
    assert victim.post("/login", data=fields).status_code == 303
    thief = house.browser()
    thief.cookies.set(house.services.cookie, planted.name)
    assert thief.get("/studies").headers["location"].startswith("/login")


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "/\\evil.example",
        "/%5Cevil\\x",
        "https:evil",
        "\t//evil",
        "/\t/evil",
        "/\u2028/x",
        "javascript:1",
    ],
)
def test_no_form_of_an_address_leads_elsewhere(house: PageHouse, target: str) -> None:
    answer = house.browser("ada").get("/login", params={"next": target})
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize(
    "path", ["/static/", "/static", "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%5capp.py"]
)
def test_static_files_are_listed_to_nobody_and_lead_nowhere(house: PageHouse, path: str) -> None:
    answer = house.browser("ada").get(path)
    assert answer.status_code in (307, 404)
    assert "Starlette" not in answer.text


@pytest.mark.parametrize(
    "path", ["/studies/..%2f1/result", "/studies/1/result/..%2f..%2fnode.toml", "/studies/-1", "/sign/approve/..%2f1"]
)
def test_no_number_or_format_is_a_path(house: PageHouse, path: str) -> None:
    assert house.browser("ada").get(path).status_code in (404, 409)


def test_settings_say_nothing_of_webhooks_but_their_hosts() -> None:
    """The path of a chat's address is its password, and stood on the page of settings."""
    hook = {"name": "chat", "url": "https://chat.example/T0/B0/secret-path?k=1", "secret_file": "x/hook.secret"}
    values = dict(list_settings({"webhooks": [hook], "mail": {"credentials_file": "mail.secret"}}))
    text = json.dumps(values)
    assert "chat.example" in text
    for secret in ("secret-path", "B0", "hook.secret", "mail.secret"):
        assert secret not in text
