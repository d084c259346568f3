"""Plant small faults in a copy of the tree, one at a time, and require that the tests near them fail.

The faults are data (mutants.toml): a file, the text to replace at its first occurrence, and the tests that must notice.
Exit status 1 names every fault that no test noticed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COPIED = ("node", "learners", "chain", "contracts", "tests", "docs", "examples", "docker", "tools", "pyproject.toml")


@dataclass(frozen=True)
class Mutant:
    """One planted fault."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def load_mutants() -> list[Mutant]:
    """All faults of mutants.toml."""
    data = tomllib.loads((HERE / "mutants.toml").read_text(encoding="utf-8"))
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in data["mutants"]]


def copy_tree(target: Path) -> None:
    """The parts of the tree that tests need."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, symlinks=True)
        else:
            shutil.copy(source, target / name)


def plant(tree: Path, mutant: Mutant) -> str:
    """Write the fault; returns the text as it was. SystemExit if the text to replace is gone."""
    path = tree / mutant.file
    text = path.read_text(encoding="utf-8")
    if mutant.old not in text:
        raise SystemExit(f"{mutant.name}: {mutant.file} has no {mutant.old!r}. Correct mutants.toml.")
    path.write_text(text.replace(mutant.old, mutant.new, 1), encoding="utf-8")
    return text


def tests_fail(tree: Path, tests: tuple[str, ...]) -> bool:
    """Whether the tests notice something."""
    paths = os.pathsep.join(str(tree / room) for room in ("node", "learners", "chain"))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    run = subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, check=False)
    if run.returncode not in (0, 1):
        raise SystemExit(f"The tests {tests} did not run:\n{run.stdout.decode()[-2000:]}")
    return run.returncode == 1


def main() -> int:
    """0 if every fault is noticed."""
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        for mutant in load_mutants():
            text = plant(tree, mutant)
            noticed = tests_fail(tree, mutant.tests)
            (tree / mutant.file).write_text(text, encoding="utf-8")
            print(f"{'noticed ' if noticed else 'SURVIVED'}  {mutant.name}", flush=True)
            survivors += [] if noticed else [mutant.name]
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
