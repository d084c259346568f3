"""`coterie site follow`: go over to the Catalog that succeeds this site's own."""

from __future__ import annotations

from coterie_node.cli.options import NodeOption, open_node_folder


def follow_command(node: NodeOption = None) -> None:
    """Go over to the Catalog that succeeded this one by vote: new contracts, the same members, keys and privacy log.

    Refused while a study of this site is open on the old Catalog. What belongs to the old one is put aside. The daemon
    must not run meanwhile; chain node and store must: coterie site stop --only node.
    """
    from coterie_node.upgrade.successor import follow_successor

    home = open_node_folder(node)
    network, aside = follow_successor(home)
    print(f"{home.name} is on Catalog {network.catalog}, chain {network.chain_id}.")
    print(f"Decisions, votes and results of the old Catalog are in {aside}. Next: coterie site start")
