"""Transcripts in the documents: every command is run, and prints what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("first-files.md",)
ANY = "..."


def read_commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Each command of the page's console blocks with the lines that it is to print."""
    for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.rstrip("\n").split("\n")
            yield command, lines


def list_lacking(expected: list[str], printed: list[str]) -> list[str]:
    """Lines of the page that are not printed where it has them; `...` stands for any lines."""
    at, free = 0, False
    for line in expected:
        if line == ANY:
            free = True
            continue
        place = next((k for k in range(at, len(printed)) if printed[k] == line), None) if free else at
        if place is None or place >= len(printed) or printed[place] != line:
            return [line]
        at, free = place + 1, False
    return [] if free or at == len(printed) else [f"printed besides: {printed[at]}"]


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_print_what_it_says(page: str, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8", "COLUMNS": "200"}
    commands = list(read_commands(ROOT / "docs" / page))
    assert len(commands) > 3
    for command, expected in commands:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        printed = done.stdout.rstrip("\n").split("\n") if done.stdout.strip() else []
        assert list_lacking(expected, printed) == [], f"{command}\n{done.stdout}"


def test_a_page_that_says_something_else_fails() -> None:
    assert list_lacking(["a", ANY, "c"], ["a", "b", "c"]) == []
    assert list_lacking(["a", "c"], ["a", "b", "c"]) == ["c"]
    assert list_lacking(["a", ANY, "d"], ["a", "b", "c"]) == ["d"]
    assert list_lacking(["a"], ["a", "b"]) == ["printed besides: b"]
