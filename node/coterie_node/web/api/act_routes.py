"""What people decide through the API. Each act is written down for the daemon, which alone signs transactions.

Rows come from node.toml: a file or an address of rows is for the command line, so that no token names a file here.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from pydantic import ValidationError

from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_node.errors import ConfigError
from coterie_node.persons.roles import Role
from coterie_node.run.study_files import study_of
from coterie_node.site.cards import SeatCard
from coterie_node.site.decisions import digest_terms
from coterie_node.site.folder import SiteFolder
from coterie_node.verbs.decide import (
    abort,
    approve,
    decline,
    find_open_study,
    find_proposed,
    propose,
    read_proposal,
    resume,
)
from coterie_node.verbs.members import vote_to_admit, vote_to_recover, vote_to_revoke, withdraw_votes
from coterie_node.verbs.releases import allow_refusal, approve_release
from coterie_node.verbs.statements import supersede, withdraw
from coterie_node.web.api.bodies import (
    ActBody,
    AllowBody,
    DigestStart,
    ProposeBody,
    Receipt,
    ReleaseBody,
    StudyId,
    SupersedeBody,
    VoteBody,
)
from coterie_node.web.api.read_routes import Caller, Services
from coterie_node.web.api.signatures import Act

DAEMON = "The daemon puts it on the ledger."


def propose_study(body: ProposeBody, services: Services, caller: Caller) -> Receipt:
    """Propose a study, and approve it for this site."""
    study = _read_study(services.folder, body.study)
    act = Act("propose", Role.PROPOSE, study.hash)
    signed = services.signatures.verify_signature(act, caller.person, body)
    lines = propose(services.folder, study, approvals=signed.approvals, by=signed.by, signer=signed.signer)
    return Receipt(study=0, hash=study.hash.hex(), by=signed.by, lines=lines)


def approve_study(study: StudyId, body: ActBody, services: Services, caller: Caller) -> Receipt:
    """Approve a study: this site's node joins it, and takes part with the rows that node.toml names."""
    view, _ = read_proposal(services.folder, study)
    act = Act("approve", Role.APPROVE, view.terms.hash, view.id, bytes.fromhex(digest_terms(view.terms)))
    signed = services.signatures.verify_signature(act, caller.person, body)
    options = {"reason": body.reason, "approvals": signed.approvals, "by": signed.by}
    _, _, lines = approve(services.folder, str(view.id), **options, signer=signed.signer)
    return Receipt(study=view.id, hash=view.terms.hash.hex(), by=signed.by, lines=lines)


def decline_study(study: StudyId, body: ActBody, services: Services, caller: Caller) -> Receipt:
    """Decline a study: it cannot run without this site, and the ledger says so."""
    view = find_open_study(services.folder, study)
    act = Act("decline", Role.APPROVE, view.terms.hash, view.id)
    signed = services.signatures.verify_signature(act, caller.person, body)
    decline(services.folder, [view], body.reason, signed.by, signed.signer)
    return Receipt(study=view.id, hash=view.terms.hash.hex(), by=signed.by, lines=[f"Declined: {view.id}. {DAEMON}"])


def abort_study(study: StudyId, body: ActBody, services: Services, caller: Caller) -> Receipt:
    """End a study for all sites, without a result."""
    view = find_open_study(services.folder, study)
    act = Act("abort", Role.APPROVE, view.terms.hash, view.id)
    signed = services.signatures.verify_signature(act, caller.person, body)
    abort(services.folder, str(view.id), body.reason, signed.by, signed.signer)
    return Receipt(study=view.id, hash=view.terms.hash.hex(), by=signed.by, lines=[f"Ended: {view.id}. {DAEMON}"])


def withdraw_study(study: StudyId, body: ActBody, services: Services, caller: Caller) -> Receipt:
    """Take back this site's proposal, its approval before it has joined, or its votes in a study that runs."""
    signed = services.signatures.verify_signature(Act("withdraw", Role.APPROVE), caller.person, body)
    lines = withdraw(services.folder, study, signed.by, signed.signer)
    return Receipt(study=_number(study), hash="", by=signed.by, lines=lines)


def resume_study(study: StudyId, body: ActBody, services: Services, caller: Caller) -> Receipt:
    """Vote to go on with a study that a dispute paused."""
    signed = services.signatures.verify_signature(Act("vote", Role.OPERATE), caller.person, body)
    view = resume(services.folder, study, signed.by, signed.signer)
    lines = [f"A vote to resume study {view.id} is written down. {DAEMON}"]
    return Receipt(study=view.id, hash=view.terms.hash.hex(), by=signed.by, lines=lines)


def supersede_study(study: StudyId, body: SupersedeBody, services: Services, caller: Caller) -> Receipt:
    """State that a completed study's result is superseded; the reason is published to all sites."""
    signed = services.signatures.verify_signature(Act("vote", Role.APPROVE), caller.person, body)
    view = supersede(services.folder, study, body.reason, body.successor, signed.by, signed.signer)
    lines = [f"The result of study {view.id} is superseded. {DAEMON}"]
    return Receipt(study=view.id, hash=view.terms.hash.hex(), by=signed.by, lines=lines)


def let_release_leave(digest: DigestStart, body: ReleaseBody, services: Services, caller: Caller) -> Receipt:
    """Let one payload leave, by its digest; the site's node posts it at its next turn."""
    about = bytes.fromhex(digest) if len(digest) == 64 else hashlib.sha256(digest.encode()).digest()
    act = Act("release", Role.RELEASE, about=about)
    signed = services.signatures.verify_signature(act, caller.person, body)
    payload = approve_release(services.folder, digest, signed.by, signed.signer)
    lines = [f"Approved: {payload['topic']} ({payload['payload_digest'][:16]})."]
    return Receipt(study=0, hash=payload["payload_digest"], by=signed.by, lines=lines)


def allow_refused_study(study: DigestStart, body: AllowBody, services: Services, caller: Caller) -> Receipt:
    """Say yes, with a reason, to what the privacy log refused of a study: to this, and to nothing else."""
    study_hash = bytes.fromhex(study) if len(study) == 64 else bytes(32)
    act = Act("allow", Role.RELEASE, study_hash)
    signed = services.signatures.verify_signature(act, caller.person, body)
    entries = allow_refusal(services.folder, study, body.reason, signed.by, signed.signer)
    lines = [f"Allowed: {entry['study']}: {entry['kind']}." for entry in entries]
    return Receipt(study=0, hash=study, by=signed.by, lines=lines)


def vote_about_member(body: VoteBody, services: Services, caller: Caller) -> Receipt:
    """Vote about a member: admit, recover (both with its card), revoke, or withdraw this site's votes."""
    about = hashlib.sha256(f"{body.motion} {body.site}".encode()).digest()
    act = Act("vote", Role.OPERATE, about=about)
    signed = services.signatures.verify_signature(act, caller.person, body)
    folder = services.folder
    if body.motion == "withdraw":
        withdraw_votes(folder, body.site, signed.by, signed.signer)
    elif body.motion == "revoke":
        vote_to_revoke(folder, body.site, signed.by, signed.signer)
    else:
        vote = vote_to_admit if body.motion == "admit" else vote_to_recover
        vote(folder, _read_card(body.card, body.site), signed.by, signed.signer)
    lines = [f"A vote to {body.motion} {body.site} is written down. {DAEMON}"]
    return Receipt(study=0, hash="", by=signed.by, lines=lines)


def _read_study(folder: SiteFolder, text: str) -> Study:
    """A study from TOML, from its canonical JSON, or by the hash of a proposal of this site; StudyError for else."""
    if re.fullmatch("[0-9a-f]{64}", text):
        return find_proposed(folder, text)
    where = "The study of the request"
    if text.startswith("{"):
        return study_of(text.encode(), where)
    return complete_study(Study.from_toml(text, where))


def _read_card(card: dict[str, Any] | None, site: str) -> SeatCard:
    """The card of the site that a vote names; ConfigError (CO-F501) for anything else."""
    try:
        seat = SeatCard.model_validate_json(json.dumps(card))
    except ValidationError:
        seat = None
    if seat is None or seat.name != site:
        raise ConfigError("CO-F501", f"The card is not that of {site}. Send the content of its card.json.")
    return seat


def _number(study: str) -> int:
    return int(study) if study.isdecimal() and len(study) < 8 else 0
