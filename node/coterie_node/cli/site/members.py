"""`coterie site`: the members of the network, and this site's votes about them; the daemon casts the votes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from coterie_chain.ledger.protocol import Ledger, SiteEntry
from coterie_node.cli.options import Json, NodeOption, open_node_folder
from coterie_node.cli.output import print_rows
from coterie_node.errors import ConfigError
from coterie_node.site.cards import REVOKED, SeatCard
from coterie_node.site.folder import SiteFolder
from coterie_node.site.statements.open_votes import list_open_votes
from coterie_node.site.votes import Ballot, BallotBox

site = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="The network's members, and votes about them: a majority decides."
)

CardFile = Annotated[Path, typer.Argument(help="The site's card.json.")]
SiteArgument = Annotated[str, typer.Argument(help="Name of the site.")]


@site.command("list")
def list_sites_command(node: NodeOption = None, as_json: Json = False) -> None:
    """List the members, and the votes about members that have not passed yet."""
    with open_node_folder(node).open_ledger() as ledger:
        members, votes = ledger.sites(), list_open_votes(ledger, ledger.history(0))
    active = sum(member.active for member in members)
    rows: list[dict[str, Any]] = [
        {"site": m.name, "state": "active" if m.active else "revoked", "address": m.address, "votes": ""}
        for m in members
    ]
    for vote in votes:
        message = f"{', '.join(vote.voters)}: {len(vote.voters)} of {active // 2 + 1} votes"
        rows.append({"site": vote.subject, "state": vote.what, "address": vote.key, "votes": message})
    print_rows(rows, as_json, ("site", "state", "address", "votes"))


@site.command("admit")
def admit_command(card: CardFile, node: NodeOption = None) -> None:
    """Vote to give a hospital a seat, by its card.json."""
    home, new_card = open_node_folder(node), SeatCard.load(card)
    with home.open_ledger() as ledger:
        seat = _find_seat(ledger, new_card.name)
    if seat is not None:
        raise refuse_seat(seat)
    _record_vote(home, Ballot(motion="admit", subject=new_card.name, card=new_card))
    _print_comparison(new_card)


@site.command("recover")
def recover_command(card: CardFile, node: NodeOption = None) -> None:
    """Vote to give a member new keys, by its new card.json: its old ones are lost or stolen."""
    home, new_card = open_node_folder(node), SeatCard.load(card)
    _check_member(home, new_card.name)
    _record_vote(home, Ballot(motion="recover", subject=new_card.name, card=new_card))
    _print_comparison(new_card)


@site.command("revoke")
def revoke_command(name: SiteArgument, node: NodeOption = None) -> None:
    """Vote to take a member's seat away: its key signs nothing more."""
    home = open_node_folder(node)
    _check_member(home, name)
    _record_vote(home, Ballot(motion="revoke", subject=name))


@site.command("withdraw")
def withdraw_votes_command(name: SiteArgument, node: NodeOption = None) -> None:
    """Take back this site's votes about a member."""
    home = open_node_folder(node)
    with home.open_ledger() as ledger:
        votes = list_open_votes(ledger, ledger.history(0))
    own = [vote for vote in votes if vote.subject == name and home.config.site in vote.voters]
    if not own:
        message = f"No vote of {home.config.site} about {name[:40]!r} counts"
        raise ConfigError("CO-F333", f"{message}. Look at `coterie site list`.")
    for vote in own:
        BallotBox(home.root / "ballots").record(Ballot(motion="withdraw", subject=vote.motion.hex()))
        print(f"{home.config.site} takes back its vote {vote.what} {name}. The daemon (coterie serve) does it.")


def refuse_seat(seat: SiteEntry) -> ConfigError:
    """The error of a vote to admit a name that the Catalog has."""
    if not seat.active:
        return ConfigError("CO-F329", f"The seat of {seat.name} was revoked. {REVOKED}")
    message = f"{seat.name} has a seat already, with the address {seat.address}"
    return ConfigError("CO-F329", f"{message}. For new keys of that site, run `coterie site recover CARD`.")


def _find_seat(ledger: Ledger, name: str) -> SiteEntry | None:
    return next((member for member in ledger.sites() if member.name == name), None)


def _check_member(home: SiteFolder, name: str) -> None:
    with home.open_ledger() as ledger:
        seat = _find_seat(ledger, name)
        names = ", ".join(member.name for member in ledger.sites() if member.active)
    if seat is None or not seat.active:
        raise ConfigError("CO-F329", f"{name[:40]!r} is not an active site of this network. Name one of {names}.")


def _record_vote(home: SiteFolder, ballot: Ballot) -> None:
    BallotBox(home.root / "ballots").record(ballot)
    daemon = "The daemon (coterie serve) records it on the ledger."
    print(f"{home.config.site} votes to {ballot.motion} {ballot.subject}. {daemon}")
    print("It passes with the votes of more than half of the active sites: coterie site list")


def _print_comparison(card: SeatCard) -> None:
    print(f"Compare by telephone before the others vote: {card.name} signs with {card.address}.")
