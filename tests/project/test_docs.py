"""What the documents say holds: every code is explained, every command in the README exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coterie_node.errors import EXIT

ROOT = Path(__file__).parents[2]
PACKAGES = ("learners/coterie_learners", "chain/coterie_chain", "node/coterie_node")


def codes() -> list[str]:
    """Every code in the product."""
    text = "".join(p.read_text() for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
    return sorted(set(re.findall(r'"CO-([A-Z]\d+)"', text)))


def test_every_error_code_is_explained() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    assert [c for c in codes() if not re.search(rf"\b{c}\b", page)] == []


def test_no_explained_code_is_gone() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    assert sorted(set(re.findall(r"\b([ACDFLNPRS]\d{3})\b", page)) - set(codes())) == []


def test_every_exit_status_is_in_the_table() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    assert [s for s in EXIT.values() if not re.search(rf"\b{s}\b", page)] == []


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md"))]
)
def test_links_between_documents_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text())
    assert [t for t in targets if not ((ROOT / page).parent / t).exists()] == []
