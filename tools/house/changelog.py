"""Cut a release in CHANGELOG.md: move the fragments of changelog.d into a dated section.

Usage: changelog.py VERSION.
"""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FRAGMENTS = ROOT / "changelog.d"
CHANGELOG = ROOT / "CHANGELOG.md"
KINDS = ("added", "changed", "fixed", "removed", "security")
NAME = re.compile(rf"[a-z0-9-]+\.({'|'.join(KINDS)})\.md")


def list_fragments(folder: Path) -> list[Path]:
    """The fragments, sorted by name; SystemExit names a file that is none."""
    paths = sorted(path for path in folder.iterdir() if path.name != "README.md")
    wrong = [path.name for path in paths if not NAME.fullmatch(path.name)]
    if wrong:
        raise SystemExit(f"changelog.d holds files that are no fragments: {', '.join(wrong)}. See its README.")
    return paths


def render_section(version: str, day: datetime.date, fragments: list[Path]) -> str:
    """The dated section of a release, by kind."""
    return "\n".join([f"## [{version}] - {day.isoformat()}", *_render_kinds(fragments), ""])


def _render_kinds(fragments: list[Path]) -> Iterator[str]:
    for kind in KINDS:
        texts = [path.read_text(encoding="utf-8").strip() for path in fragments if path.name.endswith(f".{kind}.md")]
        if texts:
            yield f"\n### {kind.capitalize()}"
            yield from (f"- {text}" for text in texts)


def cut_release(version: str, day: datetime.date) -> None:
    """Write the section below `[Unreleased]` and delete the fragments."""
    fragments = list_fragments(FRAGMENTS)
    if not fragments:
        raise SystemExit("changelog.d has no fragments, so there is nothing to release.")
    head, mark, rest = CHANGELOG.read_text(encoding="utf-8").partition("## [Unreleased]\n")
    section = render_section(version, day, fragments)
    CHANGELOG.write_text(f"{head}{mark}\n{section}{rest}", encoding="utf-8")
    for path in fragments:
        path.unlink()


if __name__ == "__main__":
    if len(sys.argv) != 2 or not re.fullmatch(r"\d+\.\d+\.\d+", sys.argv[1]):
        raise SystemExit("Usage: changelog.py VERSION, as in 0.3.0")
    cut_release(sys.argv[1], datetime.datetime.now(tz=datetime.UTC).date())
