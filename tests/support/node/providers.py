"""A certified identity provider as a process, and a browser that signs in there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import httpx

from coterie_chain.network.programs.ports import find_free_port

FOLDER = Path(__file__).parents[1] / "provider"
SECRET = "secret of the tests, of forty characters"


@contextmanager
def run_provider(back: str) -> Iterator[str]:
    """The provider's address; `npm ci` in its folder comes before (make test-provider)."""
    port = find_free_port()
    words = ["node", str(FOLDER / "provider.mjs"), str(port), back]
    with subprocess.Popen(words, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("listening")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def sign_in_there(address: str, login: str) -> str:
    """Follow the provider's pages as this person; returns the address to which it sends the browser back."""
    with httpx.Client(follow_redirects=False, timeout=20) as browser:
        for _ in range(12):
            answer = browser.get(address)
            if answer.status_code == 200:
                answer = _send_form(browser, address, answer.text, login)
            address = urljoin(address, answer.headers["location"])
            if "/login/provider/back" in address:
                return address
    raise AssertionError(f"The provider sent the browser to {address}")


def _send_form(browser: httpx.Client, address: str, page: str, login: str) -> httpx.Response:
    action = re.search(r'action="([^"]+)"', page)
    prompt = re.search(r'name="prompt" value="([^"]+)"', page)
    assert action is not None, page
    assert prompt is not None, page
    fields = {"prompt": prompt[1], "login": login, "password": "any"}
    return browser.post(urljoin(address, action[1]), data=fields)
