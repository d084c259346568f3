"""`coterie study supersede|withdraw`: what a site states about a finished study, and what it takes back.

As with every decision, a command writes into the node's folder, and the daemon puts it on the ledger.
"""

from __future__ import annotations

from typing import Annotated

import typer

from coterie_node.cli.options import At, LedgerStudyArgument, NodeOption, Site, open_site, require_daemon
from coterie_node.cli.site.signing import PassphraseFd, PersonOption, make_signer
from coterie_node.verbs.statements import supersede, withdraw

PublicReason = Annotated[str, typer.Option("--reason", help="The reason in one line, for everybody: it is published.")]
Successor = Annotated[int, typer.Option("--by", min=0, help="Number of the study whose result replaces it.")]


def supersede_command(
    which: LedgerStudyArgument,
    reason: PublicReason,
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    by: Successor = 0,
    person: PersonOption = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Say on the ledger that a completed study's result is superseded; its proposer decides, or a majority."""
    folder = require_daemon(open_site(node, at, site))
    view = supersede(folder, which, reason, by, signer=make_signer(folder, person, passphrase_fd))
    alone = view.proposer == folder.name
    votes = "That is enough: it proposed the study." if alone else "It counts with the same words of most of its sites."
    print(f"{folder.name} says that the result of study {view.id} is superseded. {votes}")
    print("The daemon (coterie serve) puts it on the ledger; the reason is published to all sites.")


def withdraw_command(
    which: LedgerStudyArgument,
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    person: PersonOption = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Take back this site's proposal, its approval before it has joined, or its votes in a study that runs."""
    folder = require_daemon(open_site(node, at, site))
    print("\n".join(withdraw(folder, which, signer=make_signer(folder, person, passphrase_fd))))
