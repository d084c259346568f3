"""What the documents say holds: every code is explained, every command in the README exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coterie_learners.core.registry import learner_of
from coterie_node.error_codes import explain_code, load_codes, render_page
from coterie_node.errors import EXIT, ConfigError
from coterie_node.run.study_files import load_study

ROOT = Path(__file__).parents[2]
PACKAGES = ("learners/coterie_learners", "chain/coterie_chain", "node/coterie_node")


def codes() -> set[str]:
    """Every code that the product raises."""
    text = "".join(p.read_text() for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
    return set(re.findall(r'"(CO-[A-Z]\d{3})"', text))


def test_every_error_code_is_explained_and_no_explained_code_is_gone() -> None:
    assert codes() == set(load_codes())


def test_the_page_of_errors_has_every_code_in_full() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    assert page.endswith(render_page())
    assert [code for code in load_codes() if f"| {code} |" not in page] == []


def test_no_two_codes_have_the_same_cause() -> None:
    causes = [(code.section, code.cause) for code in load_codes().values()]
    assert [cause for cause in causes if causes.count(cause) > 1] == []


@pytest.mark.parametrize("text", ["CO-F342", "f342", " co-f342 "])
def test_a_code_is_explained_however_it_is_typed(text: str) -> None:
    assert explain_code(text).code == "CO-F342"


@pytest.mark.parametrize("text", ["", "CO-F999", "F34", "CO-F342; rm"])
def test_what_is_no_code_is_refused_with_a_code(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        explain_code(text)
    assert caught.value.code == "CO-F315"


def test_every_exit_status_is_in_the_table() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    assert [s for s in EXIT.values() if not re.search(rf"\b{s}\b", page)] == []


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md"))]
)
def test_links_between_documents_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text())
    assert [t for t in targets if not ((ROOT / page).parent / t).exists()] == []


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text()
    pages = {path.name for path in ROOT.glob("docs/*.md")} - {"README.md"}
    assert {page for page in pages if f"({page})" not in index} == set()


def test_the_first_study_of_the_page_on_studies_is_one(tmp_path: Path) -> None:
    text = re.search(r"^```toml\n(.*?)^```$", (ROOT / "docs/study.md").read_text(), re.DOTALL | re.MULTILINE)
    assert text is not None
    path = tmp_path / "study.toml"
    path.write_text(text[1])
    study = load_study(path)
    learner_of(study).check(study)
    assert study.formula.startswith("death ~ ")
