"""`coterie site`: the members of the network, and this site's votes about them; the daemon casts the votes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coterie_node.cli.options import Json, NodeOption, open_node_folder
from coterie_node.cli.output import print_rows
from coterie_node.site.cards import SeatCard
from coterie_node.site.folder import SiteFolder
from coterie_node.site.votes import Ballot
from coterie_node.verbs.members import list_members, vote_to_admit, vote_to_recover, vote_to_revoke, withdraw_votes

site = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="The network's members, and votes about them: a majority decides."
)

CardFile = Annotated[Path, typer.Argument(help="The site's card.json.")]
SiteArgument = Annotated[str, typer.Argument(help="Name of the site.")]


@site.command("list")
def list_sites_command(node: NodeOption = None, as_json: Json = False) -> None:
    """List the members, and the votes about members that have not passed yet."""
    print_rows(list_members(open_node_folder(node)), as_json, ("site", "state", "address", "votes"))


@site.command("admit")
def admit_command(card: CardFile, node: NodeOption = None) -> None:
    """Vote to give a hospital a seat, by its card.json."""
    home, new_card = open_node_folder(node), SeatCard.load(card)
    _print_vote(home, vote_to_admit(home, new_card))
    _print_comparison(new_card)


@site.command("recover")
def recover_command(card: CardFile, node: NodeOption = None) -> None:
    """Vote to give a member new keys, by its new card.json: its old ones are lost or stolen."""
    home, new_card = open_node_folder(node), SeatCard.load(card)
    _print_vote(home, vote_to_recover(home, new_card))
    _print_comparison(new_card)


@site.command("revoke")
def revoke_command(name: SiteArgument, node: NodeOption = None) -> None:
    """Vote to take a member's seat away: its key signs nothing more."""
    home = open_node_folder(node)
    _print_vote(home, vote_to_revoke(home, name))


@site.command("withdraw")
def withdraw_votes_command(name: SiteArgument, node: NodeOption = None) -> None:
    """Take back this site's votes about a member."""
    home = open_node_folder(node)
    for vote in withdraw_votes(home, name):
        print(f"{home.name} takes back its vote {vote.what} {name}. The daemon (coterie serve) does it.")


def _print_vote(home: SiteFolder, ballot: Ballot) -> None:
    daemon = "The daemon (coterie serve) records it on the ledger."
    print(f"{home.name} votes to {ballot.motion} {ballot.subject}. {daemon}")
    print("It passes with the votes of more than half of the active sites: coterie site list")


def _print_comparison(card: SeatCard) -> None:
    print(f"Compare by telephone before the others vote: {card.name} signs with {card.address}.")
