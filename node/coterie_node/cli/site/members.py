"""`coterie site`: the members of the network, and this site's votes about them; the daemon casts the votes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from coterie_node.cli.options import Json, NodeOption, open_node_folder
from coterie_node.cli.output import print_rows
from coterie_node.cli.site.signing import PassphraseFd, PersonOption, make_signer
from coterie_node.errors import ConfigError
from coterie_node.network.founding import FounderCard, build_seat
from coterie_node.network.guided_founding import CARD_PREFIX, parse_card
from coterie_node.network.membership.known_members import add_member, check_newcomer, drop_member, read_cards
from coterie_node.network.membership.sealer_votes import check_sealer_vote, record_sealer_vote
from coterie_node.site.cards import SeatCard
from coterie_node.site.folder import SiteFolder
from coterie_node.site.votes import Ballot
from coterie_node.verbs.members import (
    list_seats,
    vote_to_admit,
    vote_to_recover,
    vote_to_revoke,
    vote_to_succeed,
    withdraw_votes,
)

site = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="The network's members, and votes about them: a majority decides."
)

CardFile = Annotated[Path, typer.Argument(help="The site's card.json.")]
AnyCard = Annotated[str, typer.Argument(help="The site's card.json or founder.json, or the text of its card.")]
SiteArgument = Annotated[str, typer.Argument(help="Name of the site.")]
AndNetwork = Annotated[
    bool, typer.Option("--and-network", help="Also vote about its sealer, and change this site's lists of peers.")
]
# What the vote to revoke does not take back.
STILL_READABLE = """\
What {name} can still do, until and unless:
  - read the chain: all records, names, sizes and times. Its chain node finds one of yours for as long as a firewall
    lets it. Close port 30303 to its address at all sites.
  - fetch payloads from the swarm: until all sites have taken over a new key (coterie network rekey).
  - read what it has fetched before: for ever. Masked and sealed payloads show it no more than they did.
"""


@site.command("list")
def list_sites_command(node: NodeOption = None, as_json: Json = False) -> None:
    """List the members, and the votes about members that have not passed yet."""
    print_rows(list_seats(open_node_folder(node)), as_json, ("site", "state", "address", "votes"))


@site.command("admit")
def admit_command(
    card: AnyCard,
    and_network: AndNetwork = False,
    node: NodeOption = None,
    person: PersonOption = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Vote to give a hospital a seat, by its card; a founder.json or its text also names its chain node and store."""
    home, (new_card, founder) = open_node_folder(node), _read_card(card)
    # Before the vote: a card that is refused leaves nothing behind.
    if founder is not None:
        check_newcomer(home, founder)
    sealer = check_sealer_vote(home.root, founder, new_card.name) if and_network else None
    _print_vote(home, vote_to_admit(home, new_card, signer=make_signer(home, person, passphrase_fd)))
    if founder is not None:
        add_member(home, founder)
    if sealer is not None:
        _vote_about_sealer(home, sealer, seals=True)
    _print_comparison(new_card)


@site.command("recover")
def recover_command(
    card: CardFile, node: NodeOption = None, person: PersonOption = None, passphrase_fd: PassphraseFd = None
) -> None:
    """Vote to give a member new keys, by its new card.json: its old ones are lost or stolen."""
    home, new_card = open_node_folder(node), SeatCard.load(card)
    _print_vote(home, vote_to_recover(home, new_card, signer=make_signer(home, person, passphrase_fd)))
    _print_comparison(new_card)


@site.command("revoke")
def revoke_command(
    name: SiteArgument,
    and_network: AndNetwork = False,
    card: Annotated[
        str | None, typer.Option(help="Its founder.json, or the text of its card, if this site has none.")
    ] = None,
    node: NodeOption = None,
    person: PersonOption = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Vote to take a member's seat away: its key signs nothing more."""
    home = open_node_folder(node)
    founder = read_cards(home.root).get(name) if card is None else _read_card(card)[1]
    if and_network and name == home.name:
        raise ConfigError("CO-F329", f"{name} is this site: it cannot vote itself out of its own network.")
    sealer = check_sealer_vote(home.root, founder, name) if and_network else None
    _print_vote(home, vote_to_revoke(home, name, signer=make_signer(home, person, passphrase_fd)))
    if sealer is not None:
        drop_member(home, name)
        _vote_about_sealer(home, sealer, seals=False)
    print("\n" + STILL_READABLE.format(name=name))
    if and_network:
        print(
            "Next, when the vote has passed: one site runs `coterie network rekey`, and sends its file to the others."
        )
    else:
        print("With --and-network this site also votes against its sealer, and takes it off its lists of peers.")


@site.command("succeed")
def vote_succession_command(
    catalog: Annotated[str, typer.Argument(help="Address of the next Catalog, on the same chain.")],
    node: NodeOption = None,
    person: PersonOption = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Vote that another Catalog succeeds this one: new contracts, with the same members."""
    home = open_node_folder(node)
    _print_vote(home, vote_to_succeed(home, catalog, signer=make_signer(home, person, passphrase_fd)))


@site.command("withdraw")
def withdraw_votes_command(
    name: SiteArgument, node: NodeOption = None, person: PersonOption = None, passphrase_fd: PassphraseFd = None
) -> None:
    """Take back this site's votes about a member."""
    home = open_node_folder(node)
    for vote in withdraw_votes(home, name, signer=make_signer(home, person, passphrase_fd)):
        print(f"{home.name} takes back its vote {vote.what} {name}. The daemon (coterie serve) does it.")


def _read_card(text: str) -> tuple[SeatCard, FounderCard | None]:
    """The seat that a card asks for, and the founder's card where it is one."""
    if not text.startswith(CARD_PREFIX):
        with suppress(ConfigError):
            return SeatCard.load(Path(text)), None
    founder = parse_card(text)
    return build_seat(founder), founder


def _vote_about_sealer(home: SiteFolder, card: FounderCard, *, seals: bool) -> None:
    vote = record_sealer_vote(home.root, card, seals=seals)
    what = "makes blocks" if seals else "makes no more blocks"
    print(f"{home.name} also votes that the sealer of {card.site}, {vote.sealer}, {what}.")
    print("The daemon carries this to its chain node, until more than half of the sealers have voted so.")


def _print_vote(home: SiteFolder, ballot: Ballot) -> None:
    daemon = "The daemon (coterie serve) records it on the ledger."
    print(f"{home.name} votes to {ballot.motion} {ballot.subject}. {daemon}")
    print("It passes with the votes of more than half of the active sites: coterie site list")


def _print_comparison(card: SeatCard) -> None:
    print(f"Compare by telephone before the others vote: {card.name} signs with {card.address}.")
