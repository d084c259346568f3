"""A run: who has posted and who is awaited until when, how the fit converges, and what has left this site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from coterie_chain.errors import ChainError
from coterie_chain.ledger.protocol import Ledger, Record, State
from coterie_learners.core.registry import learner_of
from coterie_learners.errors import LearnerError
from coterie_node.audit.history import describe_ruling
from coterie_node.audit.report.figures import ConvergenceCurve, draw_convergence
from coterie_node.errors import NodeError
from coterie_node.persons.roles import Role
from coterie_node.release.approval import ApprovalFolder
from coterie_node.site.fault_notes import FaultRecord
from coterie_node.verbs.releases import allow_refusal, approve_release, read_refusals
from coterie_node.verbs.signing import PersonSigner
from coterie_node.verbs.studies import describe_progress
from coterie_node.web.access import PageRoute, Visit
from coterie_node.web.live.site_reader import SiteReader, StudyLook
from coterie_node.web.live.stream import TOKEN_MARK, stream_part
from coterie_node.web.login.signed_acts import PageAct, perform
from coterie_node.web.pages.run_grid import LEGEND, draw_grid
from coterie_node.web.pages.study import StudyHead, describe_head, find_number, make_head
from coterie_node.web.rendering import render
from coterie_node.web.services import PageServices


@dataclass(frozen=True)
class Departure:
    """Posts of one kind that have left this site: how many, what they hold, their bytes, and what the gate said."""

    topic: str
    words: str
    count: int
    size: int
    verdicts: Mapping[str, int]
    last: int


def open_run(visit: Visit) -> Response:
    """The run of a study."""
    head = make_head(visit)
    roles = frozenset(str(role) for role in visit.person.roles)
    services = visit.services
    number = head.line.number
    part = services.parts.start(
        f"run {number}", roles, services.version, lambda: render_run(services, roles, number)
    ).result()
    return render(visit, "run.html.j2", head=head, part=part.html.replace(TOKEN_MARK, visit.session.token))


def follow_run(visit: Visit) -> Response:
    """The run again after each change."""
    number = int(visit.request.path_params["number"])
    return stream_part(visit, f"run {number}", lambda services, roles: render_run(services, roles, number))


def render_run(services: PageServices, roles: frozenset[str], number: int) -> str:
    """What changes of a run's page, for viewers with these roles."""
    site = services.site
    head, now = describe_head(site, number), site.read().now
    may_release = Role.RELEASE in roles
    return services.templates.get_template("run_part.html.j2").render(
        head=head,
        view=head.look.view,
        site=site.name,
        token=TOKEN_MARK,
        problem=site.read().problem,
        grid=draw_grid(head.look.view, head.look.entries, now),
        legend=LEGEND,
        progress=read_progress(site.ledger, head.look),
        waits=describe_waits(head, now),
        curve=draw_curve(site, head.look),
        departures=list_departures(site, head.look),
        releases=list_releases_of(site, head.look) if may_release else [],
        waiting=head.line.note if head.line.group == "waiting" else "",
        refusals=list_refusals(site, head.look) if may_release else [],
        fault=FaultRecord(site.folder.root / "faults").of(number) if may_release or Role.OPERATE in roles else "",
    )


def read_progress(ledger: Ledger, look: StudyLook) -> dict[str, Any]:
    """Votes, losses, disputes and the end of a study; nothing while the chain is out of reach."""
    try:
        return describe_progress(ledger, look.view)
    except ChainError:
        return {}


def describe_waits(head: StudyHead, now: int) -> dict[str, Any]:
    """The sites that are awaited, until when, and how much time there is; none for a study that does not run."""
    view = head.look.view
    if view.state is State.PROPOSED:
        missing = [name for name in view.terms.sites if name not in view.joined]
        return {"sites": missing, "until": view.deadline, "left": view.deadline - now, "what": "to join"}
    if view.open is None:
        return {"sites": [], "until": 0, "left": 0, "what": ""}
    silent = [name for name in view.open.posters if name not in view.open.posted]
    return {"sites": silent, "until": view.open.deadline, "left": view.open.deadline - now, "what": "to post"}


def draw_curve(site: SiteReader, look: StudyLook) -> ConvergenceCurve | None:
    """The convergence by round, from the servers' posts."""
    posts = [entry for entry in look.entries if isinstance(entry, Record) and entry.kind == "server"]
    last = {record.post.position: record for record in posts}
    figures = [site.posts.read(record).figures for _, record in sorted(last.items())]
    return draw_convergence([item for item in figures if "gain" in item])


def list_departures(site: SiteReader, look: StudyLook) -> list[Departure]:
    """What has left this site for a study, by kind of post, in the order in which it began."""
    own = [entry for entry in look.entries if isinstance(entry, Record) and entry.site == site.name]
    groups: dict[str, list[Record]] = {}
    for record in own:
        groups.setdefault(_name_topic(site.posts.read(record).topic, record), []).append(record)
    lines = _read_lines(site, look, groups)
    return [
        Departure(
            topic,
            lines[topic],
            len(records),
            sum(record.post.size for record in records),
            _count_verdicts(records),
            records[-1].time,
        )
        for topic, records in groups.items()
    ]


def _name_topic(topic: str, record: Record) -> str:
    """A topic without what changes from round to round; the kind of the step where the post is sealed."""
    return topic.rstrip("0123456789").rstrip("/") or ("sealed" if record.kind != "server" else "turn as the server")


def _read_lines(site: SiteReader, look: StudyLook, topics: Iterable[str]) -> dict[str, str]:
    """What the study says that posts of these topics hold; empty where it says nothing."""
    try:
        study = site.read_document(look.view)
        disclosure = learner_of(study).discloses(study)
    except (ChainError, LearnerError, NodeError):
        return dict.fromkeys(topics, "")
    steps = {topic: disclosure.find_step(topic) or disclosure.find_step(f"{topic}/1") for topic in topics}
    return {topic: "" if step is None else step.line.partition(": ")[2] for topic, step in steps.items()}


def _count_verdicts(records: Iterable[Record]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in records:
        word = describe_ruling(record.post.verdict).rpartition(" ")[0] or "not judged: it holds no rows"
        counts[word] = counts.get(word, 0) + 1
    return counts


def list_releases_of(site: SiteReader, look: StudyLook) -> list[Mapping[str, Any]]:
    """The payloads of a study that wait for a person of this site, with all their numbers."""
    return ApprovalFolder.of_study(site.folder.releases, look.view.terms.hash).waiting()


def list_refusals(site: SiteReader, look: StudyLook) -> list[Mapping[str, str]]:
    """What the privacy log refused of a study, which a person may allow with a reason."""
    try:
        return list(read_refusals(site.folder, look.view.terms.hash))
    except (ChainError, NodeError):
        return []


def release_payload(visit: Visit) -> Response:
    """Let one payload leave."""
    number = find_number(visit)
    digest = visit.read_field("digest")

    def run(by: str, signer: PersonSigner | None) -> str:
        payload = approve_release(visit.services.site.folder, digest, by, signer)
        return f"Allowed: {payload['topic']} leaves at this site's next turn."

    return perform(visit, PageAct(f"let payload {digest[:16]} leave", f"/studies/{number}/run", run))


def allow_what_was_refused(visit: Visit) -> Response:
    """Say yes to what the privacy log refused, with a reason."""
    number = find_number(visit)
    look = visit.services.site.find(number)
    reason = f"{visit.read_field('reason')} ({visit.person.name})" if visit.read_field("reason") else ""

    def run(by: str, signer: PersonSigner | None) -> str:
        allow_refusal(visit.services.site.folder, look.view.terms.hash.hex(), reason, by, signer)
        return "Allowed, with your reason on record at this site."

    return perform(visit, PageAct(f"allow what was refused of study {number}", f"/studies/{number}/run", run))


RUN_ROUTES = (
    PageRoute("GET", "/studies/{number:number}/run", Role.READ, open_run),
    PageRoute("GET", "/live/studies/{number:number}/run", Role.READ, follow_run),
    PageRoute("POST", "/studies/{number:number}/release", Role.RELEASE, release_payload),
    PageRoute("POST", "/studies/{number:number}/allow", Role.RELEASE, allow_what_was_refused),
)
