"""`coterie site invite` and `coterie site enter`: a later site, from its card to its seat."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.keys.private_files import replace_private
from coterie_chain.keys.site_keys import SiteKeys, read_passphrase
from coterie_node.cli.options import NodeOption, open_node_folder
from coterie_node.cli.site.found import WAIT_SECONDS, make_site_keys, print_reason, print_seen
from coterie_node.cli.site.init import locate_typed_rows, make_node
from coterie_node.cli.site.members import AndNetwork
from coterie_node.errors import ConfigError
from coterie_node.network.founding import FounderCard, build_seat, propose_addresses
from coterie_node.network.guided_founding import OWN_CARD, await_chain, format_card, parse_card
from coterie_node.network.membership.entry import (
    EntryInvitation,
    check_against_ledger,
    describe_votes,
    follow_invitation,
    note_entry,
    write_invitation,
)
from coterie_node.network.membership.known_members import add_member
from coterie_node.network.membership.sealer_votes import check_sealer_vote, record_sealer_vote
from coterie_node.network.site_ports import SitePorts
from coterie_node.network.site_programs import SitePrograms
from coterie_node.network.systemd_units import mark_sealer
from coterie_node.site.config import CONFIG
from coterie_node.site.folder import KEYS, NETWORK, PASSPHRASE, find_node
from coterie_node.site.statements.open_votes import list_open_votes
from coterie_node.verbs.members import has_voted, vote_to_admit

CardArgument = Annotated[str, typer.Argument(help="The newcomer's card: its text, or a file with it.")]

# A store that meets nobody although the chain node does.
OTHER_KEY = """\
The store meets no member: a port is closed, or the members' swarm has another key by now than the invitation's
({fingerprint}; `coterie doctor` shows a member's). If a member has run `coterie network rekey` since it wrote
the invitation, wait for your seat; a member runs it again then, and sends its file to you as well."""


def invite_site_command(
    card: CardArgument,
    to: Annotated[Path | None, typer.Option(help="New file. Default: invitation-SITE.json, in the folder.")] = None,
    and_network: AndNetwork = False,
    node: NodeOption = None,
) -> None:
    """Vote for a newcomer's seat, and write its invitation: peers, genesis, Catalog, the swarm's key for it alone."""
    home, newcomer = open_node_folder(node), parse_card(card)
    network = home.network()
    with EthereumLedger(network, None) as ledger:
        sites, head = ledger.sites(), ledger.newest
    now = int(time.time())
    invitation = write_invitation(home, home.load_keys(), network, sites, newcomer, head=head, now=now)
    file = to or home.root / f"invitation-{newcomer.site}.json"
    if and_network:
        check_sealer_vote(home.root, newcomer, newcomer.site)
    # Another invitation, as after a new swarm's key, is no other vote.
    voted = has_voted(home, "admit", newcomer.site)
    if not voted:
        vote_to_admit(home, build_seat(newcomer))
    add_member(home, newcomer)
    if and_network:
        record_sealer_vote(home.root, newcomer, seals=True)
    replace_private(file, invitation.to_json())
    vote = f"has voted before ({voted})" if voted else "votes"
    print(f"{home.name} {vote} to admit {newcomer.site}. The other members vote: coterie site admit CARD")
    print(f"Send {file} to {newcomer.site}; only its own key opens the swarm's key in it.")
    print(f"Compare by telephone: {newcomer.site} signs with {newcomer.operator}.")
    _print_fingerprints(invitation)


def enter_command(
    folder: Annotated[Path, typer.Argument(help="The site's folder.")],
    invitation: Annotated[Path | None, typer.Argument(help="Second step: the invitation's file.")] = None,
    site: Annotated[str | None, typer.Option(help="First step: name of this site.")] = None,
    host: Annotated[str | None, typer.Option(help="First step: address of this site for the other sites.")] = None,
    ports: Annotated[int | None, typer.Option(help="First step: the first of five ports in a row.")] = None,
    data: Annotated[
        str, typer.Option(help="Second step: this site's rows, a file in the site's folder or the working folder.")
    ] = "data.csv",
    fingerprint: Annotated[
        str | None, typer.Option(help="The invitation's fingerprint, as the member read it to you.")
    ] = None,
    seal: Annotated[bool, typer.Option("--seal", help="Become a sealer, once the sealers have voted for it.")] = False,
    start: Annotated[bool, typer.Option(help="Start the programs and wait for the network.")] = True,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the chain.")] = WAIT_SECONDS,
) -> None:
    """Enter a network that exists, in two steps: this site's card, then a member's invitation.

    First step: --site and --host make this site's keys, and its card for a member, who runs `coterie site invite`.
    Second step: the invitation is checked, this site's programs start, and the command ends when the chain is here.
    """
    if not (folder / OWN_CARD).exists():
        make_site_keys(folder, site, host, ports)
    own = FounderCard.read(folder / OWN_CARD)
    if invitation is None:
        print(f"\nThe card of {own.site}; nothing in it is secret. Send it to a member:\n\n{format_card(own)}\n")
        print(f"The same as a file: {folder / OWN_CARD}. The member: coterie site invite CARD")
        print(f"Next:  coterie site enter {folder} invitation-{own.site}.json")
        return
    plan = _take_invitation(folder, invitation, fingerprint)
    if seal:
        mark_sealer(folder)
    if not (folder / CONFIG).exists():
        rows = locate_typed_rows(folder, data)
        make_node(folder, own.site, rows, propose_addresses(folder), SitePorts.read(folder).health)
    if start:
        _start_site(folder, plan, wait)


def _take_invitation(folder: Path, file: Path, fingerprint: str | None) -> EntryInvitation:
    invitation = EntryInvitation.load(file)
    wanted = "".join((fingerprint or "").lower().split())
    if wanted and wanted != invitation.fingerprint.replace(" ", ""):
        message = f"The fingerprint of {file} is {invitation.fingerprint}, and --fingerprint is {fingerprint}"
        raise ConfigError("CO-F326", f"{message}. Do not use the file; ask the member for it again.")
    keys = SiteKeys.load(folder / KEYS, read_passphrase(folder / PASSPHRASE))
    follow_invitation(folder, keys, file, invitation, int(time.time()))
    print(f"Compare by telephone with {invitation.inviter}:")
    _print_fingerprints(invitation)
    return invitation


def _print_fingerprints(invitation: EntryInvitation) -> None:
    print(f"  the invitation    {invitation.fingerprint}")
    print(f"  the swarm's key   {invitation.swarm_fingerprint}")


def _start_site(folder: Path, invitation: EntryInvitation, wait: float) -> None:
    programs = SitePrograms(folder)
    programs.start()
    network = invitation.network(find_node(folder).chain)

    def look() -> str:
        with EthereumLedger(network, None) as ledger:
            if check_against_ledger(invitation, ledger, ledger.newest):
                return f"{invitation.newcomer.site} has its seat."
            votes = {vote.subject: vote.voters for vote in list_open_votes(ledger, ledger.history(0))}
            active = sum(site.active for site in ledger.sites())
            return describe_votes(votes, invitation.newcomer.site, active)

    seat = await_chain(look, wait, print_reason, programs.check_alive)
    replace_private(folder / NETWORK, network.to_json())
    note_entry(folder, invitation, int(time.time()))
    programs.start()
    print(f"The network is there: Catalog {network.catalog}, chain {network.chain_id}. {folder / NETWORK} names it.")
    if not print_seen(folder):
        print(OTHER_KEY.format(fingerprint=invitation.swarm_fingerprint))
    print(seat)
