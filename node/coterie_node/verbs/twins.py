"""Studies on the ledger with the same document: an approval is for one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coterie_chain.ledger.protocol import Ledger, StudyView
from coterie_learners.study.document import Study
from coterie_node.run.study_files import differing_terms


def find_twins(ledger: Ledger, view: StudyView) -> list[StudyView]:
    """The other studies on the ledger with the same document."""
    views = (ledger.view(number) for number in ledger.studies() if number != view.id)
    return [other for other in views if other.terms.hash == view.terms.hash]


def find_firsts(views: Iterable[StudyView]) -> dict[bytes, StudyView]:
    """The first study with each document."""
    firsts: dict[bytes, StudyView] = {}
    for view in views:
        firsts.setdefault(view.terms.hash, view)
    return firsts


def describe_twin(view: StudyView, firsts: Mapping[bytes, StudyView]) -> str:
    """That another study has the same document, and whether its terms differ."""
    first = firsts[view.terms.hash]
    if first.id == view.id:
        return ""
    differs = "" if first.terms == view.terms else ", with other terms"
    return f"same document as study {first.id}{differs}; proposed by {view.proposer}"


def warn_of_twins(ledger: Ledger, view: StudyView) -> dict[str, str]:
    """A line of a study's summary that names the other studies with its document."""
    twins = [f"study {twin.id} of {twin.proposer}" for twin in find_twins(ledger, view)]
    message = f"{', '.join(twins)} has the same document; an approval is for one of them"
    return {"same_document": message} if twins else {}


def compare_terms(view: StudyView, proposal: Study) -> str:
    """Whether the ledger's terms are those of the document."""
    differences = "; ".join(differing_terms(view.terms, proposal))
    if differences:
        return f"OTHER THAN THE DOCUMENT'S: {differences}. This site will not take part; decline the study."
    return "as in the document"
