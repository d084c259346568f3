"""Every row of docs/threats.md names tests that are there, and every attack script has a row."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = [
    line.strip("|").split(" | ")
    for line in (TESTS.parent / "docs" / "threats.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| program")
]
LETTERS = {"a": ("00", "00c", "00d", "0", "1", "2"), "g": (1, 2, 3, 4, 5, 6, 8, 9, 10), "d": (1, 2, 3), "h": (1, 2)}
SCRIPTS = {f"{letter}{k}" for letter, ks in LETTERS.items() for k in ks} | {"b1", "c1", "n2", "p1", "p2"}


def test_each_row_says_who_what_and_which_test_that_is_there() -> None:
    assert len(ROWS) > 20
    for row in ROWS:
        assert len(row) == 5, row[0]
        named = re.findall(r"`([\w/]+\.py)`", row[4])
        assert named, row[0]
        assert all((TESTS / name).is_file() for name in named), row[4]


def test_each_attack_script_has_a_row() -> None:
    named = {word for row in ROWS for word in re.findall(r"\w+", row[0].split(":")[0])}
    assert named >= SCRIPTS
