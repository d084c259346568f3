"""The list of studies: what waits for this site's people, what runs, what is done, and what was declined."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from starlette.responses import RedirectResponse, Response

from coterie_chain.errors import ChainError
from coterie_chain.ledger.protocol import State
from coterie_learners.errors import LearnerError
from coterie_node.errors import AuditFailed
from coterie_node.persons.roles import Role
from coterie_node.release.approval import ApprovalFolder
from coterie_node.site.decisions import Decision
from coterie_node.site.folder import SiteFolder
from coterie_node.site.statements.approvals import count_signers
from coterie_node.web.access import Entrance, PageRoute, Visit
from coterie_node.web.live.live_part import LivePart
from coterie_node.web.live.site_reader import SiteReader, StudyLook
from coterie_node.web.live.stream import stream_part
from coterie_node.web.rendering import render
from coterie_node.web.services import PageServices

GROUPS = {
    "waiting": "Waiting for us",
    "running": "Running",
    "done": "Done",
    "declined": "Declined or ended",
}


@dataclass(frozen=True)
class StudyLine:
    """A study in the list: its names, where it is in words, which sites it waits for, and what this site decided."""

    number: int
    group: str
    name: str
    title: str
    state: str
    note: str
    sites: tuple[str, ...]
    joined: int
    proposer: str
    decision: str
    hash: str
    text: str = field(repr=False, default="")

    def matches(self, query: str) -> bool:
        """Whether every word of a search stands in the line."""
        return all(word in self.text for word in query.lower().split())


def show_first(visit: Visit) -> Response:
    """The list of studies is the first page; for an operator whose node cannot read its ledger, the first steps."""
    snapshot = visit.services.site.read()
    is_new = bool(snapshot.problem) and not snapshot.studies and visit.person.may(Role.OPERATE)
    return RedirectResponse("/setup" if is_new else "/studies", 303)


def show_studies(visit: Visit) -> Response:
    """All studies by group, or those that a search finds."""
    query = visit.request.query_params.get("q", "")[:200]
    part = LivePart(render_list(visit.services, query)).html
    return render(visit, "studies.html.j2", query=query, part=part, may_propose=visit.person.may(Role.PROPOSE))


def follow_studies(visit: Visit) -> Response:
    """The list again after each change."""
    return stream_part(visit, "studies", lambda services, _: render_list(services))


def render_list(services: PageServices, query: str = "") -> str:
    """The lists of studies, or what a search finds."""
    lines = [line for line in read_lines(services.site) if line.matches(query)]
    return services.templates.get_template("studies_part.html.j2").render(
        groups={title: [line for line in lines if line.group == key] for key, title in GROUPS.items()},
        query=query,
        count=len(lines),
        proposals=[] if query else list_unlisted(services.site),
        problem=services.site.read().problem,
    )


def read_lines(site: SiteReader) -> list[StudyLine]:
    """Every study of the ledger, the newest first."""
    snapshot = site.read()
    return [make_line(site, look, snapshot.now) for _, look in sorted(snapshot.studies.items(), reverse=True)]


def make_line(site: SiteReader, look: StudyLook, now: int) -> StudyLine:
    """One study in the list."""
    view = look.view
    decision = site.decisions.latest(view.terms.hash, view.id)
    # The line of a study that is over stays the same until its entries or the decision change.
    if look.is_over:
        make = partial(_write_line, site, look, decision, now)
        return site.keep(f"line {view.id}", (look, decision), make, lambda line: bool(line.name))
    return _write_line(site, look, decision, now)


def _write_line(site: SiteReader, look: StudyLook, decision: Decision | None, now: int) -> StudyLine:
    view = look.view
    action = "" if decision is None else decision.action
    name, title = _read_names(site, look)
    state = describe_short_state(look, now)
    group, note = _group(site, look, action, state)
    words = (str(view.id), name, title, state, view.proposer, *view.terms.sites, view.terms.hash.hex())
    return StudyLine(
        view.id,
        group,
        name,
        title,
        state,
        note,
        view.terms.sites,
        len(view.joined),
        view.proposer,
        action,
        view.terms.hash.hex(),
        " ".join(words).lower(),
    )


def describe_short_state(look: StudyLook, now: int) -> str:
    """The state of a study in one word or two."""
    view = look.view
    if view.state is State.PROPOSED and now > view.deadline:
        return "expired"
    if view.state is State.COMPLETED:
        return "superseded" if view.superseded else "done"
    return {State.PROPOSED: "proposed", State.RUNNING: "running", State.PAUSED: "paused"}.get(view.state, "ended")


def count_releases(folder: SiteFolder, hash: bytes) -> int:
    """How many payloads of a study wait for a person of this site."""
    return ApprovalFolder.of_study(folder.releases, hash).count_waiting()


def describe_unsigned(folder: SiteFolder, decision: Decision | None) -> str:
    """How many persons have still to sign before this site joins, in words; empty if none has."""
    if decision is None or not decision.takes_part or folder.persons.read_register() is None:
        return ""
    signers, wanted = count_signers(folder, decision, int(time.time()))
    return "" if signers >= wanted else f"{signers} of {wanted} have signed: another person has to approve too."


def list_unlisted(site: SiteReader) -> list[tuple[str, str]]:
    """Hashes of this site's proposals that its daemon has not put on the ledger yet, and who has still to sign."""
    looks: Mapping[int, StudyLook] = site.read().studies
    listed = {look.view.terms.hash for look in looks.values() if look.view.proposer == site.name}
    own = site.decisions.proposals(listed)
    return [(study.hex(), describe_unsigned(site.folder, site.decisions.latest(study))) for study in own]


def _group(site: SiteReader, look: StudyLook, action: str, state: str) -> tuple[str, str]:
    """The place of a study in the list, and the words for it there."""
    view = look.view
    if state in ("done", "superseded"):
        return "done", ""
    if state in ("ended", "expired"):
        return "declined", ""
    if action == "decline":
        return "declined", "this site declined"
    releases = count_releases(site.folder, view.terms.hash) if site.name in view.terms.sites else 0
    if releases:
        return "waiting", f"{releases} payload{'s' * (releases != 1)} to let leave"
    if site.name in view.terms.sites and state == "proposed" and action not in ("approve", "propose"):
        return "waiting", "approve or decline"
    if state == "proposed" and site.name not in view.joined:
        decision = site.decisions.latest(view.terms.hash, view.id)
        if unsigned := describe_unsigned(site.folder, decision):
            return "waiting", unsigned
    return "running", _describe_wait(view.terms.sites, view.joined) if state == "proposed" else _name_silent(look)


def _describe_wait(sites: Iterable[str], joined: Iterable[str]) -> str:
    missing = ", ".join(site for site in sites if site not in joined)
    return f"waits for {missing} to join" if missing else ""


def _name_silent(look: StudyLook) -> str:
    step = look.view.open
    if step is None:
        return ""
    silent = ", ".join(site for site in step.posters if site not in step.posted)
    return f"round {step.round + 1}, waits for {silent}" if silent else f"round {step.round + 1}"


def _read_names(site: SiteReader, look: StudyLook) -> tuple[str, str]:
    """The name and the title of a study, if its document is within reach."""
    try:
        study = site.read_document(look.view)
    except (ChainError, LearnerError, AuditFailed):
        return "", ""
    return study.name, study.title


STUDIES_ROUTES = (
    PageRoute("GET", "/", Entrance.SIGNED_IN, show_first),
    PageRoute("GET", "/studies", Role.READ, show_studies),
    PageRoute("GET", "/live/studies", Role.READ, follow_studies),
)
