"""The network: members and votes, when each was last seen, and how this site's chain node, store and machine are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError
from starlette.responses import Response

from coterie_chain.errors import ChainError
from coterie_chain.ledger.protocol import Event, Record
from coterie_node.errors import ConfigError
from coterie_node.network.checks.examine import examine
from coterie_node.persons.roles import Role
from coterie_node.site.cards import SeatCard
from coterie_node.site.folder import find_node
from coterie_node.site.statements.joining import format_release
from coterie_node.site.statements.open_votes import OpenVote, list_open_votes
from coterie_node.verbs.members import vote_to_admit, vote_to_recover, vote_to_revoke, withdraw_votes
from coterie_node.verbs.signing import PersonSigner
from coterie_node.web.access import PageRoute, Visit
from coterie_node.web.guard import find_target, go
from coterie_node.web.live.site_reader import SiteReader, SiteSnapshot
from coterie_node.web.login.signed_acts import PageAct, perform
from coterie_node.web.rendering import render

CHECKS = "checks"


@dataclass(frozen=True)
class SeatLine:
    """A seat of the network: its key, when it last wrote on the ledger, how often, and the version that it named."""

    name: str
    number: int
    address: str
    active: bool
    seen: int
    records: int
    release: str


def show_network(visit: Visit) -> Response:
    """Members, votes and health."""
    site = visit.services.site
    snapshot = site.read()
    return render(
        visit,
        "network.html.j2",
        snapshot=snapshot,
        members=read_seats(snapshot),
        votes=list_member_votes(site, snapshot),
        checks=visit.services.jobs.find(CHECKS),
        may_check=visit.person.may(Role.OPERATE),
        may_vote=visit.person.may(Role.OPERATE) and not snapshot.problem,
    )


def vote_here(visit: Visit) -> Response:
    """Write down this site's vote about a member, or take its votes back."""
    folder, motion, name = visit.services.site.folder, visit.read_field("motion"), visit.read_field("site")
    card = read_seat_card(visit.form.get("card", b"")) if motion in ("admit", "recover") else None

    def run(by: str, signer: PersonSigner | None) -> str:
        if card is not None:
            (vote_to_admit if motion == "admit" else vote_to_recover)(folder, card, by, signer)
        elif motion == "revoke":
            vote_to_revoke(folder, name, by, signer)
        else:
            withdraw_votes(folder, name, by, signer)
        return "The daemon puts this site's vote on the ledger."

    subject = name if card is None else card.name
    words = f"take back the votes about {subject}" if motion == "withdraw" else f"vote to {motion} {subject}"
    return perform(visit, PageAct(words, "/network", run))


def read_seat_card(document: object) -> SeatCard:
    """The card of a form's file; ConfigError (CO-F501) for anything else."""
    try:
        return SeatCard.model_validate_json(document if isinstance(document, bytes) else b"")
    except ValidationError:
        raise ConfigError(
            "CO-F501", "The file is no card of a site. Choose the card.json that the site sent."
        ) from None


def read_seats(snapshot: SiteSnapshot) -> list[SeatLine]:
    """All seats with what the ledger says of them."""
    seen: dict[str, int] = {}
    records: dict[str, int] = {}
    releases: dict[str, int] = {}
    for entry in _list_entries(snapshot):
        seen[entry.site] = max(seen.get(entry.site, 0), entry.time)
        if isinstance(entry, Record):
            records[entry.site] = records.get(entry.site, 0) + 1
        elif entry.name == "StudyJoined":
            releases[entry.site] = int(dict(entry.details)["release"])
    return [
        SeatLine(
            seat.name,
            seat.id,
            seat.address,
            seat.active,
            seen.get(seat.name, 0),
            records.get(seat.name, 0),
            format_release(releases[seat.name]) if seat.name in releases else "",
        )
        for seat in snapshot.sites
    ]


def _list_entries(snapshot: SiteSnapshot) -> Iterable[Record | Event]:
    yield from snapshot.members
    for look in snapshot.studies.values():
        yield from look.entries


def list_member_votes(site: SiteReader, snapshot: SiteSnapshot) -> list[OpenVote]:
    """The votes about members that have not passed; none while the chain is out of reach."""
    try:
        return list_open_votes(site.ledger, snapshot.members)
    except ChainError:
        return []


def start_checks(visit: Visit) -> Response:
    """Check this site's node, as `coterie doctor` does."""
    root = visit.services.site.folder.root  # a folder of its own: the checks go through the site's own programs
    visit.services.jobs.start(CHECKS, visit.person.name, lambda: list(examine(find_node(root))))
    return go(
        visit,
        find_target(visit.read_field("back") or "/network"),
        "The checks have begun. This page shows what they find.",
    )


def show_setup(visit: Visit) -> Response:
    """What is missing before this node can take part: the checks that fail, each with its remedy."""
    return render(
        visit,
        "setup.html.j2",
        snapshot=visit.services.site.read(),
        checks=visit.services.jobs.find(CHECKS),
        may_check=True,
    )


NETWORK_ROUTES = (
    PageRoute("GET", "/network", Role.READ, show_network),
    PageRoute("POST", "/network/checks", Role.OPERATE, start_checks),
    PageRoute("POST", "/network/vote", Role.OPERATE, vote_here),
    PageRoute("GET", "/setup", Role.OPERATE, show_setup),
)
