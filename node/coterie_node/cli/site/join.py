"""`coterie invite` and `coterie join`: how a site gets to know a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import from_json

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.keys.private_files import replace_private
from coterie_learners.errors import pluralise
from coterie_node.cli.options import NodeOption, open_node_folder
from coterie_node.data.files.bounded_file import read_bounded
from coterie_node.errors import ConfigError
from coterie_node.site.folder import NETWORK
from coterie_node.site.invitation import MAX_INVITATION_BYTES, Contracts, Invitation, Member


def invite_command(
    node: NodeOption = None,
    title: Annotated[str, typer.Option(help="Name of this network, for people.")] = "",
    chain_peer: Annotated[list[str] | None, typer.Option(help="enode:// address of a chain node.")] = None,
    swarm_peer: Annotated[list[str] | None, typer.Option(help="Multiaddress of a store's peer.")] = None,
    genesis: Annotated[Path | None, typer.Option(help="The chain's genesis file.")] = None,
) -> None:
    """Print an invitation to this site's network; it has no secret."""
    home = open_node_folder(node)
    network = home.network()
    with home.open_ledger() as ledger:
        members = [Member(name=s.name, address=s.address, sealing="0x" + s.sealing.hex()) for s in ledger.sites()]
    contracts = Contracts(
        chain_id=network.chain_id,
        catalog=network.catalog,
        genesis=network.genesis,
        block=network.block,
        founders=dict(network.founders),
    )
    invitation = Invitation(
        title=title,
        contracts=contracts,
        members=tuple(members),
        chain_peers=tuple(chain_peer or ()),
        swarm_peers=tuple(swarm_peer or ()),
        genesis_file=None if genesis is None else _read_genesis(genesis),
    )
    print(invitation.text(), end="")
    typer.echo(f"fingerprint: {invitation.fingerprint}", err=True)


def join_command(
    invite: Annotated[Path, typer.Argument(help="The invitation's file.")],
    node: NodeOption = None,
    fingerprint: Annotated[
        str | None, typer.Option(help="The invitation's fingerprint, as the inviter read it to you.")
    ] = None,
) -> None:
    """Join the network of an invitation: check it against this site's own chain node, and write network.json."""
    home, invitation = open_node_folder(node), Invitation.load(invite)
    wanted = "".join((fingerprint or "").lower().split())
    if wanted and wanted != invitation.fingerprint.replace(" ", ""):
        message = f"The fingerprint of {invite} is {invitation.fingerprint}, and --fingerprint is {fingerprint}"
        raise ConfigError("CO-F326", f"{message}. Do not use the file; ask the inviter for it again.")
    network = invitation.network(home.chain)
    with EthereumLedger(network, None) as ledger:  # on this chain, and the Catalog is this version's
        seats = {site.name: site for site in ledger.sites() if site.active}
    replace_private(home.root / NETWORK, network.to_json())
    peers = {"chain": invitation.chain_peers, "swarm": invitation.swarm_peers}
    (home.root / "peers.json").write_text(json.dumps(peers, indent=2) + "\n")
    if invitation.genesis_file is not None:
        (home.root / "genesis.json").write_text(json.dumps(invitation.genesis_file, indent=2) + "\n")
    print(f"Joined a network of {pluralise(len(seats), 'site')}: {', '.join(sorted(seats))}.")
    print(f"Fingerprint: {invitation.fingerprint}")
    if not wanted:
        print("Compare it with the inviter's by telephone before you approve a study.")
    if home.config.site not in seats:
        print(f"{home.config.site} has no seat there yet. Send its card.json to the sites; they vote on it:")
        print("coterie site admit card.json")


def _read_genesis(path: Path) -> dict[str, Any]:
    try:
        document = from_json(read_bounded(path, MAX_INVITATION_BYTES))
    except (OSError, ValueError) as error:
        raise ConfigError(
            "CO-F324", f"The genesis file {path} cannot be read: {error}. Ask a member for the file again."
        ) from None
    if not isinstance(document, dict):
        raise ConfigError(
            "CO-F324", f"{path} is not a genesis file. Name the JSON file with the genesis of the network."
        )
    return document
