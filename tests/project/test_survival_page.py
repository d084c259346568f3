"""The tutorial on times to an event: each command on the page runs, and prints what the page shows."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coterie_node.cli.main import app

ROOT = Path(__file__).parents[2]


def read_blocks() -> Iterator[tuple[str, list[str]]]:
    """The page's blocks by kind, with their lines."""
    page = (ROOT / "docs/survival.md").read_text()
    for kind, content in re.findall(r"```(sh|text)\n(.*?)```", page, re.DOTALL):
        yield kind, content.splitlines()


def run_command(line: str) -> str:
    """What a command prints; a redirection is written to its file."""
    words = shlex.split(line)
    if words[0] == "python":
        runpy.run_path(words[1], run_name="__main__")
        return ""
    assert words[0] == "coterie"
    command, out = (words[1:-2], words[-1]) if ">" in words else (words[1:], "")
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    if out:
        Path(out).write_text(result.stdout)
    return result.output


def test_each_command_runs_and_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    output = ""
    shown = 0
    for kind, lines in read_blocks():
        if kind == "sh":
            output = "".join(map(run_command, lines))
            continue
        assert [line for line in lines if line not in output.splitlines()] == []
        shown += len(lines)
    assert shown > 8
    assert (tmp_path / "curves.png").stat().st_size > 10_000
