"""The checks of the house find what they are for."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

HOUSE = Path(__file__).parents[2] / "tools" / "house"
RULES = {"mean_sentence": 5, "forbidden": {"anew": "again"}}


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
