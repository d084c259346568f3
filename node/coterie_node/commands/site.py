"""`coterie site`: the members of the network, and this site's votes about them; the daemon casts the votes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from coterie_chain.ledger import Ledger, SiteEntry
from coterie_node.ballots import Ballot, BallotBox, open_motions
from coterie_node.commands.options import HERE, Folder, Json, reader, show
from coterie_node.errors import ConfigError
from coterie_node.site_card import REVOKED, SiteCard
from coterie_node.site_config import Home

site = typer.Typer(no_args_is_help=True, help="The network's members, and votes about them: a majority decides.")

CardFile = Annotated[Path, typer.Argument(help="The site's card.json.")]
Named = Annotated[str, typer.Argument(help="Name of the site.")]


@site.command("list")
def list_command(node: Folder = HERE, as_json: Json = False) -> None:
    """List the members, and the votes about members that have not passed yet."""
    with reader(Home(node)) as ledger:
        members, motions = ledger.sites(), open_motions(ledger.history())
    active = sum(member.active for member in members)
    rows: list[dict[str, Any]] = [
        {"site": m.name, "state": "active" if m.active else "revoked", "address": m.address, "votes": ""}
        for m in members
    ]
    for (motion, name, key), voters in motions.items():
        told = f"{', '.join(voters)}: {len(voters)} of {active // 2 + 1} votes"
        rows.append({"site": name, "state": f"to {motion}", "address": key, "votes": told})
    show(rows, as_json, ("site", "state", "address", "votes"))


@site.command("admit")
def admit_command(card: CardFile, node: Folder = HERE) -> None:
    """Vote to give a hospital a seat, by its card.json."""
    home, found = Home(node), SiteCard.load(card)
    with reader(home) as ledger:
        known = _seat(ledger, found.name)
    if known is not None:
        raise seated(known)
    _vote(home, Ballot(motion="admit", subject=found.name, card=found))
    _compare(found)


@site.command("recover")
def recover_command(card: CardFile, node: Folder = HERE) -> None:
    """Vote to give a member new keys, by its new card.json: its old ones are lost or stolen."""
    home, found = Home(node), SiteCard.load(card)
    _member(home, found.name)
    _vote(home, Ballot(motion="recover", subject=found.name, card=found))
    _compare(found)


@site.command("revoke")
def revoke_command(name: Named, node: Folder = HERE) -> None:
    """Vote to take a member's seat away: its key signs nothing more."""
    home = Home(node)
    _member(home, name)
    _vote(home, Ballot(motion="revoke", subject=name))


def seated(known: SiteEntry) -> ConfigError:
    """The error of a vote to admit a name that the Catalog has."""
    if not known.active:
        return ConfigError("CO-F329", f"The seat of {known.name} was revoked. {REVOKED}")
    told = f"{known.name} has a seat already, with the address {known.address}"
    return ConfigError("CO-F329", f"{told}. For new keys of that site: coterie site recover CARD")


def _seat(ledger: Ledger, name: str) -> SiteEntry | None:
    return next((member for member in ledger.sites() if member.name == name), None)


def _member(home: Home, name: str) -> None:
    with reader(home) as ledger:
        held = _seat(ledger, name)
        names = ", ".join(member.name for member in ledger.sites() if member.active)
    if held is None or not held.active:
        raise ConfigError("CO-F329", f"{name[:40]!r} is no active site of this network; there are {names}.")


def _vote(home: Home, ballot: Ballot) -> None:
    BallotBox(home.root / "ballots").record(ballot)
    print(f"{home.config.site} votes to {ballot.motion} {ballot.subject}. The daemon (coterie serve) tells the ledger.")
    print("It passes with the votes of more than half of the active sites: coterie site list")


def _compare(card: SiteCard) -> None:
    print(f"Compare by telephone before the others vote: {card.name} signs with {card.address}.")
