"""The page of a site over a ledger and a store in memory, and a browser of one person in it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient
from support.node.houses import NodeNetwork, study_file

from coterie_node.persons.roles import Person, Role
from coterie_node.site.config import WebPart
from coterie_node.web.access import PagePart
from coterie_node.web.app import build_app
from coterie_node.web.live.site_reader import SiteReader
from coterie_node.web.rendering import make_templates
from coterie_node.web.services import PageServices
from coterie_node.web.sessions import MemorySessions

PASSWORD = "correct horse battery"
ALL_ROLES = frozenset(Role)
HOST = "http://127.0.0.1"


class MemoryAccounts:
    """The twin of a site's register: one account for each person, all with one password and no code."""

    def __init__(self, persons: Iterable[Person]) -> None:
        self.persons = {person.account: person for person in persons}

    def check(self, name: str, password: str, code: str) -> Person | None:
        return self.persons.get(name) if password == PASSWORD else None

    def refresh(self, person: Person) -> Person | None:
        return self.persons.get(person.account)

    def is_empty(self) -> bool:
        return not self.persons


def make_person(account: str, *roles: Role) -> Person:
    return Person(account, account.title(), frozenset(roles))


def list_persons() -> list[Person]:
    """One person with all roles, one with none, and one for each role alone."""
    return [
        Person("ada", "Ada Lovelace", ALL_ROLES),
        Person("guest", "Guest", frozenset()),
        *(make_person(role.value, role) for role in Role),
    ]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class EndingSessions(MemorySessions):
    """Sessions that end, for who looks without using them, after `looks` looks; never for None."""

    looks: int | None = None

    def peek(self, name: str) -> bool:
        if self.looks is None:
            return super().peek(name)
        self.looks -= 1
        return self.looks >= 0


class PageHouse:
    """Three daemons in memory, and the page of the first site."""

    def __init__(self, root: Path, settings: WebPart | None = None, parts: tuple[PagePart, ...] = ()) -> None:
        self.network = NodeNetwork(root)
        self.clock = Clock()
        self.accounts = MemoryAccounts(list_persons())
        ledger = self.network.chain.ledger(None)
        self.reader = SiteReader(self.network.homes["north"], ledger, self.network.blobs)
        settings = settings or WebPart()
        self.sessions = EndingSessions(settings.idle_minutes * 60, settings.session_hours * 3600, self.clock)
        self.services = PageServices(self.reader, self.accounts, self.sessions, make_templates(), settings)
        self.app = build_app(self.services, parts)

    def __enter__(self) -> PageHouse:
        return self

    def __exit__(self, *_: object) -> None:
        for log in self.network.logs.values():
            log.close()

    def browser(self, account: str = "", base: str = HOST, address: str = "127.0.0.1") -> TestClient:
        """A browser at an address; with an account's name that person is signed in."""
        client = TestClient(self.app, base_url=base, follow_redirects=False, client=(address, 50000))
        if account:
            sign_in(client, account)
        return client

    def propose(self, root: Path, name: str = "cohort", by: str = "south") -> bytes:
        """A study that a site proposes, on the ledger."""
        study = self.network.propose(study_file(root, name), by)
        self.network.settle()
        return study

    def run(self, root: Path, name: str = "cohort") -> int:
        """A study that all sites approve and run to its end; returns its number."""
        study = self.propose(root, name)
        self.network.approve(study, *(site for site in self.network.homes if site != "south"))
        self.network.settle()
        return self.reader.ledger.studies()[-1]


def find_token(page: str) -> str:
    """The CSRF token in a page's forms."""
    match = re.search(r'name="csrf" value="([^"]+)"', page)
    assert match is not None, page
    return match[1]


def sign_in(client: TestClient, account: str, password: str = PASSWORD, target: str = "/") -> Any:
    token = find_token(client.get("/login").text)
    fields = {"csrf": token, "name": account, "password": password, "next": target}
    return client.post("/login", data=fields)


def send_form(client: TestClient, page: str, action: str, **fields: str) -> Any:
    """Open a page, and send a form from there."""
    return client.post(action, data={"csrf": find_token(client.get(page).text), **fields})
