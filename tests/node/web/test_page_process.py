"""The page beside the daemon: one that cannot start is tried less and less often, and the daemon's end ends it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from coterie_chain.retry import RetryPolicy
from coterie_node.web import page_process
from coterie_node.web.page_process import run_page


def test_a_page_that_cannot_start_is_tried_less_and_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_process, "_PAUSES", RetryPolicy(first=0.51, factor=3.0))
    monkeypatch.setattr(page_process, "_LOOK", 0.01)
    monkeypatch.setattr("sys.executable", "/bin/false")
    said, enough = list[str](), threading.Event()

    def notice(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            enough.set()

    with run_page(tmp_path, notice):
        assert enough.wait(60.0)
    assert said == [f"the page ended with status 1 and starts again in {seconds} s" for seconds in (1, 2)]
    assert "page" not in {thread.name for thread in threading.enumerate()}


def test_a_page_for_which_there_is_no_process_for_a_moment_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread ended, and the page was gone until the daemon's next start."""
    monkeypatch.setattr(page_process, "_PAUSES", RetryPolicy(first=0.01))
    monkeypatch.setattr(page_process, "_LOOK", 0.01)
    monkeypatch.setattr("sys.executable", "/no/such/python")
    said, refused, again = list[str](), threading.Event(), threading.Event()

    def notice(text: str) -> None:
        said.append(text)
        (again if "ended with status 1" in text else refused).set()

    with run_page(tmp_path, notice):
        assert refused.wait(60.0)
        monkeypatch.setattr("sys.executable", "/bin/false")
        assert again.wait(60.0)
    assert "the page cannot be started ([Errno 2] No such file or directory" in said[0]
