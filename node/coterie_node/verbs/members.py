"""The members of the network, and a site's votes about them; the daemon casts the votes."""

from __future__ import annotations

from typing import Any

from coterie_chain.ledger.protocol import Ledger, SiteEntry
from coterie_node.errors import ConfigError
from coterie_node.site.cards import REVOKED, SeatCard
from coterie_node.site.folder import SiteFolder
from coterie_node.site.statements.open_votes import OpenVote, list_open_votes
from coterie_node.site.votes import Ballot, Motion
from coterie_node.verbs.signing import PersonSigner, record_ballot, record_withdrawals


def list_seats(folder: SiteFolder) -> list[dict[str, Any]]:
    """The members, and the votes about members that have not passed yet."""
    with folder.open_ledger() as ledger:
        members, votes = ledger.sites(), list_open_votes(ledger, ledger.history(0))
        successor = ledger.read_successor()
    active = sum(member.active for member in members)
    rows: list[dict[str, Any]] = [
        {"site": m.name, "state": "active" if m.active else "revoked", "address": m.address, "votes": ""}
        for m in members
    ]
    for vote in votes:
        message = f"{', '.join(vote.voters)}: {len(vote.voters)} of {active // 2 + 1} votes"
        rows.append({"site": vote.subject, "state": vote.what, "address": vote.key, "votes": message})
    if successor:
        rows.append({"site": "", "state": "next Catalog", "address": successor, "votes": "passed"})
    return rows


def vote_to_admit(folder: SiteFolder, card: SeatCard, by: str = "", signer: PersonSigner | None = None) -> Ballot:
    """Vote to give a hospital a seat; ConfigError (CO-F329) if its name has one."""
    with folder.open_ledger() as ledger:
        seat = _find_seat(ledger, card.name)
    if seat is not None:
        raise refuse_seat(seat)
    _refuse_second_vote(folder, "admit", card.name)
    return record_ballot(folder, Ballot(motion="admit", subject=card.name, card=card), by, signer)


def vote_to_recover(folder: SiteFolder, card: SeatCard, by: str = "", signer: PersonSigner | None = None) -> Ballot:
    """Vote to give a member new keys."""
    _check_member(folder, card.name)
    _refuse_second_vote(folder, "recover", card.name)
    return record_ballot(folder, Ballot(motion="recover", subject=card.name, card=card), by, signer)


def vote_to_revoke(folder: SiteFolder, name: str, by: str = "", signer: PersonSigner | None = None) -> Ballot:
    """Vote to take a member's seat away."""
    _check_member(folder, name)
    _refuse_second_vote(folder, "revoke", name)
    return record_ballot(folder, Ballot(motion="revoke", subject=name), by, signer)


def vote_to_succeed(folder: SiteFolder, catalog: str, by: str = "", signer: PersonSigner | None = None) -> Ballot:
    """Vote for the next Catalog; ConfigError (CO-F520) unless it has this one's active members with their keys."""
    with folder.open_ledger() as ledger:
        members = {member.name: member.address for member in ledger.sites() if member.active}
    following = _read_members(folder, catalog)
    if following != members:
        differing = sorted({name for name, _ in members.items() ^ following.items()})
        message = f"The Catalog {catalog} has other members or keys than this one: {', '.join(differing)}"
        raise ConfigError("CO-F520", f"{message}. Deploy it with the cards of all active members.")
    return record_ballot(folder, Ballot(motion="succeed", subject=catalog), by, signer)


def has_voted(folder: SiteFolder, motion: Motion, name: str) -> str:
    """How this site has voted so about a member already; empty if it has not, or if another vote would pass it.

    The contract takes a second vote of one site only where fewer sites have a seat by now, so that the motion passes.
    """
    box = folder.ballots
    if any((ballot.motion, ballot.subject) == (motion, name) for ballot in map(box.read, box.waiting())):
        return "its vote waits for the daemon (coterie serve)"
    with folder.open_ledger() as ledger:
        active = sum(member.active for member in ledger.sites())
        votes = list_open_votes(ledger, ledger.history(0))
    own = [v for v in votes if (v.what, v.subject) == (f"to {motion}", name) and folder.name in v.voters]
    if not own or 2 * len(own[0].voters) > active:
        return ""
    counted = f"{len(own[0].voters)} of {active // 2 + 1} votes"
    return f"its vote is on the ledger ({counted}{f', for {own[0].key}' if own[0].key else ''})"


def _refuse_second_vote(folder: SiteFolder, motion: Motion, name: str) -> None:
    how = has_voted(folder, motion, name)
    if how:
        message = f"{folder.name} has voted to {motion} {name} already: {how}"
        raise ConfigError("CO-F528", f"{message}. To vote otherwise, take this one back: coterie site withdraw {name}")


def withdraw_votes(folder: SiteFolder, name: str, by: str = "", signer: PersonSigner | None = None) -> list[OpenVote]:
    """Take back this site's votes about a member; ConfigError (CO-F333) if none counts."""
    with folder.open_ledger() as ledger:
        votes = list_open_votes(ledger, ledger.history(0))
    own = [vote for vote in votes if vote.subject == name and folder.name in vote.voters]
    if not own:
        message = f"No vote of {folder.name} about {name[:40]!r} is on the ledger, or none counts any more"
        raise ConfigError("CO-F333", f"{message}. `coterie site list` shows votes, some blocks after their commands.")
    record_withdrawals(folder, [vote.motion for vote in own], by, signer)
    return own


def refuse_seat(seat: SiteEntry) -> ConfigError:
    """The error of a vote to admit a name that the Catalog has."""
    if not seat.active:
        return ConfigError("CO-F329", f"The seat of {seat.name} was revoked. {REVOKED}")
    message = f"{seat.name} has a seat already, with the address {seat.address}"
    return ConfigError("CO-F329", f"{message}. For new keys of that site, run `coterie site recover CARD`.")


def _read_members(folder: SiteFolder, catalog: str) -> dict[str, str]:
    """Names and keys of the active members of another Catalog on this site's chain."""
    from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
    from coterie_chain.ethereum.network import discover

    with EthereumLedger(discover(folder.chain, catalog), None) as ledger:
        return {member.name: member.address for member in ledger.sites() if member.active}


def _find_seat(ledger: Ledger, name: str) -> SiteEntry | None:
    return next((member for member in ledger.sites() if member.name == name), None)


def _check_member(folder: SiteFolder, name: str) -> None:
    with folder.open_ledger() as ledger:
        seat = _find_seat(ledger, name)
        names = ", ".join(member.name for member in ledger.sites() if member.active)
    if seat is None or not seat.active:
        raise ConfigError("CO-F329", f"{name[:40]!r} is not an active site of this network. Name one of {names}.")
