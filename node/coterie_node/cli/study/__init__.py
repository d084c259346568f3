"""Commands about studies: `study`, `release`, `seal` and `pda`; `register` adds them."""

from __future__ import annotations

import typer

from coterie_node.cli.study.advise import advise_command
from coterie_node.cli.study.certify import certify_command
from coterie_node.cli.study.decide import (
    abort_command,
    approve_study_command,
    decline_command,
    propose_command,
    resume_command,
)
from coterie_node.cli.study.pda import pda_app
from coterie_node.cli.study.release import release
from coterie_node.cli.study.seal import seal
from coterie_node.cli.study.show import (
    list_studies_command,
    result_command,
    show_command,
    study_status_command,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    study = typer.Typer(no_args_is_help=True, help="Which learner fits a study, what it does, and decisions on it.")
    study.command("advise")(advise_command)
    study.command("propose")(propose_command)
    study.command("list")(list_studies_command)
    study.command("show")(show_command)
    study.command("approve")(approve_study_command)
    study.command("decline")(decline_command)
    study.command("abort")(abort_command)
    study.command("resume")(resume_command)
    study.command("status")(study_status_command)
    study.command("result")(result_command)
    study.command("certify")(certify_command)
    app.add_typer(release, name="release")
    app.add_typer(study, name="study")
    app.add_typer(pda_app, name="pda")
    app.add_typer(seal, name="seal")
