"""`coterie prune`: delete the payloads of ended studies."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from coterie_chain.keys.journal import SqliteJournal
from coterie_node.cli.options import Json, NodeOption, open_node_folder
from coterie_node.cli.output import print_document


def prune_command(
    studies: Annotated[list[int], typer.Argument(help="Numbers of the studies.")],
    bundles: Annotated[Path, typer.Option(help="Folder with the bundles that `coterie audit export` made of them.")],
    node: NodeOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and count, and delete nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Delete the payloads of ended studies from this site's store, and destroy its sealing keys of them.

    Refused before the date that [retention] gives, while a study runs, and without a bundle that verifies. The site's
    daemon must not run meanwhile, because it holds the journal; chain node and store must: coterie site stop --only
    node.
    """
    from coterie_node.retention.prune import PinnedStore, check_age, find_bundle, prune

    home = open_node_folder(node)
    network, store = home.network(), home.blobs()
    with home.open_ledger() as ledger, SqliteJournal(home.journal) as journal:
        views = [ledger.view(number) for number in studies]
        for view in views:
            check_age(ledger, view, home.config.retention.years, time.time())
        proofs = [find_bundle(bundles, network, view) for view in views]
        prunings = [
            prune(ledger, store, journal.vault, view, network, bundle, dry=dry_run)
            for view, bundle in zip(views, proofs, strict=True)
        ]
    if not dry_run and isinstance(store, PinnedStore):
        store.collect()
    said = "Nothing is deleted: this is a dry run." if dry_run else "They are deleted from this site's store."
    lines = [*(pruning.text for pruning in prunings), said]
    print_document([pruning.as_dict() for pruning in prunings], "\n".join(lines), as_json)
