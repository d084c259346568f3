"""`coterie pda`: this site's table for a network that runs the R package pda.

The way back needs no command: a pda table (SITE_initialize.json) is a site's data file in a study of COLA-GLM.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from coterie_learners.cola.cola import plan_table
from coterie_learners.errors import StudyError, pluralise
from coterie_learners.study.rows import CodedRows
from coterie_node.data.load import load_site
from coterie_node.errors import ConfigError
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.storage import FolderStorage
from coterie_node.release.pda_export import write_table
from coterie_node.release.policy import Policy
from coterie_node.run.study_files import check_permit, load_study

pda_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Tables of the R package pda.")


@pda_app.callback()
def group() -> None:
    """Tables of the R package pda."""


@pda_app.command("export")
def export_table_command(
    study: Annotated[Path, typer.Argument(help="Study file (TOML) of COLA-GLM.")],
    site: Annotated[str, typer.Option(help="Name of this site.")],
    data: Annotated[Path, typer.Option(help="This site's rows (CSV or Parquet).")],
    to: Annotated[Path, typer.Option(help="New file, such as SITE_initialize.json.")],
    policy: Annotated[Path, typer.Option(help="This site's own rules, if it has any.")] = Path("policy.toml"),
    privacy: Annotated[
        Path, typer.Option(help="Folder of this site's privacy log; the table is compared with it and written into it.")
    ] = Path("privacy"),
) -> None:
    """Write one site's table as pda reads it, without patterns below the study's floor, if the release gate lets it."""
    read = load_study(study)
    if read.learner.name != "cola":
        raise StudyError("CO-S327", f"pda's tables are those of cola; the study has {read.learner.name}.")
    if to.exists():
        raise ConfigError("CO-F203", f"{to} exists; a table is never written over another file.")
    check_permit(read, int(time.time()))
    loaded = load_site(data, read, site)
    if loaded is None or not isinstance(loaded.rows, CodedRows):
        raise StudyError("CO-S105", f"{site} has no rows in the study {read.name!r}.")
    rules = Policy.load(policy)
    rules.check(read, site)
    write_table(to, plan_table(read), loaded.rows, rules, PrivacyLog(FolderStorage(privacy)))
    print(f"Wrote {to}: {pluralise(loaded.n, 'row')} of {site} counted.")
