"""A browser for the page: Debian's Chromium by Playwright, axe-core in it, and a server of the page in a thread."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from coterie_chain.network.programs.ports import find_free_port

AXE = Path(__file__).parents[2] / "web_browser" / "node_modules" / "axe-core" / "axe.min.js"
WIDTHS = (360, 768, 1280)
SCHEMES = ("light", "dark")
SHOTS = os.environ.get("COTERIE_SHOTS", "")
START_SECONDS = 15.0


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Debian's Chromium; root needs it without its sandbox."""
    path = shutil.which("chromium")
    assert path is not None, "Debian's package chromium is missing: apt-get install chromium"
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@contextmanager
def serve_app(app: Any) -> Iterator[str]:
    """A server of an application on a free port of loopback; yields its address."""
    port = find_free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False, server_header=False,
                            proxy_headers=False, timeout_graceful_shutdown=1)  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        assert time.monotonic() < deadline, "the page's server did not start"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)


def open_page(context: BrowserContext) -> Page:
    """A page that fails the test when it asks another host, or when the browser blocks or reports something."""
    page = context.new_page()
    page.add_init_script(path=AXE)  # the page's policy lets no script in later
    page.on("request", lambda request: check_host(request.url))
    page.on("pageerror", lambda error: fail(f"error in the page: {error}"))
    page.on("console", lambda entry: fail(entry.text) if is_violation(entry.text) else None)
    return page


def is_violation(text: str) -> bool:
    return "Content Security Policy" in text or "Refused to" in text


PROBLEMS: list[str] = []


def fail(text: str) -> None:
    """Note what went wrong in a callback of the browser, where no exception reaches the test."""
    PROBLEMS.append(text)


def check_host(url: str) -> None:
    if not re.match(r"http://(127\.0\.0\.1|[a-z0-9-]+\.localhost):|data:", url):
        fail(f"a request off the host: {url}")


def take_problems() -> list[str]:
    problems = [*PROBLEMS]
    PROBLEMS.clear()
    return problems


def sign_in_by_keyboard(page: Page, address: str, account: str, password: str, code: str = "") -> None:
    """Sign in without a mouse: the form has the focus, and Enter sends it."""
    page.goto(f"{address}/login")
    page.locator(
        "#name:focus"
    ).wait_for()  # a browser gives the focus after the page has loaded; what comes before is lost
    page.keyboard.type(account)
    page.keyboard.press("Tab")
    page.keyboard.type(password)
    if code:
        page.keyboard.press("Tab")
        page.keyboard.type(code)
    page.keyboard.press("Enter")
    page.locator("nav, [role=alert]").first.wait_for()
    assert page.url.endswith("/studies"), page.inner_text("main")


def add_authenticator(page: Page) -> None:
    """Give the browser of a page an authenticator that holds passkeys, and whose person is there and verified."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})


def look_over(page: Page, name: str) -> None:
    """Every width, light and dark: a picture, what axe-core finds, and nothing wider than the window."""
    before = page.viewport_size
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            take_picture(page, f"{name}-{width}-{scheme}")
            assert list_faults(page) == [], f"{name} {width} {scheme}"
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), f"{name} {width}"
    page.emulate_media(color_scheme="light")
    if before is not None:
        page.set_viewport_size(before)


def list_faults(page: Page) -> list[str]:
    """What axe-core finds on a page, of every impact, in one line each."""
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{item['impact']}: {item['id']}: {node['target']} {node.get('failureSummary', '')[:160]}"
        for item in found["violations"]
        for node in item["nodes"]
    ]


def take_picture(page: Page, name: str) -> None:
    """A picture of the whole page, if COTERIE_SHOTS names a folder for them."""
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)
