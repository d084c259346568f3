"""The whole life of a study on three nodes by browser alone, over a real chain: propose to audit, and then `verify`."""

from __future__ import annotations

import hashlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
from playwright.sync_api import Browser, Page, expect
from support.node.browsers import (
    add_authenticator,
    list_faults,
    look_over,
    open_browser,
    open_page,
    sign_in_by_keyboard,
    take_picture,
    take_problems,
)
from support.node.processes import run_command

from coterie_chain.ledger.protocol import Event
from coterie_chain.network.programs.ports import find_free_port
from coterie_node.network.devnet import stop_programs
from coterie_node.network.local_nodes import SiteDaemons
from coterie_node.persons.accounts import LocalAccounts
from coterie_node.persons.act_log import LogHead
from coterie_node.persons.register import PersonEntry, PersonRegister
from coterie_node.persons.roles import Role
from coterie_node.site.run_folder import RunFolder
from coterie_node.web.file_accounts import ACCOUNTS, FileAccounts

pytestmark = [pytest.mark.browser, pytest.mark.anvil, pytest.mark.timeout(900)]

PASSWORD = "a long password of hers"
# Milliseconds: three daemons, three pages and a browser share this machine.
WITHIN = 240_000


@dataclass(frozen=True)
class Town:
    """Three nodes with their pages: the run's folder, and the address of each site's page."""

    place: RunFolder
    pages: dict[str, str]


@contextmanager
def open_town(
    folder: Path, prepare: Callable[[RunFolder, str], str], chain: str = "anvil", store: str = "folder"
) -> Iterator[Town]:
    """Three nodes over a real chain; `prepare` sets a site up before its daemon starts, and gives its address."""
    up = run_command("devnet", "up", folder, "--chain", chain, "--store", store)
    place = RunFolder(folder)
    try:
        assert up.returncode == 0, up.stderr
        daemons = SiteDaemons(place)
        daemons.stop()
        pages = {site: prepare(place, site) for site in place.settings().sites}
        for service in daemons.services().values():
            service.start()  # the daemon starts its page
        yield Town(place, pages)
    finally:
        stop_programs(place)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with open_town(tmp_path / "town", prepare_site) as town:
        yield town


def prepare_site(place: RunFolder, site: str) -> str:
    """Give a site a page, an account, and a rule that a person lets each payload leave; returns the page's address."""
    root, port = place.site_root(site), find_free_port()
    settings = (root / "node.toml").read_text().replace("[policy]\n", "[policy]\nask = true\n")
    (root / "node.toml").write_text(f"{settings}\n[web]\nport = {port}\n")
    FileAccounts(root / ACCOUNTS).save("ada", f"Ada of {site}", tuple(Role), PASSWORD)
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


def test_a_study_lives_from_proposal_to_audit_by_browser_alone(town: Town, browser: Browser, tmp_path: Path) -> None:
    take_problems()
    visits = {site: enter(browser, address) for site, address in town.pages.items()}
    first, *others = visits
    propose(visits[first], town.pages[first], write_study(town, tmp_path))
    for site in others:
        approve(visits[site], town.pages[site], site)
    run_to_the_end(visits, town.pages)
    check_result(visits[first], town.pages[first], tmp_path)
    assert take_problems() == []
    verified = run_command("audit", "verify", tmp_path / "study.zip", "--at", town.place.root)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def enter(browser: Browser, address: str) -> Page:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WITHIN)
    page = open_page(context)
    wait_for_server(page, address)
    sign_in_by_keyboard(page, address, "ada", PASSWORD)
    return page


def wait_for_server(page: Page, address: str) -> None:
    """Wait until the daemon has started its page."""
    for _ in range(240):
        try:
            with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 1):
                return
        except OSError:
            page.wait_for_timeout(500)
    raise AssertionError(f"no page at {address}")


def write_study(town: Town, tmp_path: Path) -> Path:
    """The network's study under a name of its own."""
    text = re.sub(r'^name = ".*"', 'name = "by-browser"', town.place.study.read_text(), count=1, flags=re.MULTILINE)
    path = tmp_path / "study.toml"
    path.write_text(text)
    return path


def propose(page: Page, address: str, study: Path) -> None:
    page.get_by_role("link", name="Propose a study").click()
    page.get_by_label("Study document").set_input_files(study)
    page.get_by_role("button", name="Show what it does").click()
    expect(page.get_by_role("heading", name="What it discloses")).to_be_visible(timeout=WITHIN)
    assert list_faults(page) == []
    take_picture(page, "life-propose")
    page.get_by_role("button", name="Propose it to").click()
    expect(page.get_by_role("status").first).to_contain_text("Proposed", timeout=WITHIN)
    expect(page.get_by_text("No. 1 ·")).to_be_visible(timeout=WITHIN)  # the list is live


def approve(page: Page, address: str, site: str) -> None:
    expect(page.get_by_text("approve or decline")).to_be_visible(timeout=WITHIN)
    page.goto(f"{address}/studies/1")
    page.get_by_label("I have read what leaves this site").check()
    page.get_by_label("Reason for this site's record").fill("the board agreed")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text(f"Approved by Ada of {site}")).to_be_visible(timeout=WITHIN)


def run_to_the_end(visits: dict[str, Page], pages: dict[str, str]) -> None:
    """Let every payload leave that waits for a person, at each site, until the study is done."""
    for site, page in visits.items():
        page.goto(f"{pages[site]}/studies/1/run")
    pictures = iter(["life-release"])
    for _ in range(400):
        for page in visits.values():
            button = page.get_by_role("button", name="Let it leave").first
            if button.is_visible():
                take_picture(page, next(pictures, "life-release-last"))
                button.click()
                expect(page.get_by_role("status").first).to_contain_text("Allowed", timeout=WITHIN)
        if all(page.get_by_text("The study has ended: done.").is_visible() for page in visits.values()):
            return
        page.wait_for_timeout(300)
    raise AssertionError("the study did not end")


def check_result(page: Page, address: str, tmp_path: Path) -> None:
    take_picture(page, "life-run")
    for _ in range(60):  # the daemon writes the result once it is final
        page.goto(f"{address}/studies/1/result")
        if page.get_by_role("button", name="Run the replay").is_visible():
            break
        page.wait_for_timeout(1000)
    page.get_by_role("button", name="Run the replay").click()
    for _ in range(120):
        page.goto(f"{address}/studies/1/result")
        if page.locator(".chip.pass").is_visible():
            break
        page.wait_for_timeout(1000)
    expect(page.get_by_text("An independent replay recomputed")).to_be_visible()
    take_picture(page, "life-result")
    for name, ending in [("Export bundle", "study.zip"), ("Audit report", "report.html"), ("CSV", "table.csv")]:
        with page.expect_download() as download:
            page.get_by_role("link", name=name, exact=True).click()
        download.value.save_as(tmp_path / ending)
    assert "estimate" in (tmp_path / "table.csv").read_text()
    page.goto(f"{address}/audit?study=1&kind=StudyJoined")
    assert page.locator("tbody tr").count() == 3
    take_picture(page, "life-audit")


# Who signs at each site, by the order of the sites; the second site asks for two persons.
PEOPLE = (("Ada Berg",), ("Bo Dahl", "Cy Ekman"), ("Di Falk",))


@dataclass(frozen=True)
class Signer:
    """A person at a site's page, signed in with a code, whose browser holds a passkey."""

    site: str
    name: str
    address: str
    page: Page

    def sign(self, words: str) -> None:
        """Read the text of the open page, and sign it."""
        expect(self.page.get_by_role("heading", level=1)).to_contain_text(words, timeout=WITHIN)
        expect(self.page.get_by_text(self.name).last).to_be_visible()
        self.page.get_by_role("button", name="Sign with your passkey").click()
        self.page.wait_for_url(lambda url: "/sign/" not in url, timeout=WITHIN)


@pytest.mark.parametrize(
    ("chain", "store"),
    [("anvil", "folder"), pytest.param("clique", "kubo", marks=[pytest.mark.devnet, pytest.mark.timeout(1800)])],
)
def test_persons_sign_a_study_with_passkeys_and_the_bundle_says_who(
    browser: Browser, tmp_path: Path, chain: str, store: str
) -> None:
    take_problems()
    secrets: dict[str, str] = {}
    prepare = lambda place, site: prepare_register(place, site, secrets)  # noqa: E731
    with open_town(tmp_path / "town", prepare, chain, store) as town:
        sites = list(town.pages)
        signers = [
            enter_as_person(browser, site, town.pages[site], name, secrets)
            for site, names in zip(sites, PEOPLE, strict=True)
            for name in names
        ]
        first = signers[0]
        propose_signed(first, write_study(town, tmp_path))
        for signer in signers[1:]:
            approve_signed(signer)
        run_signed(first)
        check_result(first.page, first.address, tmp_path)
        assert take_problems() == []
        verified = run_command("audit", "verify", tmp_path / "study.zip", "--at", town.place.root)
        for site in sites:
            check_acts(town.place, site)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    for signer in signers:
        meaning = "I propose this study" if signer is first else "I have read this study and approve"
        line = rf'{signer.name} for {signer.site}, in the role "\w+", on [^"]+: "{meaning}'
        assert re.search(line, verified.stdout), verified.stdout


def check_acts(place: RunFolder, site: str) -> None:
    """The ledger holds the head of the site's log of acts; a line that was changed afterwards is found."""
    home, command = place.site(site), ("person", "log", "--ledger", "--node", place.site_root(site))
    with home.open_ledger() as ledger:
        joins = [e for e in ledger.history(1) if isinstance(e, Event) and (e.name, e.site) == ("StudyJoined", site)]
    (statement,) = home.persons.list_statements()
    assert [dict(e.details)["approvals"] for e in joins] == [f"0x{hashlib.sha256(statement.document).hexdigest()}"]
    heads = [LogHead(entries=entry.number, hash=entry.hash) for entry in home.persons.log.read()]
    assert statement.log in heads
    found = run_command(*command)
    assert found.returncode == 0, found.stderr
    assert "The ledger has the digest of 1 of these." in found.stdout
    whole = home.persons.log.path.read_bytes()
    cut = b"".join(whole.splitlines(True)[: statement.log.entries - 1])
    for changed in (whole.replace(b'"sign-in"', b'"sign-on"', 1), cut):
        assert changed != whole
        home.persons.log.path.write_bytes(changed)
        refused = run_command(*command)
        assert refused.returncode != 0
        assert "CO-A215" in refused.stderr + refused.stdout
    home.persons.log.path.write_bytes(whole)


def prepare_register(place: RunFolder, site: str, secrets: dict[str, str]) -> str:
    """Give a site a page and persons with accounts; the first site lets each payload leave by a person's signature."""
    sites, root, port = list(place.settings().sites), place.site_root(site), find_free_port()
    names = PEOPLE[sites.index(site)]
    policy = f"[policy]\napprovals = {len(names)}\n" + ("ask = true\n" if site == sites[0] else "")
    text = (root / "node.toml").read_text().replace("[policy]\n", policy)
    (root / "node.toml").write_text(f"{text}\n[persons]\npublish = true\n\n[web]\nport = {port}\n")
    persons, now = place.site(site).persons, int(time.time())
    entries = tuple(PersonEntry(name=name, roles=tuple(Role), since=now - 60) for name in names)
    persons.save_register(PersonRegister(entries=entries))
    accounts = LocalAccounts(persons, lambda: int(time.time()))
    for name in names:
        accounts.set_password(name, PASSWORD)
        secrets[name] = parse_qs(urlsplit(accounts.enrol(name, site)[0]).query)["secret"][0]
    return f"http://{site}.localhost:{port}"


def enter_as_person(browser: Browser, site: str, address: str, name: str, secrets: dict[str, str]) -> Signer:
    """Sign in with a code, and register a passkey."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WITHIN)
    page = open_page(context)
    wait_for_server(page, address)
    add_authenticator(page)
    if name == "Ada Berg":
        page.goto(f"{address}/login")
        look_over(page, "sign-in")
    sign_in_by_keyboard(page, address, name, PASSWORD, pyotp.TOTP(secrets[name]).now())
    page.goto(f"{address}/passkeys")
    page.get_by_role("button", name="Register a passkey").click()
    expect(page.get_by_text("The passkey is in the register.")).to_be_visible(timeout=WITHIN)
    if name == "Ada Berg":
        look_over(page, "passkeys")
    return Signer(site, name, address, page)


def propose_signed(signer: Signer, study: Path) -> None:
    page = signer.page
    page.goto(f"{signer.address}/propose")
    page.get_by_label("Study document").set_input_files(study)
    page.get_by_role("button", name="Show what it does").click()
    page.get_by_role("button", name="Propose it to").click()
    expect(page.get_by_role("heading", name="Sign: propose")).to_be_visible(timeout=WITHIN)
    look_over(page, "sign-propose")
    signer.sign("propose by-browser")
    expect(page.get_by_role("status").first).to_contain_text("Proposed", timeout=WITHIN)
    expect(page.get_by_text("No. 1 ·")).to_be_visible(timeout=WITHIN)


def approve_signed(signer: Signer) -> None:
    """Approve on the study's page; the second person of a site finds the form there too."""
    page = signer.page
    page.goto(f"{signer.address}/studies")
    expect(page.get_by_text("No. 1 ·")).to_be_visible(timeout=WITHIN)
    page.goto(f"{signer.address}/studies/1")
    if signer.name == "Cy Ekman":
        expect(page.get_by_text("1 of 2 have signed")).to_be_visible()
        look_over(page, "study-second-signature")
    page.get_by_label("I have read what leaves this site").check()
    page.get_by_label("Reason for this site's record").fill("the board agreed")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_label("Reason for this site's own record")).to_have_value("the board agreed", timeout=WITHIN)
    if signer.name == "Bo Dahl":
        look_over(page, "sign-approve")
    signer.sign("approve study 1")
    expect(page.get_by_text(f"Signed by {signer.name}").or_(page.get_by_text("2 of 2")).first).to_be_visible()


def run_signed(signer: Signer) -> None:
    """Sign for each payload of the site that asks, until the study is done."""
    page = signer.page
    page.goto(f"{signer.address}/studies/1/run")
    pictures = iter(["sign-release"])
    for _ in range(400):
        button = page.get_by_role("button", name="Let it leave").first
        if button.is_visible():
            button.click()
            expect(page.get_by_role("heading", name="Sign: let payload")).to_be_visible(timeout=WITHIN)
            if (name := next(pictures, "")) != "":
                look_over(page, name)
            signer.sign("let payload")
            expect(page.get_by_role("status").first).to_contain_text("Allowed", timeout=WITHIN)
        if page.get_by_text("The study has ended: done.").is_visible():
            return
        page.wait_for_timeout(300)
    raise AssertionError("the study did not end")
