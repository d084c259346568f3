"""`coterie network rekey`: a new swarm's key for all members."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from coterie_chain.errors import ChainError
from coterie_chain.keys.private_files import replace_private
from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.store.kubo import KuboBlobs
from coterie_node.cli.options import NodeOption, open_node_folder
from coterie_node.network.membership.rekey import (
    RekeyOrder,
    Takeover,
    check_order,
    compare_peers,
    take_order,
    write_order,
)
from coterie_node.network.site_programs import SitePrograms
from coterie_node.site.folder import SiteFolder

TAKEOVER_SECONDS, _PAUSE_SECONDS = 30.0, 1.0
ORDER = "rekey.json"


def rekey_command(
    order: Annotated[Path | None, typer.Argument(help="Another site's order; without it this site writes one.")] = None,
    wait: Annotated[
        float, typer.Option(help="Seconds to look for the other sites under the new key.")
    ] = TAKEOVER_SECONDS,
    node: NodeOption = None,
) -> None:
    """Give the swarm a new key at all sites: one writes the order, and each takes it over from its file.

    The key is sealed to each site that has a seat now. Stores with the old key and the new one do not meet, so take it
    over at all sites at one time; studies wait meanwhile.
    """
    home = open_node_folder(node)
    keys, scope = home.load_keys(), home.network().scope
    with home.open_ledger() as ledger:
        sites = ledger.sites()
    if order is None:
        made = write_order(home, keys, scope, sites, int(time.time()))
        check_order(home.root, scope, sites, made, int(time.time()))
        file = home.root / ORDER
        replace_private(file, made.to_json())
        readers = ", ".join(site.name for site in sites if site.active and site.name != home.name)
        print(f"Send {file} to {readers}. Each runs: coterie network rekey {ORDER} --node DIR")
    else:
        made = RekeyOrder.load(order)
    take_order(home, keys, scope, sites, made, int(time.time()))
    print(f"The swarm's key is new here: {made.swarm_fingerprint}, ordered by {made.issuer}. Compare it by telephone.")
    if not SitePrograms(home.root).restart_store():
        print("Start the store again, so that it has the key: systemctl restart coterie-kubo (or its container).")
        return
    _print_takeover(_await_others(home, sites, wait))


def _await_others(home: SiteFolder, sites: Sequence[SiteEntry], seconds: float) -> Takeover:
    """Look for the others under the new key until all are seen, or the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        takeover = compare_peers(home, sites, sorted(_list_peers(home)))
        if not takeover.missing or time.monotonic() > deadline:
            return takeover
        time.sleep(_PAUSE_SECONDS)


def _list_peers(home: SiteFolder) -> frozenset[str]:
    blobs = home.blobs()
    if not isinstance(blobs, KuboBlobs):
        return frozenset()
    try:
        return blobs.list_peers()
    except ChainError:  # it starts just now
        return frozenset()


def _print_takeover(takeover: Takeover) -> None:
    print(f"Seen under the new key: {', '.join(takeover.seen) or 'nobody'}.")
    if takeover.missing:
        print(f"Not yet, or away: {', '.join(takeover.missing)}. Look again: coterie doctor (the row swarm peers).")
