"""Without extras the command audits, founds and shows; what reads rows says which extra it needs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.node.bare import run_bare
from support.node.houses import make_node_folder

from coterie_node.data.arrow import _LateModule
from coterie_node.errors import ConfigError

ROOT = Path(__file__).parents[3]
# Every command, and the API in Python.
IMPORTS = """
from importlib import import_module
from coterie_node.cli.lazy import CommandGroup
from coterie_node.cli.table import COMMANDS
for entry in COMMANDS.values():
    for command in entry.commands.values() if isinstance(entry, CommandGroup) else [entry]:
        import_module(command.place.partition(":")[0])
import coterie, coterie.sdk
print("imported")
"""


def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it() -> None:
    arrow = _LateModule("no_such_arrow")
    with pytest.raises(ConfigError, match=r"no_such_arrow.*pip install 'coterie\[site\]'") as caught:
        _ = arrow.Table
    assert caught.value.code == "CO-F231"
    assert not hasattr(arrow, "__wrapped__")


@pytest.mark.long
def test_all_commands_and_the_api_are_imported_without_extras(tmp_path: Path) -> None:
    done = run_bare(folder=tmp_path, script=IMPORTS)
    assert (done.returncode, done.stdout) == (0, "imported\n"), done.stderr


@pytest.mark.long
def test_a_fit_without_the_extra_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "examples/make_data.py"], cwd=tmp_path, timeout=120, check=True)
    data = [f"--data={site}={site}.csv" for site in ("north", "south", "west")]
    out = tmp_path / "result.json"
    words: tuple[str | Path, ...] = ("simulate", ROOT / "examples/stroke.toml", *data, "--json", "--out", out)
    done = run_bare(*words, folder=tmp_path)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (12, "CO-F231")
    assert "pip install 'coterie[site]'" in error["message"]
    assert not out.exists()


@pytest.mark.long
def test_who_founds_a_network_needs_no_extra(tmp_path: Path) -> None:
    place = tmp_path / "north"
    chain = ("--chain", "http://127.0.0.1:9", "--store", tmp_path / "store", "--port", "0")
    done = run_bare("init", place, "--site", "north", *chain, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run_bare("network", "keys", place, "--site", "north", "--host", "127.0.0.1", folder=tmp_path)
    assert (done.returncode, (place / "founder.json").exists()) == (0, True), done.stderr


@pytest.mark.parametrize("words", [("person", "password", "Ada Berg"), ("person", "totp", "Ada Berg"), ("web",)])
def test_what_the_page_needs_is_refused_with_the_extra_that_brings_it(words: tuple[str, ...], tmp_path: Path) -> None:
    make_node_folder(tmp_path / "north", "north")
    where = () if words[0] == "web" else ("--node",)
    done = run_bare(*words, *where, tmp_path / "north", folder=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (12, False), done.stderr
    assert re.search(r"^CO-W108.*pip install '?coterie\[web\]", done.stderr), done.stderr
