"""Studies as a node's people see them: the list, one study in full, where it is, and how it ended."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from coterie_chain.errors import BlobCorrupt, BlobMissing
from coterie_chain.ledger.protocol import Event, Ledger, Record, State, StudyView
from coterie_learners.errors import StudyError
from coterie_learners.study.document import Study
from coterie_node.audit.sources import find_study_number
from coterie_node.errors import AuditFailed
from coterie_node.run.endings import describe_dispute, list_losses
from coterie_node.run.reasons import describe_reason
from coterie_node.run.study_files import study_of, study_on_ledger
from coterie_node.site.fault_notes import FaultRecord
from coterie_node.site.folder import SiteFolder
from coterie_node.site.statements.ended_studies import find_supersession, list_inspections
from coterie_node.site.statements.joining import describe_joinings
from coterie_node.site.statements.open_votes import list_open_votes
from coterie_node.verbs.twins import compare_terms, describe_twin, find_firsts, warn_of_twins

# The name of a study whose document nobody can read.
UNREADABLE = "(unreadable)"


def list_study_rows(folder: SiteFolder) -> list[dict[str, Any]]:
    """The studies on the ledger with what this site decided, and proposals that are not on the ledger yet."""
    with folder.open_ledger() as ledger:
        views = [ledger.view(number) for number in ledger.studies()]
        firsts = find_firsts(views)
        names = _read_names(folder, views)
        rows = [
            _row(folder, ledger, view) | {"name": names[view.id], "remark": describe_twin(view, firsts)}
            for view in views
        ]
        listed = {view.terms.hash for view in views if view.proposer == folder.name}
    return rows + [_waiting(folder, study) for study in folder.decisions.proposals() if study not in listed]


def show_study(folder: SiteFolder, which: str) -> dict[str, Any]:
    """A study on the ledger in full: state, terms, this site's policy, what it does and discloses, its document."""
    from coterie_node.verbs.disclosure import describe, disclosure_lines  # it imports every learner

    with folder.open_ledger() as ledger:
        view = ledger.view(find_study_number(ledger, which))
        row = _row(folder, ledger, view) | warn_of_twins(ledger, view)
    proposal = study_on_ledger(view, folder.open_archive())
    return {
        **row,
        "name": proposal.name,
        "proposer": view.proposer,
        "terms": compare_terms(view, proposal),
        "policy": _policy(folder, proposal),
        **warn_of_evaluations_here(folder, proposal),
        "what": describe(proposal),
        "disclosure": list(disclosure_lines(proposal)),
        "document": json.loads(proposal.document),
    }


def read_status(folder: SiteFolder, which: str) -> dict[str, Any]:
    """The state of a study, the sites that it waits for, how it ended, and its last error at this site."""
    with folder.open_ledger() as ledger:
        view = ledger.view(find_study_number(ledger, which))
        summary = _row(folder, ledger, view) | {"proposer": view.proposer} | describe_progress(ledger, view)
        summary |= warn_of_twins(ledger, view) | describe_aftermath(folder, ledger, view)
    if folder.name in str(summary.get("waits_for", "")).split(", "):
        summary["to_do_here"] = describe_duty(folder, view)
    result = folder.results / f"{view.id}.json"
    soon = "not here yet: the daemon writes it once it is final" if view.state == State.COMPLETED else ""
    summary["result"] = str(result) if result.exists() else soon
    summary["last_fault"] = FaultRecord(folder.root / "faults").of(view.id)
    return summary


def describe_duty(folder: SiteFolder, view: StudyView) -> str:
    """What this site's people, or its daemon, must do in a study that waits for this site."""
    # Both import numpy, and most questions for a status do not come here.
    from coterie_node.release.approval import ApprovalFolder
    from coterie_node.site.statements.approvals import describe_missing

    decision = folder.decisions.latest(view.terms.hash, view.id)
    if decision is None or decision.action == "withdraw":
        return f"read it (coterie study show {view.id}), then coterie study approve {view.id}, or decline it"
    if not decision.takes_part:
        return "nothing: the daemon carries out that this site does not take part"
    if ApprovalFolder.of_study(folder.releases, view.terms.hash).count_waiting():
        return "a payload waits for a person's yes: coterie release list, then coterie release approve DIGEST"
    if view.state == State.PROPOSED:
        missing = describe_missing(folder, decision, int(time.time()))
        return missing or "nothing more by people: the daemon joins; coterie doctor, if it does not"
    return "nothing by people: the daemon works on its step; last fault below and coterie doctor, if it does not end"


def _row(folder: SiteFolder, ledger: Ledger, view: StudyView) -> dict[str, Any]:
    decision = folder.decisions.latest(view.terms.hash, view.id)
    return {
        "study": view.id,
        "state": _describe_state(ledger, view),
        "name": _name(folder, view),
        "sites": ", ".join(view.terms.sites),
        "joined": f"{len(view.joined)}/{len(view.terms.sites)}",
        "decision": decision.action if decision else "",
        "hash": view.terms.hash.hex()[:16],
    }


def _describe_state(ledger: Ledger, view: StudyView) -> str:
    """The state of a study; a proposal that nobody can join any more has expired, and a result may be superseded."""
    if view.state == State.PROPOSED and ledger.now() > view.deadline:
        return "expired"
    return view.state.name.lower() + (", superseded" if view.superseded else "")


def describe_aftermath(folder: SiteFolder, ledger: Ledger, view: StudyView) -> dict[str, str]:
    """What the sites have said of a study that has ended: that its result is superseded, and who inspected its rows."""
    if view.state not in (State.COMPLETED, State.ABORTED):
        return {}
    entries = list(ledger.history(view.id))
    superseded = find_supersession(entries, view.id, folder.open_archive()) if view.superseded else None
    inspections = "; ".join(inspection.sentence for inspection in list_inspections(entries, view.id))
    return ({} if superseded is None else {"superseded": superseded.sentence}) | {"inspected": inspections}


def _waiting(folder: SiteFolder, proposed: bytes) -> dict[str, Any]:
    """A proposal of this site that its daemon has not put on the ledger yet, or cannot: the remark says why."""
    proposal = study_of(folder.decisions.read_document(proposed), "The proposed study")
    summary = {
        "study": "-",
        "state": "not on the ledger yet",
        "name": proposal.name,
        "sites": ", ".join(proposal.sites),
    }
    # Proposals have no number yet, and share a note of their last fault, whose sentence may quote rows.
    fault = FaultRecord(folder.root / "faults").name_last(0)
    remark = f"last fault of a proposal: {fault}; faults/0.txt of this folder has its sentence" if fault else ""
    return summary | {
        "joined": f"0/{len(proposal.sites)}",
        "decision": "propose",
        "hash": proposed.hex()[:16],
        "remark": remark,
    }


def _name(folder: SiteFolder, view: StudyView) -> str:
    """The study's name, where this site's people proposed or approved it."""
    path = folder.decisions.document(view.terms.hash)
    # Whether this installation can run it does not matter here, and its learner is slow to import.
    return Study.from_json(path.read_bytes(), str(path)).name if path.exists() else ""


def _read_names(folder: SiteFolder, views: Sequence[StudyView]) -> dict[int, str]:
    """The names of studies, from this site's own store where it has decided nothing yet; empty for what is not there.

    A store that lacks one document is asked for no other: each question can last as long as its deadline.
    """
    names = {view.id: _name(folder, view) for view in views}
    blobs = folder.open_archive() if "" in names.values() else None
    for view in reversed(views):
        if blobs is None or names[view.id]:
            continue
        try:
            names[view.id] = study_on_ledger(view, blobs).name
        except BlobMissing:
            blobs = None
        except (BlobCorrupt, StudyError, AuditFailed):
            names[view.id] = UNREADABLE
    return names


def warn_of_evaluations_here(folder: SiteFolder, proposal: Study) -> dict[str, str]:
    """A warning of earlier evaluations of this site's patients, by its privacy log; nothing without one."""
    from coterie_node.privacy.storage import FolderStorage
    from coterie_node.release.known_ranges import warn_of_evaluations

    warning = warn_of_evaluations(proposal, FolderStorage(folder.privacy))
    return {"evaluation": warning} if warning else {}


def _policy(folder: SiteFolder, proposal: Study) -> str:
    try:
        folder.config.policy.check(proposal, folder.name)
    except StudyError as error:
        return f"{error.code}: {error.message}"
    return "allowed by this site's policy"


def describe_progress(ledger: Ledger, view: StudyView) -> dict[str, Any]:
    """The rows of `study status` from the ledger alone: joinings, open step, votes, losses and end."""
    entries = list(ledger.history(view.id))
    records = [e for e in entries if isinstance(e, Record)]
    summary: dict[str, Any] = {**describe_joinings(entries), "records": len(records)}
    if records:
        summary["last_record"] = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(records[-1].time))
    if view.state == State.PROPOSED:
        summary["waits_for"] = ", ".join(site for site in view.terms.sites if site not in view.joined)
    if view.open is not None:
        silent = [site for site in view.open.posters if site not in view.open.posted]
        summary |= {"position": view.open.position, "round": view.open.round + 1, "waits_for": ", ".join(silent)}
        summary["deadline"] = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(view.open.deadline))
    votes = [vote.sentence for vote in list_open_votes(ledger, entries)]
    return summary | _describe_events(entries) | ({"votes": "; ".join(votes)} if votes else {})


def _describe_events(entries: Sequence[Record | Event]) -> dict[str, str]:
    """How a study ended, and what did not go straight on before: disputes, and sites without which it went on."""
    events = [e for e in entries if isinstance(e, Event)]
    lost = [loss.sentence for loss in list_losses(entries)]
    disputes = [f"{e.site}: {describe_dispute(e)}" for e in events if e.name == "Disputed"]
    ended = [_describe_ending(e) for e in events if e.name in ("StudyAborted", "StudyDeclined")]
    lines = {"lost": "; ".join(lost), "disputed": "; ".join(disputes), "ended": "; ".join(ended[-1:])}
    return {name: line for name, line in lines.items() if line}


def _describe_ending(event: Event) -> str:
    details = dict(event.details)
    culprit = str(details.get("culprit") or "")
    blame = f"; the site at fault is {culprit}" if culprit and culprit != event.site else ""
    return f"{event.site}: {describe_reason(int(details['reason']))}{blame}"
