"""`coterie study propose|approve|decline|abort|resume`: what a site's people decide about studies.

A command writes a decision into the node's folder; the daemon acts on it, because it alone holds the site's key.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from coterie_node.cli.options import At, LedgerStudyArgument, NodeOption, Site, open_site, require_daemon
from coterie_node.cli.site.signing import PassphraseFd, PersonOption, make_signer
from coterie_node.errors import ConfigError
from coterie_node.run.study_files import load_study
from coterie_node.verbs.decide import (
    abort,
    approve,
    decline,
    digest_approvals,
    find_open_study,
    find_proposed,
    list_undecided,
    look_at_rows,
    propose,
    resolve_rows,
    resume,
)

ReasonOption = Annotated[str, typer.Option(help="The reason, for this site's own record; it does not leave the site.")]
DataFile = Annotated[
    str | None, typer.Option("--data", help="Other rows than node.toml names: a file, or an address such as sqlite:...")
]
ApprovalsFile = Annotated[
    Path | None,
    typer.Option("--approvals", help="File with the signatures of the persons who approve; its SHA-256 is recorded."),
]


ProposedStudy = Annotated[
    Path,
    typer.Argument(help="Study file (TOML); or, if another person here has proposed it, digits of the study's hash."),
]


def is_digits(file: Path) -> bool:
    """Whether a study is named by digits of its hash, and not by a file."""
    return not file.exists() and re.fullmatch("[0-9a-f]{8,64}", str(file)) is not None


def propose_command(
    file: ProposedStudy,
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    data: DataFile = None,
    approvals: ApprovalsFile = None,
    person: PersonOption = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Propose a study, and approve it for this site; the daemon puts it on the ledger."""
    folder = require_daemon(open_site(node, at, site))
    study = find_proposed(folder, str(file)) if is_digits(file) else load_study(file)
    rows, signed = resolve_rows(data), digest_approvals(approvals)
    signer = make_signer(folder, person, passphrase_fd)
    print("\n".join(propose(folder, study, data=rows, approvals=signed, signer=signer)))
    for line in look_at_rows(folder, study):
        print(line)


def approve_study_command(
    which: LedgerStudyArgument,
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    data: DataFile = None,
    reason: ReasonOption = "",
    approvals: ApprovalsFile = None,
    person: PersonOption = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Approve a study: this site's node will join it and take part with this site's rows."""
    folder = require_daemon(open_site(node, at, site))
    rows, signed = resolve_rows(data), digest_approvals(approvals)
    signer = make_signer(folder, person, passphrase_fd)
    _, study, lines = approve(folder, which, data=rows, reason=reason, approvals=signed, signer=signer)
    print("\n".join(lines))
    for line in look_at_rows(folder, study):
        print(line)


def decline_command(
    which: Annotated[list[str] | None, typer.Argument(help="Numbers, hashes or study files; may be several.")] = None,
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    reason: ReasonOption = "",
    proposer: Annotated[
        str | None, typer.Option(help="Decline every open proposal of this member that is not decided yet.")
    ] = None,
    person: PersonOption = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Decline studies: they cannot run without this site, and the ledger says so."""
    folder = require_daemon(open_site(node, at, site))
    views = [find_open_study(folder, name) for name in which or ()]
    views += [] if proposer is None else list_undecided(folder, proposer)
    if not views:
        nothing = "No study is named" if proposer is None else f"No undecided proposal of {proposer[:40]!r} is open"
        raise ConfigError("CO-F304", f"{nothing}. List the studies with `coterie study list`.")
    decline(folder, views, reason, signer=make_signer(folder, person, passphrase_fd))
    numbers = ", ".join(str(view.id) for view in views)
    print(f"Declined: {numbers}. The daemon (coterie serve) puts it on the ledger.")


def abort_command(
    which: LedgerStudyArgument,
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    reason: ReasonOption = "",
    person: PersonOption = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """End a study for all sites, without a result."""
    folder = require_daemon(open_site(node, at, site))
    view = abort(folder, which, reason, signer=make_signer(folder, person, passphrase_fd))
    print(f"Study {view.id}: abort. The daemon (coterie serve) puts it on the ledger.")


def resume_command(
    which: LedgerStudyArgument,
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    person: PersonOption = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Vote to go on with a study that a dispute paused; it goes on when most of its sites do."""
    folder = require_daemon(open_site(node, at, site))
    view = resume(folder, which, signer=make_signer(folder, person, passphrase_fd))
    print(f"{folder.name} votes to resume study {view.id}. The daemon (coterie serve) puts the vote on the ledger.")
