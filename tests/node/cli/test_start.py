"""A command imports what it uses: modules are counted, because seconds depend on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import typer
from support.lanes import later
from typer.main import get_group
from typer.testing import CliRunner

from coterie_node.cli.lazy import CommandGroup, LazyCommand
from coterie_node.cli.main import app
from coterie_node.cli.table import COMMANDS

# Modules that the file of a command may import, all that these import included; about a twentieth above the count.
BUDGETS = {
    "coterie_node.cli.audit": 680,
    "coterie_node.cli.devnet": 620,
    "coterie_node.cli.explain": 175,
    "coterie_node.cli.fit": 645,
    "coterie_node.cli.main": 160,
    "coterie_node.cli.network": 580,
    "coterie_node.cli.site.doctor": 845,
    "coterie_node.cli.site.enter": 900,
    "coterie_node.cli.site.found": 870,
    "coterie_node.cli.site.init": 580,
    "coterie_node.cli.site.join": 540,
    "coterie_node.cli.site.members": 615,
    "coterie_node.cli.site.rekey": 675,
    "coterie_node.cli.site.serve": 985,
    "coterie_node.cli.study.advise": 915,
    "coterie_node.cli.study.statements": 585,
    "coterie_node.cli.study.certify": 540,
    "coterie_node.cli.results.compare": 540,
    "coterie_node.cli.study.amend": 850,
    "coterie_node.cli.study.decide": 960,
    "coterie_node.cli.study.pda": 580,
    "coterie_node.cli.study.release": 755,
    "coterie_node.cli.study.seal": 660,
    "coterie_node.cli.study.show": 585,
    "coterie_node.cli.version": 33,
}
# A file of commands that has no budget of its own.
OTHERS = 700
SLOW = ("web3", "scipy.optimize", "statsmodels", "tenseal", "eth_account", "py_ecc")
# What an installation without extras does not have.
ABSENT = ("pyarrow", "requests", "zstandard", "pandas")
# Files of commands that read settings, a chain and documents, and no data: they import no library of numbers.
NUMBERLESS = (
    "coterie_node.cli.devnet",
    "coterie_node.cli.network",
    "coterie_node.cli.site.init",
    "coterie_node.cli.site.join",
    "coterie_node.cli.site.members",
    "coterie_node.cli.study.certify",
    "coterie_node.cli.study.show",
    "coterie_node.cli.study.statements",
)
# What a list of commands and a version may not import at all.
LIBRARIES = ("numpy", "httpx", "cryptography", "scipy", "pyarrow")


def commands() -> Iterator[tuple[list[str], LazyCommand]]:
    """Every command of the table with the words that name it."""
    for name, entry in COMMANDS.items():
        if isinstance(entry, CommandGroup):
            yield from (([name, inner], command) for inner, command in entry.commands.items())
        else:
            yield [name], entry


def run_python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, check=False)


def list_imports(*words: str) -> set[str]:
    """Modules that a process of Python imports, by its own log of them."""
    done = run_python("-X", "importtime", *words)
    assert done.returncode == 0, done.stderr[-500:]
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def has_module(modules: set[str], name: str) -> bool:
    return any(module == name or module.startswith(name + ".") for module in modules)


# The one that imports the most, and one without numbers.
EXTREMES = ["coterie_node.cli.study.decide", "coterie_node.cli.site.join"]
FILES = sorted({command.place.partition(":")[0] for _, command in commands()} | set(BUDGETS))


@pytest.mark.parametrize("module", [*EXTREMES, *later(*(file for file in FILES if file not in EXTREMES))])
def test_a_command_imports_no_more_than_its_budget_and_nothing_slow(module: str) -> None:
    modules = list_imports("-c", f"import {module}")
    slow = (*SLOW, *ABSENT, "numpy") if module in NUMBERLESS else (*SLOW, *ABSENT)
    assert [name for name in slow if has_module(modules, name)] == []
    assert len(modules) <= BUDGETS.get(module, OTHERS)


@pytest.mark.parametrize("words", [["version"], ["--version"], ["--help"], ["study", "--help"], ["audit", "--help"]])
def test_a_version_and_a_list_of_commands_import_no_library_of_numbers_or_nets(words: list[str]) -> None:
    modules = list_imports("-m", "coterie_node", *words)
    assert [name for name in LIBRARIES if has_module(modules, name)] == []


@pytest.mark.parametrize("words", ["version", "--version", "--help"])
def test_a_version_and_the_first_help_do_not_even_import_what_reads_options(words: str) -> None:
    assert not has_module(list_imports("-m", "coterie_node", words), "pydantic")


def test_the_table_says_what_the_commands_say() -> None:
    group = get_group(app)
    for words, command in commands():
        node = group
        for word in words:
            node = node.load(word)  # type: ignore[attr-defined]
        paragraph = " ".join((node.help or "").split("\n\n")[0].split())
        assert (words, paragraph) == (words, command.help)


def test_no_command_is_missing_in_the_table() -> None:
    for place in {command.place for _, command in commands()}:
        module, _, name = place.partition(":")
        target = getattr(import_module(module), name)
        if isinstance(target, typer.Typer):
            own = {words[-1] for words, command in commands() if command.place == place}
            assert set(get_group(target).commands) == own, place


def test_a_mistyped_command_is_answered_with_a_near_one() -> None:
    answer = CliRunner().invoke(app, ["study", "lsit"])
    assert answer.exit_code == 2
    assert "Did you mean 'list'?" in answer.output


def test_the_version_is_an_option_as_well() -> None:
    option, command = (CliRunner().invoke(app, [words]) for words in ("--version", "version"))
    assert option.exit_code == 0
    assert option.output == command.output != ""


def test_a_shell_completes_commands_and_their_options() -> None:
    script = (
        "import os, sys; sys.argv = ['coterie'];"
        "os.environ.update(_COTERIE_COMPLETE='complete_bash', COMP_WORDS={words!r}, COMP_CWORD='{at}');"
        "from coterie_node.cli.main import app; app(prog_name='coterie')"
    )
    names = run_python("-c", script.format(words="coterie study st", at=2)).stdout.split()
    options = run_python("-c", script.format(words="coterie study status --n", at=3)).stdout.split()
    assert (names, options) == (["status"], ["--node"])


@pytest.mark.long
def test_completion_installs(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "SHELL": "/bin/bash", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "coterie_node", "--install-completion", "bash"],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert (done.returncode, "completion installed" in done.stdout) == (0, True), done.stderr


def test_an_error_before_any_command_is_json_where_json_is_asked_for() -> None:
    done = run_python("-m", "coterie_node", "simulate", "nothing.toml", "--data", "nonsense", "--json")
    assert json.loads(done.stdout)["error"]["code"] == "CO-S107"


def test_a_small_logistic_fit_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    study, rows = tmp_path / "study.toml", "y,x\n" + "0,0.1\n1,0.3\n0,0.5\n1,0.7\n0,0.9\n1,0.2\n0,0.4\n1,0.6\n" * 8
    study.write_text(
        'name = "small"\nsites = ["a", "b", "c"]\nformula = "y ~ x"\n[learner]\nname = "glore"\n'
        '[variables.y]\ntype = "binary"\n[variables.x]\ntype = "number"\nrange = [0, 1]\n'
    )
    words = ["-m", "coterie_node", "simulate", str(study)]
    for site in "abc":
        (tmp_path / f"{site}.csv").write_text(rows.replace("0.1", f"0.1{ord(site)}"))
        words += ["--data", f"{site}={tmp_path / site}.csv"]
    modules = list_imports(*words)
    slow = (*SLOW, "scipy", "pandas", "eth_utils", "coterie_learners.cola.cola", "coterie_learners.secure")
    assert [name for name in slow if has_module(modules, name)] == []
    assert len(modules) <= 710


def test_the_process_of_a_site_imports_neither_what_reads_options_nor_the_audit(tmp_path: Path) -> None:
    words = ["take-part", "--at", str(tmp_path), "--site", "a", "--approve", "00"]
    done = run_python("-X", "importtime", "-m", "coterie_node", *words)
    assert json.loads(done.stdout)["error"]["code"].startswith("CO-")
    assert done.returncode != 0
    late = "import coterie_node.demo.forked_sites as f, importlib; [importlib.import_module(m) for m in f._LATE]"
    modules = list_imports("-c", f"import coterie_node.demo.site_process, coterie_learners.glore.glore; {late}")
    for name in ("typer", "coterie_node.cli", "coterie_node.audit", "pandas", *SLOW):
        assert not has_module(modules, name)
        assert f" {name}\n" not in done.stderr
    assert len(modules) <= 800


@pytest.mark.long
def test_an_option_that_is_missing_ends_the_process_of_a_site_before_it_imports_more() -> None:
    done = run_python("-m", "coterie_node", "take-part", "--site", "a")
    assert (done.returncode, "--at" in done.stderr) == (2, True)


def test_no_package_is_searched_for_plugins_of_a_library() -> None:
    script = (
        "from coterie_node.process_settings import set_up_process; set_up_process();"
        "import importlib.metadata as m; m.distributions = None;"
        "import coterie_learners.study.document"
    )
    done = run_python("-c", script)
    assert done.returncode == 0, done.stderr[-500:]
