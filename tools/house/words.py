"""Check the documents: short sentences on average, and none of the words that we do not use.

The pages, the limit and the words are data, in rules.toml. Exit status 1 lists every place that breaks a rule.
Tables, code and headings have no sentences; their words are checked as well.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
NOT_PROSE = re.compile(r"^(\||#| {4}|<!--).*$", re.MULTILINE)
ITEM = re.compile(r"^ *(?:[-*]|\d+\.) ", re.MULTILINE)
INLINE_CODE = re.compile(r"`[^`]*`", re.DOTALL)


def list_sentences(text: str) -> Iterator[list[str]]:
    """The words of each sentence of a Markdown page; a paragraph and a list item end a sentence."""
    prose = ITEM.sub("\n\n", NOT_PROSE.sub("", CODE_BLOCK.sub("", text)))
    for paragraph in re.split(r"\n\s*\n", INLINE_CODE.sub("code", prose)):
        for sentence in re.split(r"(?<=[.?!])[\s*)]+(?=[^a-z])", paragraph):
            words = re.findall(r"\w[\w'.-]*", sentence)
            if words:
                yield words


def mean_length(text: str) -> float:
    """The mean number of words of a sentence; 0 for a page without sentences."""
    lengths = [len(words) for words in list_sentences(text)]
    return sum(lengths) / len(lengths) if lengths else 0.0


def check_page(place: str, text: str, rules: dict[str, Any]) -> Iterator[str]:
    """Every rule that one page breaks."""
    mean, limit = mean_length(text), rules["mean_sentence"]
    if mean > limit:
        yield f"{place}: the mean sentence has {mean:.1f} words; the limit is {limit}. Cut the long sentences."
    for number, line in enumerate(text.splitlines(), 1):
        for word, better in rules["forbidden"].items():
            if re.search(rf"\b{word}\b", line, re.IGNORECASE):
                yield f"{place}:{number}: {word!r} is not a word of ours. Write {better}."


def check_pages(rules: dict[str, Any]) -> list[str]:
    """Every place of every page that breaks a rule."""
    paths = sorted({path for pattern in rules["pages"] for path in ROOT.glob(pattern)})
    places = {str(path.relative_to(ROOT)): path for path in paths}
    pages = {place: path.read_text(encoding="utf-8") for place, path in places.items() if place not in rules["not"]}
    return [problem for place, text in pages.items() for problem in check_page(place, text, rules)]


def main() -> int:
    """Print what breaks a rule; 1 if anything does."""
    problems = check_pages(tomllib.loads((HERE / "rules.toml").read_text(encoding="utf-8"))["words"])
    print("\n".join(problems) or "The words are in order.")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
