"""One study: what it does in words, what leaves and who reads it, this site's rows against it, and the decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from coterie_chain.errors import ChainError
from coterie_chain.ledger.protocol import Event, State
from coterie_learners.core.registry import learner_of
from coterie_learners.errors import LearnerError
from coterie_learners.study.document import Study
from coterie_node.data.quality.check import DataCheck, check_data
from coterie_node.data.quality.page import HEADS, list_cells
from coterie_node.errors import NodeError
from coterie_node.persons.roles import Role
from coterie_node.run.preview import PayloadPreview, dry_run
from coterie_node.site.statements.joining import format_release
from coterie_node.verbs.decide import abort, approve, decline, find_open_study, resume
from coterie_node.verbs.disclosure import HEADINGS, NOT_STOPPED
from coterie_node.verbs.signing import PersonSigner
from coterie_node.verbs.studies import show_study
from coterie_node.web.access import PageRoute, Visit
from coterie_node.web.guard import go
from coterie_node.web.live.site_reader import SiteReader, StudyLook
from coterie_node.web.login.signed_acts import PageAct, perform
from coterie_node.web.pages.studies import StudyLine, describe_unsigned, make_line
from coterie_node.web.rendering import render


@dataclass(frozen=True)
class StudyHead:
    """The head of each page of a study: its line in the list, and its state on the ledger."""

    line: StudyLine
    look: StudyLook
    role_here: str

    @property
    def is_decidable(self) -> bool:
        """Whether this site may still approve, decline or end it."""
        return bool(self.role_here) and not self.look.is_over and self.line.state != "expired"


def find_number(visit: Visit) -> int:
    """The study's number in the address."""
    return int(visit.request.path_params["number"])


def make_head(visit: Visit) -> StudyHead:
    """The head of a study's page; ConfigError (CO-F304) if there is no such study."""
    return describe_head(visit.services.site, find_number(visit))


def describe_head(site: SiteReader, number: int) -> StudyHead:
    """The same for a study by its number."""
    look = site.find(number)
    part = "proposer" if look.view.proposer == site.name else "site" if site.name in look.view.terms.sites else ""
    return StudyHead(make_line(site, look, site.read().now), look, part)


def open_study(visit: Visit) -> Response:
    """The study in words, with this site's rows and the decision."""
    head, site = make_head(visit), visit.services.site
    words: Mapping[str, Any] = {}
    decision = site.decisions.latest(head.look.view.terms.hash, head.line.number)
    study, problem = None, ""
    try:
        words, study = show_study(site.folder, str(head.line.number)), site.read_document(head.look.view)
    except (ChainError, LearnerError, NodeError) as error:
        problem = f"{error.code}: {error.message}"
    return render(
        visit,
        "study.html.j2",
        head=head,
        words=words,
        study=study,
        problem=problem,
        disclosure={} if study is None else describe_disclosure(study),
        joinings=list_joinings(head.look),
        decision=decision,
        unsigned=describe_unsigned(site.folder, decision),
        may_decide=visit.person.may(Role.APPROVE),
        paused=head.look.view.state is State.PAUSED,
        **_read_jobs(visit, head),
    )


def describe_disclosure(study: Study) -> dict[str, tuple[str, ...]]:
    """What a study discloses, in sentences by heading."""
    paragraphs = learner_of(study).discloses(study).paragraphs
    return {HEADINGS[name]: sentences for name, sentences in paragraphs.items()} | {
        "What is not stopped:": NOT_STOPPED,
    }


def list_joinings(look: StudyLook) -> list[dict[str, Any]]:
    """The sites that joined, when and with which software, and whether persons signed."""
    events = [e for e in look.entries if isinstance(e, Event) and e.name == "StudyJoined"]
    joined = {event.site: event for event in events}
    return [_describe_joining(site, joined.get(site)) for site in look.view.terms.sites]


def _describe_joining(site: str, event: Event | None) -> dict[str, Any]:
    if event is None:
        return {"site": site, "time": 0, "release": "", "signed": ""}
    details = dict(event.details)
    signed = str(details["approvals"]).removeprefix("0x").strip("0") != ""
    return {"site": site, "time": event.time, "release": format_release(int(details["release"])), "signed": signed}


def _read_jobs(visit: Visit, head: StudyHead) -> dict[str, Any]:
    """The jobs that read this site's rows and quote values: only for persons who decide."""
    if not visit.person.may(Role.APPROVE):
        return {"check": None, "dry": None, "check_rows": [], "check_heads": HEADS}
    jobs, number = visit.services.jobs, head.line.number
    check, dry = jobs.find(f"rows {number}"), jobs.find(f"dry {number}")
    rows = list_cells(check.value) if check is not None and isinstance(check.value, DataCheck) else []
    return {"check": check, "dry": dry, "check_rows": rows, "check_heads": HEADS}


def start_check(visit: Visit) -> Response:
    """Look at this site's rows for the study."""
    site, head = visit.services.site, make_head(visit)
    study = site.read_document(head.look.view)
    address = site.folder.find_rows(study.hash)
    work = lambda: check_data(address, study, site.name)  # noqa: E731
    visit.services.jobs.start(f"rows {head.line.number}", visit.person.name, work)
    return go(visit, f"/studies/{head.line.number}#rows", "The rows are being read. This page shows the report.")


def start_dry_run(visit: Visit) -> Response:
    """Make this site's first payloads, and let the gate judge them; nothing is sent."""
    site, head = visit.services.site, make_head(visit)
    study = site.read_document(head.look.view)
    address, policy = site.folder.find_rows(study.hash), site.folder.config.policy

    def work() -> list[PayloadPreview]:
        return dry_run(study, {site.name: address}, policy)

    visit.services.jobs.start(f"dry {head.line.number}", visit.person.name, work)
    return go(visit, f"/studies/{head.line.number}#dry", "The dry run has begun. This page shows what it finds.")


def approve_here(visit: Visit) -> Response:
    """Write this site's approval down, in the name of the person."""
    number = find_number(visit)
    if visit.read_field("read") != "yes":
        return go(visit, f"/studies/{number}#decide", "Confirm first that you have read what leaves this site.")
    if (signing := _find_signing_page(visit, "approve", number)) is not None:
        return signing
    approve(visit.services.site.folder, str(number), reason=visit.read_field("reason"), by=visit.person.name)
    return go(visit, f"/studies/{number}", "Approved. The daemon joins the study once the rows fit.")


def decline_here(visit: Visit) -> Response:
    """Write down that this site takes no part."""
    folder, number = visit.services.site.folder, find_number(visit)
    if (signing := _find_signing_page(visit, "decline", number)) is not None:
        return signing
    view = find_open_study(folder, str(number))
    decline(folder, [view], visit.read_field("reason"), visit.person.name)
    return go(visit, f"/studies/{number}", "Declined. The daemon puts this on the ledger.")


def end_here(visit: Visit) -> Response:
    """Write down that this site ends the study for all."""
    number = find_number(visit)
    if (signing := _find_signing_page(visit, "abort", number)) is not None:
        return signing
    abort(visit.services.site.folder, str(number), visit.read_field("reason"), visit.person.name)
    return go(visit, f"/studies/{number}", "The daemon ends the study for all sites.")


def _find_signing_page(visit: Visit, act: str, number: int) -> Response | None:
    """The page on which a person of the register signs the act; None at a site without a register."""
    if visit.services.site.folder.persons.read_register() is None:
        return None
    visit.services.drafts.ask(visit.session.name, f"{act} {number}", visit.read_field("reason"))
    return go(visit, f"/sign/{act}/{number}")


def resume_here(visit: Visit) -> Response:
    """Vote to go on with a paused study."""
    number = find_number(visit)

    def run(by: str, signer: PersonSigner | None) -> str:
        resume(visit.services.site.folder, str(number), by, signer)
        return "The daemon puts this site's vote on the ledger."

    return perform(visit, PageAct(f"vote to resume study {number}", f"/studies/{number}", run))


STUDY_ROUTES = (
    PageRoute("GET", "/studies/{number:number}", Role.READ, open_study),
    PageRoute("POST", "/studies/{number:number}/approve", Role.APPROVE, approve_here),
    PageRoute("POST", "/studies/{number:number}/decline", Role.APPROVE, decline_here),
    PageRoute("POST", "/studies/{number:number}/end", Role.APPROVE, end_here),
    PageRoute("POST", "/studies/{number:number}/resume", Role.OPERATE, resume_here),
    PageRoute("POST", "/studies/{number:number}/rows", Role.APPROVE, start_check),
    PageRoute("POST", "/studies/{number:number}/dry-run", Role.APPROVE, start_dry_run),
)
