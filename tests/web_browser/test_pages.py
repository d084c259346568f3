"""Every page in a real browser: three widths, light and dark, keyboard, print, no request off the host, axe-core."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page
from support.node.browsers import (
    SCHEMES,
    WIDTHS,
    list_faults,
    open_browser,
    open_page,
    serve_app,
    sign_in_by_keyboard,
    take_picture,
    take_problems,
)
from support.node.houses import study_file
from support.node.pages import PASSWORD, PageHouse

pytestmark = pytest.mark.browser

PAGES = {
    "studies": "/studies",
    "search": "/studies?q=second",
    "study": "/studies/2",
    "study-done": "/studies/1",
    "run": "/studies/1/run",
    "run-open": "/studies/3/run",
    "result": "/studies/1/result",
    "result-none": "/studies/2/result",
    "network": "/network",
    "audit": "/audit",
    "audit-filter": "/audit?study=1&kind=server",
    "settings": "/settings",
    "setup": "/setup",
    "propose": "/propose",
    "missing": "/nothing",
}

# Tables that leave a part of their place empty, and break their lines instead; the grid of steps is as wide as it is.
NARROW_TABLES = """() => [...document.querySelectorAll('.scroll > table:not(.grid)')]
  .filter(table => table.offsetWidth < table.parentElement.clientWidth - 30)
  .map(table => `a table is ${table.offsetWidth} wide in a place of ${table.parentElement.clientWidth}`)"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageHouse]:
    root = tmp_path_factory.mktemp("page")
    with PageHouse(root / "nodes") as house:
        house.run(root)
        house.propose(root, "second")
        third = house.network.propose(study_file(root, "third"), "south")
        house.network.settle()
        house.network.approve(third, "north", "west")
        for _ in range(6):  # not to its end: a run in the middle
            house.network.daemons["north"].tick()
            house.network.daemons["west"].tick()
        yield house


@pytest.fixture(scope="module")
def address(house: PageHouse) -> Iterator[str]:
    with serve_app(house.app) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(autouse=True)
def no_problem_in_the_browser() -> Iterator[None]:
    take_problems()
    yield
    assert take_problems() == []


def enter(browser: Browser, address: str, width: int, scheme: str) -> tuple[BrowserContext, Page]:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = open_page(context)
    sign_in_by_keyboard(page, address, "ada", PASSWORD)
    return context, page


def prepare_jobs(page: Page, address: str) -> None:
    """Let the page look at rows, run the gate, replay and check, so that the pictures show what they find."""
    for path, button in [
        ("/studies/2", "Look at the rows"),
        ("/studies/2", "Run it"),
        ("/studies/1/result", "Run the replay"),
        ("/network", "Check this node"),
    ]:
        page.goto(f"{address}{path}")
        if page.get_by_role("button", name=button, exact=True).count():
            page.get_by_role("button", name=button, exact=True).click()
            page.wait_for_timeout(1500)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_fits_its_width_and_axe_finds_nothing(
    browser: Browser, address: str, width: int, scheme: str
) -> None:
    context, page = enter(browser, address, width, scheme)
    prepare_jobs(page, address)
    faults = {}
    for name, path in PAGES.items():
        page.goto(f"{address}{path}")
        take_picture(page, f"{name}-{width}-{scheme}")
        found = list_faults(page)
        inner, outer = page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
        found += [f"the page is {inner} wide in a window of {outer}"] if inner > outer else []
        found += page.evaluate(NARROW_TABLES)
        if found:
            faults[name] = found
    context.close()
    assert faults == {}


def test_the_login_is_clean_too(browser: Browser, address: str) -> None:
    for width in WIDTHS:
        context = browser.new_context(viewport={"width": width, "height": 900})
        page = open_page(context)
        page.goto(f"{address}/login")
        take_picture(page, f"login-{width}-light")
        assert list_faults(page) == []
        context.close()


def test_a_study_is_declined_by_keyboard_alone(browser: Browser, address: str) -> None:
    context, page = enter(browser, address, 1280, "light")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "Skip to the page"
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    focus_by_tabs(page, "second")
    page.keyboard.press("Enter")
    page.wait_for_url("**/studies/2")
    focus_by_tabs(page, "Decline")
    page.keyboard.press("Enter")
    page.get_by_role("status").wait_for()
    assert "Declined" in page.inner_text("main")
    context.close()


def focus_by_tabs(page: Page, text: str) -> None:
    """Press Tab until what has the focus says a text."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.textContent.trim()") == text:
            return
    raise AssertionError(f"no Tab leads to {text!r}")


def test_a_page_prints_without_menus_and_forms(browser: Browser, address: str) -> None:
    context, page = enter(browser, address, 1280, "dark")
    page.goto(f"{address}/studies/1/result")
    page.emulate_media(media="print")
    take_picture(page, "result-print")
    for selector in ("nav", "form", "footer"):
        assert page.locator(selector).first.is_hidden()
    assert page.get_by_role("heading", name="Result", exact=True).is_visible()
    background = page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
    assert background == "rgb(255, 255, 255)"
    context.close()


def test_every_page_works_without_a_script(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/login")
    page.get_by_label("Account", exact=True).fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    for path in PAGES.values():
        page.goto(f"{address}{path}")
        assert page.get_by_role("heading", level=1).is_visible()
    context.close()


def test_a_change_leaves_what_stands_there_and_waits_for_who_is_writing(
    browser: Browser, house: PageHouse, address: str, tmp_path: Path
) -> None:
    context, page = enter(browser, address, 360, "light")
    page.goto(f"{address}/studies")
    page.locator("#live-state").get_by_text("live", exact=True).wait_for()
    page.evaluate("document.getElementById('study-1').dataset.seen = 'yes'")
    page.locator("#study-1 a").focus()
    house.propose(tmp_path, "fourth")
    page.locator("#study-4").wait_for()
    assert page.locator("#study-1").get_attribute("data-seen") == "yes"
    assert page.evaluate("document.activeElement.closest('li').id") == "study-1"
    page.evaluate(
        "document.querySelector('[data-live]').insertAdjacentHTML('beforeend', '<input id=note>');"
        "document.getElementById('note').focus()"
    )
    house.propose(tmp_path, "fifth")
    house.propose(tmp_path, "sixth")
    page.keyboard.type("nobody takes this away")
    page.wait_for_timeout(2500)
    assert page.locator("#note").input_value() == "nobody takes this away"
    assert page.locator("#study-5").count() == 0
    page.locator("#q").focus()
    page.locator("#study-6").wait_for()
    assert page.locator("#study-5").is_visible()
    assert page.locator("#study-1").get_attribute("data-seen") == "yes"
    page.evaluate("document.getElementById('study-1').remove()")  # the page has lost what the server counts on
    house.propose(tmp_path, "seventh")
    page.locator("#study-7").wait_for()
    assert page.locator("#study-1").count() == 1
    context.close()
