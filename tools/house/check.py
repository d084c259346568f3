"""Check the house: small folders with a row in their README, one definition for each public name, verbs as functions.

The rules and the allow lists are data, in rules.toml. Exit status 1 lists every place that breaks a rule.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROOMS = {
    "learners": ROOT / "learners" / "coterie_learners",
    "chain": ROOT / "chain" / "coterie_chain",
    "node": ROOT / "node" / "coterie_node",
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One parsed file of a room."""

    path: Path
    tree: ast.Module

    @property
    def place(self) -> str:
        """The path as people type it."""
        return str(self.path.relative_to(ROOT))


def read_room(folder: Path) -> list[Module]:
    """All modules of a room, sorted by path; an environment of installed packages is none of them."""
    paths = [path for path in sorted(folder.rglob("*.py")) if "site-packages" not in path.parts]
    return [Module(path, ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


def check_folders(folder: Path, limit: int) -> Iterator[str]:
    """Folders with too many files, and folders whose `__init__` does not say what they are for."""
    for inner in [folder, *(path for path in sorted(folder.rglob("*")) if path.is_dir())]:
        files = list(inner.glob("*.py"))
        if len(files) > limit:
            yield f"{inner.relative_to(ROOT)} holds {len(files)} Python files; the limit is {limit}."
        init = inner / "__init__.py"
        if files and (not init.exists() or not ast.get_docstring(ast.parse(init.read_text(encoding="utf-8")))):
            yield f"{inner.relative_to(ROOT)}: `__init__.py` does not say in a sentence what the folder is for."


def check_readme(package: Path) -> Iterator[str]:
    """Folders of a room without a row in the room's README, and rows without a folder."""
    readme = package.parent / "README.md"
    rows = set(re.findall(r"^\| `([\w/]+)/` \| \S", readme.read_text(encoding="utf-8"), re.MULTILINE))
    folders = {str(init.parent.relative_to(package)) for init in package.rglob("__init__.py")} - {"."}
    where = readme.relative_to(ROOT)
    for folder in sorted(folders - rows):
        yield f"{where} has no row for {folder}/. Add one with the folder's purpose in one sentence."
    for row in sorted(rows - folders):
        yield f"{where} has a row for {row}/, and there is no such folder. Remove the row or correct its name."


def public_names(module: Module) -> Iterator[str]:
    """The public names that a module defines at its top level; imports are no definitions."""
    for statement in module.tree.body:
        for name in defined_names(statement):
            if not name.startswith("_"):
                yield name


def defined_names(statement: ast.stmt) -> list[str]:
    """The names that one statement defines."""
    if isinstance(statement, Function | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.AnnAssign):
        return [statement.target.id] if isinstance(statement.target, ast.Name) else []
    if isinstance(statement, ast.Assign):
        targets = [inner for target in statement.targets for inner in ast.walk(target)]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    return []


def check_names(modules: list[Module], allowed: frozenset[str]) -> Iterator[str]:
    """Public names that more than one module of a room defines."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        for name in set(public_names(module)):
            places[name].append(module.place)
    for name, where in sorted(places.items()):
        if len(where) > 1 and name not in allowed:
            yield f"{name} is defined in {', '.join(where)}. Keep one, rename one, or make it private."


def public_classes(module: Module) -> Iterator[str]:
    """The public classes that a module defines at its top level."""
    for statement in module.tree.body:
        if isinstance(statement, ast.ClassDef) and not statement.name.startswith("_"):
            yield statement.name


def check_nouns(modules: list[Module], allowed: frozenset[str]) -> Iterator[str]:
    """Nouns that name more than one type in the house."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        for name in public_classes(module):
            places[name].append(module.place)
    for name, where in sorted(places.items()):
        if len(where) > 1 and name not in allowed:
            yield f"{name} names types in {', '.join(where)}. One noun has one type: rename one."


def functions(module: Module) -> Iterator[Function]:
    """Every function and method of a module."""
    for node in ast.walk(module.tree):
        if isinstance(node, Function):
            yield node


def is_property(function: Function) -> bool:
    """Whether a function is read as a value."""
    names = {decorator.id for decorator in function.decorator_list if isinstance(decorator, ast.Name)}
    return bool(names & {"property", "cached_property"})


def breaks_verb_rule(name: str, words: frozenset[str], verbs: frozenset[str]) -> bool:
    """Whether the first word of a function's name is a participle, an adverb or a pronoun."""
    first = name.lstrip("_").split("_")[0]
    return first in words or (bool(re.fullmatch(r"[a-z]+ed", first)) and first not in verbs)


def check_lengths(modules: list[Module], limit: int) -> Iterator[str]:
    """Functions that are too long."""
    for module in modules:
        for function in functions(module):
            length = (function.end_lineno or 0) - function.lineno + 1
            if length > limit:
                yield f"{module.place}:{function.lineno}: {function.name} has {length} lines; the limit is {limit}."


def check_verbs(modules: list[Module], rules: dict[str, Any]) -> Iterator[str]:
    """Functions that are no verbs."""
    words, verbs = frozenset(rules["words"]), frozenset(rules["not_participles"])
    for module in modules:
        for function in functions(module):
            where = f"{module.place}:{function.lineno}"
            named = function.name not in rules["allowed"] and not is_property(function)
            if named and breaks_verb_rule(function.name, words, verbs):
                yield f"{where}: {function.name} is not named by a verb."


def check_house(rules: dict[str, Any]) -> list[str]:
    """Every place that breaks a rule."""
    problems: list[str] = []
    for folder in ROOMS.values():
        modules = read_room(folder)
        problems += check_folders(folder, rules["max_files"])
        problems += check_readme(folder)
        problems += check_names(modules, frozenset(rules["names"]["allowed"]))
        problems += check_verbs(modules, rules["verbs"])
    everything = [module for folder in ROOMS.values() for module in read_room(folder)]
    problems += check_nouns(everything, frozenset(rules["nouns"]["allowed"]))
    for folder in [*ROOMS.values(), *(ROOT / name for name in rules["scripts"])]:
        problems += check_lengths(read_room(folder), rules["max_function_lines"])
    return problems


def main() -> int:
    """Print what breaks a rule; 1 if anything does."""
    problems = check_house(tomllib.loads((HERE / "rules.toml").read_text(encoding="utf-8")))
    print("\n".join(problems) or "The house is in order.")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
