"""A new study: read a document, show what it would do, and propose it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from starlette.responses import Response

from coterie_learners.errors import LearnerError, StudyError
from coterie_learners.study.document import Study
from coterie_node.errors import NodeError
from coterie_node.persons.roles import Role
from coterie_node.run.study_files import load_study
from coterie_node.verbs.decide import amend, find_proposed, propose
from coterie_node.verbs.disclosure import describe
from coterie_node.verbs.signing import PersonSigner
from coterie_node.web.access import PageRoute, Visit
from coterie_node.web.login.signed_acts import PageAct, perform
from coterie_node.web.pages.study import describe_disclosure
from coterie_node.web.rendering import render


def show_form(visit: Visit) -> Response:
    """The empty form; with `study` in the address a proposal of this site, for the next person who signs it."""
    digits = visit.request.query_params.get("study", "")
    if not digits:
        return _render(visit, "")
    study = find_proposed(visit.services.site.folder, digits)
    text = study.document.decode()
    return _render(visit, text, words=describe(study), disclosure=describe_disclosure(study))


def take_document(visit: Visit) -> Response:
    """Show what a document does; propose it if the person says so."""
    text = read_text(visit)
    try:
        study = parse_document(text)
        if visit.read_field("act") == "propose":
            return _perform(visit, study)
        words, disclosure = describe(study), describe_disclosure(study)
    except (LearnerError, NodeError) as error:
        return _render(visit, text, 422, problem=f"{error.code}: {error.message}")
    return _render(visit, text, words=words, disclosure=disclosure)


def _perform(visit: Visit, study: Study) -> Response:
    """Propose a study, or amend the one that the form names."""
    folder, amends, why = visit.services.site.folder, visit.read_field("amends"), visit.read_field("why")

    def run(by: str, signer: PersonSigner | None) -> str:
        if amends:
            return " ".join(amend(folder, amends, study, why, by=by, signer=signer))
        return " ".join(propose(folder, study, by=by, signer=signer))

    words = f"propose {study.name}" + (f", which amends study {amends}" if amends else "")
    return perform(visit, PageAct(words, "/studies", run))


def _render(visit: Visit, text: str, status: int = 200, **values: Any) -> Response:
    """The form with what was typed."""
    fields = {name: visit.read_field(name) for name in ("amends", "why")}
    return render(
        visit,
        "propose.html.j2",
        status,
        text=text,
        **({"problem": "", "words": {}, "disclosure": {}} | fields | values),
    )


def read_text(visit: Visit) -> str:
    """The document of the form: the file if there is one, else the text."""
    uploaded = visit.form.get("file", b"")
    if isinstance(uploaded, bytes) and uploaded:
        try:
            return uploaded.decode()
        except UnicodeDecodeError:
            raise StudyError("CO-S101", "The file is not UTF-8 text. Save it as UTF-8.") from None
    return str(visit.form.get("text", ""))


def parse_document(text: str) -> Study:
    """A study from its text, TOML as people write it or canonical JSON; StudyError if it is none."""
    suffix = ".json" if text.lstrip().startswith("{") else ".toml"
    with TemporaryDirectory(prefix="coterie-") as folder:
        path = Path(folder) / f"study{suffix}"
        path.write_text(text, encoding="utf-8")
        return load_study(path)


PROPOSE_ROUTES = (
    PageRoute("GET", "/propose", Role.PROPOSE, show_form),
    PageRoute("POST", "/propose", Role.PROPOSE, take_document),
)
