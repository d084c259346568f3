"""`coterie study amend`: a new study in the place of one that was proposed, with the reason and signatures."""

from __future__ import annotations

from typing import Annotated

import typer

from coterie_node.cli.options import At, LedgerStudyArgument, NodeOption, Site, StudyFile, open_site, require_daemon
from coterie_node.cli.site.signing import PassphraseFd, PersonOption, make_signer
from coterie_node.cli.study.decide import DataFile
from coterie_node.run.study_files import load_study
from coterie_node.verbs.decide import amend, resolve_rows


def amend_command(
    which: LedgerStudyArgument,
    file: StudyFile,
    reason: Annotated[str, typer.Option(help="The reason in one line, for everybody: it is part of the new study.")],
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    data: DataFile = None,
    person: PersonOption = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Propose a new study that names the one it replaces and why; each site approves it like any other."""
    folder = require_daemon(open_site(node, at, site))
    signer = make_signer(folder, person, passphrase_fd)
    lines = amend(folder, which, load_study(file), reason, data=resolve_rows(data), signer=signer)
    print("\n".join(lines))
