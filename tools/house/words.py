"""Check documents and code: short sentences on average, and none of the words that we do not use.

The pages, the limit and the words are data, in rules.toml. Exit status 1 lists every place that breaks a rule.
Tables, code and headings have no sentences; their words are checked as well. In code these are the words of docstrings,
comments, messages and names. `--write` puts the list of words into docs/glossary.md, which the check compares.
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
GLOSSARY = ROOT / "docs" / "glossary.md"
HEADING = "## Words that we do not use"
MARK = "<!-- tools/house/words.py writes this table. -->"
# Between two words: a blank, or the end of a line with the mark of a comment or of a list.
BREAK = r"(?:[ \t]+|[ \t]*\n[ \t]*(?:# ?|\* )?)"
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


def check_words(place: str, text: str, rules: dict[str, Any]) -> Iterator[str]:
    """Every word of a text that we do not use; a term may go over the end of a line."""
    for term in rules["allowed"]:
        text = re.sub(BREAK.join(term.split(" ")), lambda match: re.sub(r"[^\n]", "-", match.group()), text)
    for entry in rules["forbidden"]:
        pattern = BREAK.join(entry.get("find", entry["not"]).split(" "))
        for match in re.finditer(rf"\b(?:{pattern})\b", text, re.IGNORECASE):
            number, word = text.count("\n", 0, match.start()) + 1, " ".join(match.group().split())
            yield f"{place}:{number}: {word!r} is not a word of ours. Write {entry['but']}."


def check_page(place: str, text: str, rules: dict[str, Any]) -> Iterator[str]:
    """Every rule that one page breaks."""
    mean, limit = mean_length(text), rules["mean_sentence"]
    if mean > limit:
        yield f"{place}: the mean sentence has {mean:.1f} words; the limit is {limit}. Cut the long sentences."
    yield from check_words(place, text, rules)


def read_texts(patterns: list[str], left_out: list[str]) -> dict[str, str]:
    """The text of each file, by its place in the repository."""
    paths = sorted({path for pattern in patterns for path in ROOT.glob(pattern)})
    places = {str(path.relative_to(ROOT)): path for path in paths}
    return {place: path.read_text(encoding="utf-8") for place, path in places.items() if place not in left_out}


def check_all(rules: dict[str, Any]) -> Iterator[str]:
    """Every place of every page and every file of code that breaks a rule."""
    for place, text in read_texts(rules["pages"], rules["not"]).items():
        yield from check_page(place, text, rules)
    for place, text in read_texts(rules["code"], ["tools/house/words.py"]).items():
        yield from check_words(place, text, rules)


def render_glossary(text: str, rules: dict[str, Any]) -> str:
    """The glossary with its table of words that we do not use, as rules.toml has them."""
    rows = [f"| {entry['not']} | {entry['but']} |" for entry in rules["forbidden"]]
    return "\n".join([text.partition(HEADING)[0] + HEADING, "", MARK, "", "| not | but |", "|---|---|", *rows, ""])


def main() -> int:
    """Print what breaks a rule; 1 if anything does."""
    rules = tomllib.loads((HERE / "rules.toml").read_text(encoding="utf-8"))["words"]
    text = GLOSSARY.read_text(encoding="utf-8")
    if "--write" in sys.argv:
        GLOSSARY.write_text(render_glossary(text, rules), encoding="utf-8")
        return 0
    problems = list(check_all(rules))
    if text != render_glossary(text, rules):
        problems.append("docs/glossary.md has another list of words than rules.toml. Run: tools/house/words.py --write")
    print("\n".join(problems) or "The words are in order.")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
