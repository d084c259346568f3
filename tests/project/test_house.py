"""The checks of the house find what they are for."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

HOUSE = Path(__file__).parents[2] / "tools" / "house"
RULES = {
    "mean_sentence": 5,
    "allowed": ["held out"],
    "forbidden": [
        {"not": "anew", "but": "again"},
        {"not": "held", "but": "kept"},
        {"not": "gives away", "but": "discloses", "find": r"gives? (?:\S+ ){0,2}away"},
    ],
}


@pytest.fixture(scope="module")
def words() -> dict[str, Any]:
    return runpy.run_path(str(HOUSE / "words.py"))


@pytest.fixture(scope="module")
def check() -> dict[str, Any]:
    return runpy.run_path(str(HOUSE / "check.py"))


def test_code_tables_and_headings_are_no_sentences(words: dict[str, Any]) -> None:
    page = "# A heading\n\nOne two `a b c` three. Four five.\n\n| a | b |\n\n    a command\n\n- six\n- seven eight\n"
    assert [len(sentence) for sentence in words["list_sentences"](page)] == [4, 2, 1, 2]


def test_a_page_of_long_sentences_is_named_with_its_mean(words: dict[str, Any]) -> None:
    (problem,) = words["check_page"]("docs/page.md", "One two three four five six seven.", RULES)
    assert problem.startswith("docs/page.md: the mean sentence has 7.0 words; the limit is 5.")


def test_a_word_that_is_not_ours_is_named_with_its_line_and_the_better_one(words: dict[str, Any]) -> None:
    (problem,) = words["check_page"]("docs/page.md", "Start it.\n\nStart it anew.", RULES)
    assert problem == "docs/page.md:3: 'anew' is not a word of ours. Write again."


def test_a_word_of_code_is_found_over_the_end_of_a_line(words: dict[str, Any]) -> None:
    code = '    """It gives\n    the rows\n    away."""\n    # Rows held\n    # out, and held_out, stay.\n'
    (problem,) = words["check_words"]("room/file.py", code, RULES)
    assert problem == "room/file.py:1: 'gives the rows away' is not a word of ours. Write discloses."
    (held,) = words["check_words"]("room/file.py", "# Rows held by a site.\n", RULES)
    assert held.startswith("room/file.py:1: 'held'")


def test_the_glossary_shows_the_list_of_the_rules(words: dict[str, Any]) -> None:
    page = words["render_glossary"]("# Words\n\n## Words that we do not use\n\n| not | but |\n", RULES)
    assert page.startswith("# Words\n\n## Words that we do not use\n")
    assert page.endswith("| not | but |\n|---|---|\n| anew | again |\n| held | kept |\n| gives away | discloses |\n")
    assert words["render_glossary"](page, RULES) == page


def test_a_folder_without_a_row_and_a_row_without_a_folder_are_named(
    check: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "room" / "package"
    for name in ("", "inner", "inner/deep"):
        (package / name).mkdir(parents=True, exist_ok=True)
        (package / name / "__init__.py").write_text('"""Purpose."""\n')
    (tmp_path / "room" / "README.md").write_text("| `inner/` | what it is for |\n| `gone/` | nothing |\n")
    monkeypatch.setitem(check["check_readme"].__globals__, "ROOT", tmp_path)
    assert [problem.split(". ")[0] for problem in check["check_readme"](package)] == [
        "room/README.md has no row for inner/deep/",
        "room/README.md has a row for gone/, and there is no such folder",
    ]


def test_a_noun_with_two_types_is_named_with_both_places(
    check: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(check["check_nouns"].__globals__, "ROOT", tmp_path)
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "heads.py").write_text("class Head:\n    pass\n\n\nclass _Own:\n    pass\n")
    modules = [*check["read_room"](tmp_path / "one"), *check["read_room"](tmp_path / "other")]
    (problem,) = check["check_nouns"](modules, frozenset())
    assert problem.startswith("Head names types in one/heads.py, other/heads.py.")
    assert not list(check["check_nouns"](modules, frozenset({"Head"})))
