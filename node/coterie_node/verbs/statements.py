"""A site's statements about a finished study, and what it takes back; the daemon puts it on the ledger."""

from __future__ import annotations

from pydantic import ValidationError

from coterie_chain.ledger.protocol import State, StudyView
from coterie_node.audit.sources import find_study_number
from coterie_node.errors import ConfigError
from coterie_node.site.decisions import make_decision
from coterie_node.site.folder import SiteFolder
from coterie_node.site.statements.ended_studies import Supersession
from coterie_node.site.statements.open_votes import OpenVote, list_open_votes
from coterie_node.site.votes import Ballot
from coterie_node.verbs.signing import PersonSigner, record_ballot, record_decision, record_withdrawals


def supersede(
    folder: SiteFolder, which: str, reason: str, successor: int = 0, by: str = "", signer: PersonSigner | None = None
) -> StudyView:
    """Write down that a study's result is superseded; ConfigError if the ledger would refuse it."""
    with folder.open_ledger() as ledger:
        view, numbers = ledger.view(find_study_number(ledger, which)), ledger.studies()
    if view.state != State.COMPLETED or view.superseded:
        state = "superseded" if view.superseded else view.state.name.lower()
        message = f"Study {view.id} is {state}; only a completed study's result is superseded, and once"
        raise ConfigError("CO-F328", f"{message}. Look at `coterie study status {view.id}`.")
    _check_party(folder, view)
    if successor == view.id or (successor and successor not in numbers):
        message = f"Study {successor} cannot replace study {view.id}: the ledger has studies 1 to {len(numbers)}"
        raise ConfigError("CO-F304", f"{message}. Name another one, or leave out --by.")
    try:
        statement = Supersession(study=view.id, reason=reason, successor=successor)
    except ValidationError:
        raise ConfigError("CO-F322", "A reason is one line of 1 to 200 characters.") from None
    ballot = Ballot(motion="supersede", subject=str(view.id), statement=statement)
    record_ballot(folder, ballot, by, signer)
    return view


def withdraw(folder: SiteFolder, which: str, by: str = "", signer: PersonSigner | None = None) -> list[str]:
    """Take back what this site has said of a study and can take back; returns what that is, in sentences.

    ConfigError (CO-F333) if there is nothing to take back.
    """
    waiting = [study for study in folder.decisions.proposals() if len(which) >= 8 and study.hex().startswith(which)]
    with folder.open_ledger() as ledger:
        known = {ledger.view(number).terms.hash for number in ledger.studies()}
        if waiting and waiting[0] not in known:
            record_decision(folder, make_decision(waiting[0], "withdraw", by=by), signer)
            return [f"The proposal {waiting[0].hex()[:16]} is withdrawn; it was not on the ledger yet."]
        view = ledger.view(find_study_number(ledger, which))
        votes = list_open_votes(ledger, ledger.history(view.id))
    _check_party(folder, view)
    if view.state == State.PROPOSED:
        return [_withdraw_proposal(folder, view, by, signer)]
    own = _list_own(folder, view, votes)
    record_withdrawals(folder, [vote.motion for vote in own], by, signer)
    daemon = "The daemon records it on the ledger."
    return [f"{folder.name} takes back its vote in study {view.id} {vote.sentence}. {daemon}" for vote in own]


def _withdraw_proposal(folder: SiteFolder, view: StudyView, by: str, signer: PersonSigner | None) -> str:
    """Take back a proposal of this site, or an approval that the ledger does not hold yet."""
    if view.proposer == folder.name:
        record_decision(folder, make_decision(view.terms.hash, "decline", reason="withdrawn", view=view, by=by), signer)
        daemon = "The daemon (coterie serve) records it on the ledger."
        return f"{folder.name} withdraws its proposal, study {view.id}. {daemon}"
    if folder.name in view.joined:
        message = f"{folder.name} has joined study {view.id}, and the ledger takes no joining back"
        raise ConfigError("CO-F333", f"{message}. To end the proposal: coterie study decline {view.id}.")
    decision = folder.decisions.latest(view.terms.hash, view.id)
    if decision is None or not decision.takes_part:
        message = f"{folder.name} has not approved study {view.id}"
        raise ConfigError("CO-F333", f"{message}. Look at `coterie study show {view.id}`.")
    record_decision(folder, make_decision(view.terms.hash, "withdraw", view=view, by=by), signer)
    return f"{folder.name} takes its approval of study {view.id} back. Nothing of it is on the ledger."


def _list_own(folder: SiteFolder, view: StudyView, votes: list[OpenVote]) -> list[OpenVote]:
    own = [vote for vote in votes if folder.name in vote.voters]
    if not own:
        message = f"No vote of {folder.name} counts in study {view.id}, which is {view.state.name.lower()}"
        raise ConfigError("CO-F333", f"{message}. Look at `coterie study status {view.id}`.")
    return own


def _check_party(folder: SiteFolder, view: StudyView) -> None:
    if folder.name not in view.parties:
        message = f"{folder.name!r} takes no part in study {view.id}; its sites are {', '.join(view.parties)}"
        raise ConfigError("CO-F302", f"{message}. Name a study of this site.")
