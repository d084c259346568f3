"""Each command that a message or a page names, and each option that it gives it, is in the tree of commands."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from coterie_node.cli.lazy import CommandGroup
from coterie_node.cli.main import app
from coterie_node.cli.table import COMMANDS
from coterie_node.privacy.objections import Grade, Objection

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docker" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [path for room in ("node", "learners", "chain") for path in sorted((ROOT / room).rglob("*.py"))]
NAMED = re.compile(r"(?<![\w/.-])coterie ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?([^`\n#;)|&]*)")
OPTION = re.compile(r"(?<= )--[a-z][a-z-]*")
CODE = re.compile(r"`(coterie [^`]*)`|^    (coterie [^\n]*)$", re.MULTILINE)
# The heading of the letter with a code that opens an account again.
NO_COMMANDS = {"recovery code"}


@dataclass(frozen=True)
class Mention:
    """A command as a text names it, with the options that follow it."""

    place: str
    words: tuple[str, ...]
    options: frozenset[str]

    @property
    def known(self) -> tuple[str, ...]:
        """Those of the words that name a command, or a group of commands."""
        first, *rest = self.words
        entry = COMMANDS.get(first)
        if isinstance(entry, CommandGroup):
            return self.words if rest and rest[0] in entry.commands else ((first,) if not rest else ())
        return () if entry is None else (first,)


def list_texts(path: Path) -> Iterator[str]:
    """What people can read: a page's code, or the texts of a module, joined where the source is broken."""
    if path.suffix == ".md":
        yield from (inline or block for inline, block in CODE.findall(path.read_text()))
        return
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def list_mentions(path: Path) -> Iterator[Mention]:
    for text in list_texts(path):
        for first, second, rest in NAMED.findall(text):
            if f"{first} {second}" not in NO_COMMANDS:
                words = (first, second) if second else (first,)
                yield Mention(f"{path.relative_to(ROOT)}: {text[:80]!r}", words, frozenset(OPTION.findall(rest)))


@cache
def list_options(words: tuple[str, ...]) -> frozenset[str]:
    """The options of a command; of a group, those of all of its commands."""
    here: Any = typer.main.get_command(app)
    for word in words:
        here = here.load(word)
    commands = [here.load(name) for name in here.table] if hasattr(here, "table") else [here]
    return frozenset(option for command in commands for p in command.params for option in (*p.opts, *p.secondary_opts))


def find_unknown(paths: list[Path]) -> list[str]:
    mentions = [mention for path in paths for mention in list_mentions(path)]
    assert len(mentions) > 20
    return [f"{' '.join(mention.words)} in {mention.place}" for mention in mentions if not mention.known]


def test_each_command_that_a_page_names_is_there() -> None:
    assert find_unknown(PAGES) == []


@pytest.mark.long
def test_each_command_that_a_message_names_is_there() -> None:
    assert find_unknown(SOURCES) == []


@pytest.mark.long
def test_a_sentence_of_a_held_payload_names_the_command_that_lets_it_leave() -> None:
    rooms = ("release", "privacy")
    paths = [path for path in SOURCES if path.parent.parent.name == "coterie_node" and path.parent.name in rooms]
    texts = [text for path in paths for text in list_texts(path) if "(coterie release allow)" in text]
    assert len(texts) > 15
    held = [Objection(Grade.ASK, "kind", text).sentence_while_held for text in texts]
    assert {sentence for sentence in held if "release allow" in sentence} == set()
    assert all("(coterie release approve DIGEST)" in sentence for sentence in held)


@pytest.mark.long
def test_each_option_that_a_page_or_message_gives_a_command_is_one_of_its_own() -> None:
    mentions = [mention for path in (*PAGES, *SOURCES) for mention in list_mentions(path) if mention.options]
    assert len(mentions) > 50
    wrong = {f"{m.place}: {sorted(m.options - list_options(m.known) - {'--help'})}" for m in mentions if m.known}
    assert {line for line in wrong if not line.endswith(": []")} == set()


@pytest.mark.parametrize("text", ["Run `coterie release permit`.", "(coterie doktor)", "    coterie site evict west"])
def test_a_command_that_is_not_there_is_found(text: str, tmp_path: Path) -> None:
    mentions = [
        Mention(text, (first, second) if second else (first,), frozenset()) for first, second, _ in NAMED.findall(text)
    ]
    assert [mention.known for mention in mentions] == [()]
