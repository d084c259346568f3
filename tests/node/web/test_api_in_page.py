"""The API as the page serves it: under its prefix, by tokens alone, behind the page's list of hosts."""

from __future__ import annotations

from pathlib import Path

from support.node.pages import PageHouse

from coterie_node.persons.roles import Role
from coterie_node.web.api.part import open_api_part
from coterie_node.web.api.tokens import TOKENS, TokenFile
from coterie_node.web.client.api_transport import API_PREFIX


def test_the_page_serves_the_api_by_tokens_and_not_by_sessions(tmp_path: Path) -> None:
    with PageHouse(tmp_path) as first:
        home = first.network.homes["north"]
        tokens = TokenFile(home.root / TOKENS)
        _, text = tokens.create("A program", (Role.READ,), 1, 0.0)
        _, living = tokens.create("A program", (Role.READ,), 30, 4_000_000_000.0)
    part = open_api_part(home)
    with PageHouse(tmp_path / "again", parts=(part,)) as house:
        browser = house.browser("ada")  # signed in with all roles
        assert browser.get(f"{API_PREFIX}/site").status_code == 401
        assert browser.get(f"{API_PREFIX}/site", headers={"Authorization": f"Bearer {text}"}).status_code == 401
        own = {"Authorization": f"Bearer {living}"}
        answer = browser.get(f"{API_PREFIX}/site", headers=own)
        assert (answer.status_code, answer.json()["site"]) == (200, "north")
        assert browser.get(f"{API_PREFIX}/site", headers=own | {"Host": "evil.example"}).status_code == 400
        huge = browser.post(f"{API_PREFIX}/studies", content=b" " * (1 << 21), headers=own)
        assert huge.status_code == 413
